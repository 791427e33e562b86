"""The host probe: figures of a real machine, and its finished processes as jobs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]  # it ships no types.
import pytest

from collectors.probes import Watch, host
from collectors.probes.host import HostWatch, Traffic, probe, run, watch_until
from collectors.probes.processes import ProcessWatch
from siteward import extensions
from siteward.broker.opening import open_broker, open_declared
from siteward.emit import Emitter
from siteward.kinds.host import Host
from siteward.kinds.job import Job
from siteward.records import Record, kind_of, microseconds
from siteward.settings import ProbeSettings, Settings

BURN = "import sys, time\nwhile time.process_time() < 1.2: pass\nsys.stdin.read()"
"""Uses 1.2 s of CPU, then waits to be told to end."""
SECRET = "a-secret-argument"


def now() -> datetime:
    return datetime.now(UTC)


def eventually(found: Callable[[], object], seconds: float = 20.0) -> None:
    """Poll until something is true, and fail when it does not become so in time."""
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def jobs_of(watch: ProcessWatch, pid: int) -> list[Job]:
    """Look once; the jobs of one process."""
    return [job for job in watch.look(now()) if job.local_job_id.startswith(f"{pid}-")]


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", code, SECRET], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_registered() -> None:
    """The probe is found by its name, and gives a watch for the machine and one for its processes."""
    assert extensions.load("siteward.probes", "host") is probe
    watches = probe.watches(Settings(probe=ProbeSettings(site="S", vo="v", interval=7)))
    assert [type(watch) for watch in watches] == [HostWatch, ProcessWatch]
    assert [watch.interval for watch in watches] == [7, 1]


def test_host_record() -> None:
    """The machine's figures are those of the machine, and the record is valid."""
    watch = HostWatch("SITE-A", "example", "node1", 5)
    at = now()
    (record,) = watch.look(at)
    kind_of(Host).row_of(record, microseconds(at))
    assert (record.site, record.vo, record.host, record.time) == ("SITE-A", "example", "node1", at)
    assert record.processors == os.cpu_count()
    assert record.memory_total == psutil.virtual_memory().total
    assert 0 < record.memory_used < record.memory_total
    assert 0 <= record.cpu_used <= 1
    assert 0 < record.disk_used < record.disk_total
    assert record.processes > 1
    assert record.cycle_size == 1


def test_cpu_fraction_of_a_busy_processor() -> None:
    """A process that keeps one processor busy shows in the fraction of all of them."""
    watch = HostWatch("SITE-A", "example", "node1", 5)
    with child("while True: pass") as process:
        eventually(lambda: _cpu(process.pid) >= 0.8)
        (record,) = watch.look(now())
    assert record.cpu_used > 0.5 / record.processors


def test_network_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are differences of counters over the time between; a counter that was reset gives 0, not a negative."""
    counters = iter([Traffic(1000, 500), Traffic(6000, 500), Traffic(10, 90_000)])
    monkeypatch.setattr(host, "_traffic", lambda: next(counters))
    watch = HostWatch("SITE-A", "example", "node1", 5)
    begin = watch._before
    (first,) = watch.look(begin + timedelta(seconds=2))
    (second,) = watch.look(begin + timedelta(seconds=12))
    assert (first.network_received, first.network_sent) == (2500, 0)
    assert (second.network_received, second.network_sent) == (0, 8950)


def test_each_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device mounted twice counts once, images do not count, and without any device the root does."""

    def part(device: str, mountpoint: str, fstype: str) -> SimpleNamespace:
        return SimpleNamespace(device=device, mountpoint=mountpoint, fstype=fstype)

    mounts = [part("/dev/a", "/", "ext4"), part("/dev/a", "/bind", "ext4"), part("/dev/b", "/b", "xfs")]
    image = part("/dev/loop0", "/snap", "squashfs")
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [*mounts, image])
    assert sorted(host._local_mounts()) == ["/", "/b"]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [image])
    assert host._local_mounts() == ["/"]


def test_finished_process_is_a_job() -> None:
    """A real process that used 1.2 s of CPU is told once it ended: owner, command, times, memory; no arguments."""
    watch = ProcessWatch("SITE-A", "example", "node1")
    began = now()
    with child(BURN) as process:
        eventually(lambda: watch.look(now()) is not None and _cpu(process.pid) >= 1.15)
        # The clock ticks of the kernel are coarser than what the process sees. The reading that counts is the last one.
        watch.look(now() + timedelta(minutes=1))
        process.communicate()
        ended = now()
        (job,) = jobs_of(watch, process.pid)
        assert jobs_of(watch, process.pid) == []
    kind_of(Job).row_of(job, microseconds(now()))
    assert job.user == psutil.Process().username()
    assert job.application.startswith("python")
    assert SECRET not in str(job)
    assert (job.state, job.exit_status, job.node, job.submit_host) == ("unknown", None, "node1", "node1")
    assert job.cpu_time in {1, 2}
    assert began - timedelta(seconds=1) <= job.start <= job.end
    assert ended <= job.end
    assert job.wall_time == round((job.end - job.start).total_seconds())
    assert job.memory is not None
    assert 2**21 < job.memory < 2**30
    assert job.processors >= 1


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_living_process_is_no_job() -> None:
    """A process that lives is not told, however often one looks."""
    watch = ProcessWatch("SITE-A", "example", "node1")
    with child("import sys; sys.stdin.read()") as process:
        for _ in range(5):
            assert jobs_of(watch, process.pid) == []


def test_zombie_is_finished_once() -> None:
    """A process that ended but was not fetched by its parent is told once, not again when it is fetched."""
    watch = ProcessWatch("SITE-A", "example", "node1")
    with child("import sys; sys.stdin.read()") as process:
        watch.look(now())
        assert process.stdin is not None
        process.stdin.close()
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        told = watch.look(now() + timedelta(minutes=1))
        assert [job for job in told if job.local_job_id.startswith(f"{process.pid}-")] != []
        assert jobs_of(watch, process.pid) == []
        process.wait()
        assert jobs_of(watch, process.pid) == []
        process.stdin = None


def test_kernel_threads_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel's own thread parent has started is never followed."""
    watch = ProcessWatch("SITE-A", "example", "node1")
    monkeypatch.setattr(watch, "_kernel", os.getpid())
    with child("import sys; sys.stdin.read()") as process:
        watch.look(now())
        assert process.pid in watch._ignored
        assert process.pid not in watch._living


class Dials:
    """A watch that counts looks, and fails at the first."""

    interval = 0.01

    def __init__(self) -> None:
        self.looks = 0

    def look(self, now: datetime) -> Sequence[Record]:
        self.looks += 1
        if self.looks == 1:
            message = "cannot see"
            raise OSError(message)
        return HostWatch("SITE-A", "example", "node1", 1).look(now)


def test_a_failed_look_ends_nothing(tmp_path: Path) -> None:
    """A look that raises is logged; it and the other watches are asked again."""
    stop, first, second = threading.Event(), Dials(), Dials()
    watches: list[Watch] = [first, second]
    with Emitter(Settings(data=str(tmp_path))) as emitter:
        thread = threading.Thread(target=watch_until, args=(watches, emitter, stop))
        thread.start()
        eventually(lambda: first.looks > 3 and second.looks > 3)
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_service(tmp_path: Path) -> None:
    """The service brings host records of this machine into the broker, and ends soon after it is told to."""
    settings = Settings(data=str(tmp_path), probe=ProbeSettings(interval=0.1))
    open_declared(settings).close()
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, stop))
    thread.start()
    broker = open_broker(settings)
    try:
        eventually(lambda: sum(status.published or 0 for status in broker.status()) >= 2)
    finally:
        stop.set()
        thread.join(15)
        broker.close()
    assert not thread.is_alive()
