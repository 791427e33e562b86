"""The store on DuckDB, as the one process that owns its file runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import pyarrow as pa

from monitoring.stores import StoreError
from monitoring.stores.answers import answer_of
from monitoring.stores.batches import newest
from monitoring.stores.duckdb.arrow import UNFIT, arrow_table, id_ranges, unfit_field
from monitoring.stores.duckdb.conditions import Conditions
from monitoring.stores.duckdb.connections import Connections, registered
from monitoring.stores.duckdb.rows import record_of
from monitoring.stores.duckdb.statements import (
    Statement,
    forget_statement,
    question,
    records_statement,
    values_statement,
)
from monitoring.stores.duckdb.tables import insert_statement, match_statement, outdate_statement
from monitoring.stores.questions import (
    check_filters,
    check_ids,
    check_limit,
    check_query,
    known_dimension,
    known_kind,
    utc,
)
from siteward.query import Answer, Filter, Query, QueryError, StoredRecord
from siteward.records import Kind, Refused
from siteward.settings import MonitoringSettings
from siteward.sinks import Batch, Outcome, SinkUnavailable, Written


class DuckStore:
    """A Store in a DuckDB file that no other process has open. Readers do not wait for the one writer at a time."""

    def __init__(self, path: Path, settings: MonitoringSettings, kinds: Mapping[str, Kind]) -> None:
        """Open the file, or make it, and bring its tables up to the kinds.

        Raises:
            StoreError: the file cannot be opened; permanent where a kind has changed as its table cannot follow.
        """
        self.path = path
        self.kinds = kinds
        self._connections = Connections(path, settings, kinds)
        self._writing = Lock()

    def close(self) -> None:
        """Interrupt what runs, wait for it and close the file; may be called twice."""
        self._connections.close()

    def query(self, query: Query) -> Answer:
        """See Store.query."""
        kind, asked = check_query(self.kinds, query)
        statements = question(kind, asked)
        with self._asking() as cursor:
            rows = _fetch(cursor, statements.rows)
            (totals,) = _fetch(cursor, statements.totals)
            incomplete = _fetch(cursor, statements.incomplete)[0][0] if statements.incomplete else 0
        return answer_of(kind, asked, rows, totals, incomplete)

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """See Store.values."""
        known = known_kind(self.kinds, kind)
        known_dimension(known, field)
        check_filters(known, filters)
        statement = values_statement(known, field, filters, check_limit(limit))
        with self._asking() as cursor:
            return [value for (value,) in _fetch(cursor, statement)]

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        """See Store.records."""
        known = known_kind(self.kinds, kind)
        check_filters(known, filters)
        conditions = Conditions(known).within(start and utc(start, "start"), end and utc(end, "end")).meet(filters)
        if ids:
            conditions.have_ids(check_ids(ids))
        statement = records_statement(known, conditions, check_limit(limit))
        with self._asking() as cursor:
            return [record_of(known, row) for row in _fetch(cursor, statement)]

    def forget(self, kind: str, before: datetime) -> int:
        """See Store.forget."""
        known = known_kind(self.kinds, kind)
        end = utc(before, "before")
        statement = forget_statement(known, Conditions(known).within(None, end).received_before(end))
        with self._writing, self._asking() as cursor:
            return int(_fetch(cursor, statement)[0][0])

    @contextmanager
    def _asking(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction whose errors are those of a Store that is asked."""
        try:
            with self._connections.transaction() as cursor:
                yield cursor
        except duckdb.OutOfRangeException as error:
            message = f"a sum does not fit 128 bits; ask for a shorter window ({error})"
            raise QueryError(message) from error
        except duckdb.Error as error:
            message = f"monitoring store {self.path}: {error}"
            raise StoreError(message) from error

    def write(self, batch: Batch) -> Written:
        """See Store.write."""
        kind = self.kinds.get(batch.kind.name)
        if kind is None or kind.names != batch.kind.names:
            message = (
                f"the process that owns {self.path} knows no kind {batch.kind.name!r} with these fields; "
                "restart it, so that it reads the present declarations"
            )
            raise SinkUnavailable(message)
        if not batch.ids:
            return Written([])
        try:
            with self._writing:
                return self._write(batch)
        except (duckdb.Error, StoreError) as error:
            message = f"monitoring store {self.path}: {error}"
            raise SinkUnavailable(message) from error

    def _write(self, batch: Batch) -> Written:
        """Commit; without the records that have a value that no table can hold, if there are any."""
        try:
            table = arrow_table(batch)
        except UNFIT:
            return self._write_fit(batch)
        try:
            return self._commit(batch, table)
        except duckdb.DataError:
            return self._write_fit(batch)

    def _write_fit(self, batch: Batch) -> Written:
        unfit = self._unfit(batch, range(len(batch)))
        rest = [position for position in range(len(batch)) if position not in unfit]
        outcomes = [Outcome.REJECTED] * len(batch)
        if rest:
            fit = batch.part(rest)
            for position, outcome in zip(rest, self._commit(fit, arrow_table(fit)).outcomes, strict=True):
                outcomes[position] = outcome
        return Written(outcomes, unfit)

    def _unfit(self, batch: Batch, positions: Sequence[int]) -> dict[int, Refused]:
        """The records that the table does not take, found by halving, each with the reason."""
        part = batch.part(positions)
        try:
            self._try(part.kind, arrow_table(part))
        except (*UNFIT, duckdb.DataError) as error:
            if len(positions) > 1:
                middle = len(positions) // 2
                return self._unfit(batch, positions[:middle]) | self._unfit(batch, positions[middle:])
            field = unfit_field(part, 0)
            reason = f"cannot be stored: {error}"
            value = part.columns[field][0] if field else None
            return {positions[0]: Refused(reason, kind=part.kind.name, field=field, value=value)}
        return {}

    def _try(self, kind: Kind, table: Any) -> None:  # noqa: ANN401  # pyarrow has no types.
        """Insert and take it back."""
        with suppress(_TakenBackError), self._connections.transaction() as cursor, registered(cursor, table):
            cursor.execute(insert_statement(kind, table.column_names))
            raise _TakenBackError

    def _commit(self, batch: Batch, table: Any) -> Written:  # noqa: ANN401  # pyarrow has no types.
        """One transaction for a batch whose values all fit."""
        outcomes = [Outcome.STORED] * len(batch)
        if len(set(batch.ids)) < len(batch):
            kept = newest(batch)
            for position in set(range(len(batch))).difference(kept):
                outcomes[position] = Outcome.DUPLICATE
            table = table.take(pa.array(kept, pa.int64()))
        with self._connections.transaction() as cursor:
            stored = _stored(cursor, batch.kind, table)
            for position, newer in stored:
                outcomes[position] = Outcome.REPLACED if newer else Outcome.DUPLICATE
            if stored:
                fresh = [outcomes[position] is not Outcome.DUPLICATE for position in table["_position"].to_pylist()]
                table = table.filter(pa.array(fresh))
            if len(table):
                with registered(cursor, table):
                    cursor.execute(insert_statement(batch.kind, table.column_names))
        return Written(outcomes)


class _TakenBackError(Exception):
    """Ends a transaction that was only a trial."""


def _stored(cursor: duckdb.DuckDBPyConnection, kind: Kind, table: Any) -> list[tuple[int, bool]]:  # noqa: ANN401  # pyarrow.
    """Find what is stored already, as (position, whether the batch is newer), and delete what is outdated."""
    stored: list[tuple[int, bool]] = []
    with registered(cursor, table):
        for low, high in id_ranges(table):
            bounds = {"low": low, "high": high}
            found = cursor.execute(match_statement(kind), bounds).fetchall()
            if any(newer for _, newer in found):
                cursor.execute(outdate_statement(kind), bounds)
            stored += found
    return stored


def _fetch(cursor: duckdb.DuckDBPyConnection, statement: Statement) -> list[tuple[Any, ...]]:
    return cursor.execute(statement.text, statement.parameters).fetchall()
