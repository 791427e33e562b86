"""The SQLite file behind the embedded broker and the emitter's spool: opening it, and telling why not."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from siteward.broker import BrokerError, BrokerUnavailable, Message

VERSION: Final = 1
BUSY_SECONDS: Final = 10.0
"""How long to wait for another process's transaction; they take milliseconds unless the disk hangs."""
_SWITCH_TRIES: Final = 200


class UnreadableFile(BrokerError):  # noqa: N818  # reads as the state it is.
    """The file is not an embedded broker's, or of a version this code does not read."""

    permanent = True


def connect(path: Path, *, durable: bool) -> sqlite3.Connection:
    """Open the file, making it first where it is not there.

    Args:
        path: the file; its folder is made, for this user only.
        durable: a commit survives a power failure. Consumers do without: what they forget is delivered again.

    Raises:
        BrokerUnavailable: the file cannot be opened now.
        UnreadableFile: it never can.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        _prepare(connection, path)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        # Bodies are large; without a limit one busy day would leave the log at its largest size for ever.
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except sqlite3.Error as error:
        raise _told(error, path) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.execute("PRAGMA page_size = 16384")
        _switch_to_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made the tables between the two looks.
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in files("siteward.broker.embedded").joinpath("schema.sql").read_text("utf-8").split(";\n"):
                connection.execute(statement)
        connection.execute("COMMIT")
    elif version != VERSION:
        message = f"{path} has version {version}; this Siteward reads {VERSION}"
        raise UnreadableFile(message)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for others here, whatever the timeout, so we do."""
    for attempt in range(_SWITCH_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if attempt == _SWITCH_TRIES - 1:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """All or nothing; the write lock is taken at once, so that no transaction fails half-way for want of it.

    Raises:
        BrokerUnavailable: disk full, another process holds the file too long, the disk failed; nothing was changed.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise _told(error, path) from error
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise _told(error, path) from error
        raise


def _told(error: sqlite3.Error, path: Path) -> BrokerError:
    if getattr(error, "sqlite_errorname", "") in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
        return UnreadableFile(f"{path}: {error}; move it away to start with an empty one")
    return BrokerUnavailable(f"{path}: {error}")


MESSAGE: Final = "key, name, content_type, content_encoding, count"
"""The columns that messages and parked ones share, before the body."""


def queue_number(connection: sqlite3.Connection, name: str) -> int:
    """The number of a declared queue.

    Raises:
        BrokerError: there is none of that name.
    """
    row = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    if row is None:
        reason = f"there is no queue {name!r}"
        raise BrokerError(reason)
    number: int = row[0]
    return number


def insert_message(connection: sqlite3.Connection, message: Message, now: int, queues: Sequence[int]) -> None:
    """Store a message once, with a delivery for each queue."""
    size = len(message.body)
    number = connection.execute(
        f"INSERT INTO messages ({MESSAGE}, body, bytes, published) VALUES (?,?,?,?,?,?,?,?)",  # noqa: S608  # constants.
        (*message_parts(message), size, now),
    ).lastrowid
    connection.executemany(
        "INSERT INTO deliveries (queue, message) VALUES (?, ?)", [(queue, number) for queue in queues]
    )
    connection.executemany(
        "UPDATE queues SET published = published + ? WHERE id = ?", [(message.count, queue) for queue in queues]
    )
    connection.execute("UPDATE totals SET bytes = bytes + ?", (size,))


def message_parts(message: Message) -> tuple[str, str, str, str, int, bytes]:
    """A message as the columns of MESSAGE, and the body."""
    return (message.key, message.id, message.content_type, message.content_encoding, message.count, message.body)


def message_of(parts: Sequence[Any]) -> Message:
    """The inverse of message_parts."""
    key, name, content_type, content_encoding, count, body = parts
    return Message(
        key=key, body=body, count=count, content_type=content_type, content_encoding=content_encoding, id=name
    )
