"""Bare SQL: the rows that the ledger wrote, again, with nothing but the driver, and as whole columns."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import psycopg
import pymysql
from sqlalchemy import Connection, Table
from sqlalchemy.engine import make_url

from accounting.tables import START
from siteward.server.database import Columns, Database, Dialect
from siteward.server.database.constants import parted


class Written(msgspec.Struct):
    """One call of the ledger's dialect.

    Attributes:
        table: into which rows went.
        columns: the rows.
        keys: names of the columns by which sums were added; () where rows were inserted.
        given: the columns as they were given, constants too.
    """

    table: Table
    columns: dict[str, Sequence[Any]]
    keys: tuple[str, ...]
    given: Columns


class Recorded:
    """A dialect that remembers what it was told to write."""

    def __init__(self, dialect: Dialect) -> None:
        """Do as this one does."""
        self.real = dialect
        self.written: list[Written] = []
        self.seconds = 0.0
        self.rows = 0

    def __getattr__(self, name: str) -> object:
        """Whatever is only read."""
        return getattr(self.real, name)

    def insert_new(self, connection: Connection, table: Table, columns: Columns) -> int:
        """Insert, and remember."""
        self._note(table, columns, ())
        return self.real.insert_new(connection, table, columns)

    def accumulate(self, connection: Connection, table: Table, keys: Columns, sums: Columns) -> None:
        """Add, and remember."""
        self._note(table, {**keys, **sums}, tuple(keys))
        self.rows += len(keys[START])
        self.real.accumulate(connection, table, keys, sums)

    def _note(self, table: Table, columns: Columns, keys: tuple[str, ...]) -> None:
        began = time.perf_counter()
        # What is a constant, and the table's default, need not be said.
        _, constants = parted(columns)
        lists = {
            name: values.tolist() if isinstance(values, np.ndarray) else values
            for name, values in columns.items()
            if name in keys or constants.get(name, "") != _default(table, name)
        }
        self.written.append(Written(table, lists, keys, columns))
        self.seconds += time.perf_counter() - began


def _default(table: Table, name: str) -> str:
    default = table.c[name].server_default
    if default is None:
        return "NULL"
    text = str(getattr(default, "arg", ""))
    return text or "''"


class InSets:
    """The ledger's own statements, each for whole columns, and nothing else: what arithmetic is measured against."""

    def __init__(self, url: str, password: str) -> None:
        """Connect."""
        self.seconds = 0.0
        self._database = Database(url, password)

    def write(self, written: Sequence[Written]) -> None:
        """One transaction."""
        began = time.perf_counter()
        dialect = self._database.dialect
        with self._database.write() as connection:
            for each in written:
                if each.keys:
                    keys = {name: each.given[name] for name in each.keys}
                    sums = {name: values for name, values in each.given.items() if name not in keys}
                    dialect.accumulate(connection, each.table, keys, sums)
                else:
                    dialect.insert_new(connection, each.table, each.given)
        self.seconds += time.perf_counter() - began

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


class Driver(Protocol):
    """A connection of any of the drivers."""

    def close(self) -> None:
        """Close it."""


class Bare:
    """One connection of the plain driver to tables like the ledger's."""

    def __init__(self, url: str, password: str) -> None:
        """Connect."""
        self.seconds = 0.0
        self._sort = make_url(url).drivername
        self._connection: Any = CONNECT[self._sort](url, password)

    def write(self, written: Sequence[Written]) -> None:
        """One transaction of prepared statements."""
        statements = [(self._statement(each), list(zip(*each.columns.values(), strict=True))) for each in written]
        began = time.perf_counter()
        cursor = self._connection.cursor()
        if self._sort == "sqlite":
            cursor.execute("BEGIN IMMEDIATE")
        for statement, rows in statements:
            cursor.executemany(statement, rows)
        self._connection.commit()
        self.seconds += time.perf_counter() - began
        cursor.close()

    def _statement(self, written: Written) -> str:
        quote, mark = ("`", "%s") if self._sort == "mariadb" else ('"', "?" if self._sort == "sqlite" else "%s")
        names = [f"{quote}{name}{quote}" for name in written.columns]
        keys = [f"{quote}{name}{quote}" for name in written.keys]
        sums = names[len(keys) :] if keys else []
        insert = f"INSERT INTO {written.table.name} ({', '.join(names)}) VALUES ({', '.join([mark] * len(names))})"  # noqa: S608  # our own names.
        if self._sort == "mariadb":
            adding = ", ".join(f"{name} = {name} + VALUES({name})" for name in sums) or f"{names[0]} = {names[0]}"
            return f"{insert} ON DUPLICATE KEY UPDATE {adding}"
        if not keys:
            return f"{insert} ON CONFLICT DO NOTHING"
        adding = ", ".join(f"{name} = {written.table.name}.{name} + excluded.{name}" for name in sums)
        return f"{insert} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {adding}"

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _sqlite(url: str, _password: str) -> Driver:
    connection = sqlite3.connect(str(make_url(url).database), isolation_level=None)
    # As the ledger has it: durable when committed.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _postgresql(url: str, password: str) -> Driver:
    return psycopg.connect(url, password=password)


def _mariadb(url: str, password: str) -> Driver:
    address = make_url(url)
    assert address.host
    connection: Driver = pymysql.connect(
        host=address.host,
        port=address.port or 0,
        user=address.username,
        password=password,
        database=address.database,
        charset="utf8mb4",
    )
    return connection


CONNECT: Final[Mapping[str, Callable[[str, str], Driver]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
}
