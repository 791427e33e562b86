"""How records spread over half-open UTC buckets, so that the parts of a value add up to it to the last unit; pure.

The part of a value in a bucket is what its record had used up at the bucket's end less what it had used up at its
start, each the floor of value times elapsed over lasting. Parts of neighbouring buckets therefore add up to the part of
the bucket that covers both, whatever the widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from accounting.booking.arithmetic import Integers, shares

SECOND: Final = 1_000_000
DAY: Final = 86_400
_FIRST: Final = -(2**62)
_LAST: Final = 2**62


class Tier(msgspec.Struct, frozen=True):
    """Buckets of one width over a stretch of time.

    Attributes:
        start: first instant, microseconds since 1970 UTC; the start of a UTC day.
        end: first instant after it; the start of a UTC day.
        width: of a bucket in seconds; divides a day.
    """

    start: int
    end: int
    width: int


BY_DAY: Final = (Tier(_FIRST, _LAST, DAY),)
"""Everything in buckets of a day: no month begins within one."""


def tiers_at(now: int, ages: Sequence[tuple[int | None, int]]) -> list[Tier]:
    """The tiers in which a kind's buckets lie at an instant, the newest first.

    Args:
        now: microseconds since 1970 UTC.
        ages: largest age in seconds and bucket width in seconds of each tier, ascending; the last age is None. A day
            changes its width as a whole, when the age of its start passes the limit.
    """
    tiers: list[Tier] = []
    end = _LAST
    for age, width in ages:
        start = _FIRST if age is None else (now - age * SECOND) // (DAY * SECOND) * DAY * SECOND
        tiers.append(Tier(start, end, width))
        end = start
    return tiers


class Spread(msgspec.Struct):
    """Pieces of records, each within one bucket.

    Attributes:
        record: position of the piece's record.
        start: start of the bucket, seconds since 1970 UTC.
        width: of the bucket in seconds.
        before: microseconds that the record had lasted when the bucket began.
        after: microseconds that it had lasted when the bucket ended.
        lasting: microseconds that it lasted altogether; 1 for one without duration, whose only piece is all of it.
    """

    record: Integers
    start: Integers
    width: Integers
    before: Integers
    after: Integers
    lasting: Integers

    def parts(self, values: Integers) -> Integers:
        """The part of its record's value that each piece has.

        Args:
            values: one per record.
        """
        of_record = values[self.record]
        parts: Integers = shares(of_record, self.after, self.lasting) - shares(of_record, self.before, self.lasting)
        return parts

    @property
    def started(self) -> Integers:
        """1 for the piece in whose bucket the record starts, else 0."""
        started: Integers = (self.before == 0).astype(np.int64)
        return started


def pieces_of(starts: Integers, ends: Integers, tiers: Iterable[Tier]) -> Integers:
    """Over how many buckets `spread` spreads each interval."""
    found = np.zeros(len(starts), np.int64)
    stop = np.maximum(ends, starts + 1)
    for tier in tiers:
        width = tier.width * SECOND
        first, last = np.maximum(starts, tier.start) // width, (np.minimum(stop, tier.end) - 1) // width
        found += np.where((starts < tier.end) & (stop > tier.start), last - first + 1, 0)
    return found


def spread(starts: Integers, ends: Integers, tiers: Iterable[Tier]) -> Spread:
    """Spread intervals over buckets.

    Args:
        starts: first instants, microseconds since 1970 UTC.
        ends: first instants after; not before the start. A record without duration lies in the bucket of its instant.
        tiers: that cover all of them and do not overlap.

    Returns:
        Pieces in any order. A piece begins in its bucket, at its start or at the record's.
    """
    pieces = [_within(starts, ends, tier) for tier in tiers]
    return Spread(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Spread.__struct_fields__))


def _within(starts: Integers, ends: Integers, tier: Tier) -> Spread:
    stop = np.maximum(ends, starts + 1)
    record = np.flatnonzero((starts < tier.end) & (stop > tier.start))
    start, end, stop = starts[record], ends[record], stop[record]
    width = tier.width * SECOND
    first = np.maximum(start, tier.start) // width
    count = (np.minimum(stop, tier.end) - 1) // width - first + 1
    which = np.repeat(np.arange(len(record)), count)
    offset = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    bucket = (first[which] + offset) * width
    start, end, stop = start[which], end[which], stop[which]
    return Spread(
        record=record[which],
        start=bucket // SECOND,
        width=np.full(len(which), tier.width, np.int64),
        before=np.maximum(bucket, start) - start,
        after=np.minimum(bucket + width, stop) - start,
        lasting=np.maximum(end - start, 1),
    )


def bucket_of(times: Integers, tiers: Iterable[Tier]) -> tuple[Integers, Integers]:
    """Start and width, in seconds, of the bucket in which each instant lies.

    Args:
        times: microseconds since 1970 UTC.
        tiers: that cover all of them.
    """
    start = np.zeros_like(times)
    width = np.zeros_like(times)
    for tier in tiers:
        here = (times >= tier.start) & (times < tier.end)
        width[here] = tier.width
        start[here] = times[here] // (tier.width * SECOND) * tier.width
    return start, width
