"""The ledger: records booked once, exactly, in one transaction a batch; the sink `ledger`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, MetaData, delete, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from accounting.archive.archived_files import archived_days, beside, nearest_files
from accounting.archive.archived_ids import day_of, revisions_among
from accounting.booking.adjustments import Cause, Posting
from accounting.booking.arithmetic import Integers
from accounting.booking.books import Arrived, Books
from accounting.booking.buckets import pieces_of, tiers_at
from accounting.booking.dictionary import AT_ONCE, Unnumbered
from accounting.booking.differing import differing_within, tell_differing
from accounting.booking.entries import Entry, enter, entry_number
from accounting.booking.limits import beyond_limits
from accounting.booking.numbers import Numbers
from accounting.booking.parted import Parted
from accounting.booking.parts import enter_part, newest_of
from accounting.booking.postings import account_of, amounts_of
from accounting.booking.revising import Revised, Revising
from accounting.booking.rows import account_of_rows
from accounting.completeness.arrivals import count_arrivals
from accounting.migrations.standing import digest_in
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import (
    COUNTER,
    ENTRY,
    ID,
    MESSAGE,
    PRODUCER,
    SERIES,
    CommonTables,
    KindTables,
    is_bucketed,
    times_of,
)
from siteward.log import get_logger
from siteward.records import Kind, Refused
from siteward.server.database import Conflict, Database, Misfit, Values
from siteward.sinks import Batch, Outcome, SinkUnavailable, Written

TRIES: Final = 20
"""How often a transaction that gave way to others is done again before the batch waits."""
PAUSE: Final = 0.02
MOST_PIECES: Final = 2_000_000
"""Parts of records in buckets that one transaction books; a batch of jobs of days has fewer."""
log = get_logger(__name__)


class Ledger:
    """Books batches. Any number of processes may do so at once, and any may be killed at any moment.

    A batch is one transaction: records whose id is new, the records that a newer revision replaces, and what both
    change in the buckets.
    """

    def __init__(
        self,
        database: Database,
        kinds: Mapping[str, Kind],
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        digests: Mapping[str, bytes] | None = None,
    ) -> None:
        """Name the tables.

        Args:
            database: where they are.
            kinds: that are booked.
            clock: the present instant, microseconds since 1970 UTC.
            digests: by kind, what its tables have to mean for a batch to be booked (`accounting.migrations.prepare`);
                None books without a look.
        """
        self.digests = {} if digests is None else digests
        self.database = database
        self.clock = clock
        self.metadata = MetaData()
        self.common = CommonTables(self.metadata)
        self.kinds = dict(kinds)
        self.tables = {name: KindTables(kind, self.metadata) for name, kind in kinds.items() if not kind.of_instants}
        self.snapshots = {name: SnapshotTables(kind, self.metadata) for name, kind in kinds.items() if kind.of_instants}
        self.numbers = Numbers(database, self.common, {**self.tables, **self.snapshots})

    @property
    def all_tables(self) -> tuple[Tables, ...]:
        """The tables of every kind."""
        return *self.tables.values(), *self.snapshots.values()

    def tables_of(self, kind: str) -> Tables:
        """The tables of a kind, whatever it is of."""
        return self.tables[kind] if kind in self.tables else self.snapshots[kind]

    def write(self, batch: Batch) -> Written:
        """Book a batch; see the sink contract.

        Raises:
            SinkUnavailable: the database does not answer now, or others were in the way again and again.
        """
        reasons = beyond_limits(batch.kind, batch.columns)
        outcomes = [Outcome.REJECTED if position in reasons else Outcome.DUPLICATE for position in range(len(batch))]
        written = Written(outcomes, reasons)
        newest = newest_of(batch, reasons)
        for chosen in self._portions(batch, newest):
            enter_part(written, chosen, self._booked(batch.part(chosen)))
        tell_differing(batch, differing_within(batch, newest, reasons))
        return written

    def _portions(self, batch: Batch, chosen: Sequence[int]) -> list[Sequence[int]]:
        """Positions, so many at a time that what one transaction books fits into memory, even if each lasts years."""
        kind = batch.kind
        if kind.longest is None or not chosen:
            return [chosen] if chosen else []
        first, last = (kind.since, kind.time) if kind.since else times_of(kind)
        starts, ends = (np.array([batch.columns[name][place] for place in chosen], np.int64) for name in (first, last))
        pieces = pieces_of(np.minimum(starts, ends), ends, tiers_at(self.clock(), kind.tiers))
        portion = np.cumsum(pieces) // MOST_PIECES
        return [[chosen[place] for place in np.flatnonzero(portion == each).tolist()] for each in np.unique(portion)]

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def _booked(self, batch: Batch) -> Written:
        pause = PAUSE
        for _ in range(TRIES):
            try:
                return _Booking(self, batch).written()
            except Unnumbered as unnumbered:
                self.numbers.number_series(batch.kind, unnumbered.rows)
            except (Conflict, IntegrityError) as conflict:
                # Two entries of one number are as unlikely as harmless.
                log.debug("booking again", reason=self.database.told(conflict))
                time.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
                pause = min(2 * pause, 1.0)
            except Misfit as error:
                return self._divided(batch, str(error))
            except Parted as parted:
                return self._without(batch, parted)
            except SQLAlchemyError as error:
                raise SinkUnavailable(self.database.told(error)) from error
        message = f"other writers were in the way {TRIES} times"
        raise SinkUnavailable(message)

    def _divided(self, batch: Batch, why: str) -> Written:
        """Book the halves of a batch apart, and theirs, until the record that does not fit is alone."""
        if len(batch) == 1:
            return Written([Outcome.REJECTED], {0: _misfit(batch, why)})
        half = len(batch) // 2
        written = Written([Outcome.REJECTED] * len(batch))
        for part in (range(half), range(half, len(batch))):
            enter_part(written, part, self._booked(batch.part(part)))
        return written

    def _without(self, batch: Batch, parted: Parted) -> Written:
        """Book a batch without the records of counters that would change what is archived."""
        written = Written([Outcome.REJECTED] * len(batch))
        rest = [place for place, identifier in enumerate(batch.ids) if identifier not in parted.missing]
        archived, kind = self.common.archived, batch.kind
        with self.database.read() as connection:
            for place, identifier in enumerate(batch.ids):
                if identifier in parted.missing:
                    files = nearest_files(connection, archived, kind.name, parted.missing[identifier])
                    reason = f"{beside(files)}; restore that first, then replay this one"
                    written.reasons[place] = Refused(reason, kind=kind.name, field=kind.time)
        if rest:
            enter_part(written, rest, self._booked(batch.part(rest)))
        return written

    def check(self, connection: Connection, kind: str, *, alone: bool = False, life: int | None = None) -> None:
        """Refuse to touch the tables of a kind where another declaration of it is in force; none is until the end.

        The first thing of every transaction that changes them. With `alone`, no other such transaction of the kind is
        under way, and none begins, until the end. With `life`, numbers are used that were read after that of `numbers`
        was. A process that does not know a product would leave it
        out of sums that others believe to be whole, or out of the buckets into which it puts others together.

        Raises:
            SinkUnavailable: they are being changed, or were changed.
            accounting.booking.numbers.Lost: the database was put back meanwhile. Do it again.
        """
        self.numbers.refuse_lost(connection, life)
        wanted = self.digests.get(kind)
        if wanted is not None and digest_in(connection, kind, mine=alone) != wanted:
            message = (
                f"the ledger's tables of kind {kind!r} are being changed, or were changed for another declaration of "
                "it; if this lasts, start this process again with the declaration in force"
            )
            raise SinkUnavailable(message)

    def locked_by(self, kind: Kind, rows: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> list[int]:
        """The numbers that `accounting.booking.books.Books.lock` wants of records."""
        if kind.of_instants:
            return self.numbers.producers_of(sorted(set(columns["producer"])))
        return np.unique(rows[COUNTER]).tolist() if kind.since else []


class _Booking:
    """One transaction's work. `batch` holds each id once, in ascending order, and nothing beyond the limits."""

    def __init__(self, ledger: Ledger, batch: Batch) -> None:
        self._ledger = ledger
        self._dialect = ledger.database.dialect
        self._kind = batch.kind
        self._tables = ledger.tables_of(batch.kind.name)
        self._batch = batch
        self._now = ledger.clock()
        self._entry = entry_number()

    def written(self) -> Written:
        batch, ledger = self._batch, self._ledger
        life = ledger.numbers.life
        series = np.array(ledger.numbers.series_of(self._kind, batch.columns), np.int64)
        producers = np.array(ledger.numbers.producers_of(batch.producers), np.int64)
        fields = {column.name: batch.columns[column.name] for column in self._kind.columns if not is_bucketed(column)}
        rows: dict[str, Values] = {
            ID: batch.ids,
            SERIES: series,
            PRODUCER: producers,
            MESSAGE: batch.messages,
            **fields,
        }
        if self._kind.since:
            rows[COUNTER] = np.array(ledger.numbers.counters_of(self._kind, batch.columns), np.int64)
        found = [Outcome.STORED] * len(batch)
        numbers = ledger.locked_by(self._kind, rows, batch.columns)
        with ledger.database.write() as connection:
            ledger.check(connection, self._kind.name, life=life)
            books = Books(connection, self._dialect, self._tables, ledger.common)
            books.lock(numbers)
            rows |= books.foreseen(rows)
            entry = Entry(kind=self._kind.name, action="received", at=self._now)
            enter(connection, ledger.common.entries, self._entry, entry)
            entries = np.full(len(batch), self._entry, np.int64)
            inserted = self._dialect.insert_new(connection, self._tables.records, {**rows, ENTRY: entries})
            reasons: dict[int, Refused] = {}
            revising = Revising(connection, ledger, batch, rows, self._entry)
            revised = revising.revised(inserted, found, reasons)
            reasons |= self._archived(connection, found)
            if books.are_needed:
                self._book(connection, books, rows, revised, found)
            else:
                self._post(connection, rows, revised, found)
            self._count(connection, producers, found)
        ledger.numbers.settle(self._entry)
        tell_differing(batch, revising.differing)
        return Written(found, reasons)

    def _post(
        self, connection: Connection, rows: Mapping[str, Any], revised: Revised, found: Sequence[Outcome]
    ) -> None:
        """Add what new records, and newer revisions, change."""
        pairs = ((revised.old, -1), (revised.new, 1))
        changes = [(Cause.REVISION, account_of_rows(self._kind, some, sign)) for some, sign in pairs if some]
        new = np.array([outcome is Outcome.STORED for outcome in found])
        if new.any():
            columns = rows if new.all() else {name: _picked(rows[name], new) for name in rows}
            series = np.array(columns[SERIES], np.int64)
            changes.append((Cause.LATE, account_of(self._kind, columns, series)))
        self._posting(connection, self._ledger.tables[self._kind.name]).post(changes)

    def _book(
        self,
        connection: Connection,
        books: Books,
        rows: Mapping[str, Any],
        revised: Revised,
        found: Sequence[Outcome],
    ) -> None:
        """The same where a record's part depends on others."""
        new = np.array([outcome is Outcome.STORED for outcome in found])
        columns = rows if new.all() else {name: _picked(values, new) for name, values in rows.items()}
        columns = {name: [*values, *(row[name] for row in revised.new)] for name, values in columns.items()}
        if columns[ID]:
            arrived = Arrived(columns[ID], columns, np.array(columns[SERIES], np.int64), self._entry)
            posting = self._posting(connection, self._tables) if isinstance(self._tables, KindTables) else None
            books.post(arrived, revised.old, self._now, posting)

    def _posting(self, connection: Connection, tables: KindTables) -> Posting:
        common = self._ledger.common
        return Posting(
            connection,
            self._dialect,
            tables,
            common.periods,
            common.summed,
            now=self._now,
            entry=self._entry,
        )

    def _count(self, connection: Connection, producers: Integers, found: Sequence[Outcome]) -> None:
        """Note what came of whom, last of all, so that the rows that writers share are held as short as can be."""
        new = np.array([outcome is Outcome.STORED for outcome in found])
        if new.any():
            ids, arrivals = _picked(self._batch.ids, new), self._ledger.common.arrivals
            count_arrivals(connection, self._dialect, arrivals, self._kind.name, ids, producers[new], self._now)

    def _archived(self, connection: Connection, found: list[Outcome]) -> dict[int, Refused]:
        """Take back what was inserted though it is in the archive; why newer revisions of archived records wait.

        Looked at after the insertion, which waits for an archiving transaction that takes the same records out.
        """
        archived, records, name = self._ledger.common.archived, self._tables.records, self._kind.name
        place_of, by_day = self._inserted(archived_days(connection, archived, name, self._batch.ids), found)
        if not place_of:
            return {}
        columns = archived.c.file, archived.c.day, archived.c.ids
        question = select(*columns).where(archived.c.kind == name, archived.c.day.in_(by_day))
        reasons: dict[int, Refused] = {}
        again: list[bytes] = []
        for file, day, ids in connection.execute(question):
            revisions = revisions_among(bytes(ids), by_day[day])
            if self._kind.of_instants:
                # What was last or least cannot be told without the others of the day.
                for identifier in by_day[day]:
                    place = place_of[identifier]
                    # It may be in another file of the day.
                    if identifier not in revisions and found[place] is Outcome.STORED:
                        again.append(identifier)
                        found[place] = Outcome.REJECTED
                        reason = f"its day is archived in {file}; restore that file, then replay this one"
                        reasons[place] = Refused(reason, kind=self._kind.name, field=self._kind.time)
            for identifier in revisions:
                place = place_of[identifier]
                again.append(identifier)
                found[place] = Outcome.DUPLICATE
                reasons.pop(place, None)
                if self._batch.columns["revision"][place] > revisions[identifier]:
                    found[place] = Outcome.REJECTED
                    reason = f"the older revision is archived in {file}; restore that file, then replay this one"
                    reasons[place] = Refused(reason, kind=self._kind.name, field="revision")
        for first in range(0, len(again), AT_ONCE):
            connection.execute(delete(records).where(records.c[ID].in_(again[first : first + AT_ONCE])))
        return reasons

    def _inserted(self, days: set[int], found: Sequence[Outcome]) -> tuple[dict[bytes, int], dict[int, list[bytes]]]:
        """Where new records of some days stand in the batch, and which they are by day."""
        place_of: dict[bytes, int] = {}
        by_day: dict[int, list[bytes]] = {}
        if not days:
            return place_of, by_day
        for place, identifier in enumerate(self._batch.ids):
            if found[place] is Outcome.STORED and (day := day_of(identifier)) in days:
                place_of[identifier] = place
                by_day.setdefault(day, []).append(identifier)
        return place_of, by_day


def _misfit(batch: Batch, why: str) -> Refused:
    """Why one record cannot be booked; its largest measure is the likeliest to be at fault."""
    amounts, _ = amounts_of(batch.kind, batch.columns)
    field = max(amounts, key=lambda name: abs(int(amounts[name][0])), default="")
    value = int(amounts[field][0]) if field else ""
    reason = f"does not fit into the ledger, or into what is booked in its bucket already ({why})"
    return Refused(reason, kind=batch.kind.name, field=field, value=value)


def _picked(values: Any, which: Any) -> Any:  # noqa: ANN401  # arrays, and lists.
    if isinstance(values, np.ndarray):
        return values[which]
    return [value for value, is_wanted in zip(values, which.tolist(), strict=True) if is_wanted]
