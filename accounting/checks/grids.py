"""Stretches of days within which buckets and records can be compared; pure.

A record does not say in buckets of which width it was booked. So buckets that lie over each other are compared as one
block, and where there are none, cells of the width of that day. A day whose tiers were others may have buckets of which
some lie across the ends of others: it is compared in cells that all of its buckets lie within.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import lcm

import msgspec
import numpy as np

from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import DAY, SECOND, Tier
from accounting.booking.postings import Postings, posted
from accounting.query.cuts import blocks_of
from accounting.tables import CARRIED, SERIES, START


class Grid(msgspec.Struct, frozen=True):
    """Blocks that cover some days without a gap.

    Attributes:
        starts: of the blocks, seconds since 1970 UTC, ascending.
        widths: of the blocks, seconds; where a block has buckets, the width of the widest.
        tiers: the days with the widths of their narrowest buckets: what is spread over them falls into blocks.
    """

    starts: Integers
    widths: Integers
    tiers: tuple[Tier, ...]

    def settled(self, postings: Postings) -> Postings:
        """Rows of buckets as rows of blocks; of the records carried over, those with which the block began."""
        if not postings.keys:
            return postings
        start, series = postings.keys[START], postings.keys[SERIES]
        block = np.searchsorted(self.starts, start, side="right") - 1
        begins = self.starts[block] == start
        columns = {
            name: np.where(begins, values, 0) if name == CARRIED else values for name, values in postings.sums.items()
        }
        return posted(self.starts[block], series, self.widths[block], columns)


def grid_of(buckets: Iterable[tuple[int, int]], days: Sequence[int], tiers: Sequence[Tier]) -> Grid:
    """The grid of some days.

    Args:
        buckets: start and width in seconds of those that there are, any number of times, in any order.
        days: first seconds of consecutive UTC days, ascending.
        tiers: in which buckets of these days lie by now.
    """
    of_day: dict[int, list[tuple[int, int]]] = {}
    for start, width in buckets:
        of_day.setdefault(start // DAY * DAY, []).append((start, width))
    blocks: list[tuple[int, int]] = []
    cells: list[Tier] = []
    for day in days:
        here = _nested(of_day.get(day, []))
        width = min((width for _, width in here), default=_width_at(day, tiers))
        blocks += _without_gaps(day, here, width)
        cells = _appended(cells, Tier(day * SECOND, (day + DAY) * SECOND, width))
    starts, widths = np.array(blocks, np.int64).reshape(-1, 2).T
    return Grid(starts, widths, tuple(cells))


def _nested(buckets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The buckets of a day; where some widths do not divide others, the cells that all lie within instead."""
    widths = sorted({width for _, width in buckets})
    if all(wider % width == 0 for width, wider in pairwise(widths)):
        return buckets
    # It divides the day as each of them does.
    cell = lcm(*widths)
    return [(start - start % cell, cell) for start, _ in buckets]


def _width_at(day: int, tiers: Sequence[Tier]) -> int:
    return next(tier.width for tier in tiers if tier.start <= day * SECOND < tier.end)


def _without_gaps(day: int, buckets: Iterable[tuple[int, int]], width: int) -> Iterator[tuple[int, int]]:
    """Start and width of the blocks of a day, with cells of a width where there are no buckets."""
    reached = day
    for first, last in blocks_of(buckets):
        start, end = first // SECOND, last // SECOND
        yield from ((cell, width) for cell in range(reached, start, width))
        yield start, end - start
        reached = end
    yield from ((cell, width) for cell in range(reached, day + DAY, width))


def _appended(cells: list[Tier], cell: Tier) -> list[Tier]:
    if cells and cells[-1].width == cell.width:
        return [*cells[:-1], Tier(cells[-1].start, cell.end, cell.width)]
    return [*cells, cell]
