"""Months that were closed at some time, as the ledger keeps them."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, Table, select
from sqlalchemy.engine import RowMapping

from accounting.booking.adjustments import FINAL, PeriodState
from accounting.booking.buckets import SECOND
from accounting.ledger import Ledger
from accounting.migrations.meaning import Place, meanings_of
from accounting.tables import RECORDS, KindTables, is_bucketed
from accounting.upkeep.months import month_end, month_name
from siteward.records import Kind


class PeriodError(Exception):
    """A period cannot be closed, signed, reopened or asked as it was asked for; the message says what to do."""

    permanent = True


class Meaning(msgspec.Struct, frozen=True):
    """What the figures of a period were when it was closed: what a kind gains later is no part of them.

    Attributes:
        dimensions: bucketed ones.
        sums: what each column of the buckets by end adds up, by its name.
    """

    dimensions: tuple[str, ...]
    sums: dict[str, str]


class ClosedMonth(msgspec.Struct, frozen=True, kw_only=True):
    """A month that was closed at some time. Times are microseconds since 1970 UTC.

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


def periods_in(ledger: Ledger, kind: str = "") -> list[ClosedMonth]:
    """Every month that was closed at some time, of a kind or of all, by kind and month."""
    table = ledger.common.periods
    chosen = select(table).order_by(table.c.kind, table.c.month)
    with ledger.database.read() as connection:
        return [
            _read(row) for row in connection.execute(chosen.where(table.c.kind == kind) if kind else chosen).mappings()
        ]


def find_period(ledger: Ledger, kind: str, month: int) -> ClosedMonth:
    """A month that was closed at some time.

    Raises:
        PeriodError: it never was.
    """
    with ledger.database.read() as connection:
        period = present_period(connection, ledger.common.periods, kind, month)
    if period is None:
        message = f"{month_name(month)} of {kind} was never closed; `siteward ledger periods` lists what was"
        raise PeriodError(message)
    return period


def closed_period(connection: Connection, table: Table, kind: str, month: int) -> ClosedMonth:
    """A month that is closed or signed, as a transaction sees it.

    Raises:
        PeriodError: it is not.
    """
    period = present_period(connection, table, kind, month)
    if period is None or period.state not in FINAL:
        state = "open" if period is None else period.state
        message = f"{month_name(month)} of {kind} is {state}; close it first"
        raise PeriodError(message)
    return period


def closed_within(connection: Connection, table: Table, kind: str, start: int, end: int) -> list[ClosedMonth]:
    """The closed months of a kind that meet a half-open stretch of microseconds, in order."""
    mine = select(table).where(table.c.kind == kind, table.c.state.in_(FINAL), table.c.month * SECOND < end)
    found = [_read(row) for row in connection.execute(mine.order_by(table.c.month)).mappings()]
    return [period for period in found if month_end(period.month) * SECOND > start]


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


def present_period(connection: Connection, table: Table, kind: str, month: int) -> ClosedMonth | None:
    """A month as a transaction sees it; None where it was never closed."""
    mine = select(table).where(table.c.kind == kind, table.c.month == month)
    row = connection.execute(mine).mappings().one_or_none()
    return None if row is None else _read(row)


def _read(row: RowMapping) -> ClosedMonth:
    values = {**row, "state": PeriodState(row["state"]), "meaning": msgspec.json.decode(row["meaning"], type=Meaning)}
    return ClosedMonth(**values)
