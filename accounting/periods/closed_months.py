"""Months that were closed at some time, as the ledger keeps them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, Table, select
from sqlalchemy.engine import RowMapping

from accounting.booking.adjustments import ALL_VOS, FINAL, Covered, PeriodState, left_out
from accounting.booking.buckets import SECOND
from accounting.ledger import Ledger
from accounting.migrations.meaning import Place, meanings_of
from accounting.tables import RECORDS, KindTables, is_bucketed
from accounting.upkeep.months import month_end, month_name
from siteward.records import Kind
from siteward.usage_text import bucketed


class PeriodError(Exception):
    """A period cannot be closed, signed, reopened or asked as it was asked for; the message says what to do."""

    permanent = True


class PeriodStateError(PeriodError):
    """Not as it is now: the month is not over, closed already, or not closed; or a correction is half done."""


class Meaning(msgspec.Struct, frozen=True):
    """What the figures of a period were when it was closed: what a kind gains later is no part of them.

    Attributes:
        dimensions: bucketed ones.
        sums: what each column of the buckets by end adds up, by its name.
    """

    dimensions: tuple[str, ...]
    sums: dict[str, str]


class ClosedMonth(Covered, frozen=True, kw_only=True):
    """A month of a VO, or of all VOs, that was closed at some time. Times are microseconds since 1970 UTC.

    Attributes:
        kind: whose.
        month: its first second.
        state: whether it is closed now.
        closing: the entry of its last closing.
        closed_at: when.
        closed_by: by whom.
        signed_at: when; None where it is not signed.
        signed_by: by whom.
        digest: of its figures as of closing, 64 hexadecimal digits; "" where it was never signed.
        meaning: what its figures are.
    """

    kind: str
    month: int
    state: PeriodState
    closing: int
    closed_at: int
    closed_by: str
    signed_at: int | None
    signed_by: str
    digest: str
    meaning: Meaning

    @property
    def name(self) -> str:
        """Such as `2026-10`."""
        return month_name(self.month)

    @property
    def is_final(self) -> bool:
        """Whether what changes its figures is an adjustment."""
        return self.state in FINAL

    def __str__(self) -> str:
        """For people."""
        return period_text(self.kind, self.month, self.vo)


def period_text(kind: str, month: int, vo: str) -> str:
    """A period for people, such as `2026-10 of job`, or `2026-10 of job for the VO atlas`."""
    return f"{month_name(month)} of {kind}{'' if vo == ALL_VOS else f' for the VO {vo}'}"


def periods_in(ledger: Ledger, kind: str = "") -> list[ClosedMonth]:
    """Every period that was closed at some time, of a kind or of all, by kind, month and VO."""
    table = ledger.common.periods
    chosen = select(table).order_by(table.c.kind, table.c.month, table.c.vo)
    with ledger.database.read() as connection:
        return _read(connection.execute(chosen.where(table.c.kind == kind) if kind else chosen).mappings())


def find_period(ledger: Ledger, kind: str, month: int, vo: str = ALL_VOS) -> ClosedMonth:
    """A period that was closed at some time.

    Raises:
        PeriodError: it never was.
    """
    with ledger.database.read() as connection:
        period = present_period(connection, ledger.common.periods, kind, month, vo)
    if period is None:
        message = f"{period_text(kind, month, vo)} was never closed; `siteward ledger periods` lists what was"
        raise PeriodError(message)
    return period


def closed_period(connection: Connection, table: Table, kind: str, month: int, vo: str) -> ClosedMonth:
    """A period that is closed or signed, as a transaction sees it.

    Raises:
        PeriodStateError: it is not.
    """
    period = present_period(connection, table, kind, month, vo)
    if period is None or not period.is_final:
        state = "open" if period is None else period.state
        message = f"{period_text(kind, month, vo)} is {state}; close it first"
        raise PeriodStateError(message)
    return period


def closed_within(connection: Connection, table: Table, kind: str, start: int, end: int) -> list[ClosedMonth]:
    """The closed periods of a kind whose months meet a half-open stretch of microseconds, by month and VO."""
    mine = select(table).where(table.c.kind == kind, table.c.month * SECOND < end)
    found = _read(connection.execute(mine.order_by(table.c.month, table.c.vo)).mappings())
    return [period for period in found if period.is_final and month_end(period.month) * SECOND > start]


def closed_by_dimension(ledger: Ledger) -> dict[str, list[tuple[int, int]]]:
    """First seconds of the closed months of any kind that has a dimension in its buckets, and of the months after."""
    months: defaultdict[str, set[int]] = defaultdict(set)
    for period in periods_in(ledger):
        if period.is_final and period.kind in ledger.kinds:
            for name in bucketed(ledger.kinds[period.kind]):
                months[name].add(period.month)
    return {name: [(month, month_end(month)) for month in sorted(found)] for name, found in months.items()}


def meaning_of(kind: Kind) -> Meaning:
    """What the by-end figures of a kind are now."""
    formulas = {name: each.formula for (place, name), each in meanings_of(kind).items() if place is Place.SUMS}
    return Meaning(
        dimensions=tuple(sorted(column.name for column in kind.columns if is_bucketed(column))),
        sums={RECORDS: "records", **dict(sorted(formulas.items()))},
    )


def tables_of_kind(ledger: Ledger, kind: str) -> KindTables:
    """The tables of a kind.

    Raises:
        PeriodError: the ledger does not book it.
    """
    if kind not in ledger.tables:
        message = f"kind {kind!r} is not in the ledger; there are {', '.join(ledger.tables)}"
        raise PeriodError(message)
    return ledger.tables[kind]


def present_period(connection: Connection, table: Table, kind: str, month: int, vo: str) -> ClosedMonth | None:
    """A period as a transaction sees it; None where it was never closed."""
    mine = select(table).where(table.c.kind == kind, table.c.month == month).order_by(table.c.vo)
    found = _read(connection.execute(mine).mappings())
    return next((period for period in found if period.vo == vo), None)


def _read(rows: Iterable[RowMapping]) -> list[ClosedMonth]:
    """Periods as they are kept, all of each month: what is of all VOs leaves out those of single ones."""
    kept = list(rows)
    vos: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for row in kept:
        vos[row["kind"], row["month"]].append(row["vo"])
    return [_period(row, vos[row["kind"], row["month"]]) for row in kept]


def _period(row: RowMapping, vos: Iterable[str]) -> ClosedMonth:
    meaning = msgspec.json.decode(row["meaning"], type=Meaning)
    values = {**row, "state": PeriodState(row["state"]), "meaning": meaning}
    return ClosedMonth(**values, without=left_out(row["vo"], list(vos)))
