"""SQL databases by URL: SQLite, PostgreSQL, MariaDB; the only place that knows what sets them apart.

What one of them does in its own way lives beside this file, behind the contract `Dialect`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, Protocol
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from sqlalchemy import Column, Connection, FromClause, Select, Table
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.sql import ColumnElement

from siteward.loopback import is_loopback

Values = npt.NDArray[Any] | Sequence[Any]
"""One column of rows: an array of 64-bit integers, or any sequence of integers, texts, bytes or None."""
Columns = Mapping[str, Values]
"""Rows by column, all of the same length."""
ADDED_ONLY: Final = "rows of this table are added, and never changed or taken away"
"""What a database says that keeps a table so."""
SCRUB_SECONDS: Final = 10
"""How long a table that is to be written anew is waited for; whoever wants it meanwhile waits, too."""
MOST_WORDS: Final = 500
"""Characters of an error that are told."""
Grouped = Callable[[FromClause], Select[Any]]
"""Makes, of something with a table's columns, a question for rows to be added to the table."""
_MODULES: Final = {"sqlite": "sqlite", "postgresql": "postgresql", "mariadb": "mariadb", "mysql": "mariadb"}


_ELSEWHERE: Final = ("PGHOSTADDR", "PGSERVICE")
"""Variables by which libpq connects to another host than a URL names."""
_NOT_IN_URL: Final = frozenset(
    {
        "conninfo",
        "hostaddr",
        "passwd",
        "password",
        "read_default_file",
        "read_default_group",
        "service",
        "servicefile",
        "ssl_disabled",
        "ssl_verify_cert",
        "ssl_verify_identity",
        "sslpassword",
    }
)
"""Parameters by which a driver would connect elsewhere, or without TLS that is checked, whatever the host says; and
passwords, which nobody would hide there."""


class DatabaseError(Exception):
    """A database cannot be used as the settings say; the message names what to change."""

    permanent = True


class Conflict(Exception):  # noqa: N818  # reads as the state it is.
    """Two transactions were in each other's way, and this one was given up: do it again."""


class Misfit(Exception):  # noqa: N818  # as above.
    """A value can never be stored: a number beyond 64 bits, a text that is too long. The transaction was given up."""


class Dialect(Protocol):
    """What a database does in its own way. Only `open` makes anything; all else works in the caller's transaction."""

    longest_wait: int
    """Seconds that a transaction waits for another one before it gives way."""
    locks_what_it_reads: bool
    """Whether transactions of REPEATABLE READ keep others from writing between the rows that they have locked."""

    def open(self, address: URL, plain: Collection[str]) -> Engine:
        """An engine whose transactions are durable, see what is committed, and refuse what does not fit.

        Args:
            address: of which `_address` has taken all that names another host.
            plain: hosts that may be spoken to without TLS.

        Raises:
            DatabaseError: the URL wants TLS that is not checked, or none, towards another host.
        """

    def insert_new(self, connection: Connection, table: Table, columns: Columns) -> int:
        """Insert the rows whose primary or unique key is not there yet; how many they were.

        Rows in ascending order of their key, so that two writers never wait for each other.
        """

    def accumulate(self, connection: Connection, table: Table, keys: Columns, sums: Columns) -> None:
        """Add to the rows of these primary keys, each given once, in ascending order; missing rows are made.

        Columns that do not add up merge as `siteward.server.database.merging` says of them.
        """

    def move(self, connection: Connection, table: Table, chosen: ColumnElement[bool], grouped: Grouped) -> int:
        """Take rows of a table away and add what they come to, as fewer rows, to the same table; how many went.

        Exactly what is taken away is added, whatever others write meanwhile: theirs comes before, or after. To be the
        only statement of a transaction of `Database.write(repeatable=True)`.

        Args:
            connection: of that transaction.
            table: of keys and sums, or of columns that merge otherwise.
            chosen: the rows that go; none of those that are added to.
            grouped: what they come to, with the columns of the table, from whatever holds just these rows.
        """

    def exact_sum(self, column: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """Expressions of aggregates from which `whole` makes the exact sum, whatever its size."""

    def quick_sum(self, column: ColumnElement[int]) -> list[ColumnElement[Any]]:
        """The same where a sum may fail that does not fit into 64 bits, with an error that `is_too_wide` knows."""

    def listed(
        self,
        connection: Connection,
        columns: Sequence[Column[int]],
        chosen: ColumnElement[bool],
        apart: Collection[int],
    ) -> Iterator[tuple[int | None, list[npt.NDArray[np.int64]]]] | None:
        """Columns of a table as arrays, many rows at a time, in order of the first column of its primary key.

        Args:
            connection: of the caller's transaction.
            columns: integers, none of which may be unknown.
            chosen: the rows.
            apart: values of that first column whose rows come by themselves.

        Returns:
            Each time one of these values, or None, and the rows; None where the database is faster with sums than with
            rows.
        """

    def whole(self, found: Sequence[Any]) -> int:
        """The sum from what the expressions of exact_sum or quick_sum gave; 0 where there was nothing."""

    def lock(self, connection: Connection, name: str) -> None:
        """Wait until no other connection to this database holds this name; hold it until the connection closes.

        May be given back at the end of the transaction already. A process that dies gives it back.

        Raises:
            Conflict: another one held it for `longest_wait`.
        """

    def scrub(self, engine: Engine, table: Table) -> None:
        """Write a small table anew, so that what was deleted from it is in no file of the database any more.

        Logs and backups of a server are its keepers' to forget. Others wait meanwhile.
        """

    def let_add_only(self, connection: Connection, table: Table) -> None:
        """Have the database refuse, by triggers, whatever would change or take away a row; made where they are missing.

        Raises:
            DatabaseError: the user of the URL may not make them.
        """

    def let_take_away(self, connection: Connection, table: Table) -> None:
        """Have the database let rows of such a table be taken away, until `let_add_only` is called again.

        Where changes of tables are no part of a transaction, the one under way is committed.
        """

    def is_conflict(self, error: BaseException) -> bool:
        """Whether an error of the driver says that this transaction gave way to another one."""

    def is_too_wide(self, error: BaseException | None) -> bool:
        """Whether an error of the driver says that a quick sum failed; do it again with exact_sum."""

    def is_misfit(self, error: BaseException) -> bool:
        """Whether an error of the driver says that a value does not fit into its column, now or ever."""


class Database:
    """One database; any number of processes and threads may have it open."""

    def __init__(self, url: str, password: str = "", *, plain: Collection[str] = ()) -> None:
        """Connect when first used.

        Args:
            url: `sqlite:///path`, `postgresql://user@host/name` or `mariadb://user@host/name`.
            password: of the URL's user.
            plain: hosts that may be spoken to without TLS, `network.plain` of the settings.

        Raises:
            DatabaseError: the URL cannot be used, its driver is not installed, or what is asked would leave this
                machine without TLS that is checked.
        """
        address = _address(url, password)
        self.dialect: Dialect = import_module(f"{__name__}.{_MODULES[address.drivername]}").dialect
        self.engine = self.dialect.open(address, plain)
        self._password = address.password or ""

    @contextmanager
    def write(self, *, repeatable: bool = False) -> Iterator[Connection]:
        """A transaction: committed at the end, rolled back on any error.

        Args:
            repeatable: what it has looked at is kept from others until its end, where a database does not do so anyhow.

        Raises:
            Conflict: it gave way to another transaction; do it again.
            Misfit: a value does not fit.
        """
        level = {"isolation_level": "REPEATABLE READ"} if repeatable and self.dialect.locks_what_it_reads else {}
        with self._named(), self.engine.connect().execution_options(**level) as connection, connection.begin():
            yield connection

    @contextmanager
    def alone(self, name: str) -> Iterator[Connection]:
        """A transaction that no other of the same name, in any process, runs beside; else like `write`.

        MariaDB commits at each statement that changes a table; the name is held nevertheless.
        """
        with self._named(), self.engine.connect() as connection:
            try:
                self.dialect.lock(connection, name)
                yield connection
                connection.commit()
            finally:
                # Closed, whatever happened to it, and with it every lock is given back.
                connection.invalidate()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of drivers under the names that callers know."""
        try:
            yield
        except OverflowError as error:
            raise Misfit(str(error)) from error
        except DBAPIError as error:
            if error.orig is not None and self.dialect.is_conflict(error.orig):
                raise Conflict(self.told(error)) from error
            if error.orig is not None and self.dialect.is_misfit(error.orig):
                raise Misfit(self.told(error)) from error
            raise

    def told(self, error: BaseException) -> str:
        """An error in the driver's own words: one line, without the statement and its values, without the password."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        words = " ".join(str(cause).split()) or type(cause).__name__
        for secret in {self._password, quote(self._password, safe="")} - {""}:
            words = words.replace(secret, "hidden")
        return words[:MOST_WORDS]

    def scrub(self, table: Table) -> None:
        """See `Dialect.scrub`.

        Raises:
            Conflict: others were in the way; do it again.
        """
        with self._named():
            self.dialect.scrub(self.engine, table)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of everything, whatever others write meanwhile."""
        level = {} if self.engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        with self.engine.connect().execution_options(reads=True, **level) as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def is_local(address: URL, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a database is on this machine: its server by loopback or socket.

    Args:
        address: of which `_address` has taken all that names another host.
        environ: in which the driver looks for another one; None where it does not.
    """
    environ = environ or {}
    if address.host is None and not _sockets(address) and environ.get("PGHOST"):
        return False
    return is_loopback(address.host or "localhost") and not any(environ.get(name) for name in _ELSEWHERE)


def check_encrypted(
    address: URL, parameter: str, plain: Collection[str], environ: Mapping[str, str] | None = None
) -> None:
    """Refuse a URL by whose parameter a database of another machine would be spoken to without TLS that is checked.

    Args:
        address: as for `is_local`, of another machine.
        parameter: what the URL says, such as `sslmode=disable`, for the message.
        plain: hosts for which that is allowed.
        environ: as for `is_local`.

    Raises:
        DatabaseError: saying what to write.
    """
    # Where the environment leads is not what the settings name as private.
    is_named = bool(address.host) and not any((environ or {}).get(name) for name in _ELSEWHERE)
    if is_named and all(host.strip("[]") in plain for host in str(address.host).split(",")):
        return
    where = repr(address.host) if is_named else "another machine, which the environment names"
    message = (
        f"what the database on {where} is asked would leave this machine unencrypted, or reach whoever claims to be "
        f"it: take {parameter} out of the database's URL, or name the host there and in network.plain if nobody else "
        "can read on the way"
    )
    raise DatabaseError(message)


def _sockets(address: URL) -> tuple[str, ...]:
    """The folders of sockets that a URL names in place of a host."""
    given = address.query.get("host", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _address(url: str, password: str) -> URL:
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The URL itself may hold a password, and is not repeated.
        message = "the database's URL cannot be read; write sqlite:///path, postgresql://user@host/name or mariadb://…"
        raise DatabaseError(message) from error
    if address.drivername not in _MODULES:
        message = f"databases called {address.drivername!r} are not known; there are {', '.join(_MODULES)}"
        raise DatabaseError(message)
    away = sorted(set(address.query) & _NOT_IN_URL)
    is_socket = address.host is None and all(each.startswith("/") for each in _sockets(address))
    if away or (not is_socket and "host" in address.query):
        message = f"a database's URL names its host before the name, and takes no {', '.join(away) or 'host'} behind it"
        raise DatabaseError(message)
    return address.set(password=password) if password else address
