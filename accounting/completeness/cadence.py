"""How much a producer usually sends and how often, learned from what came: median and spread of four weeks; pure.

What is expected of a stretch of hours is the median of what came in the same hours of four weeks before, so that nights
and weekends are learned: of the last four that lie in no outage, so that it does not become usual. An outage is a gap
of more than a week that is twice as long as any other: who sends every other week has none. Two weeks have to be known.
A stretch lacks records where fewer came than that by more than some spreads, and by more than come in one hour, which
may have been the next one; or where none came and the time between two hours with records is longer than it usually is
around that hour of the week. Hours are judged only when what is in them is usually there: a producer that sends once a
day is not late at noon.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, pairwise
from statistics import median_low
from typing import Final

import msgspec

HOUR: Final = 3600
WEEK: Final = 7 * 24 * HOUR
WEEKS: Final = 4
LEAST_WEEKS: Final = 2
SILENT_WEEKS: Final = 9
"""Two months, after which a silent producer is forgotten."""
MOST_WEEKS: Final = SILENT_WEEKS + WEEKS
"""Within which the weeks lie that tell what is usual."""
SPREADS: Final = 4
"""Spreads beyond what is usual at which somebody is told."""
_SLACK: Final = 300
"""Seconds that the usual lateness always varies by."""
_TOLERATED: Final = 20
"""A twentieth of what is expected always counts as its spread."""


class Arrival(msgspec.Struct, frozen=True):
    """What came of one kind from one producer for one hour.

    Attributes:
        hour: first second of the hour of the records' partition times.
        records: new ones; neither duplicates nor newer revisions.
        first: when the first of them was received, seconds since 1970 UTC.
        last: when the latest of them was.
    """

    hour: int
    records: int
    first: int
    last: int


class Expectation(msgspec.Struct, frozen=True):
    """What is usual for a stretch of hours.

    Attributes:
        records: the median of some weeks.
        spread: how far a week usually is from it.
        burst: most records of one hour; they may fall on either side of the stretch's ends.
    """

    records: int
    spread: int
    burst: int

    def missing(self, came: int, spreads: int = SPREADS) -> int:
        """How many records are missing; 0 where it is no fewer than it sometimes is."""
        return self.records - came if came < self.records - max(spreads * self.spread, self.burst) else 0


class Silence(msgspec.Struct, frozen=True):
    """A producer of which nothing comes any more.

    Attributes:
        last: first second of the last hour with records.
        usual: seconds from that hour to the next one with records, as in other weeks.
        spread: of that.
        overdue: seconds for which they have been due.
    """

    last: int
    usual: int
    spread: int
    overdue: int


class Cadence:
    """What came from one producer of one kind, and what is to be expected after it."""

    def __init__(self, arrivals: Iterable[Arrival]) -> None:
        """Take what came, `MOST_WEEKS` more than what is asked about; hours without records are left out."""
        self._arrivals = sorted((each for each in arrivals if each.records > 0), key=lambda each: each.hour)
        self._hours = [each.hour for each in self._arrivals]
        self._sums = [0, *accumulate(each.records for each in self._arrivals)]
        between = ((first, second - first) for first, second in pairwise(self._hours))
        self._long_gaps = [(first, length) for first, length in between if length > WEEK]

    def came(self, first: int, last: int) -> int:
        """Records of a half-open stretch of whole hours, in seconds since 1970 UTC."""
        return self._sums[bisect_left(self._hours, last)] - self._sums[bisect_left(self._hours, first)]

    def due(self, now: int, spreads: int = SPREADS) -> int:
        """The instant up to which hours are judged: what is in them is usually there by now."""
        recent = self._arrivals[bisect_left(self._hours, now - WEEKS * WEEK) :] or self._arrivals
        lateness = [max(each.last - each.hour - HOUR, 0) for each in recent]
        if not lateness:
            return now // HOUR * HOUR
        usual, spread = _usual(lateness)
        return (now - usual - spreads * max(spread, _SLACK)) // HOUR * HOUR

    @property
    def last(self) -> int | None:
        """First second of the last hour of which there are records."""
        return self._hours[-1] if self._hours else None

    def expected(self, first: int, last: int) -> Expectation | None:
        """What is usual for a stretch of whole hours; None where fewer than two weeks before it are known."""
        starts = self._weeks_before(first)
        if len(starts) < LEAST_WEEKS:
            return None
        usual, spread = _usual([self.came(start, start + last - first) for start in starts])
        bursts = [self._burst(start, start + last - first) for start in starts]
        return Expectation(usual, max(spread, usual // _TOLERATED), median_low(bursts))

    def missing(self, first: int, last: int, now: int, spreads: int = SPREADS) -> int:
        """Records that are missing of a stretch of whole hours that are judged; 0 where nobody knows what is usual."""
        usual, came = self.expected(first, last), self.came(first, last)
        if usual is None or came >= usual.records:
            return 0
        if came == 0 and self._is_long_around(first, last, now, spreads):
            return usual.records
        return usual.missing(came, spreads)

    def silence(self, now: int, spreads: int = SPREADS) -> Silence | None:
        """Whether nothing comes any more though it should; None where it comes, or nobody knows what is usual.

        One that was silent for `SILENT_WEEKS` is forgotten.
        """
        last = self.last
        if last is None or last < now - SILENT_WEEKS * WEEK:
            return None
        interval = self._interval(last)
        if interval is None:
            return None
        usual, spread = interval
        overdue = self.due(now, spreads) - HOUR - (last + usual + spreads * spread)
        return Silence(last, usual, spread, overdue) if overdue >= 0 else None

    def _interval(self, hour: int) -> tuple[int, int] | None:
        """Seconds from one hour with records to the next, as is usual around an hour of the week; and their spread."""
        starts = self._weeks_before(hour)
        if len(starts) < LEAST_WEEKS:
            return None
        places = [bisect_right(self._hours, start) for start in starts]
        usual, spread = _usual([self._hours[place] - self._hours[place - 1] for place in places])
        return usual, max(spread, HOUR)

    def _is_long_around(self, first: int, last: int, now: int, spreads: int) -> bool:
        """Whether the hours without records around a stretch without any are more than is usual."""
        place = bisect_left(self._hours, first)
        interval = self._interval(self._hours[place - 1]) if place else None
        if interval is None:
            return False
        following = self._hours[place] if place < len(self._hours) else max(last, self.due(now, spreads)) - HOUR
        return following - self._hours[place - 1] > interval[0] + spreads * interval[1]

    def _burst(self, first: int, last: int) -> int:
        here = self._arrivals[bisect_left(self._hours, first) : bisect_left(self._hours, last)]
        return max((each.records for each in here), default=0)

    def _weeks_before(self, instant: int) -> list[int]:
        """The same instant of the last weeks before that are no part of an outage, as far as they are known."""
        starts = (instant - week * WEEK for week in range(1, MOST_WEEKS + 1))
        known = (start for start in starts if self._hours and start >= self._hours[0])
        return list(islice((start for start in known if not self._is_within_outage(start, instant)), WEEKS))

    def _is_within_outage(self, start: int, now: int) -> bool:
        """Whether a week from an instant on is part of a gap; not of one that comes again, as of who sends monthly."""
        place = bisect_left(self._hours, start)
        following = self._hours[place] if place < len(self._hours) else now
        if following < start + WEEK:
            return False
        gap = following - self._hours[place - 1]
        others = (length for begin, length in self._long_gaps if begin != self._hours[place - 1])
        return all(2 * length < gap for length in others)


def _usual(samples: Sequence[int]) -> tuple[int, int]:
    """The median, and the median of the distances from it; the lower ones where two are in the middle."""
    median = median_low(samples)
    return median, median_low([abs(sample - median) for sample in samples])
