"""Months of a kind that are closed and signed: by-end figures that change by visible adjustments only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, Table

from accounting.booking.adjustments import FINAL, PeriodState
from accounting.booking.buckets import SECOND
from accounting.booking.entries import Entry, enter, entry_number
from accounting.corrections.correction_table import unfinished_in
from accounting.ledger import Ledger
from accounting.periods.closed_months import (
    ClosedMonth,
    PeriodError,
    closed_period,
    find_period,
    meaning_of,
    present_period,
    tables_of_kind,
)
from accounting.upkeep.months import month_end, month_name

LONGEST_NAME: Final = 255
LONGEST_REASON: Final = 4000


def close(ledger: Ledger, kind: str, month: int, by: str) -> ClosedMonth:
    """Close a month: from now on what changes its by-end figures is an adjustment.

    Waits for whoever is booking records of the kind: each record is in the figures as of closing, or an adjustment.

    Args:
        ledger: whose.
        kind: name of the kind.
        month: its first second since 1970 UTC.
        by: who closes it.

    Raises:
        PeriodError: it is not over, closed already, or a correction is half done.
    """
    tables, table, now = tables_of_kind(ledger, kind), ledger.common.periods, ledger.clock()
    _check_person(by)
    if month_end(month) * SECOND > now:
        message = f"{month_name(month)} is not over; close it afterwards"
        raise PeriodError(message)
    with ledger.database.write() as connection:
        ledger.check(connection, kind, alone=True)
        period = present_period(connection, table, kind, month)
        if period is not None and period.state in FINAL:
            message = f"{period.name} of {kind} is {period.state} already"
            raise PeriodError(message)
        if numbers := unfinished_in(connection, ledger.common.corrections, kind):
            message = f"correction {numbers[0]} of {kind} is not finished; approve or reverse it again, then close"
            raise PeriodError(message)
        closing = _enter(connection, ledger, kind, f"close {month_name(month)}", by)
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
            connection.execute(table.insert().values(kind=kind, month=month, **values))
        else:
            _update(connection, table, period, values)
    return find_period(ledger, kind, month)


def reopen(ledger: Ledger, kind: str, month: int, by: str, reason: str) -> ClosedMonth:
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
        period = closed_period(connection, ledger.common.periods, kind, month)
        _enter(connection, ledger, kind, f"reopen {period.name}", by, reason)
        _update(connection, ledger.common.periods, period, {"state": str(PeriodState.REOPENED)})
    return find_period(ledger, kind, month)


def note_signature(ledger: Ledger, period: ClosedMonth, by: str, digest: str) -> ClosedMonth:
    """Keep who stands for the figures of a closed month.

    Raises:
        PeriodError: it was signed, reopened or closed anew meanwhile.
    """
    _check_person(by)
    with ledger.database.write() as connection:
        ledger.check(connection, period.kind, alone=True)
        present = closed_period(connection, ledger.common.periods, period.kind, period.month)
        if present != period:
            message = f"{period.name} of {period.kind} is {present.state} by now; look at it, and sign again"
            raise PeriodError(message)
        _enter(connection, ledger, period.kind, f"sign {period.name}", by, digest)
        values = {
            "state": str(PeriodState.SIGNED),
            "signed_at": ledger.clock(),
            "signed_by": by,
            "digest": digest,
        }
        _update(connection, ledger.common.periods, period, values)
    return find_period(ledger, period.kind, period.month)


def _update(connection: Connection, table: Table, period: ClosedMonth, values: Mapping[str, object]) -> None:
    mine = (table.c.kind == period.kind) & (table.c.month == period.month)
    connection.execute(table.update().where(mine).values(dict(values)))


def _enter(connection: Connection, ledger: Ledger, kind: str, action: str, by: str, reason: str = "") -> int:
    number = entry_number()
    entry = Entry(kind=kind, action=action, at=ledger.clock(), author=by, reason=reason)
    enter(connection, ledger.common.entries, number, entry)
    return number


def _check_person(by: str) -> None:
    if not 0 < len(by.strip()) <= LONGEST_NAME:
        message = f"--by: give a name of 1 to {LONGEST_NAME} characters"
        raise PeriodError(message)
