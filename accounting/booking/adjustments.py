"""What changes the by-end sums of closed periods: each change is kept beside them, with its entry and its cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec
import numpy as np
from sqlalchemy import Connection, Table, select

from accounting.booking.buckets import BY_DAY, SECOND, tiers_at
from accounting.booking.postings import Account, by_end, chosen, joined, prorated
from accounting.tables import CAUSE, CLOSING, ENTRY, SERIES, START, KindTables
from accounting.upkeep.month_marks import forget_months
from accounting.upkeep.months import month_end
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
Closings = Mapping[int, int]
"""The entry of its closing, by the first second of each month that is closed or signed."""


def closings_of(connection: Connection, periods: Table, kind: str) -> Closings:
    """Every closed month of a kind, as a transaction sees them."""
    mine = select(periods.c.month, periods.c.closing).where(periods.c.kind == kind, periods.c.state.in_(FINAL))
    return {int(month): int(closing) for month, closing in connection.execute(mine)}


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
        closings = closings_of(self.connection, self.periods, self.tables.kind.name)
        for month, closing in sorted(closings.items()):
            for cause in Cause:
                self._adjust(month, closing, cause, [each for found, each in listed if found is cause])

    def _adjust(self, month: int, closing: int, cause: Cause, accounts: Sequence[Account]) -> None:
        first, last = month * SECOND, month_end(month) * SECOND
        parts = [chosen(each, here) for each in accounts if (here := (each.end >= first) & (each.end < last)).any()]
        if not parts:
            return
        posted = by_end(joined(parts), BY_DAY)
        changed = np.array(
            [any(values) for values in zip(*(posted.sums[name].tolist() for name in posted.sums), strict=True)]
        )
        count = int(changed.sum())
        if not count:
            return
        keys: Columns = {
            CLOSING: np.full(count, closing, np.int64),
            ENTRY: np.full(count, self.entry, np.int64),
            CAUSE: [str(cause)] * count,
            START: posted.keys[START][changed],
            SERIES: posted.keys[SERIES][changed],
        }
        sums = {name: values[changed] for name, values in posted.sums.items()}
        self.dialect.accumulate(self.connection, self.tables.adjustments, keys, sums)
