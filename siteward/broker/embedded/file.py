"""The SQLite file behind the embedded broker and the spool: transactions that say why not, safe over forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

from siteward.broker import BrokerError, BrokerUnavailable
from siteward.private_files import begin_private
from siteward.write_ahead import write_ahead

VERSION: Final = 1
BUSY_SECONDS: Final = 10.0
"""How long to wait for another process's transaction; they take milliseconds unless the disk hangs."""
_DURABLE: Final = {False: "PRAGMA synchronous = NORMAL", True: "PRAGMA synchronous = FULL"}


class UnreadableFile(BrokerError):  # noqa: N818  # reads as the state it is.
    """The file is not an embedded broker's, or of a version this code does not read."""

    permanent = True


class BrokerFile:
    """One connection to the file, opened when needed.

    One thread of a process at a time is within a transaction, whatever the file; transactions take milliseconds. So a
    thread that forks can wait until none is, and close all connections, which open again when next used: SQLite keeps
    its locks per process, and a child that inherited an open file would believe to hold what its parent holds.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Name the file.

        Args:
            path: the file; its folder is made, for this user only.
            durable: a commit survives a power failure. Consumers do without: what they forget is delivered again.
        """
        self.path = path
        self._durable = durable
        self._connection: sqlite3.Connection | None = None
        _files.add(self)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing; the write lock is taken at once, so that no transaction fails half-way for want of it.

        Args:
            durable: this one survives a power failure even where the file's do not.

        Raises:
            BrokerUnavailable: disk full, another process holds the file too long, the disk failed; nothing changed.
        """
        with self._turn() as connection:
            if durable and not self._durable:
                connection.execute(_DURABLE[True])
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if durable and not self._durable:
                    connection.execute(_DURABLE[False])

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the file, however many questions are asked of it; nobody waits for a reader.

        Raises:
            BrokerUnavailable: the file cannot be read now.
        """
        with self._turn() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def changes(self) -> int:
        """A number that differs after every commit of another connection; costs microseconds."""
        with self._turn() as connection:
            number: int = connection.execute("PRAGMA data_version").fetchone()[0]
            return number

    def close(self) -> None:
        """Close the connection; a later use opens it again."""
        with _turns:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        with _turns:
            try:
                if self._connection is None:
                    self._connection = _connected(self.path, durable=self._durable)
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise _told(error, self.path) from error


_files: weakref.WeakSet[BrokerFile] = weakref.WeakSet()
_turns = threading.RLock()
"""Held by the thread that is within a transaction, or forks."""


def _before_fork() -> None:
    _turns.acquire()
    for file in list(_files):
        file.close()


def _after_fork_in_child() -> None:
    global _turns  # noqa: PLW0603  # its owner is a thread that the child may not have.
    _turns = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _turns.release(), after_in_child=_after_fork_in_child
    )


def _connected(path: Path, *, durable: bool) -> sqlite3.Connection:
    """Open the file, making it first where it is not there."""
    begin_private(path)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
        connection.execute(_DURABLE[durable])
        # Bodies are large; without a limit one busy day would leave the log at its largest size for ever.
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.execute("PRAGMA page_size = 16384")
        write_ahead(connection)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made the tables between the two looks.
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in files("siteward.broker.embedded").joinpath("schema.sql").read_text("utf-8").split(";\n"):
                connection.execute(statement)
        connection.execute("COMMIT")
    elif version != VERSION:
        message = f"{path} has version {version}; this Siteward reads {VERSION}"
        raise UnreadableFile(message)


def _told(error: sqlite3.Error | OSError, path: Path) -> BrokerError:
    if getattr(error, "sqlite_errorname", "") in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
        return UnreadableFile(f"{path}: {error}; move it away to start with an empty one")
    return BrokerUnavailable(f"{path}: {error}")
