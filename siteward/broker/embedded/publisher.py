"""Publishing into the embedded broker's file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from siteward.broker import BrokerFull, Message, Unroutable
from siteward.broker.embedded.file import BrokerFile
from siteward.broker.embedded.rows import insert_message
from siteward.broker.topology import matches


class EmbeddedPublisher:
    """Publishes into the file; a return is a confirm."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Name the file; every commit survives a power failure."""
        self._file = BrokerFile(path, durable=True)
        self.max_bytes = max_bytes
        """Of waiting bodies, beyond which nothing more is taken."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Store all messages in one transaction.

        Raises:
            BrokerFull: the file holds as much as it may.
            BrokerUnavailable: it is locked, or the disk is full.
            Unroutable: no queue takes one of the keys; none of the messages is stored.
        """
        now = time.time_ns() // 1000
        with self._file.transaction() as connection:
            bindings = connection.execute("SELECT queue, pattern FROM bindings").fetchall()
            routes: dict[str, list[int]] = {}
            for message in messages:
                queues = routes.get(message.key)
                if queues is None:
                    queues = sorted({queue for queue, pattern in bindings if matches(pattern, message.key)})
                    routes[message.key] = queues
                if not queues:
                    reason = f"no queue is bound to {message.key!r}; is any sink installed?"
                    raise Unroutable(reason)
                insert_message(connection, message, now, queues)
            if connection.execute("SELECT bytes FROM totals").fetchone()[0] > self.max_bytes:
                reason = f"{self._file.path} holds {self.max_bytes} bytes of waiting messages already; it takes no more"
                raise BrokerFull(reason)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
