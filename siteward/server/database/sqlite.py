"""SQLite: one file, one writer at a time; prepared statements, a row each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    Column,
    Connection,
    Table,
    create_engine,
    delete,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from siteward.private_files import begin_private
from siteward.server.database import ADDED_ONLY, Columns, Conflict, Grouped, Values
from siteward.server.database.constants import parted
from siteward.server.database.merging import Spelling, assignments
from siteward.write_ahead import write_ahead

BUSY_SECONDS: Final = 30
"""How long a writer waits for another one."""
LOG_PAGES: Final = 16_000
"""Pages, of 4 KiB by default, of the write-ahead log from which on they go back into the file."""
_IN_MEMORY: Final = ":memory:"
_HALF: Final = 32
_TOGETHER: Final = 2**18
"""Characters of one column's numbers that are read at once."""
_MISFITS: Final = frozenset({3091, 18})
"""SQLITE_CONSTRAINT_DATATYPE, for which Python's module has no name, and SQLITE_TOOBIG."""


def _read_together(
    rows: Iterable[Sequence[Any]], apart: Collection[int]
) -> Iterator[tuple[int | None, list[npt.NDArray[np.int64]]]]:
    """Lists that were texts, as arrays: where each is short, many of them are read as one."""
    waiting: list[Sequence[str]] = []
    size = 0
    for value, *texts in rows:
        if value in apart:
            yield value, _numbers([texts])
            continue
        waiting.append(texts)
        size += len(texts[0])
        if size >= _TOGETHER:
            yield None, _numbers(waiting)
            waiting, size = [], 0
    if waiting:
        yield None, _numbers(waiting)


def _numbers(lists: Sequence[Sequence[str]]) -> list[npt.NDArray[np.int64]]:
    return [np.fromstring(",".join(texts), np.int64, sep=",") for texts in zip(*lists, strict=True)]


class Sqlite:
    """How this database does what `siteward.server.database.Dialect` asks for."""

    longest_wait = BUSY_SECONDS
    locks_what_it_reads = False

    def open(self, address: URL, plain: Collection[str]) -> Engine:  # noqa: ARG002  # a file leaves no machine.
        """See `siteward.server.database.Dialect`."""
        if address.database and address.database != _IN_MEMORY:
            begin_private(Path(address.database))
        given = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(address, connect_args=given, hide_parameters=True)
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine

    def insert_new(self, connection: Connection, table: Table, columns: Columns) -> int:
        """See `siteward.server.database.Dialect`."""
        return _insert(connection, table, columns, "DO NOTHING")

    def accumulate(self, connection: Connection, table: Table, keys: Columns, sums: Columns) -> None:
        """See `siteward.server.database.Dialect`."""
        quote = connection.dialect.identifier_preparer.quote
        adding = ", ".join(f"{quote(name)} = {text}" for name, text in _assignments(connection, table, sums).items())
        _insert(connection, table, {**keys, **sums}, f"({', '.join(map(quote, keys))}) DO UPDATE SET {adding}")

    def move(self, connection: Connection, table: Table, chosen: ColumnElement[bool], grouped: Grouped) -> int:
        """See `siteward.server.database.Dialect`."""
        # Nobody else writes until this transaction ends.
        question = grouped(select(table).where(chosen).subquery())
        adding = insert(table).from_select([column.name for column in question.selected_columns], question)
        keys = [column.name for column in table.primary_key]
        added = [column.name for column in table.columns if column.name not in keys]
        sums: dict[str, Any] = {
            name: literal_column(text) for name, text in _assignments(connection, table, added).items()
        }
        connection.execute(adding.on_conflict_do_update(index_elements=keys, set_=sums))
        return connection.execute(delete(table).where(chosen)).rowcount

    def exact_sum(self, column: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """See `siteward.server.database.Dialect`."""
        # Its sum of integers fails beyond 64 bits, so that both halves are summed apart.
        return [func.sum(column.op(">>")(_HALF)), func.sum(column.op("&")((1 << _HALF) - 1))]

    def quick_sum(self, column: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """See `siteward.server.database.Dialect`."""
        return [func.sum(column)]

    def listed(
        self,
        connection: Connection,
        columns: Sequence[Column[int]],
        chosen: ColumnElement[bool],
        apart: Collection[int],
    ) -> Iterator[tuple[int | None, list[npt.NDArray[np.int64]]]] | None:
        """See `siteward.server.database.Dialect`."""
        # A column as one text costs a third of its rows one by one, or of their sums by a group of another table.
        first = columns[0].table.primary_key.columns[0]
        question = select(first, *map(func.group_concat, columns)).where(chosen).group_by(first)
        return _read_together(connection.execute(question), apart)

    def whole(self, found: Sequence[Any]) -> int:
        """See `siteward.server.database.Dialect`."""
        # One sum, or both halves.
        *high, low = found
        return sum(int(part or 0) << _HALF for part in high) + int(low or 0)

    def lock(self, connection: Connection, name: str) -> None:
        """See `siteward.server.database.Dialect`; whoever writes is alone."""

    def scrub(self, engine: Engine, table: Table) -> None:  # noqa: ARG002  # the file is written anew as a whole.
        """See `siteward.server.database.Dialect`."""
        with closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute("VACUUM")
            (is_busy, *_) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            message = f"others read the file for more than {BUSY_SECONDS} seconds"
            raise Conflict(message)

    def let_add_only(self, connection: Connection, table: Table) -> None:
        """See `siteward.server.database.Dialect`."""
        quote = connection.dialect.identifier_preparer.quote
        # REPLACE takes a row away without asking a trigger of DELETE.
        same = " AND ".join(f"{quote(each.name)} = NEW.{quote(each.name)}" for each in table.primary_key)
        replaced = f"WHEN EXISTS (SELECT 1 FROM {quote(table.name)} WHERE {same}) "  # noqa: S608  # our own names, quoted.
        for event_, condition in (("UPDATE", ""), ("DELETE", ""), ("INSERT", replaced)):
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {quote(f'{table.name}_{event_.lower()}')} "
                f"BEFORE {event_} ON {quote(table.name)} {condition}"
                f"BEGIN SELECT RAISE(ABORT, '{ADDED_ONLY}'); END"
            )

    def let_take_away(self, connection: Connection, table: Table) -> None:
        """See `siteward.server.database.Dialect`; a part of the transaction."""
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {quote(f'{table.name}_delete')}")

    def is_conflict(self, error: BaseException) -> bool:
        """See `siteward.server.database.Dialect`."""
        return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorname.startswith("SQLITE_BUSY")

    def is_too_wide(self, error: BaseException | None) -> bool:
        """See `siteward.server.database.Dialect`."""
        return isinstance(error, sqlite3.OperationalError) and str(error) == "integer overflow"

    def is_misfit(self, error: BaseException) -> bool:
        """See `siteward.server.database.Dialect`."""
        # A sum beyond 64 bits becomes a number with a binary point, which a strict table refuses.
        return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) in _MISFITS


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    # Transactions begin where we say, not before the first write: two that read first could never both go on.
    connection.isolation_level = None
    write_ahead(connection)
    # What is acknowledged to the broker must survive a power failure.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    # Patterns mean the letters that they are made of, as they do elsewhere.
    connection.execute("PRAGMA case_sensitive_like = ON")
    connection.execute("PRAGMA cache_size = -65536")
    # A page that several transactions change goes back into the file once: a twenty-fifth less of the processor for a
    # batch of the ledger.
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reads") else "BEGIN IMMEDIATE")


def _assignments(connection: Connection, table: Table, names: Iterable[str]) -> Mapping[str, str]:
    quote = connection.dialect.identifier_preparer.quote
    spelling = Spelling(
        present=lambda name: f"{quote(table.name)}.{quote(name)}",
        given=lambda name: f"excluded.{quote(name)}",
        least="MIN",
        greatest="MAX",
    )
    return assignments(table, names, spelling)


def _insert(connection: Connection, table: Table, columns: Columns, on_conflict: str) -> int:
    quote = connection.dialect.identifier_preparer.quote
    varying, constants = parted(columns)
    statement = (
        f"INSERT INTO {quote(table.name)} ({', '.join(map(quote, (*varying, *constants)))}) "  # noqa: S608  # our own names, quoted.
        f"VALUES ({', '.join((*('?' * len(varying)), *constants.values()))}) ON CONFLICT {on_conflict}"
    )
    return _execute(connection, statement, varying)


def _execute(connection: Connection, statement: str, columns: Columns) -> int:
    """Run a statement for each row; how many rows it changed.

    By the driver's own cursor, which takes rows as they are made: as a list, which SQLAlchemy wants, they cost a fifth
    more time.
    """
    cursor: Any = connection.connection.cursor()
    try:
        cursor.executemany(statement, zip(*map(_listed, columns.values()), strict=True))
    except sqlite3.Error as error:
        raise DBAPIError(statement, None, error, hide_parameters=True) from error
    finally:
        cursor.close()
    changed: int = cursor.rowcount
    return max(0, changed)


def _listed(values: Values) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


dialect: Final = Sqlite()
