"""The service `simulator` of the demonstration: a small grid with 30 days of history, going on live."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final, Protocol

import msgspec

from collectors.simulator.faults import Fault, labels, make_fault, space_producer
from collectors.simulator.grid import Grid, build_grid
from collectors.simulator.load import DAY, HOUR
from collectors.simulator.timeline import Simulation, live
from siteward.emit import Emitter
from siteward.log import get_logger
from siteward.records import Record, Refused
from siteward.settings import Settings

SITES: Final = 12
VOS: Final = 3
SEED: Final = 7
JOBS_PER_HOUR: Final = 7.0
"""Jobs per site; with the rest about 85,000 records in 30 days, which start-up takes in within seconds."""
HISTORY: Final = 30 * DAY
HISTORY_SPACE_SECONDS: Final = 4 * 3600
LIVE_SPACE_SECONDS: Final = 3
"""Live, storages are looked at far more often than before: cycles are averaged, so that their number changes no
figure, and the page has something to show every second."""
FLUSH_SECONDS: Final = 60.0
_CHECK: Final = 500
"""Records between two looks at `stop`."""


class Takes(Protocol):
    """What the service needs of an Emitter."""

    def emit(self, record: Record) -> Refused | None:
        """Take a record, or say why not."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything taken is confirmed or on disk; False when time is up first."""


class Progress(msgspec.Struct):
    """What the service remembers between two starts, microseconds since 1970 UTC.

    Attributes:
        anchor: the first start; the faults of the history lie before it.
        until: everything sent before this instant is confirmed or on disk.
    """

    anchor: int
    until: int


def demo_grid() -> Grid:
    """The grid of the demonstration."""
    return build_grid(SITES, VOS, SEED, JOBS_PER_HOUR)


def demo_faults(grid: Grid, anchor: int) -> list[Fault]:
    """What goes wrong in the demonstration: one of each, so that every chart has something to show.

    Days before the first start: a large site's efficiency decays (21 to 4), a downtime is moved (12), one is
    withdrawn (8), a user's jobs fail everywhere (6), a site flaps (5), a storage loses half its doors (4), a site is
    out (3), a community's storage reporter is silent (2), a black-hole node (1). A downtime is announced at the start
    for two days later.
    """
    second = [site for site in grid.sites if site.tier == 2]  # noqa: PLR2004  # the many.
    first = next(site for site in grid.sites if site.tier == 1)
    vo = grid.vos[0]
    storage = next(place for place in grid.storages if place.site == first.name)
    placed = (
        ("slow-decay", first.name, 21 * 24, 17 * 24),
        ("downtime-changed", second[0].name, 12 * 24, 14),
        ("downtime-withdrawn", second[1].name, 8 * 24, 10),
        ("failing-user", vo.users.items[1], 6 * 24, 12),
        ("flapping", second[2].name, 5 * 24, 18),
        ("partial-doors", storage.name, 4 * 24, 20),
        ("site-outage", second[3].name, 3 * 24, 9),
        ("silent-producer", space_producer(vo.name), 2 * 24, 13),
        ("black-hole-node", second[0].name, 30, 6),
        ("downtime-announced", second[4].name, -48, 8),
    )
    return [
        make_fault(name, target, anchor - before * HOUR, anchor - (before - lasting) * HOUR, grid)
        for name, target, before, lasting in placed
    ]


def run(settings: Settings, stop: threading.Event) -> None:
    """Send what is missing of the last 30 days, then go on as time passes.

    How far it came is kept in `simulator.json` of the data folder, the labels of the faults in
    `simulator-faults.jsonl`; a start after a kill repeats at most a day of history or a minute of live records,
    which the stores know by their ids.
    """
    with Emitter(settings, producer="simulator", when_full="wait") as emitter:
        simulate(settings.folder, emitter, stop)


def simulate(folder: Path, emitter: Takes, stop: threading.Event) -> None:
    """The service with an emitter of one's own; see run."""
    path = folder / "simulator.json"
    progress = _load(path, time.time_ns() // 1000)
    # Kept before anything is sent: a start after a kill must place the faults where the records sent so far have them.
    _replace(path, msgspec.json.encode(progress))
    grid = demo_grid()
    faults = demo_faults(grid, progress.anchor)
    _replace(folder / "simulator-faults.jsonl", labels(faults))

    def reached(until: int) -> None:
        if emitter.flush(FLUSH_SECONDS):
            progress.until = until
            _replace(path, msgspec.json.encode(progress))
        else:
            get_logger(__name__).warning("simulated records wait for the broker", seconds=FLUSH_SECONDS)

    history = Simulation(grid, faults, HISTORY_SPACE_SECONDS)
    start = progress.until
    while not stop.is_set() and start < time.time_ns() // 1000 - HOUR // 60:
        end = min(start + DAY, time.time_ns() // 1000)
        for number, emission in enumerate(history.between(start, end)):
            emitter.emit(emission.record)
            if number % _CHECK == 0 and stop.is_set():
                return
        start = end
        reached(start)
    live(Simulation(grid, faults, LIVE_SPACE_SECONDS), start, emitter.emit, stop, reached)


def _load(path: Path, now: int) -> Progress:
    """Where to go on: never further back than the history is long; from the beginning where nothing can be read."""
    try:
        progress = msgspec.json.decode(path.read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError):
        return Progress(anchor=now, until=now - HISTORY)
    progress.until = max(progress.until, now - HISTORY)
    return progress


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
