"""Buckets computed anew from their records while writing goes on: what is missing is added, some days at a time.

A portion of days is compared within one state of the database, and what is missing is added in one transaction with the
note of how far this rebuild has come. Whatever others book meanwhile is added to the same rows, and so neither lost nor
counted twice. Two processes that rebuild one kind share its portions: who finds the note moved on adds nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, select, update

from accounting import LedgerError
from accounting.archive.archive_reading import ArchiveReading
from accounting.booking.buckets import SECOND
from accounting.checks.recount import KEYS, Recount, Slice, extent, recount, slices
from accounting.checks.verifying import Scope, untold
from accounting.ledger import Ledger
from accounting.tables import KindTables
from accounting.upkeep.month_marks import forget_months
from accounting.upkeep.rebuilt import Rebuilt
from accounting.upkeep.snapshot_rebuild import rebuild_snapshots
from siteward.log import get_logger
from siteward.records import moment
from siteward.server.database import Conflict

TRIES: Final = 10
log = get_logger(__name__)


class _Run(msgspec.Struct, frozen=True):
    """A rebuild under way; its number is its own."""

    number: int
    first: int
    last: int
    until: int


def rebuild(ledger: Ledger, scope: Scope) -> Iterator[Rebuilt]:
    """Make buckets what their records come to.

    It may be killed at any moment: called again for the same days it goes on where it was.

    Args:
        ledger: whose.
        scope: which kinds and days, and where the archive is.

    Yields:
        Each portion of days when it is done.

    Raises:
        LedgerError: another rebuild of a kind is under way, of other days.
        siteward.server.database.Conflict: others were in the way again and again.
    """
    for tables in scope.tables(ledger):
        yield from _Rebuilding(ledger, tables, scope).portions()
    for snapshots in scope.snapshots(ledger):
        yield from rebuild_snapshots(ledger, snapshots, scope)


class _Rebuilding:
    """The rebuild of one kind."""

    def __init__(self, ledger: Ledger, tables: KindTables, scope: Scope) -> None:
        self._ledger = ledger
        self._tables = tables
        self._kind = tables.kind.name
        self._scope = scope
        self._reading = ArchiveReading(ledger, scope.folder)
        self._marks = ledger.common.rebuilds

    def portions(self) -> Iterator[Rebuilt]:
        run = self._present()
        if run is not None:
            yield from self._finished(run)
        with self._ledger.database.read() as connection:
            whole = self._scope.whole(partial(extent, connection, self._tables, self._reading))
        for days in _without(whole, None if run is None else Slice(run.first, run.last)):
            self._begin(days)
            yield from self._finished(self._present())

    def _finished(self, run: _Run | None) -> Iterator[Rebuilt]:
        """The portions that are left of a rebuild, those aside that another process does meanwhile."""
        while run is not None:
            with self._ledger.database.read() as connection:
                # Note and days of one state: a note that was moved on since then is noticed when this one moves it.
                run = self._run(connection)
                if run is None:
                    return
                days = next(slices(connection, self._tables, Slice(run.until, run.last)))
                found = recount(connection, self._ledger, self._tables, self._reading, days)
            if self._settled(run, days, found):
                changed = sum(map(len, found.tables))
                missing = tuple(untold(self._kind, found.left_out, found.unreadable))
                yield Rebuilt(self._kind, days.first, days.last, found.records, changed, missing)

    def _present(self) -> _Run | None:
        with self._ledger.database.read() as connection:
            return self._run(connection)

    def _run(self, connection: Connection) -> _Run | None:
        marks = self._marks
        wanted = select(*(marks.c[name] for name in _Run.__struct_fields__)).where(marks.c.kind == self._kind)
        row = connection.execute(wanted).one_or_none()
        run = None if row is None else _Run(*row)
        if run is not None:
            self._refuse_other(run)
        return run

    def _refuse_other(self, run: _Run) -> None:
        mine = self._scope.days(Slice(run.first, run.last))
        if mine != Slice(run.first, run.last):
            first, last = (moment(day * SECOND).date().isoformat() for day in (run.first, run.last))
            message = (
                f"kind {self._kind!r} is being rebuilt from {first} to {last}, or was when that process died; "
                f"finish it first: siteward ledger rebuild {self._kind} --start {first} --end {last}"
            )
            raise LedgerError(message)

    def _begin(self, days: Slice) -> None:
        """Leave a note, unless there is one."""
        row: dict[str, Any] = {"kind": [self._kind], "number": [secrets.randbelow(2**62)]}
        row |= {"first": [days.first], "last": [days.last], "until": [days.first]}
        with self._ledger.database.write() as connection:
            self._ledger.database.dialect.insert_new(connection, self._marks, row)

    def _settled(self, run: _Run, days: Slice, found: Recount) -> bool:
        """Add what is missing, and move the note on; false where another process did so."""
        for _ in range(TRIES):
            try:
                with self._ledger.database.write() as connection:
                    self._ledger.check(connection, self._kind)
                    if not self._moved_on(connection, run, days.last):
                        return False
                    for buckets, _ in self._tables.months:
                        forget_months(connection, self._ledger.common.summed, buckets, days.days)
                    for each in found.tables:
                        if len(each):
                            keys = {name: each.keys[name] for name in KEYS}
                            self._ledger.database.dialect.accumulate(
                                connection, each.table, keys, _listed(each.missing)
                            )
            except Conflict as conflict:
                log.debug("adding again", reason=str(conflict))
                time.sleep(0.05)
            else:
                return True
        message = f"other writers were in the way {TRIES} times"
        raise Conflict(message)

    def _moved_on(self, connection: Connection, run: _Run, until: int) -> bool:
        marks = self._marks
        mine = (marks.c.kind == self._kind) & (marks.c.number == run.number) & (marks.c.until == run.until)
        change = update(marks).values(until=until) if until < run.last else delete(marks)
        return connection.execute(change.where(mine)).rowcount == 1


def _listed(columns: dict[str, Any]) -> dict[str, list[int]]:
    """Python's integers: beyond 64 bits the database says that they do not fit."""
    return {name: [int(value) for value in values] for name, values in columns.items()}


def _without(whole: Slice | None, done: Slice | None) -> list[Slice]:
    """What is left of some days when others are done."""
    if whole is None or done is None:
        return [whole] if whole else []
    parts = (Slice(whole.first, min(whole.last, done.first)), Slice(max(whole.first, done.last), whole.last))
    return [part for part in parts if part.first < part.last]
