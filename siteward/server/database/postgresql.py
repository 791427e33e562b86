"""PostgreSQL: whole columns as arrays, encoded the way the server reads them."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from psycopg import adapters
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from sqlalchemy import Column, Connection, Table, create_engine, delete, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL, Engine
from sqlalchemy.sql import ColumnElement

from siteward.server.database import ADDED_ONLY, SCRUB_SECONDS, Columns, Grouped, Values, check_encrypted, is_local
from siteward.server.database.constants import parted
from siteward.server.database.merging import Spelling, assignments

CHECKED: Final = "verify-full"
"""The only `sslmode` in which the server proves to be the one that the URL names."""
_INT8: Final = 20
_INT8_ARRAY: Final = 1016
_ELEMENT: Final = np.dtype([("length", ">i4"), ("value", ">i8")])
_CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available."""


_DATA_EXCEPTION: Final = "22"
"""How the states begin that say: the value is at fault."""
_REFUSING: Final = "siteward_refuse"
"""The function of triggers that refuse a statement."""
# A server that vanished without a word is noticed within two minutes.
_CONNECTION: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 90_000,
}


class _Integers(bytes):
    """64-bit integers as PostgreSQL's binary array: dimensions, no nulls, type, length, first index, elements."""

    @classmethod
    def of(cls, values: Any) -> _Integers:  # noqa: ANN401  # an array of any integers.
        elements = np.empty(len(values), _ELEMENT)
        elements["length"] = 8
        elements["value"] = values
        return cls(struct.pack(">iiIii", 1, 0, _INT8, len(values), 1) + elements.tobytes())


class _IntegersDumper(Dumper):
    oid = _INT8_ARRAY
    format = Format.BINARY

    def dump(self, obj: bytes) -> Buffer:
        return bytes(obj)


adapters.register_dumper(_Integers, _IntegersDumper)


class Postgresql:
    """How this database does what `siteward.server.database.Dialect` asks for."""

    longest_wait = 30
    locks_what_it_reads = False

    def open(self, address: URL, plain: Collection[str]) -> Engine:
        """See `siteward.server.database.Dialect`."""
        driver = address.set(drivername="postgresql+psycopg")
        if not is_local(address, os.environ):
            mode = address.query.get("sslmode")
            if mode is None:
                # The server's certificate is checked against its name, by the authorities of the system or those given.
                driver = driver.update_query_dict({"sslmode": CHECKED})
                driver = driver.update_query_dict({"sslrootcert": address.query.get("sslrootcert", "system")})
            elif mode != CHECKED:
                said = mode if isinstance(mode, str) else ",".join(mode)
                check_encrypted(address, f"sslmode={said}", plain, os.environ)
        return create_engine(
            driver,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=_CONNECTION,
        )

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
        # One statement: what it deletes is what it adds.
        taken = delete(table).where(chosen).returning(*table.columns).cte("taken")
        question = grouped(taken)
        adding = insert(table).from_select([column.name for column in question.selected_columns], question)
        keys = [column.name for column in table.primary_key]
        added = [column.name for column in table.columns if column.name not in keys]
        sums: dict[str, Any] = {
            name: literal_column(text) for name, text in _assignments(connection, table, added).items()
        }
        count = connection.execute(select(func.count()).select_from(table).where(chosen)).scalar_one()
        connection.execute(adding.on_conflict_do_update(index_elements=keys, set_=sums))
        return int(count)

    def exact_sum(self, column: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """See `siteward.server.database.Dialect`."""
        return [func.sum(column)]

    def quick_sum(self, column: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """See `siteward.server.database.Dialect`."""
        return self.exact_sum(column)

    def listed(
        self,
        connection: Connection,
        columns: Sequence[Column[int]],
        chosen: ColumnElement[bool],
        apart: Collection[int],
    ) -> None:
        """See `siteward.server.database.Dialect`."""

    def whole(self, found: Sequence[Any]) -> int:
        """See `siteward.server.database.Dialect`."""
        return int(found[0] or 0)

    def lock(self, connection: Connection, name: str) -> None:
        """See `siteward.server.database.Dialect`; given back at the end of the transaction."""
        # Holds for what follows in the transaction as well, such as the lock on a table that is changed.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{self.longest_wait}s'")
        connection.execute(select(func.pg_advisory_xact_lock(_key(name))))

    def scrub(self, engine: Engine, table: Table) -> None:
        """See `siteward.server.database.Dialect`."""
        name = engine.dialect.identifier_preparer.format_table(table)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"SET lock_timeout = '{SCRUB_SECONDS}s'"))
            try:
                # What the planner remembers of columns, too.
                connection.execute(text(f"VACUUM (FULL, ANALYZE) {name}"))
            finally:
                connection.execute(text("RESET lock_timeout"))

    def let_add_only(self, connection: Connection, table: Table) -> None:
        """See `siteward.server.database.Dialect`."""
        quote = connection.dialect.identifier_preparer.quote
        there = text("SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(:name) AND tgname = :trigger")
        named = {"name": quote(table.name), "trigger": f"{table.name}_kept"}
        if connection.execute(there, named).scalar():
            return
        connection.exec_driver_sql(
            f"CREATE OR REPLACE FUNCTION {_REFUSING}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN RAISE EXCEPTION '{ADDED_ONLY}'; END$$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER {quote(named['trigger'])} BEFORE UPDATE OR DELETE OR TRUNCATE ON {quote(table.name)} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {_REFUSING}()"
        )

    def let_take_away(self, connection: Connection, table: Table) -> None:
        """See `siteward.server.database.Dialect`; a part of the transaction."""
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {quote(f'{table.name}_kept')} ON {quote(table.name)}")

    def is_conflict(self, error: BaseException) -> bool:
        """See `siteward.server.database.Dialect`."""
        return getattr(error, "sqlstate", None) in _CONFLICTS

    def is_too_wide(self, error: BaseException | None) -> bool:  # noqa: ARG002  # its sums have no bounds.
        """See `siteward.server.database.Dialect`."""
        return False

    def is_misfit(self, error: BaseException) -> bool:
        """See `siteward.server.database.Dialect`."""
        return (getattr(error, "sqlstate", None) or "").startswith(_DATA_EXCEPTION)


def _key(name: str) -> int:
    """An advisory lock's number; a database has its own."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def _assignments(connection: Connection, table: Table, names: Iterable[str]) -> Mapping[str, str]:
    quote = connection.dialect.identifier_preparer.quote
    spelling = Spelling(
        present=lambda name: f"{quote(table.name)}.{quote(name)}", given=lambda name: f"excluded.{quote(name)}"
    )
    return assignments(table, names, spelling)


def _insert(connection: Connection, table: Table, columns: Columns, on_conflict: str) -> int:
    quote = connection.dialect.identifier_preparer.quote
    varying, constants = parted(columns)
    names = ", ".join(map(quote, (*varying, *constants)))
    arrays = ", ".join(f"%s::{_type(values)}[]" for values in varying.values())
    chosen = ", ".join(("given.*", *constants.values()))
    statement = (
        f"INSERT INTO {quote(table.name)} ({names}) SELECT {chosen} FROM unnest({arrays}) AS given "  # noqa: S608  # our own names, quoted.
        f"ON CONFLICT {on_conflict}"
    )
    return connection.exec_driver_sql(statement, tuple(map(_array, varying.values()))).rowcount


def _type(values: Values) -> str:
    if isinstance(values, np.ndarray):
        return "bigint"
    match next((value for value in values if value is not None), 0):
        case str():
            return "text"
        case bytes():
            return "bytea"
        case float():
            return "double precision"
    return "bigint"


def _array(values: Values) -> object:
    if isinstance(values, np.ndarray):
        return _Integers.of(values)
    # Truth values lie in columns of integers.
    return [int(value) if isinstance(value, bool) else value for value in values]


dialect: Final = Postgresql()
