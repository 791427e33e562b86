"""The collectors' own SQLite file: dead letters, their audit, stopped queues, receipts and submissions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from siteward.private_files import begin_private
from siteward.settings import Settings
from siteward.write_ahead import write_ahead

FILE: Final = "collectors.sqlite"
VERSION: Final = 1
BUSY_MILLISECONDS: Final = 30_000
_SCHEMA: Final = """
CREATE TABLE letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    record BLOB NOT NULL,
    stage TEXT NOT NULL,
    kind TEXT NOT NULL,
    vo TEXT NOT NULL,
    producer TEXT NOT NULL,
    message BLOB NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    reason TEXT NOT NULL,
    original BLOB NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    times INTEGER NOT NULL DEFAULT 1,
    state TEXT NOT NULL DEFAULT 'open',
    UNIQUE (queue, record)
);
CREATE INDEX letters_by_state ON letters (state, queue, kind);
CREATE TABLE audit (
    letter INTEGER NOT NULL REFERENCES letters (number),
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    note TEXT NOT NULL,
    bytes BLOB
);
CREATE INDEX audit_by_letter ON audit (letter);
CREATE TABLE stops (queue TEXT PRIMARY KEY, reason TEXT NOT NULL, at INTEGER NOT NULL);
CREATE TABLE receipts (
    message BLOB NOT NULL,
    position INTEGER NOT NULL,
    sink TEXT NOT NULL,
    record BLOB,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (message, position, sink)
) WITHOUT ROWID;
CREATE INDEX receipts_by_record ON receipts (record);
CREATE INDEX receipts_by_age ON receipts (at);
CREATE TABLE submissions (key BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
"""


def database_path(settings: Settings) -> Path:
    """Where the file lies."""
    return settings.folder / FILE


class Database:
    """One connection to the file, for any thread, one at a time; any number of processes have their own."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it where it is missing.

        Raises:
            sqlite3.Error: the file cannot be opened, or is of a newer Siteward.
        """
        begin_private(path)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        """The database itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def _prepare(self, path: Path) -> None:
        write_ahead(self._connection)
        # What stands here is why a message may be acknowledged: it must survive a power failure.
        self._connection.execute("PRAGMA synchronous = FULL")
        if self._version() == VERSION:
            return
        with self.transaction() as connection:
            found = self._version()  # Again, under the lock: another process may have been faster.
            if found > VERSION:
                message = f"{path} was written by a newer Siteward (version {found}; this one reads {VERSION})"
                raise sqlite3.DatabaseError(message)
            if found == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, rolled back on any error."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def scrub(self) -> None:
        """Write the file anew, so that what was deleted is in none of its pages any more."""
        with self._lock:
            self._connection.execute("VACUUM")
            (is_busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            message = "others read the file; do it again"
            raise sqlite3.OperationalError(message)

    def rows(self, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """The rows of a question."""
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()

    def close(self) -> None:
        """Close the connection; closing twice is allowed."""
        with self._lock:
            self._connection.close()


def storable(text: str) -> str:
    """Text that SQLite takes: what is refused may hold half characters, which UTF-8 cannot write."""
    return text.encode("utf-8", "backslashreplace").decode()
