"""The probe `host`: processors, memory, disk and network of this machine, and its finished processes as jobs."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime
from typing import Final, NamedTuple

import psutil  # type: ignore[import-untyped]  # it ships no types.

from collectors.probes import Watch
from collectors.probes.processes import ProcessWatch
from siteward.emit import Emitter
from siteward.kinds.host import Host
from siteward.log import get_logger
from siteward.settings import Settings

IMAGES: Final = frozenset({"squashfs", "iso9660", "erofs", "cramfs"})
"""File systems that are always full because nothing can be written to them."""
DISKS_SECONDS: Final = 60.0
"""Between two readings of the list of file systems."""


class Traffic(NamedTuple):
    """Bytes over all interfaces but the loopback, since the machine started."""

    received: int
    sent: int


class HostWatch:
    """One `host` record per look; CPU fraction and network rates are since the look before."""

    def __init__(self, site: str, vo: str, host: str, interval: float) -> None:
        """Read the counters from which the first look will count."""
        self._site = site
        self._vo = vo
        self._host = host
        self.interval = interval
        self._before = datetime.now(UTC)
        self._traffic = _traffic()
        self._mounts: list[str] = []
        self._mounts_until = float("-inf")
        psutil.cpu_percent(None)

    def look(self, now: datetime) -> list[Host]:
        """The machine at this instant."""
        memory = psutil.virtual_memory()
        total, used = self._disks(now.timestamp())
        received, sent = self._rates(now)
        record = Host(
            vo=self._vo,
            time=now,
            producer=f"host-probe@{self._host}",
            site=self._site,
            host=self._host,
            processors=psutil.cpu_count() or 1,
            cpu_used=min(max(psutil.cpu_percent(None) / 100, 0.0), 1.0),
            load=max(psutil.getloadavg()[0], 0.0),
            memory_total=memory.total,
            memory_used=max(memory.total - memory.available, 0),
            swap_used=psutil.swap_memory().used,
            disk_total=total,
            disk_used=used,
            network_received=received,
            network_sent=sent,
            processes=len(psutil.pids()),
        )
        return [record]

    def _rates(self, now: datetime) -> tuple[int, int]:
        """Bytes per second since the look before; 0 where a counter was reset or no time has passed."""
        traffic, before = _traffic(), self._traffic
        seconds = (now - self._before).total_seconds()
        self._traffic, self._before = traffic, now
        if seconds <= 0:
            return 0, 0
        return (
            max(round((traffic.received - before.received) / seconds), 0),
            max(round((traffic.sent - before.sent) / seconds), 0),
        )

    def _disks(self, at: float) -> tuple[int, int]:
        """Size and use of the local file systems, each device once."""
        if at >= self._mounts_until:
            self._mounts, self._mounts_until = _local_mounts(), at + DISKS_SECONDS
        total = used = 0
        for mount in self._mounts:
            try:
                usage = psutil.disk_usage(mount)
            except OSError:
                continue
            total += usage.total
            used += usage.used
        return total, used


def _traffic() -> Traffic:
    counters = psutil.net_io_counters(pernic=True) or {}
    real = [counter for name, counter in counters.items() if name not in {"lo", "lo0"}]
    return Traffic(sum(counter.bytes_recv for counter in real), sum(counter.bytes_sent for counter in real))


def _local_mounts() -> list[str]:
    """One mount point of each local device; the root where no device is visible, as in a container."""
    mounts = {
        partition.device: partition.mountpoint
        for partition in reversed(psutil.disk_partitions(all=False))
        if partition.fstype not in IMAGES
    }
    return list(mounts.values()) or ["/"]


class HostProbe:
    """The machine this program runs on; site, VO and interval are in `[probe]` of the settings."""

    def watches(self, settings: Settings) -> list[Watch]:
        """The machine's figures, and its processes."""
        chosen, host = settings.probe, socket.gethostname()
        return [
            HostWatch(chosen.site, chosen.vo, host, chosen.interval),
            ProcessWatch(chosen.site, chosen.vo, host),
        ]


probe: Final = HostProbe()
"""What `siteward.probes` registers as `host`."""


def run(settings: Settings, stop: threading.Event) -> None:
    """The service `host-probe`: look and emit until told to stop.

    Measured: a quarter of a percent of one core with 80 processes, half a percent with 330; while hundreds of
    processes are younger than 20 s, each of them is read every second, and it is up to two percent.
    """
    with Emitter(settings, producer=f"host-probe@{socket.gethostname()}") as emitter:
        watch_until(probe.watches(settings), emitter, stop)


def watch_until(watches: list[Watch], emitter: Emitter, stop: threading.Event) -> None:
    """Ask every watch at its interval. A look that fails is logged and tried again: one probe never ends the others."""
    log = get_logger(__name__)
    due = [time.monotonic() + watch.interval for watch in watches]
    while not stop.wait(max(min(due) - time.monotonic(), 0)):
        for number, watch in enumerate(watches):
            if due[number] > time.monotonic():
                continue
            # After a pause, as of a laptop that slept, looks that were missed are not made up for.
            due[number] = time.monotonic() + watch.interval
            try:
                for record in watch.look(datetime.now(UTC)):
                    emitter.emit(record)
            except Exception:
                log.exception("look failed", watch=type(watch).__name__)
