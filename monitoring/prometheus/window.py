"""Which records are live: neither late, nor ahead, nor imported, nor seen before; pure, in bounded memory."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Final

import msgspec

from siteward.sinks import Batch

MOST_IDS: Final = 500_000
"""Record ids remembered of one kind, about 60 MB; a faster stream is remembered for a shorter time."""
SLICES: Final = 60
"""Parts of the window in which ids are forgotten together."""
IMPORTED: Final = "import:"
"""How the producer of an import is called; see `siteward import`."""


class Why(StrEnum):
    """Why a record enters no series."""

    LATE = "late"
    """Its time lies further back than the window, or its cycle is not newer than the one that is shown."""
    AHEAD = "ahead"
    """Its time lies further in the future than the window is long."""
    REPLAYED = "replayed"
    """Its id has been here already, in this process: delivered again, or a newer revision."""
    IMPORTED = "imported"
    """It was read from a file."""
    INCOMPLETE = "incomplete"
    """The rest of its cycle did not come within the window."""


class Sorted(msgspec.Struct):
    """A batch's records by whether they are live.

    Attributes:
        live: positions in the batch, in order.
        left_out: how many are not, and why.
        replayed: positions of those that have been here already.
    """

    live: list[int]
    left_out: Counter[Why]
    replayed: list[int]


class Window:
    """The ids of one kind's records whose times lie between `length` before now and `length` after it.

    An id says nothing that its record's time does not: what has left the window is late, and need not be remembered.
    Nor is it remembered beyond this process: its counts end with it, and the next starts from zero. What was counted
    and not acknowledged has to be counted again there, or it would be in neither where no scrape came in between.
    """

    def __init__(self, length: int, most: int = MOST_IDS) -> None:
        """Take the length in microseconds, and the most ids to remember."""
        self._length = length
        self._most = most
        self._slice = max(1, length // SLICES)
        self._slices: dict[int, set[bytes]] = {}
        self._count = 0
        self.floor = 0
        """Records before it are late, microseconds since 1970; it only rises."""

    def sort(self, batch: Batch, now: int) -> Sorted:
        """Tell live records from others, and remember their ids. `now` is in microseconds since 1970 UTC."""
        self.advance(now)
        floor, ceiling, width, slices = self.floor, now + self._length, self._slice, self._slices
        imported = {producer for producer in set(batch.producers) if producer.startswith(IMPORTED)}
        live: list[int] = []
        replayed: list[int] = []
        left_out: Counter[Why] = Counter()
        times = batch.columns[batch.kind.time]
        for position, (identifier, time) in enumerate(zip(batch.ids, times, strict=True)):
            if time < floor:
                left_out[Why.LATE] += 1
            elif time > ceiling:
                left_out[Why.AHEAD] += 1
            elif imported and batch.producers[position] in imported:
                left_out[Why.IMPORTED] += 1
            else:
                seen = slices.setdefault(time // width, set())
                if identifier in seen:
                    replayed.append(position)
                else:
                    seen.add(identifier)
                    live.append(position)
        self._count += len(live)
        if replayed:
            left_out[Why.REPLAYED] = len(replayed)
        self._shrink()
        return Sorted(live, left_out, replayed)

    def advance(self, now: int) -> None:
        """Let the window go on to `now`; never back, since the ids behind it are forgotten."""
        self._raise(now - self._length)

    def _shrink(self) -> None:
        """Make the window shorter until the ids fit."""
        while self._count > self._most:
            self._raise((min(self._slices) + 1) * self._slice)

    def _raise(self, floor: int) -> None:
        if floor > self.floor:
            self.floor = floor
            # A slice that lies partly before the floor is still needed for its other part.
            for number in [number for number in self._slices if (number + 1) * self._slice <= floor]:
                self._count -= len(self._slices.pop(number))
