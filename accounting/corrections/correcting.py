"""Corrections applied and taken back: some records in each transaction, so that it may be killed, and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, select

from accounting.booking.adjustments import Cause, Posting
from accounting.booking.books import Booked, Books
from accounting.booking.counters import Change, Counters, spots_of
from accounting.booking.dictionary import Unnumbered
from accounting.booking.limits import every_excess
from accounting.booking.rows import Row, put_rows, remove_rows, replace_rows, rows_of
from accounting.corrections.correction import (
    UNFINISHED,
    Action,
    Correction,
    CorrectionError,
    Draft,
    State,
    corrected,
    layer_of,
    series_row,
)
from accounting.corrections.correction_table import NOTHING, find_correction, update_correction
from accounting.corrections.figures import Differences
from accounting.corrections.originals import originals_of
from accounting.corrections.selecting import refuse_archived_ids, refused_beside_archived, selected_rows
from accounting.ledger import Ledger
from accounting.snapshot_tables import Tables
from accounting.tables import CORRECTION, ENTRY, ID, SERIES, KindTables
from siteward.log import get_logger
from siteward.records import Kind, Refused
from siteward.server.database import Columns, Conflict, Misfit

PRODUCER_FIELD: Final = "producer"
AT_ONCE: Final = 2_000
"""Records of one transaction; whoever books the kind waits meanwhile."""
SNAPSHOTS_AT_ONCE: Final = 20_000
"""Snapshots of one transaction, which makes the days of their series anew."""
TRIES: Final = 20
log = get_logger(__name__)


def finish(ledger: Ledger, number: int) -> None:
    """Go on with a correction that was begun, until it is applied or reversed.

    It may be killed at any moment, and any number of processes may be at it at once.

    Raises:
        CorrectionError: a record is in the way, or archived; the correction stays where it is.
        siteward.server.database.Conflict: others were in the way again and again.
    """
    with ledger.database.read() as connection:
        correction = find_correction(connection, ledger.common.corrections, number)
    if PRODUCER_FIELD in correction.given:
        # What snapshots were looked at by is numbered.
        ledger.numbers.producers_of([str(correction.given[PRODUCER_FIELD])])
    while correction.state in UNFINISHED:
        correction = _again(ledger, correction, lambda: _step(ledger, number))


def at_once_of(kind: Kind) -> int:
    """Records of one transaction."""
    return SNAPSHOTS_AT_ONCE if kind.of_instants else AT_ONCE


def tables_of(ledger: Ledger, kind: str) -> Tables:
    """The tables of a kind.

    Raises:
        CorrectionError: the ledger does not book it, or not any more.
    """
    if kind not in ledger.kinds:
        message = f"kind {kind!r} is not booked by this installation; there are {', '.join(ledger.kinds)}"
        raise CorrectionError(message)
    return ledger.tables_of(kind)


def check_reversal(ledger: Ledger, correction: Correction) -> None:
    """Refuse to reverse what could not be reversed to the end.

    Raises:
        CorrectionError: records are archived, or would be beyond limits without it.
    """
    tables = tables_of(ledger, correction.kind)
    with ledger.database.read() as connection:
        reached = NOTHING
        while ids := members(connection, tables, correction.number, reached):
            refuse_archived_ids(connection, ledger.common, tables.kind, ids)
            originals = originals_of(connection, ledger.common, tables, ids).values()
            rows = [each.over(each.row, without=correction.number) for each in originals]
            new = [row for row in rows if row is not None]
            refuse_large(tables.kind, new, [each.row for each in originals])
            if isinstance(tables, KindTables) and tables.kind.since:
                present = list(rows_of(connection, tables, tables.records, ids).values())
                with refused_beside_archived(connection, ledger.common, tables.kind):
                    foreseen_change(connection, tables, present, new)
            reached = ids[-1]


def foreseen_change(connection: Connection, tables: KindTables, old: Sequence[Row], new: Sequence[Row]) -> Change:
    """What counts of counters would change if records, whole, took the place of others; nothing is written.

    Raises:
        accounting.booking.parted.Parted: archived ones would have to change.
    """
    over: dict[bytes, Row | None] = {bytes(row[ID]): None for row in old} | {bytes(row[ID]): row for row in new}
    fresh = {bytes(row[ID]) for row in new}
    return Counters(connection, tables).change(fresh, spots_of(tables.kind, [*old, *new]), old, over)


def members(connection: Connection, tables: Tables, number: int, after: bytes) -> list[bytes]:
    """Some of the records that a correction lies over, in order of their ids."""
    table = tables.corrected
    mine = (table.c[CORRECTION] == number) & (table.c[ID] > after)
    chosen = select(table.c[ID]).where(mine).order_by(table.c[ID]).limit(at_once_of(tables.kind))
    return [bytes(each) for each in connection.execute(chosen).scalars()]


def _step(ledger: Ledger, number: int) -> Correction:
    """One transaction's part; the correction as it is then."""
    table = ledger.common.corrections
    with ledger.database.write() as connection:
        kind = connection.execute(select(table.c.kind).where(table.c.number == number)).scalar_one()
        ledger.check(connection, kind, alone=True)
        correction = find_correction(connection, table, number)
        if correction.state in UNFINISHED:
            step = _Slice(connection, ledger, correction)
            (step.apply if correction.state is State.APPLYING else step.reverse)()
        return find_correction(connection, table, number)


def _again(ledger: Ledger, correction: Correction, act: Callable[[], Correction]) -> Correction:
    for _ in range(TRIES):
        try:
            return act()
        except Unnumbered as unnumbered:
            ledger.numbers.number_series(ledger.kinds[correction.kind], unnumbered.rows)
        except Misfit as error:
            message = f"a sum of correction {correction.number} does not fit into its bucket ({error}); {_WAY_BACK}"
            raise CorrectionError(message) from error
        except Conflict as conflict:
            log.debug("correcting again", reason=str(conflict))
            time.sleep(0.05)
    message = f"other writers were in the way {TRIES} times; run it again"
    raise Conflict(message)


_WAY_BACK: Final = "`siteward ledger reverse` takes back what it has done"


class _Slice:
    """One transaction's part of a correction. Nobody else writes records of the kind until it ends."""

    def __init__(self, connection: Connection, ledger: Ledger, correction: Correction) -> None:
        self._connection = connection
        self._ledger = ledger
        self._dialect = ledger.database.dialect
        self._tables = tables_of(ledger, correction.kind)
        self._kind = self._tables.kind
        self._correction = correction
        self._layer = layer_of(correction.action, correction.given)

    def apply(self) -> None:
        """Lay the correction over the next records that it selects."""
        number, tables = self._correction.number, self._tables
        at_once = at_once_of(self._kind)
        old = selected_rows(self._connection, tables, self._correction.selection, self._correction.reached, at_once)
        new = self._numbered([corrected(row, [self._layer]) for row in old])
        self._refuse_large(new, old)
        # The ones that another correction lies over have theirs already.
        put_rows(self._connection, self._dialect, tables.originals, old)
        ids = [bytes(row[ID]) for row in old]
        if ids:
            over: Columns = {CORRECTION: np.full(len(ids), number, np.int64), ID: ids}
            self._dialect.insert_new(self._connection, tables.corrected, over)
        remove_rows(self._connection, tables.records, [bytes(row[ID]) for row in old if self._layer.is_void])
        changed = [row for row in new if row is not None]
        replace_rows(self._connection, tables.records, changed)
        self._note(ids, self._post(old, changed, Cause.CORRECTION), State.APPLIED)

    def reverse(self) -> None:
        """Take the correction off the next records that it lies over."""
        number, tables = self._correction.number, self._tables
        ids = members(self._connection, tables, number, self._correction.reached)
        originals = originals_of(self._connection, self._ledger.common, tables, ids)
        present = rows_of(self._connection, tables, tables.records, ids)
        gone = [each for each in ids if each not in present and not originals[each].is_void]
        concerned = ids if self._kind.of_instants else gone
        refuse_archived_ids(self._connection, self._ledger.common, self._kind, concerned)
        bare = {each for each in ids if len(originals[each].layers) == 1}
        under = self._numbered([originals[each].over(originals[each].row, without=number) for each in ids])
        self._refuse_large(under, [each.row for each in originals.values()])
        # As it came, its entry included, where no other correction lies over it.
        after = {each: originals[each].row if each in bare else row for each, row in zip(ids, under, strict=True)}
        replace_rows(self._connection, tables.records, [row for each, row in after.items() if row and each in present])
        back = [row for each, row in after.items() if row and each not in present]
        put_rows(self._connection, self._dialect, tables.records, back)
        remove_rows(self._connection, tables.originals, sorted(bare))
        mine = tables.corrected.c[CORRECTION] == number
        for first in range(0, len(ids), AT_ONCE):
            some = tables.corrected.c[ID].in_(ids[first : first + AT_ONCE])
            self._connection.execute(tables.corrected.delete().where(mine, some))
        new = [row for row in after.values() if row is not None]
        self._note(ids, self._post(list(present.values()), new, Cause.REVERSAL), State.REVERSED)

    def _numbered(self, rows: Sequence[Row | None]) -> list[Row | None]:
        """Corrected records with the number of their series, and the entry that made them so."""
        counted = [series_row(self._kind, row) for row in rows if row is not None]
        series = iter(self._ledger.numbers.known_series(self._kind, counted))
        return [None if row is None else {**row, SERIES: next(series), ENTRY: self._correction.entry} for row in rows]

    def _refuse_large(self, rows: Sequence[Row | None], before: Sequence[Row]) -> None:
        refuse_large(self._kind, [row for row in rows if row is not None], before, self._correction.number)

    def _post(self, old: Sequence[Row], new: Sequence[Row], cause: Cause) -> Booked:
        common, tables, now = self._ledger.common, self._tables, self._ledger.clock()
        posting = None
        if isinstance(tables, KindTables):
            posting = Posting(
                self._connection,
                self._dialect,
                tables,
                common.periods,
                common.summed,
                now=now,
                entry=self._correction.entry,
            )
        books = Books(self._connection, self._dialect, tables, common)
        with refused_beside_archived(self._connection, common, self._kind):
            return books.correct(old, new, now, cause, posting)

    def _note(self, ids: Sequence[bytes], booked: Booked, done: State) -> None:
        """How far it is, and what it has changed until now."""
        correction = self._correction
        name, before = ("figures", correction.figures) if done is State.APPLIED else ("undone", correction.undone)
        added = Differences(self._kind, moved_by(correction), before)
        added.add(booked.old, booked.new, len(ids))
        values: dict[str, Any] = {name: added.figures(), "reached": ids[-1] if ids else correction.reached}
        if len(ids) < at_once_of(self._kind):
            values["state"] = str(done)
        update_correction(self._connection, self._ledger.common.corrections, correction.number, **values)


def refuse_large(kind: Kind, rows: Sequence[Row], before: Sequence[Row], number: int | None = None) -> None:
    """Refuse to make a record what nobody would book.

    Args:
        kind: of the records.
        rows: as they would be.
        before: these and maybe others, as they were booked. What was beyond a limit then is not what a correction
            makes of them: the limit has come since, and whoever mends something else need not know of it.
        number: of the correction, where it is under way.

    Raises:
        CorrectionError: it names the record, the field and the limit.
    """
    found = _excesses(kind, rows)
    if found:
        known = _excesses(kind, before)
        found = {spot: refused for spot, refused in found.items() if spot not in known}
    for (identifier, *_), refused in found.items():
        way = f"; {_WAY_BACK}" if number else ""
        message = f"record {identifier.hex()} would not be booked so: {refused}{way}"
        raise CorrectionError(message)


def _excesses(kind: Kind, rows: Sequence[Row]) -> dict[tuple[bytes, str, str], Refused]:
    """What is beyond limits, by record, what the kind says against it, and the value."""
    columns = {name: [row[name] for row in rows] for name in kind.names}
    rules = every_excess(kind, columns) if rows else {}
    return {
        (bytes(rows[position][ID]), rule, refused.value): refused
        for rule, excesses in rules.items()
        for position, refused in excesses
    }


def moved_by(correction: Draft) -> list[str]:
    """The dimensions by whose values its differences are told apart."""
    return [*correction.given] if correction.action is Action.MOVE else []
