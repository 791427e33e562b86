"""Sums of whole months against their buckets, and signed months against what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Table, select

from accounting.booking.adjustments import ALL_VOS
from accounting.booking.buckets import SECOND
from accounting.ledger import Ledger
from accounting.periods.signatures import verified_periods
from accounting.tables import SERIES, START
from accounting.upkeep.month_marks import marked_months
from accounting.upkeep.month_sums import month_question
from accounting.upkeep.months import month_end
from siteward.records import moment


class BadMonth(msgspec.Struct, frozen=True):
    """A month whose figures are not what they were, or not what its buckets come to.

    Attributes:
        kind: of the records.
        month: its first instant.
        what: `signed`, or the table of sums.
        why: in one sentence.
    """

    kind: str
    month: datetime
    what: str
    why: str


def wrong_sums(ledger: Ledger, kinds: tuple[str, ...], start: int | None, end: int | None) -> Iterator[BadMonth]:
    """Months whose kept sums are not those of their buckets.

    Args:
        ledger: whose.
        kinds: names; () for all.
        start: only months that end after this instant, microseconds since 1970 UTC.
        end: only months that start before this one.
    """
    for name, tables in ledger.tables.items():
        if kinds and name not in kinds:
            continue
        for buckets, sums in tables.months:
            with ledger.database.read() as connection:
                months = marked_months(connection, ledger.common.summed, buckets)
            for month in months:
                if start is not None and month_end(month) * SECOND <= start:
                    continue
                if end is not None and month * SECOND >= end:
                    continue
                count = _wrong(ledger, buckets, sums, month)
                if count:
                    why = (
                        f"{count} series have other sums than their buckets: `siteward ledger rebuild`, then `compact`"
                    )
                    yield BadMonth(name, moment(month * SECOND), sums.name, why)


def _wrong(ledger: Ledger, buckets: Table, sums: Table, month: int) -> int:
    """How many series of a month have other sums than their buckets; none where it is not marked any more."""
    with ledger.database.read() as connection:
        if month not in marked_months(connection, ledger.common.summed, buckets):
            return 0
        computed = _figures(connection, month_question(buckets, sums, month))
        kept = _figures(connection, select(*sums.columns).where(sums.c[START] == month))
    return sum(1 for series in computed.keys() | kept.keys() if computed.get(series) != kept.get(series))


def _figures(connection: Connection, question: object) -> dict[int, tuple[int, ...]]:
    rows = connection.execute(question).mappings()  # type: ignore[call-overload]  # a question of any columns.
    return {
        row[SERIES]: tuple(int(value) for name, value in sorted(row.items()) if name not in {START, SERIES})
        for row in rows
    }


def wrong_signatures(ledger: Ledger, kinds: tuple[str, ...]) -> Iterator[BadMonth]:
    """Signed months whose figures as of closing are not what was signed."""
    for each in verified_periods(ledger):
        if not each.is_right and (not kinds or each.kind in kinds):
            since = f"; declared otherwise since: {', '.join(each.changed)}" if each.changed else ""
            whose = "" if each.vo == ALL_VOS else f" for the VO {each.vo}"
            why = f"its figures as of closing are not those that {each.signed_by} signed{whose}{since}"
            yield BadMonth(each.kind, datetime.fromisoformat(f"{each.month}-01T00:00:00Z"), "signed", why)
