"""What has changed closed periods, one change after the other: when, by which entry, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, select, tuple_
from sqlalchemy.engine import RowMapping

from accounting.booking.adjustments import ALL_VOS
from accounting.ledger import Ledger
from accounting.periods.closed_months import ClosedMonth, Meaning, find_period, tables_of_kind
from accounting.query.conditions import conditions_of
from accounting.tables import CAUSE, CLOSING, ENTRY, RECORDS, SERIES, START, KindTables
from siteward.query import Filter

Place = tuple[int, str, int, int]
"""Where an adjustment stands among those of its period: entry, cause, day, series."""


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
        series: number of the combination of dimensions.
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
    series: int
    group: dict[str, str | int | float | None]
    differences: dict[str, int]

    @property
    def place(self) -> Place:
        """Where the next portion begins behind it."""
        return self.entry, self.cause, self.day, self.series

    @property
    def shown(self) -> dict[str, int]:
        """What people look at: measures and the number of records, not what ratios and means need beside them."""
        return {
            name.removeprefix("_"): value
            for name, value in self.differences.items()
            if name == RECORDS or not name.startswith("_")
        }


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """Which adjustments are wanted.

    Attributes:
        visible: conditions on the series, which all of them meet.
        after: only those behind this place.
        most: at most so many; None for all.
    """

    visible: Sequence[Filter] = ()
    after: Place | None = None
    most: int | None = None


def adjustments_of(
    ledger: Ledger, kind: str, month: int, vo: str = ALL_VOS, portion: Portion | None = None
) -> list[Adjustment]:
    """What has changed a month of a VO, or of all, since it was closed last, in order of entries, and so of time.

    Raises:
        PeriodError: it was never closed.
    """
    tables = tables_of_kind(ledger, kind)
    period = find_period(ledger, kind, month, vo)
    with ledger.database.read() as connection:
        rows = connection.execute(_chosen(_adjusting(ledger, tables, period), tables, portion or Portion())).mappings()
        return [_adjustment(row, period.meaning) for row in rows]


def _chosen(question: Select[Any], tables: KindTables, portion: Portion) -> Select[Any]:
    table = tables.adjustments
    question = question.where(*conditions_of(tables.series, portion.visible)).limit(portion.most)
    if portion.after is None:
        return question
    place = tuple_(table.c[ENTRY], table.c[CAUSE], table.c[START], table.c[SERIES])
    return question.where(place > tuple_(*portion.after))


def _adjusting(ledger: Ledger, tables: KindTables, period: ClosedMonth) -> Select[Any]:
    table, entries, series = tables.adjustments, ledger.common.entries, tables.series
    dimensions = [series.c[name] for name in period.meaning.dimensions if name in series.c]
    return (
        select(table, *(entries.c[name] for name in ("at", "action", "author", "reason")), *dimensions)
        .select_from(
            table.join(entries, table.c[ENTRY] == entries.c[ENTRY]).join(series, table.c[SERIES] == series.c[SERIES])
        )
        .where(table.c[CLOSING] == period.closing)
        .order_by(table.c[ENTRY], table.c[CAUSE], table.c[START], table.c[SERIES])
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
        series=row[SERIES],
        group={name: row[name] for name in meaning.dimensions if name in row},
        differences={name: row[name] for name in meaning.sums if row.get(name)},
    )
