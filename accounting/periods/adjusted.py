"""What has changed closed periods, one change after the other: when, by which entry, and why."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.engine import RowMapping

from accounting.ledger import Ledger
from accounting.periods.closed_months import ClosedMonth, Meaning, find_period, tables_of_kind
from accounting.tables import CAUSE, CLOSING, ENTRY, SERIES, START, KindTables


class Adjustment(msgspec.Struct, frozen=True):
    """One change of a closed period.

    Attributes:
        at: when, microseconds since 1970 UTC.
        entry: under which it came.
        cause: why.
        action: of the entry, such as `received` or `move 7`.
        author: of the entry; "" for records that came in.
        reason: of the entry.
        day: first second of the UTC day in which the records end.
        group: the bucketed dimensions of the period's meaning.
        differences: by column of the buckets, other than nothing.
    """

    at: int
    entry: int
    cause: str
    action: str
    author: str
    reason: str
    day: int
    group: dict[str, str | int | float | None]
    differences: dict[str, int]


def adjustments_of(ledger: Ledger, kind: str, month: int) -> list[Adjustment]:
    """What has changed a month since it was closed last, in order of time.

    Raises:
        PeriodError: it was never closed.
    """
    period, tables = find_period(ledger, kind, month), tables_of_kind(ledger, kind)
    with ledger.database.read() as connection:
        rows = connection.execute(_adjusting(ledger, tables, period)).mappings()
        return [_adjustment(row, period.meaning) for row in rows]


def _adjusting(ledger: Ledger, tables: KindTables, period: ClosedMonth) -> Select[Any]:
    table, entries, series = tables.adjustments, ledger.common.entries, tables.series
    dimensions = [series.c[name] for name in period.meaning.dimensions if name in series.c]
    return (
        select(table, *(entries.c[name] for name in ("at", "action", "author", "reason")), *dimensions)
        .select_from(
            table.join(entries, table.c[ENTRY] == entries.c[ENTRY]).join(series, table.c[SERIES] == series.c[SERIES])
        )
        .where(table.c[CLOSING] == period.closing)
        .order_by(entries.c["at"], table.c[ENTRY], table.c[CAUSE], table.c[START], table.c[SERIES])
    )


def _adjustment(row: RowMapping, meaning: Meaning) -> Adjustment:
    return Adjustment(
        at=row["at"],
        entry=row[ENTRY],
        cause=row[CAUSE],
        action=row["action"],
        author=row["author"],
        reason=row["reason"],
        day=row[START],
        group={name: row[name] for name in meaning.dimensions if name in row},
        differences={name: row[name] for name in meaning.sums if row.get(name)},
    )
