"""What changes the by-end sums of closed periods: each change is kept beside them, with its entry and its cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, select

from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import BY_DAY, SECOND, tiers_at
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.postings import Account, by_end, chosen, joined, prorated
from accounting.tables import CAUSE, CLOSING, ENTRY, SERIES, START, KindTables
from accounting.upkeep.month_marks import forget_months
from accounting.upkeep.months import month_end, month_of
from siteward.server.database import Columns, Dialect


class Cause(StrEnum):
    """Why something changes in a closed period."""

    LATE = "late record"
    REVISION = "newer revision"
    CORRECTION = "correction"
    REVERSAL = "reversal"


class PeriodState(StrEnum):
    """Whether figures of a month may still change without notice."""

    CLOSED = "closed"
    """What changes them is an adjustment."""
    SIGNED = "signed"
    """The same, and somebody stands for them: with a digest."""
    REOPENED = "reopened"
    """As open as a month that was never closed."""


FINAL = (PeriodState.CLOSED, PeriodState.SIGNED)
ALL_VOS: Final = "*"
"""In place of a VO: the period of every VO that has none of its own for the month, in whatever state that is."""


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """Of which VOs a period is. No VO is in two periods of a month, so that each change is in one of them.

    Attributes:
        vo: whose; ALL_VOS for all of them.
        without: those that have a period of their own, where it is of all.
    """

    vo: str
    without: tuple[str, ...] = ()

    @property
    def is_every(self) -> bool:
        """Whether nothing has to be asked of a VO."""
        return self.vo == ALL_VOS and not self.without

    def covers(self, vo: str) -> bool:
        """Whether a VO's figures are the period's."""
        return vo not in self.without if self.vo == ALL_VOS else vo == self.vo


class Closing(Covered, frozen=True, kw_only=True):
    """A period that is closed or signed, by the entry of its closing."""

    entry: int


Closings = Sequence[tuple[int, Sequence[Closing]]]
"""Months by their first second, in order, each with its closed periods."""


def closings_within(connection: Connection, periods: Table, kind: str, first: int, last: int) -> Closings:
    """The closed months of a kind, as a transaction sees them.

    Args:
        connection: of the transaction.
        periods: the table of closed months.
        kind: whose.
        first: a second of the first month.
        last: a second of the last one.
    """
    columns = (periods.c.month, periods.c.vo, periods.c.state, periods.c.closing)
    within = periods.c.month >= month_of(first), periods.c.month <= last
    months: defaultdict[int, dict[str, int | None]] = defaultdict(dict)
    for month, vo, state, closing in connection.execute(select(*columns).where(periods.c.kind == kind, *within)):
        months[int(month)][vo] = int(closing) if state in FINAL else None
    return [(month, closings) for month, found in sorted(months.items()) if (closings := _closings(found))]


def _closings(found: dict[str, int | None]) -> list[Closing]:
    return [
        Closing(vo=vo, without=left_out(vo, found), entry=entry)
        for vo, entry in sorted(found.items())
        if entry is not None
    ]


def left_out(vo: str, vos: Collection[str]) -> tuple[str, ...]:
    """The VOs that a period leaves out, among those of all periods of its month."""
    return tuple(sorted(set(vos) - {ALL_VOS})) if vo == ALL_VOS else ()


class Posting(msgspec.Struct, frozen=True):
    """How one transaction changes the sums of a kind.

    Attributes:
        connection: of the transaction; the kind's row of `accounting_kinds` is locked against closing.
        dialect: of its database.
        tables: of the kind.
        periods: the table of closed months.
        summed: the table of months whose sums are kept.
        now: microseconds since 1970 UTC.
        entry: under which it changes them.
    """

    connection: Connection
    dialect: Dialect
    tables: KindTables
    periods: Table
    summed: Table
    now: int
    entry: int

    def post(self, changes: Iterable[tuple[Cause, Account]]) -> None:
        """Add accounts to the buckets of both attributions, and what falls into closed months to the adjustments."""
        listed = list(changes)
        if not listed:
            return
        accounts = [account for _, account in listed]
        account = joined(accounts) if len(accounts) > 1 else accounts[0]
        tiers = tiers_at(self.now, self.tables.kind.tiers)
        for table, postings in (
            (self.tables.prorated, prorated(account, tiers)),
            (self.tables.by_end, by_end(account, tiers)),
        ):
            self.dialect.accumulate(self.connection, table, postings.keys, postings.sums)
            forget_months(self.connection, self.summed, table, np.unique(postings.keys[START]).tolist())
        for month, closings in self._closings(account.end):
            for cause in Cause:
                self._adjust(month, closings, cause, [each for found, each in listed if found is cause])

    def _closings(self, ends: Integers) -> Closings:
        """Those of the months in which records end: of what comes in time there are none."""
        if not len(ends):
            return []
        first, last = int(ends.min()) // SECOND, int(ends.max()) // SECOND
        return closings_within(self.connection, self.periods, self.tables.kind.name, first, last)

    def _adjust(self, month: int, closings: Sequence[Closing], cause: Cause, accounts: Sequence[Account]) -> None:
        first, last = month * SECOND, month_end(month) * SECOND
        parts = [chosen(each, here) for each in accounts if (here := (each.end >= first) & (each.end < last)).any()]
        if not parts:
            return
        posted = by_end(joined(parts), BY_DAY)
        changed = np.array(
            [any(values) for values in zip(*(posted.sums[name].tolist() for name in posted.sums), strict=True)]
        )
        series = posted.keys[SERIES][changed]
        vos = {} if all(each.is_every for each in closings) else self._vos(series)
        for closing in closings:
            covered = [closing.is_every or closing.covers(vos[number]) for number in series.tolist()]
            mine = np.flatnonzero(changed)[np.array(covered, np.bool_)]
            count = len(mine)
            if not count:
                continue
            keys: Columns = {
                CLOSING: np.full(count, closing.entry, np.int64),
                ENTRY: np.full(count, self.entry, np.int64),
                CAUSE: [str(cause)] * count,
                START: posted.keys[START][mine],
                SERIES: posted.keys[SERIES][mine],
            }
            sums = {name: values[mine] for name, values in posted.sums.items()}
            self.dialect.accumulate(self.connection, self.tables.adjustments, keys, sums)

    def _vos(self, numbers: Integers) -> dict[int, str]:
        """The VO of each series; they were numbered before the transaction began."""
        table, wanted = self.tables.series, np.unique(numbers).tolist()
        found: dict[int, str] = {}
        for first in range(0, len(wanted), AT_ONCE):
            some = table.c[SERIES].in_(wanted[first : first + AT_ONCE])
            rows = self.connection.execute(select(table.c[SERIES], table.c["vo"]).where(some))
            found |= {int(number): vo for number, vo in rows}
        return found
