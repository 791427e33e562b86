"""The ledger: records booked once, exactly, in one transaction a batch; the sink `ledger`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, MetaData, delete, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from accounting.adjustments import Cause, Posting
from accounting.archived_ids import day_of, unpacked
from accounting.arithmetic import Integers
from accounting.arrivals import count_arrivals
from accounting.booking import account_of, beyond_limits
from accounting.dictionary import AT_ONCE, Dictionary, Unnumbered
from accounting.entries import Entry, enter, entry_number
from accounting.migrations.standing import digest_in
from accounting.revising import Revising
from accounting.tables import ENTRY, ID, MESSAGE, PRODUCER, SERIES, CommonTables, KindTables, is_bucketed
from siteward.log import get_logger
from siteward.records import Kind, Refused, Shape
from siteward.server.database import Conflict, Database, Misfit, Values
from siteward.sinks import Batch, Outcome, SinkUnavailable, Written

TRIES: Final = 20
"""How often a transaction that gave way to others is done again before the batch waits."""
PAUSE: Final = 0.02
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
        self.tables = {
            name: KindTables(kind, self.metadata) for name, kind in kinds.items() if kind.shape is not Shape.SNAPSHOT
        }
        self._producers = Dictionary(database, self.common.producers, [None])
        self._series = {
            name: Dictionary(database, tables.series, [column.default for column in _bucketed(tables.kind)])
            for name, tables in self.tables.items()
        }

    def write(self, batch: Batch) -> Written:
        """Book a batch; see the sink contract.

        Raises:
            SinkUnavailable: the database does not answer now, or others were in the way again and again.
        """
        reasons = beyond_limits(batch.kind, batch.columns)
        outcomes = [Outcome.REJECTED if position in reasons else Outcome.DUPLICATE for position in range(len(batch))]
        chosen = _chosen(batch, reasons)
        if chosen:
            written = self._booked(_rows(batch, chosen))
            for place, position in enumerate(chosen):
                outcomes[position] = written.outcomes[place]
            reasons |= {chosen[place]: reason for place, reason in written.reasons.items()}
        return Written(outcomes, reasons)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def _booked(self, batch: Batch) -> Written:
        pause = PAUSE
        for _ in range(TRIES):
            try:
                return _Booking(self, batch).written()
            except Unnumbered as unnumbered:
                self.number_series(batch.kind, unnumbered.rows)
            except (Conflict, IntegrityError) as conflict:
                # Two entries of one number are as unlikely as harmless.
                log.debug("booking again", reason=self.database.told(conflict))
                time.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
                pause = min(2 * pause, 1.0)
            except Misfit as error:
                return self._divided(batch, str(error))
            except SQLAlchemyError as error:
                raise SinkUnavailable(self.database.told(error)) from error
        message = f"other writers were in the way {TRIES} times"
        raise SinkUnavailable(message)

    def _divided(self, batch: Batch, why: str) -> Written:
        """Book the halves of a batch apart, and theirs, until the record that does not fit is alone."""
        if len(batch) == 1:
            return Written([Outcome.REJECTED], {0: _misfit(batch, why)})
        half = len(batch) // 2
        first, second = (self._booked(_rows(batch, part)) for part in (range(half), range(half, len(batch))))
        reasons = {half + place: reason for place, reason in second.reasons.items()}
        return Written(first.outcomes + second.outcomes, first.reasons | reasons)

    def check(self, connection: Connection, kind: str, *, alone: bool = False) -> None:
        """Refuse to touch the tables of a kind where another declaration of it is in force; none is until the end.

        The first thing of every transaction that changes them. With `alone`, no other such transaction of the kind is
        under way, and none begins, until the end. A process that does not know a product would leave it
        out of sums that others believe to be whole, or out of the buckets into which it puts others together.

        Raises:
            SinkUnavailable: they are being changed, or were changed.
        """
        wanted = self.digests.get(kind)
        if wanted is not None and digest_in(connection, kind, mine=alone) != wanted:
            message = (
                f"the ledger's tables of kind {kind!r} are being changed, or were changed for another declaration of "
                "it; if this lasts, start this process again with the declaration in force"
            )
            raise SinkUnavailable(message)

    def series_of(self, kind: Kind, columns: Mapping[str, Sequence[Any]]) -> list[int]:
        """The number of each record's series."""
        rows = list(zip(*(columns[column.name] for column in _bucketed(kind)), strict=True))
        return self._series[kind.name].numbers(rows)

    def known_series(self, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> list[int]:
        """The same for rows of bucketed dimensions, within a transaction.

        Raises:
            accounting.dictionary.Unnumbered: give its rows to `number_series`, and do the transaction again.
        """
        return self._series[kind.name].known(rows)

    def number_series(self, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
        """Number series, in a transaction of its own."""
        self._series[kind.name].numbers(rows)

    def producers_of(self, names: Sequence[str]) -> list[int]:
        """The number of each producer."""
        return self._producers.numbers([(name,) for name in names])


class _Booking:
    """One transaction's work. `batch` holds each id once, in ascending order, and nothing beyond the limits."""

    def __init__(self, ledger: Ledger, batch: Batch) -> None:
        self._ledger = ledger
        self._dialect = ledger.database.dialect
        self._kind = batch.kind
        self._tables = ledger.tables[batch.kind.name]
        self._batch = batch
        self._now = ledger.clock()
        self._entry = entry_number()

    def written(self) -> Written:
        batch, ledger = self._batch, self._ledger
        series = np.array(ledger.series_of(self._kind, batch.columns), np.int64)
        producers = np.array(ledger.producers_of(batch.producers), np.int64)
        fields = {column.name: batch.columns[column.name] for column in self._kind.columns if not is_bucketed(column)}
        rows: dict[str, Values] = {
            ID: batch.ids,
            SERIES: series,
            PRODUCER: producers,
            MESSAGE: batch.messages,
            **fields,
        }
        found = [Outcome.STORED] * len(batch)
        with ledger.database.write() as connection:
            ledger.check(connection, self._kind.name)
            entry = Entry(kind=self._kind.name, action="received", at=self._now)
            enter(connection, ledger.common.entries, self._entry, entry)
            entries = np.full(len(batch), self._entry, np.int64)
            inserted = self._dialect.insert_new(connection, self._tables.records, {**rows, ENTRY: entries})
            reasons: dict[int, Refused] = {}
            changes = Revising(connection, ledger, batch, rows, self._entry).changes(inserted, found, reasons)
            reasons |= self._archived(connection, found)
            new = np.array([outcome is Outcome.STORED for outcome in found])
            if new.any():
                columns = fields if new.all() else {name: _picked(values, new) for name, values in fields.items()}
                changes.append((Cause.LATE, account_of(self._kind, columns, series[new])))
            posting = Posting(
                connection,
                self._dialect,
                self._tables,
                ledger.common.periods,
                ledger.common.summed,
                now=self._now,
                entry=self._entry,
            )
            posting.post(changes)
            self._count(connection, producers, found)
        return Written(found, reasons)

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
        archived, records = self._ledger.common.archived, self._tables.records
        place_of = {
            identifier: place for place, identifier in enumerate(self._batch.ids) if found[place] is Outcome.STORED
        }
        of_days = archived.c.day.in_({day_of(identifier) for identifier in place_of})
        question = select(archived.c.file, archived.c.ids).where(archived.c.kind == self._kind.name, of_days)
        reasons: dict[int, Refused] = {}
        again: list[bytes] = []
        for file, ids in connection.execute(question):
            revisions = unpacked(bytes(ids))
            for identifier in place_of.keys() & revisions.keys():
                place = place_of[identifier]
                again.append(identifier)
                found[place] = Outcome.DUPLICATE
                if self._batch.columns["revision"][place] > revisions[identifier]:
                    found[place] = Outcome.REJECTED
                    reason = f"the older revision is archived in {file}; restore that file, then replay this one"
                    reasons[place] = Refused(reason, kind=self._kind.name, field="revision")
        for first in range(0, len(again), AT_ONCE):
            connection.execute(delete(records).where(records.c[ID].in_(again[first : first + AT_ONCE])))
        return reasons


def _bucketed(kind: Kind) -> list[Any]:
    return [column for column in kind.columns if is_bucketed(column)]


def _chosen(batch: Batch, refused: Mapping[int, object]) -> list[int]:
    """Positions of the newest revision of each id, in ascending order of the ids."""
    best: dict[bytes, int] = {}
    revisions = batch.columns["revision"]
    for position, identifier in enumerate(batch.ids):
        if position in refused:
            continue
        other = best.setdefault(identifier, position)
        if revisions[position] > revisions[other]:
            best[identifier] = position
    return [best[identifier] for identifier in sorted(best)]


def _rows(batch: Batch, positions: Sequence[int]) -> Batch:
    if positions == list(range(len(batch))):
        return batch
    return Batch(
        kind=batch.kind,
        ids=[batch.ids[i] for i in positions],
        columns={name: [values[i] for i in positions] for name, values in batch.columns.items()},
        producers=[batch.producers[i] for i in positions],
        messages=[batch.messages[i] for i in positions],
        received=batch.received,
    )


def _misfit(batch: Batch, why: str) -> Refused:
    """Why one record cannot be booked; its largest measure is the likeliest to be at fault."""
    amounts = account_of(batch.kind, batch.columns, np.zeros(1, np.int64)).amounts
    field = max(amounts, key=lambda name: abs(int(amounts[name][0])), default="")
    value = int(amounts[field][0]) if field else ""
    reason = f"does not fit into the ledger, or into what is booked in its bucket already ({why})"
    return Refused(reason, kind=batch.kind.name, field=field, value=value)


def _picked(values: Sequence[Any], which: Any) -> list[Any]:  # noqa: ANN401  # an array of truth values.
    return [value for value, is_wanted in zip(values, which.tolist(), strict=True) if is_wanted]
