"""The spool: messages on disk until the broker takes them; the embedded broker's file with one queue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from siteward.broker import Delivery, Message
from siteward.broker.embedded import EmbeddedBroker, EmbeddedConsumer, EmbeddedPublisher, Held
from siteward.broker.topology import EVERYTHING

QUEUE: Final = "spool"
LEASE: Final = 10.0
AT_ONCE: Final = 20


class Spool:
    """Shared by all programs of a user on a machine; whoever runs sends what others left behind.

    Put is used by the sending thread, everything else by the replaying one.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Name the folder; nothing is opened before something must be spooled, or was."""
        self._path = folder / "spool.sqlite"
        self._file = EmbeddedBroker(self._path, lease=LEASE, max_bytes=max_bytes)
        self._publisher: EmbeddedPublisher | None = None
        self._consumer: EmbeddedConsumer | None = None
        self._held: list[Delivery] = []

    def put(self, messages: Sequence[Message]) -> None:
        """Store messages durably.

        Raises:
            siteward.broker.BrokerUnavailable: the spool is at its limit, or the disk is full.
        """
        if self._publisher is None:
            self._file.declare({QUEUE: (EVERYTHING,)})
            self._publisher = self._file.publisher()
        # What is set aside is on the disk like what waits.
        self._publisher.max_bytes = self._file.max_bytes - self._file.parked_bytes()
        self._publisher.publish(messages)

    def peek(self) -> list[Message]:
        """The oldest messages that no other program is sending; the same again until forget or release."""
        if self._consumer is None:
            if not self._path.exists():
                return []
            self._file.declare({QUEUE: (EVERYTHING,)})
            self._consumer = self._file.consumer(QUEUE, f"{os.getpid()}-{id(self)}", AT_ONCE)
        if not self._held:
            self._held = self._consumer.receive(0)
        return [delivery.message for delivery in self._held]

    def forget(self, count: int) -> None:
        """Forget the first messages that peek gave: the broker has confirmed them."""
        done, self._held = self._held[:count], self._held[count:]
        if self._consumer is not None and done:
            self._consumer.acknowledge(done)

    def keep_only(self, left: Sequence[Message], reason: str) -> None:
        """Of the first message that peek gave, keep what the broker does not take.

        Parts come behind what waits; a message of which it takes nothing is put aside until take_back.
        """
        assert self._consumer is not None
        first = self._held.pop(0)
        if list(left) == [first.message]:
            self._consumer.park(first, reason)
        else:
            self._consumer.replace(first, left)

    def set_aside(self, key: str, reason: str) -> None:
        """Put aside those of peek's messages that have a routing key; nobody gets them before take_back."""
        for delivery in [each for each in self._held if each.message.key == key]:
            if self._consumer is not None:
                self._consumer.park(delivery, reason)
            self._held.remove(delivery)

    def take_back(self) -> None:
        """Put what was ever set aside behind what waits."""
        if self._path.exists():
            self._file.declare({QUEUE: (EVERYTHING,)})
            self._file.replay(self._file.parked_numbers())

    def aside(self) -> int:
        """How many records were set aside."""
        return self._file.parked_records() if self._path.exists() else 0

    def content(self) -> list[Held]:
        """What is in it, that which waits first; bodies are not read."""
        return self._file.content() if self._path.exists() else []

    def release(self) -> None:
        """Give back what peek gave."""
        self._held = []
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def close(self) -> None:
        """Close the files."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        self._file.close()
