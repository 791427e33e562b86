"""The simulation as one stream in time order: any window of it, made hour by hour in constant memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

from collectors.simulator import Emission, Stream
from collectors.simulator.downtimes import Downtimes
from collectors.simulator.faults import Fault, Faults
from collectors.simulator.grid import Grid
from collectors.simulator.jobs import Jobs
from collectors.simulator.load import HOUR, SECOND
from collectors.simulator.storages import Occupancies
from collectors.simulator.transfers import Transfers
from siteward.records import Record

SLICE: Final = 60 * SECOND
"""Live: how much is made ahead at once."""
_by_time: Final = attrgetter("time")


class Simulation:
    """A grid, its faults, and all that happens in it, whenever it is asked."""

    def __init__(self, grid: Grid, faults: list[Fault], space_interval: int = 3600) -> None:
        """Put the streams together.

        Args:
            grid: where it happens.
            faults: what is injected.
            space_interval: seconds between two looks at every storage.
        """
        known = Faults(faults)
        downtimes = Downtimes(grid, known)
        self.grid = grid
        self.faults = known.all
        self._streams: tuple[Stream, ...] = (
            downtimes,
            Jobs(grid, known, downtimes),
            Transfers(grid, known, downtimes),
            Occupancies(grid, known, space_interval),
        )

    def between(self, start: int, end: int) -> Iterator[Emission]:
        """All that is sent in a window, in time order.

        Args:
            start: microseconds since 1970 UTC.
            end: not included.
        """
        for hour in range(start // HOUR, -(-end // HOUR)):
            first, last = max(start, hour * HOUR), min(end, (hour + 1) * HOUR)
            found = [
                emission
                for stream in self._streams
                for emission in stream.emissions(hour, first, last)
                if first <= emission.time < last
            ]
            found.sort(key=_by_time)
            yield from found


def live(
    simulation: Simulation,
    start: int,
    emit: Callable[[Record], object],
    stop: threading.Event,
    reached: Callable[[int], None] = lambda _: None,
) -> None:
    """Emit records as their time comes, from `start` on, until told to stop.

    Args:
        simulation: what to emit.
        start: where emission ended before, microseconds since 1970 UTC; what lies between it and now comes at once.
        emit: takes a record.
        stop: set to end.
        reached: told each minute the instant before which everything was emitted.
    """
    while not stop.is_set():
        end = (start // SLICE + 1) * SLICE
        for emission in simulation.between(start, end):
            if stop.wait(_seconds_until(emission.time)):
                return
            emit(emission.record)
        if stop.wait(_seconds_until(end)):
            return
        start = end
        reached(start)


def _seconds_until(moment: int) -> float:
    return max(moment - time.time_ns() // 1000, 0) / SECOND
