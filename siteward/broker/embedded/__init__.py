"""The embedded broker: queues in one SQLite file, shared by any number of processes of one machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

from siteward.broker import ParkedMessage, QueueStatus
from siteward.broker.embedded.consumer import EmbeddedConsumer
from siteward.broker.embedded.file import BrokerFile
from siteward.broker.embedded.publisher import EmbeddedPublisher
from siteward.broker.embedded.rows import MESSAGE, insert_message, message_of, queue_number
from siteward.records import moment
from siteward.settings import Settings


def open_broker(url: str, settings: Settings) -> EmbeddedBroker:
    """The broker in the file that an `embedded:///path` URL names."""
    return EmbeddedBroker(
        Path(unquote(urlsplit(url).path)), lease=settings.broker.lease, max_bytes=settings.broker.max_bytes
    )


class Held(NamedTuple):
    """Messages of one key, and why they are parked; "" of those that wait. `since` is when the oldest one came."""

    key: str
    reason: str
    messages: int
    records: int
    since: datetime


class EmbeddedBroker:
    """Queues in one SQLite file; every publisher and consumer has a connection of its own."""

    def __init__(self, path: Path, *, lease: float = 30.0, max_bytes: int = 2**62) -> None:
        """Name the file; it is opened, and made, when first used.

        Args:
            path: the file.
            lease: seconds after which a consumer that stopped renewing is taken for dead.
            max_bytes: largest size of waiting bodies, beyond which publishing is refused.
        """
        self.path = path
        self.lease = lease
        self.max_bytes = max_bytes
        self._file = BrokerFile(path, durable=True)

    def __enter__(self) -> Self:
        """The broker itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def declare(self, topology: Mapping[str, Sequence[str]]) -> None:
        """Make queues and bindings; what is bound to a queue beyond these patterns is unbound."""
        with self._file.transaction() as connection:
            for queue, patterns in topology.items():
                connection.execute("INSERT INTO queues (name) VALUES (?) ON CONFLICT DO NOTHING", (queue,))
                number = queue_number(connection, queue)
                connection.execute("DELETE FROM bindings WHERE queue = ?", (number,))
                connection.executemany("INSERT INTO bindings VALUES (?, ?)", [(number, each) for each in set(patterns)])

    def publisher(self) -> EmbeddedPublisher:
        """A publisher with a connection of its own."""
        return EmbeddedPublisher(self.path, self.max_bytes)

    def consumer(self, queue: str, name: str, prefetch: int) -> EmbeddedConsumer:
        """A consumer with a connection of its own; what an earlier one of the same name held comes first."""
        return EmbeddedConsumer(self.path, queue, name, prefetch, self.lease)

    def status(self) -> list[QueueStatus]:
        """Every queue, by name."""
        statement = """
            SELECT name, published, acknowledged,
                (SELECT count(*) FROM parked WHERE parked.queue = queues.id),
                count(message), count(consumer), coalesce(sum(count), 0), coalesce(sum(bytes), 0), min(at)
            FROM queues LEFT JOIN (
                SELECT queue, message, consumer, count, bytes, messages.published AS at
                FROM deliveries JOIN messages ON messages.id = message
            ) ON queue = queues.id
            GROUP BY queues.id ORDER BY name"""
        with self._file.reading() as connection:
            rows = connection.execute(statement).fetchall()
        return [
            QueueStatus(
                queue=name,
                ready=waiting - unacked,
                unacked=unacked,
                parked=parked,
                records=records,
                bytes=size,
                oldest=None if oldest is None else moment(oldest),
                published=published,
                acknowledged=acknowledged,
            )
            for name, published, acknowledged, parked, waiting, unacked, records, size, oldest in rows
        ]

    def parked(self) -> list[ParkedMessage]:
        """Whole messages put aside, oldest first."""
        statement = f"""
            SELECT queues.name, parked.id, {MESSAGE.replace("name", "parked.name")}, body, reason, at
            FROM parked JOIN queues ON queues.id = parked.queue ORDER BY parked.id"""  # noqa: S608  # constants.
        with self._file.reading() as connection:
            rows = connection.execute(statement).fetchall()
        return [
            ParkedMessage(queue, number, message_of([*parts, body]), reason, moment(at))
            for queue, number, *parts, body, reason, at in rows
        ]

    def parked_numbers(self) -> list[int]:
        """The numbers alone of all parked messages, whose bodies may not fit into memory together."""
        with self._file.reading() as connection:
            return [number for (number,) in connection.execute("SELECT id FROM parked ORDER BY id")]

    def parked_bytes(self) -> int:
        """The size of the bodies of all parked messages."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT coalesce(sum(length(body)), 0) FROM parked").fetchone()[0])

    def parked_records(self) -> int:
        """How many records all parked messages have."""
        with self._file.reading() as connection:
            return int(connection.execute("SELECT coalesce(sum(count), 0) FROM parked").fetchone()[0])

    def content(self) -> list[Held]:
        """Sums of what waits in any queue, by key, and of what is parked, by key and reason; the oldest first."""
        statement = """
            SELECT * FROM (
                SELECT key, '' AS reason, count(*), sum(count), min(published) AS since FROM messages GROUP BY key
                UNION ALL
                SELECT key, reason, count(*), sum(count), min(at) FROM parked GROUP BY key, reason
            ) ORDER BY reason <> '', since"""
        with self._file.reading() as connection:
            rows = connection.execute(statement).fetchall()
        return [Held(key, reason, messages, records, moment(since)) for key, reason, messages, records, since in rows]

    def replay(self, numbers: Sequence[int]) -> int:
        """Put parked messages back at the end of their queue; the number moved."""
        now = time.time_ns() // 1000
        with self._file.transaction() as connection:
            moved = 0
            for number in numbers:
                row = connection.execute(
                    f"SELECT queue, {MESSAGE}, body FROM parked WHERE id = ?",  # noqa: S608  # constants.
                    (number,),
                ).fetchone()
                if row is None:
                    continue
                queue, *parts, body = row
                insert_message(connection, message_of([*parts, body]), now, [queue])
                connection.execute("DELETE FROM parked WHERE id = ?", (number,))
                moved += 1
        return moved

    def discard(self, numbers: Sequence[int]) -> int:
        """Forget parked messages; the number forgotten."""
        with self._file.transaction() as connection:
            before = connection.total_changes
            connection.executemany("DELETE FROM parked WHERE id = ?", [(number,) for number in numbers])
            return connection.total_changes - before

    def remove(self, queue: str) -> int:
        """Remove a queue and what waits in it; the number of records that no other queue has."""
        with self._file.transaction() as connection:
            number = queue_number(connection, queue)
            for table in ("bindings", "deliveries", "consumers", "parked"):
                connection.execute(f"DELETE FROM {table} WHERE queue = ?", (number,))  # noqa: S608  # constants.
            connection.execute("DELETE FROM queues WHERE id = ?", (number,))
            orphans = "id NOT IN (SELECT message FROM deliveries)"
            lost, size = connection.execute(
                f"SELECT coalesce(sum(count), 0), coalesce(sum(bytes), 0) FROM messages WHERE {orphans}"  # noqa: S608  # constants.
            ).fetchone()
            connection.execute(f"DELETE FROM messages WHERE {orphans}")  # noqa: S608  # constants.
            connection.execute("UPDATE totals SET bytes = bytes - ?", (size,))
        return int(lost)

    def close(self) -> None:
        """Close the broker's own connection; publishers and consumers close theirs."""
        self._file.close()


__all__ = ["EmbeddedBroker", "EmbeddedConsumer", "EmbeddedPublisher", "Held", "open_broker"]
