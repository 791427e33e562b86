"""Months of a kind, of a VO or of all, that are closed and signed: figures that change by visible adjustments only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, Table, select

from accounting.booking.adjustments import ALL_VOS, PeriodState
from accounting.booking.buckets import SECOND
from accounting.booking.entries import Entry, enter, entry_number
from accounting.corrections.correction_table import unfinished_in
from accounting.ledger import Ledger
from accounting.periods.closed_months import (
    ClosedMonth,
    PeriodError,
    PeriodStateError,
    closed_period,
    find_period,
    meaning_of,
    period_text,
    present_period,
    tables_of_kind,
)
from accounting.tables import KindTables
from accounting.upkeep.months import month_end, month_name

LONGEST_NAME: Final = 255
LONGEST_REASON: Final = 4000


def close(ledger: Ledger, kind: str, month: int, by: str, vo: str = ALL_VOS) -> ClosedMonth:
    """Close a month of a VO, or of all that have no period of their own: what changes its figures is an adjustment.

    Waits for whoever is booking records of the kind: each record is in the figures as of closing, or an adjustment.

    Args:
        ledger: whose.
        kind: name of the kind.
        month: its first second since 1970 UTC.
        by: who closes it.
        vo: whose records; those of all by default.

    Raises:
        PeriodError: nobody knows the VO; or, as PeriodStateError, the month is not over, closed already, or a
            correction is half done.
    """
    tables, table, now = tables_of_kind(ledger, kind), ledger.common.periods, ledger.clock()
    _check_person(by)
    if month_end(month) * SECOND > now:
        message = f"{month_name(month)} is not over; close it afterwards"
        raise PeriodStateError(message)
    with ledger.database.write() as connection:
        ledger.check(connection, kind, alone=True)
        _refuse_unknown(connection, tables, vo)
        period = present_period(connection, table, kind, month, vo)
        _refuse_closed(kind, month, vo, period or present_period(connection, table, kind, month, ALL_VOS))
        if numbers := unfinished_in(connection, ledger.common.corrections, kind):
            message = f"correction {numbers[0]} of {kind} is not finished; approve or reverse it again, then close"
            raise PeriodStateError(message)
        closing = _enter(connection, ledger, kind, f"close {month_name(month)}", vo, by)
        values = {
            "state": str(PeriodState.CLOSED),
            "closing": closing,
            "closed_at": now,
            "closed_by": by,
            "signed_at": None,
            "signed_by": "",
            "digest": "",
            "meaning": msgspec.json.encode(meaning_of(tables.kind)),
        }
        if period is None:
            connection.execute(table.insert().values(kind=kind, month=month, vo=vo, **values))
        else:
            _update(connection, table, period, values)
    return find_period(ledger, kind, month, vo)


def reopen(ledger: Ledger, kind: str, month: int, by: str, reason: str, vo: str = ALL_VOS) -> ClosedMonth:
    """Let a closed or signed month change again without adjustments; its signature is void.

    Raises:
        PeriodError: it is not closed, or the reason is missing.
    """
    tables_of_kind(ledger, kind)
    _check_person(by)
    if not 0 < len(reason.strip()) <= LONGEST_REASON:
        message = f"reason: give one of 1 to {LONGEST_REASON} characters; it stays with the period"
        raise PeriodError(message)
    with ledger.database.write() as connection:
        ledger.check(connection, kind, alone=True)
        period = closed_period(connection, ledger.common.periods, kind, month, vo)
        _enter(connection, ledger, kind, f"reopen {period.name}", vo, by, reason)
        _update(connection, ledger.common.periods, period, {"state": str(PeriodState.REOPENED)})
    return find_period(ledger, kind, month, vo)


def note_signature(ledger: Ledger, period: ClosedMonth, by: str, digest: str) -> ClosedMonth:
    """Keep who stands for the figures of a closed month.

    Raises:
        PeriodError: it was signed, reopened or closed anew meanwhile.
    """
    _check_person(by)
    with ledger.database.write() as connection:
        ledger.check(connection, period.kind, alone=True)
        present = closed_period(connection, ledger.common.periods, period.kind, period.month, period.vo)
        if present != period:
            message = f"{period} is {present.state} by now; look at it, and sign again"
            raise PeriodStateError(message)
        _enter(connection, ledger, period.kind, f"sign {period.name}", period.vo, by, digest)
        values = {
            "state": str(PeriodState.SIGNED),
            "signed_at": ledger.clock(),
            "signed_by": by,
            "digest": digest,
        }
        _update(connection, ledger.common.periods, period, values)
    return find_period(ledger, period.kind, period.month, period.vo)


def _update(connection: Connection, table: Table, period: ClosedMonth, values: Mapping[str, object]) -> None:
    mine = (table.c.kind == period.kind) & (table.c.month == period.month) & (table.c.vo == period.vo)
    connection.execute(table.update().where(mine).values(dict(values)))


def _enter(connection: Connection, ledger: Ledger, kind: str, action: str, vo: str, by: str, reason: str = "") -> int:
    number = entry_number()
    entry = Entry(kind=kind, action=action, at=ledger.clock(), author=by, reason=reason, vo=vo)
    enter(connection, ledger.common.entries, number, entry)
    return number


def _refuse_closed(kind: str, month: int, vo: str, present: ClosedMonth | None) -> None:
    """Refuse to close what is closed: no VO is in two periods of a month, or what is closed would change for others."""
    if present is not None and present.is_final:
        whole = "" if present.vo == vo else ", with all VOs that have no period of their own; reopen that one first"
        message = f"{period_text(kind, month, vo)} is {present.state} already{whole}"
        raise PeriodStateError(message)


def _refuse_unknown(connection: Connection, tables: KindTables, vo: str) -> None:
    """Refuse a VO that is not there, since a mistyped name would close nothing."""
    series = tables.series
    known = select(series.c["vo"]).where(series.c["vo"] == vo).limit(1)
    if vo != ALL_VOS and connection.execute(known).first() is None:
        message = f"{tables.kind.name} has no record of the VO {vo[:80]!r}; look at its name"
        raise PeriodError(message)


def _check_person(by: str) -> None:
    if not 0 < len(by.strip()) <= LONGEST_NAME:
        message = f"give the name of who decides, of 1 to {LONGEST_NAME} characters"
        raise PeriodError(message)
