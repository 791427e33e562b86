"""Records of counters that stand beside archived ones: what they would change is not in the database; pure.

Every record says at which instant the one before it is. Where that one is not there, records between are archived.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from accounting.tables import ID, PREVIOUS
from siteward.records import Kind

Fields = Mapping[Any, Any]
"""One record: its row in the table of records."""
Link = tuple[int, int | None]
"""Instant of a record, and of the one before it; microseconds since 1970 UTC."""


class Gap(msgspec.Struct, frozen=True):
    """Archived records of one counter, with none between them that is in the database.

    Attributes:
        after: instant of the record before them; None where there is none.
        before: instant of the record after them.
        last: instant of the last one of them.
    """

    after: int | None
    before: int
    last: int

    def missing_at(self, instant: int) -> Missing | None:
        """What would be needed to change something at an instant; None where that is not beside the gap."""
        if instant > self.before or (self.after is not None and instant < self.after):
            return None
        return Missing(min(instant, self.last), self.last)


class Missing(msgspec.Struct, frozen=True):
    """Between which instants, both included, an archived record lies that has to be known; the earliest will do."""

    first: int
    last: int


class Parted(Exception):  # noqa: N818  # reads as the state it is.
    """Records that would change what is archived.

    Attributes:
        missing: what has to be back first, by id of the record.
    """

    def __init__(self, missing: Mapping[bytes, Missing]) -> None:
        """Take them."""
        super().__init__(f"{len(missing)} records stand beside archived ones")
        self.missing = dict(missing)


def gaps_among(links: Iterable[Link], earliest: int) -> list[Gap]:
    """The gaps among records of one counter.

    Args:
        links: of consecutive records in the database, in order.
        earliest: what is before the first of them is no matter unless that one is as late as this.
    """
    found: list[Gap] = []
    reached: int | None = None
    for instant, previous in links:
        is_beyond = reached is None and instant < earliest
        if previous is not None and previous != reached and not is_beyond:
            found.append(Gap(reached, instant, previous))
        reached = instant
    return found


def beside_gaps(gaps: Iterable[Gap], changed: Mapping[int, bytes]) -> dict[bytes, Missing]:
    """Which records stand beside a gap, by id, with what has to be back first.

    Args:
        gaps: of their counter.
        changed: ids of records that come, change or go, by their instant.
    """
    return {
        identifier: missing
        for gap in gaps
        for instant, identifier in changed.items()
        if (missing := gap.missing_at(instant)) is not None
    }


class Run:
    """Consecutive records of one counter, some of which come, change or go.

    Attributes:
        records: as they are to be, in order.
        fresh: ids of those whose step is not theirs yet, here and elsewhere.
        gaps: where archived records lie between, by the instant of the record after them.
    """

    def __init__(
        self,
        kind: Kind,
        records: Sequence[Fields],
        gone: Sequence[Fields],
        fresh: Collection[bytes],
        earliest: int,
    ) -> None:
        """Take them.

        Args:
            kind: of the counter.
            records: see above; those at and between the changes, and one neighbour on either side.
            gone: those that are no more, or whose place was taken, as they were.
            fresh: see above.
            earliest: instant of the first change; what comes before stays as it is.
        """
        self.records = list(records)
        self.fresh = fresh
        self.earliest = earliest
        self._time = kind.time
        self._gone = gone
        self.gaps = self._found()

    def _found(self) -> dict[int, Gap]:
        if not self._gone and not gaps_among(self._links(self.records), self.earliest):
            # Mostly: all follow each other, those that have come as it was foreseen.
            return {}
        settled = [record for record in self.records if bytes(record[ID]) not in self.fresh]
        links = sorted(self._links([*settled, *self._gone]))
        return {gap.before: gap for gap in gaps_among(links, self.earliest)}

    def _links(self, records: Iterable[Fields]) -> Iterator[Link]:
        return ((record[self._time], record[PREVIOUS]) for record in records)

    @property
    def missing(self) -> dict[bytes, Missing]:
        """What has to be back before the changes beside gaps, by id."""
        return beside_gaps(self.gaps.values(), self._changed) if self.gaps else {}

    @property
    def _changed(self) -> dict[int, bytes]:
        fresh = [record for record in self.records if bytes(record[ID]) in self.fresh]
        return {record[self._time]: bytes(record[ID]) for record in (*fresh, *self._gone)}

    def missing_behind(self, gap: Gap) -> dict[bytes, Missing]:
        """What has to be back before the changes ahead of a gap that reach into it."""
        assert gap.after is not None
        missing = Missing(gap.after, gap.last)
        return {identifier: missing for time, identifier in self._changed.items() if time < gap.before}

    def extended(self, following: Sequence[Fields]) -> Sequence[Fields]:
        """Go on with the records that follow."""
        self.records += following
        self.gaps = self._found()
        return following
