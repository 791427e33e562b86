"""MariaDB and MySQL: many rows in one statement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from ssl import create_default_context
from typing import Any, Final

import numpy as np
from pymysql.constants import CLIENT
from pymysql.converters import escape_string
from sqlalchemy import Column, Connection, Table, create_engine, delete, event, func, literal_column, select, text
from sqlalchemy.dialects.mysql import insert
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from siteward.server.database import (
    ADDED_ONLY,
    SCRUB_SECONDS,
    Columns,
    Conflict,
    DatabaseError,
    Grouped,
    Values,
    check_encrypted,
    is_local,
)
from siteward.server.database.constants import parted
from siteward.server.database.merging import Spelling, assignments

AT_ONCE: Final = 5_000
"""Rows of one statement, where it does not get too long."""
_UNNAMED: Final = "ssl_check_hostname"
"""The parameter by which a good certificate of anybody would do."""
_CONFLICTS: Final = frozenset({1205, 1213, 1020})
"""Lock wait timeout, deadlock, record has changed."""
# Strict: nothing is cut or clipped in silence. An INSERT IGNORE would do so nevertheless, and is used nowhere.
_SESSION: Final = (
    "SET SESSION sql_mode = 'TRADITIONAL', time_zone = '+00:00', innodb_lock_wait_timeout = 30, lock_wait_timeout = 60"
)
_MISFITS: Final = frozenset({1264, 1366, 1406, 1690})
"""Out of range, incorrect value, data too long, out of range while computing."""
_NO_TRIGGERS: Final = frozenset({1142, 1227, 1419})
"""The right to make triggers is missing, or with a binary log the one to do what is not said to be repeatable."""
_LONGEST_STATEMENT: Final = 3 * 2**20
"""Characters of up to four bytes each; the server takes 16 MiB."""


class Mariadb:
    """How this database does what `siteward.server.database.Dialect` asks for."""

    longest_wait = 30
    locks_what_it_reads = True

    def open(self, address: URL, plain: Collection[str]) -> Engine:
        """See `siteward.server.database.Dialect`."""
        driver = address.set(drivername="mariadb+pymysql").update_query_dict({"charset": "utf8mb4"})
        is_off = driver.query.get("ssl") == "off"
        is_far = not is_local(address)
        names_are_checked = driver.query.get(_UNNAMED, "true") == "true"
        for parameter, is_checked in (("ssl=off", not is_off), (_UNNAMED, names_are_checked)):
            if is_far and not is_checked:
                check_encrypted(address, parameter, plain)
        driver = driver.difference_update_query(["ssl"])
        tls = {"ssl": create_default_context()} if is_far and not is_off and "ssl_ca" not in driver.query else {}
        engine = create_engine(
            driver,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": 10, **tls},
        )
        event.listen(engine, "do_connect", _count_changes)
        event.listen(engine, "connect", _prepare)
        return engine

    def insert_new(self, connection: Connection, table: Table, columns: Columns) -> int:
        """See `siteward.server.database.Dialect`."""
        key = connection.dialect.identifier_preparer.quote(next(iter(columns)))
        return _insert(connection, table, columns, f"{key} = {key}")

    def accumulate(self, connection: Connection, table: Table, keys: Columns, sums: Columns) -> None:
        """See `siteward.server.database.Dialect`."""
        quote = connection.dialect.identifier_preparer.quote
        adding = ", ".join(f"{quote(name)} = {text}" for name, text in _assignments(connection, table, sums).items())
        _insert(connection, table, {**keys, **sums}, adding)

    def move(self, connection: Connection, table: Table, chosen: ColumnElement[bool], grouped: Grouped) -> int:
        """See `siteward.server.database.Dialect`."""
        # Locked with the gaps between them, so that no row comes in between adding and taking away.
        connection.execute(select(func.count()).select_from(table).where(chosen).with_for_update())
        question = grouped(select(table).where(chosen).subquery())
        adding = insert(table).from_select([column.name for column in question.selected_columns], question)
        keys = [column.name for column in table.primary_key]
        added = [column.name for column in table.columns if column.name not in keys]
        sums: list[Any] = [
            (name, literal_column(text)) for name, text in _assignments(connection, table, added).items()
        ]
        connection.execute(adding.on_duplicate_key_update(sums))
        return connection.execute(delete(table).where(chosen)).rowcount

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
        """See `siteward.server.database.Dialect`."""
        # The server has one set of names for all databases, and they have at most 64 characters.
        wanted = func.get_lock(func.sha2(func.concat(func.database(), ".", name), 224), self.longest_wait)
        if connection.execute(select(wanted)).scalar() != 1:
            message = f"another process holds {name!r}"
            raise Conflict(message)

    def scrub(self, engine: Engine, table: Table) -> None:
        """See `siteward.server.database.Dialect`."""
        name = engine.dialect.identifier_preparer.format_table(table)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"SET STATEMENT lock_wait_timeout = {SCRUB_SECONDS} FOR ALTER TABLE {name} FORCE"))

    def let_add_only(self, connection: Connection, table: Table) -> None:
        """See `siteward.server.database.Dialect`; TRUNCATE has no triggers here, and needs the right to DROP."""
        quote = connection.dialect.identifier_preparer.quote
        there = text("SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = database()")
        known = set(connection.execute(there).scalars())
        for event_ in ("UPDATE", "DELETE"):
            name = f"{table.name}_{event_.lower()}"
            if name in known:
                continue
            try:
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {quote(name)} BEFORE {event_} ON {quote(table.name)} FOR EACH ROW "
                    f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{ADDED_ONLY}'"
                )
            except DBAPIError as error:
                if error.orig is None or error.orig.args[0] not in _NO_TRIGGERS:
                    raise
                message = (
                    f"{table.name} cannot be kept from being changed: give the database's user the right TRIGGER, and "
                    "where the server writes a binary log, set log_bin_trust_function_creators = 1 there"
                )
                raise DatabaseError(message) from error

    def let_take_away(self, connection: Connection, table: Table) -> None:
        """See `siteward.server.database.Dialect`; committed at once."""
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {quote(f'{table.name}_delete')}")

    def is_conflict(self, error: BaseException) -> bool:
        """See `siteward.server.database.Dialect`."""
        return bool(error.args) and error.args[0] in _CONFLICTS

    def is_too_wide(self, error: BaseException | None) -> bool:  # noqa: ARG002  # its sums have no bounds.
        """See `siteward.server.database.Dialect`."""
        return False

    def is_misfit(self, error: BaseException) -> bool:
        """See `siteward.server.database.Dialect`."""
        return bool(error.args) and error.args[0] in _MISFITS


def _assignments(connection: Connection, table: Table, names: Iterable[str]) -> Mapping[str, str]:
    quote = connection.dialect.identifier_preparer.quote
    spelling = Spelling(
        present=lambda name: f"{quote(table.name)}.{quote(name)}", given=lambda name: f"VALUES({quote(name)})"
    )
    return assignments(table, names, spelling)


def _count_changes(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
    # SQLAlchemy asks for rows that were found; a row that stays as it was would count as inserted.
    parameters["client_flag"] &= ~CLIENT.FOUND_ROWS


def _prepare(connection: Any, _: object) -> None:  # noqa: ANN401  # PyMySQL's.
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)


def _insert(connection: Connection, table: Table, columns: Columns, update: str) -> int:
    quote = connection.dialect.identifier_preparer.quote
    names = ", ".join(map(quote, columns))
    first = f"INSERT INTO {quote(table.name)} ({names}) VALUES "  # noqa: S608  # our own names, quoted.
    last = f" ON DUPLICATE KEY UPDATE {update}"
    return sum(connection.exec_driver_sql(first + part + last).rowcount for part in _tuples(columns))


def _tuples(columns: Columns) -> Iterator[str]:
    """Rows as SQL, AT_ONCE at a time."""
    _, constants = parted(columns)
    literals = [
        repeat(constants[name], len(values))
        if name in constants and not isinstance(values, np.ndarray)
        else _literals(values)
        for name, values in columns.items()
    ]
    plain = all(isinstance(values, np.ndarray) for values in columns.values())
    rows = zip(*literals, strict=True)
    while part := list(islice(rows, AT_ONCE)):
        # Of tuples of integers Python's own notation is SQL's.
        if plain:
            yield repr(part)[1:-1]
        else:
            yield from _short([f"({','.join(map(str, row))})" for row in part])


def _short(texts: Sequence[str]) -> Iterator[str]:
    """The rows joined, in as many parts as it takes for none to be too long."""
    if len(texts) > 1 and sum(map(len, texts)) > _LONGEST_STATEMENT:
        half = len(texts) // 2
        yield from _short(texts[:half])
        yield from _short(texts[half:])
    else:
        yield ",".join(texts)


def _literals(values: Values) -> list[Any]:
    if isinstance(values, np.ndarray):
        listed: list[Any] = values.tolist()
        return listed
    return [_literal(value) for value in values]


def _literal(value: object) -> object:
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"X'{value.hex()}'"
        case str():
            # The driver looks for places of parameters in what it is given.
            return "'" + escape_string(value).replace("%", "%%") + "'"
    return value


dialect: Final = Mariadb()
