"""Messages as rows of the embedded broker's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from siteward.broker import BrokerError, Message

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
