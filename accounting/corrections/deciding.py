"""Corrections proposed, looked at, approved, rejected and reversed by people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from accounting.booking.books import Booked, booked_of
from accounting.booking.entries import Entry, enter, entry_number
from accounting.booking.rows import Row
from accounting.corrections.correcting import (
    AT_ONCE,
    check_reversal,
    finish,
    foreseen_change,
    moved_by,
    refuse_large,
    tables_of,
)
from accounting.corrections.correction import Correction, CorrectionError, Draft, State, corrected, layer_of
from accounting.corrections.correction_table import (
    NOTHING,
    find_correction,
    insert_correction,
    next_turn,
    unfinished_in,
    update_correction,
)
from accounting.corrections.figures import Differences, Figures
from accounting.corrections.selecting import check_ids, refuse_archived, refused_beside_archived, selected_rows
from accounting.ledger import Ledger
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import ID

LONGEST_REASON: Final = 4000
LONGEST_NAME: Final = 255
MOST_OF_COUNTERS: Final = 200_000
"""Records of counters of one correction: what the ones after them come to is told with all of them in memory."""


def preview(ledger: Ledger, draft: Draft) -> Figures:
    """What a correction would change if it were applied now; nothing is written.

    Raises:
        CorrectionError: it could not be applied: records are archived, or would be beyond limits.
    """
    tables, layer = tables_of(ledger, draft.kind), layer_of(draft.action, draft.given)
    differences = Differences(tables.kind, moved_by(draft))
    with ledger.database.read() as connection:
        refuse_archived(connection, ledger.common, tables.kind, draft.selection)
        check_ids(connection, tables, draft.selection)
        reached = NOTHING
        most = MOST_OF_COUNTERS + 1 if tables.kind.since else AT_ONCE
        while rows := selected_rows(connection, tables, draft.selection, reached, most):
            new = [row for row in (corrected(each, [layer]) for each in rows) if row is not None]
            refuse_large(tables.kind, new, rows)
            with refused_beside_archived(connection, ledger.common, tables.kind):
                booked = _booked(connection, tables, rows, new)
            differences.add(booked.old, booked.new, len(rows))
            reached = bytes(rows[-1][ID])
    return differences.figures()


def _booked(connection: Connection, tables: Tables, old: Sequence[Row], new: Sequence[Row]) -> Booked:
    """What would count no more, and what would: of counters also the records after those that are corrected."""
    if isinstance(tables, SnapshotTables) or not tables.kind.since:
        return Booked(old, new)
    if len(old) > MOST_OF_COUNTERS:
        message = (
            f"more than {MOST_OF_COUNTERS} records of {tables.kind.name} would be corrected; take a shorter window"
        )
        raise CorrectionError(message)
    return booked_of(tables.kind, foreseen_change(connection, tables, old, new), old, new)


def propose(ledger: Ledger, draft: Draft) -> Correction:
    """Keep a correction for somebody to approve; no total changes.

    Raises:
        CorrectionError: it could not be applied, or selects nothing.
    """
    figures = preview(ledger, draft)
    if not figures.records:
        message = "it selects no record; look at the conditions and the window"
        raise CorrectionError(message)
    with ledger.database.write() as connection:
        number = insert_correction(connection, ledger.common.corrections, draft, figures, ledger.clock())
        return find_correction(connection, ledger.common.corrections, number)


def approve(ledger: Ledger, number: int, by: str, *, self_approval: bool = False, anew: bool = False) -> Correction:
    """Apply a correction, or go on with one that was approved and not finished; the same person may do so again.

    Args:
        ledger: whose.
        number: of the correction.
        by: who approves it.
        self_approval: also where that is its author.
        anew: also where it would change something else by now than when it was proposed.

    Raises:
        CorrectionError: it is not to be approved, or not by this person, or cannot be applied.
        siteward.server.database.Conflict: others were in the way; run it again.
    """
    _check_person(by)
    correction = found_correction(ledger, number)
    if correction.state is State.APPLIED and correction.decided_by == by:
        # Whoever was interrupted behind the last step does it again, and is told that it is done.
        return correction
    if correction.state is not State.APPLYING:
        _check_state(correction, "approved", State.PROPOSED)
        if by == correction.author and not self_approval:
            message = (
                f"correction {number} was proposed by {by}, and is to be approved by another person, unless the "
                "setting accounting.self_approval says otherwise"
            )
            raise CorrectionError(message)
        if not anew and preview(ledger, correction) != correction.figures:
            message = (
                f"correction {number} would change something else by now than when it was proposed; look with "
                f"`siteward ledger corrections {number} --now`, then approve it with --anew"
            )
            raise CorrectionError(message)
        _begin_applying(ledger, number, by)
    finish(ledger, number)
    return found_correction(ledger, number)


def reject(ledger: Ledger, number: int, by: str, reason: str) -> Correction:
    """Keep a correction from being applied.

    Raises:
        CorrectionError: it was decided already, or the reason is missing.
    """
    _check_person(by)
    _check_reason(reason)
    with ledger.database.write() as connection:
        correction = _locked(connection, ledger, number)
        _check_state(correction, "rejected", State.PROPOSED)
        values = {"decided_by": by, "decided_at": ledger.clock(), "decided_reason": reason}
        update_correction(connection, ledger.common.corrections, number, state=str(State.REJECTED), **values)
    return found_correction(ledger, number)


def reverse(ledger: Ledger, number: int, by: str, reason: str) -> Correction:
    """Take a correction back: every record is what it would be without it. Or go on with that.

    Raises:
        CorrectionError: it was not applied, its records are archived, or the reason is missing.
        siteward.server.database.Conflict: others were in the way; run it again.
    """
    _check_person(by)
    correction = found_correction(ledger, number)
    if correction.state is State.REVERSED and correction.reversed_by == by:
        return correction
    if correction.state is not State.REVERSING:
        _check_reason(reason)
        _check_state(correction, "reversed", State.APPLIED, State.APPLYING)
        check_reversal(ledger, correction)
        _begin_reversing(ledger, number, by, reason)
    finish(ledger, number)
    return found_correction(ledger, number)


def found_correction(ledger: Ledger, number: int) -> Correction:
    """The correction of a number.

    Raises:
        CorrectionError: there is none.
    """
    with ledger.database.read() as connection:
        return find_correction(connection, ledger.common.corrections, number)


def _begin_applying(ledger: Ledger, number: int, by: str) -> None:
    table = ledger.common.corrections
    with ledger.database.write() as connection:
        correction = _locked(connection, ledger, number)
        if correction.state is State.APPLYING:
            return
        _check_state(correction, "approved", State.PROPOSED)
        _refuse_unfinished(connection, ledger, correction)
        refuse_archived(connection, ledger.common, ledger.kinds[correction.kind], correction.selection)
        values = {"decided_by": by, "decided_at": ledger.clock(), "turn": next_turn(connection, table, correction.kind)}
        entry = Entry(
            kind=correction.kind,
            action=f"{correction.action} {number}",
            at=ledger.clock(),
            author=correction.author,
            reason=correction.reason,
        )
        _begin(connection, ledger, correction, State.APPLYING, entry, values)


def _begin_reversing(ledger: Ledger, number: int, by: str, reason: str) -> None:
    with ledger.database.write() as connection:
        correction = _locked(connection, ledger, number)
        if correction.state is State.REVERSING:
            return
        _check_state(correction, "reversed", State.APPLIED, State.APPLYING)
        if correction.state is State.APPLIED:
            _refuse_unfinished(connection, ledger, correction)
        values = {"reversed_by": by, "reversed_at": ledger.clock(), "reversed_reason": reason}
        entry = Entry(kind=correction.kind, action=f"reverse {number}", at=ledger.clock(), author=by, reason=reason)
        _begin(connection, ledger, correction, State.REVERSING, entry, values)


def _begin(  # what changes at once.
    connection: Connection,
    ledger: Ledger,
    correction: Correction,
    state: State,
    entry: Entry,
    values: dict[str, object],
) -> None:
    number = entry_number()
    enter(connection, ledger.common.entries, number, entry)
    nothing = Figures(by=tuple(moved_by(correction)))
    values |= {"figures": nothing} if state is State.APPLYING else {"undone": nothing}
    begun = {"state": str(state), "entry": number, "reached": NOTHING, **values}
    update_correction(connection, ledger.common.corrections, correction.number, **begun)


def _locked(connection: Connection, ledger: Ledger, number: int) -> Correction:
    """The correction; until the end of the transaction nobody decides on it, and nobody writes records of its kind."""
    table = ledger.common.corrections
    correction = find_correction(connection, table, number)
    tables_of(ledger, correction.kind)
    ledger.check(connection, correction.kind, alone=True)
    return find_correction(connection, table, number)


def _check_state(correction: Correction, what: str, *states: State) -> None:
    if correction.state not in states:
        message = f"correction {correction.number} is {correction.state}, and cannot be {what}"
        raise CorrectionError(message)


def _check_person(by: str) -> None:
    if not 0 < len(by.strip()) <= LONGEST_NAME:
        message = f"give the name of who decides, of 1 to {LONGEST_NAME} characters"
        raise CorrectionError(message)


def _check_reason(reason: str) -> None:
    if not 0 < len(reason.strip()) <= LONGEST_REASON:
        message = f"reason: give one of 1 to {LONGEST_REASON} characters; it stays with the correction"
        raise CorrectionError(message)


def _refuse_unfinished(connection: Connection, ledger: Ledger, correction: Correction) -> None:
    others = unfinished_in(connection, ledger.common.corrections, correction.kind)
    if others:
        message = (
            f"correction {others[0]} of {correction.kind} is not finished; finish it first: approve or reverse it again"
        )
        raise CorrectionError(message)
