"""Consuming a queue of the embedded broker: leases instead of locks, so that a dead process holds nothing."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from siteward.broker import BrokerError, BrokerUnavailable, Delivery, Message
from siteward.broker.embedded.file import BrokerFile
from siteward.broker.embedded.rows import MESSAGE, insert_message, message_of, message_parts, queue_number

POLL_SECONDS: Final = 0.02
"""How often a waiting consumer looks for new messages; a look is a few microseconds."""
LOOK_SECONDS: Final = 1.0
"""How often it looks for messages whose consumer died."""
LONGEST_LEASES: Final = 10
"""How many of its own leases ahead a consumer believes in another one's."""
HELD_BYTES: Final = 8 * 2**20
"""Most bytes of bodies that a consumer holds, so that a backlog of large envelopes stays out of memory."""


class EmbeddedConsumer:
    """Takes the deliveries of one queue; alive as long as its process renews its lease."""

    def __init__(self, path: Path, queue: str, name: str, prefetch: int, lease: float) -> None:
        """Register the consumer; what an earlier one of the same name held is ready again at once."""
        self._file = BrokerFile(path, durable=False)
        self._prefetch = prefetch
        self._lease = lease
        self._held: dict[int, Delivery] = {}
        with self._file.transaction() as connection:
            self._queue = queue_number(connection, queue)
            connection.execute("DELETE FROM consumers WHERE queue = ? AND name = ?", (self._queue, name))
            row = connection.execute(
                "INSERT INTO consumers (queue, name, until) VALUES (?, ?, ?) RETURNING id",
                (self._queue, name, self._until()),
            ).fetchone()
            self._number: int = row[0]
            _free_the_dead(connection, self._queue, self._lease)
        self._lost = False
        self._stop = threading.Event()
        # A sink may take longer than the lease; renewal therefore does not depend on receive() being called.
        self._renewal = threading.Thread(target=self._renew_for_ever, name=f"lease-{queue}", daemon=True)
        self._renewal.start()

    def receive(self, wait: float) -> list[Delivery]:
        """Deliveries beyond those held, oldest first; [] when none came within `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            seen, looked = self._file.changes(), time.monotonic()
            deliveries = self._take()
            if deliveries:
                return deliveries
            # A lease that lapses changes nothing in the file, so it is looked for now and then.
            while self._file.changes() == seen and time.monotonic() < looked + LOOK_SECONDS:
                if time.monotonic() >= deadline:
                    return []
                time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these; a message that no other queue wants is deleted."""
        with self._file.transaction() as connection:
            for delivery in deliveries:
                self._forget(connection, delivery)
        self._drop(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back unprocessed."""
        with self._file.transaction() as connection:
            connection.executemany(
                "UPDATE deliveries SET consumer = NULL WHERE queue = ? AND message = ? AND consumer = ?",
                [(self._queue, delivery.tag, self._number) for delivery in deliveries],
            )
        self._drop(deliveries)

    def replace(self, delivery: Delivery, messages: Sequence[Message]) -> None:
        """Put messages at the end of this queue in place of a delivery, in one durable transaction."""
        now = time.time_ns() // 1000
        with self._file.transaction(durable=True) as connection:
            if self._holds(connection, delivery):
                for message in messages:
                    insert_message(connection, message, now, [self._queue])
                self._forget(connection, delivery)
        self._drop([delivery])

    def park(self, delivery: Delivery, reason: str) -> None:
        """Put a message aside and acknowledge it in one durable transaction."""
        message = delivery.message
        with self._file.transaction(durable=True) as connection:
            if self._holds(connection, delivery):
                connection.execute(
                    f"INSERT INTO parked (queue, at, reason, {MESSAGE}, body) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608  # constants.
                    (self._queue, time.time_ns() // 1000, reason, *message_parts(message)),
                )
                self._forget(connection, delivery)
        self._drop([delivery])

    def close(self) -> None:
        """Give everything back and unregister."""
        self._stop.set()
        self._renewal.join()
        try:
            with self._file.transaction() as connection:
                connection.execute(
                    "UPDATE deliveries SET consumer = NULL WHERE queue = ? AND consumer = ?",
                    (self._queue, self._number),
                )
                connection.execute("DELETE FROM consumers WHERE id = ?", (self._number,))
        except BrokerError:
            pass  # The lease lapses by itself; a consumer that goes has nobody to tell.
        finally:
            self._held.clear()
            self._file.close()

    def _take(self) -> list[Delivery]:
        room = self._prefetch - len(self._held)
        if self._lost:
            reason = (
                "the consumer was silent for longer than its lease, or another one of its name has taken over; "
                "what it held goes to others"
            )
            raise BrokerUnavailable(reason)
        space = HELD_BYTES - sum(len(delivery.message.body) for delivery in self._held.values())
        if room <= 0 or (space <= 0 and self._held):
            return []
        with self._file.transaction() as connection:
            _free_the_dead(connection, self._queue, self._lease)
            sizes = connection.execute(
                "SELECT message, bytes FROM deliveries JOIN messages ON messages.id = message "
                "WHERE queue = ? AND consumer IS NULL ORDER BY message LIMIT ?",
                (self._queue, room),
            ).fetchall()
            taken: list[int] = []
            for number, size in sizes:
                space -= size
                if space < 0 and (taken or self._held):
                    break
                taken.append(number)
            connection.executemany(
                "UPDATE deliveries SET consumer = ? WHERE queue = ? AND message = ?",
                [(self._number, self._queue, number) for number in taken],
            )
            deliveries = [self._read(connection, number) for number in taken]
        self._held.update((delivery.tag, delivery) for delivery in deliveries)
        return deliveries

    def _read(self, connection: sqlite3.Connection, number: int) -> Delivery:
        *parts, body, redelivered, published = connection.execute(
            f"SELECT {MESSAGE}, body, redelivered, published FROM messages "  # noqa: S608  # constants.
            "JOIN deliveries ON message = messages.id AND queue = ? WHERE messages.id = ?",
            (self._queue, number),
        ).fetchone()
        return Delivery(message_of([*parts, body]), number, redelivered, published)

    def _holds(self, connection: sqlite3.Connection, delivery: Delivery) -> bool:
        """Whether a delivery is still ours: who was silent for too long has lost it to another."""
        held = connection.execute(
            "SELECT 1 FROM deliveries WHERE queue = ? AND message = ? AND consumer = ?",
            (self._queue, delivery.tag, self._number),
        )
        return held.fetchone() is not None

    def _forget(self, connection: sqlite3.Connection, delivery: Delivery) -> None:
        """Delete a delivery that is still ours, and the message with its last delivery."""
        gone = connection.execute(
            "DELETE FROM deliveries WHERE queue = ? AND message = ? AND consumer = ?",
            (self._queue, delivery.tag, self._number),
        ).rowcount
        if not gone:
            return
        connection.execute(
            "UPDATE queues SET acknowledged = acknowledged + ? WHERE id = ?", (delivery.message.count, self._queue)
        )
        gone = connection.execute(
            "DELETE FROM messages WHERE id = ? AND NOT EXISTS "
            "(SELECT 1 FROM queues JOIN deliveries ON queue = queues.id AND message = messages.id)",
            (delivery.tag,),
        ).rowcount
        if gone:
            connection.execute("UPDATE totals SET bytes = bytes - ?", (len(delivery.message.body),))

    def _drop(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._held.pop(delivery.tag, None)

    def _until(self) -> int:
        return time.time_ns() // 1000 + int(self._lease * 1e6)

    def _renew_for_ever(self) -> None:
        while not self._stop.wait(self._lease / 3):
            try:
                with self._file.transaction() as connection:
                    renewed = connection.execute(
                        "UPDATE consumers SET until = ? WHERE id = ?", (self._until(), self._number)
                    ).rowcount
            except BrokerError:
                continue
            self._lost = not renewed


def _free_the_dead(connection: sqlite3.Connection, queue: int, lease: float) -> None:
    """Make ready again what consumers hold that no longer renew their lease, or were replaced by their successor.

    A lease far ahead was given before somebody set the clock back; a living consumer soon renews its own.
    """
    now = time.time_ns() // 1000
    bounds = (queue, now, now + int(LONGEST_LEASES * lease * 1e6))
    connection.execute("DELETE FROM consumers WHERE queue = ? AND (until < ? OR until > ?)", bounds)
    connection.execute(
        "UPDATE deliveries SET consumer = NULL, redelivered = redelivered + 1 "
        "WHERE queue = ? AND consumer IS NOT NULL AND consumer NOT IN (SELECT id FROM consumers)",
        (queue,),
    )
