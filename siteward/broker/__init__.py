"""The broker contract: messages in, one durable queue per sink, deliveries out, acknowledged after the sink committed.

Implementations live beside this file and are chosen by the URL's scheme (entry points `siteward.brokers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn, Protocol

import msgspec

from siteward.envelope import MSGPACK


class BrokerError(Exception):
    """A broker did not do what it was asked.

    Attributes:
        permanent: the same call can never succeed; false means try again later.
        stored: so many messages of a publisher's call, the first ones, are known to be stored all the same.
    """

    permanent = False
    stored = 0


class BrokerUnavailable(BrokerError):  # noqa: N818  # reads as the state it is.
    """The broker cannot be reached, is full, or did not confirm. Try again later.

    Attributes:
        wait: seconds before which that is of no use, as the broker says.
    """

    wait = 0.0


class BrokerFull(BrokerUnavailable):
    """The broker takes no more before something was consumed."""


class Unroutable(BrokerError):  # noqa: N818  # as above.
    """No queue is bound to the routing key, so that the message would reach no sink."""


class Forbidden(BrokerError):  # noqa: N818  # as above.
    """Whoever is connected cannot publish under a routing key: its VO is not one of theirs, or no key of this broker.

    Attributes:
        key: the routing key that was refused. Messages of other keys, given in the same call, may be stored.
    """

    def __init__(self, message: str, key: str) -> None:
        """Say why, and which key."""
        super().__init__(message)
        self.key = key


class Rejected(BrokerError):  # noqa: N818  # as above.
    """The broker has read a message, the one behind those that are stored, and does not take some of its records.

    Its other records are stored.

    Attributes:
        left: messages with the records that are not, and no others; the message itself where it has no others.
    """

    permanent = True

    def __init__(self, message: str, left: Sequence[Message]) -> None:
        """Say why, and of which records."""
        super().__init__(message)
        self.left = list(left)


class Message(msgspec.Struct, frozen=True):
    """One envelope on its way.

    Attributes:
        key: routing key, `<vo>.<kind>`; a VO may contain dots, a kind cannot.
        body: the envelope, compressed as content_encoding says.
        count: records in it; for counters only.
        content_type: MSGPACK or JSON of siteward.envelope.
        content_encoding: "" or "zstd".
        id: names the message in logs and receipts; the same message sent again keeps it.
    """

    key: str
    body: bytes
    count: int = 1
    content_type: str = MSGPACK
    content_encoding: str = ""
    id: str = ""


class Delivery(msgspec.Struct, frozen=True):
    """A message given to one consumer, not yet acknowledged.

    Attributes:
        message: what was published.
        tag: names the delivery towards its consumer.
        redelivered: how often it was delivered before and not acknowledged. RabbitMQ counts what a consumer gave back
            among these, so that a good message may reach any number; it only says what to be careful with.
        published: when, microseconds since 1970 UTC; 0 where the broker does not know.
    """

    message: Message
    tag: int
    redelivered: int = 0
    published: int = 0


class QueueStatus(msgspec.Struct, frozen=True):
    """What stands in one queue; None for what this broker does not know.

    Attributes:
        queue: its name, that of the sink.
        ready: messages that wait.
        unacked: messages delivered and not yet acknowledged.
        parked: messages that could not be read and were put aside with a reason.
        records: records in ready and unacked messages.
        bytes: their bodies' size.
        oldest: when the oldest of them was published; None where there is none as well.
        published: records ever routed to it.
        acknowledged: records ever acknowledged.
    """

    queue: str
    ready: int
    unacked: int | None
    parked: int
    records: int | None
    bytes: int | None
    oldest: datetime | None
    published: int | None
    acknowledged: int | None


class ParkedMessage(msgspec.Struct, frozen=True):
    """A whole message put aside because nothing could be read from it."""

    queue: str
    number: int
    message: Message
    reason: str
    at: datetime


class Publisher(Protocol):
    """Sends messages. One thread at a time uses it."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages and return when every one is durably stored in every queue bound to its key.

        Blocks on the network or disk. After an error, any of the messages may have been stored: send all again but
        those that the error says are stored; sinks ignore what they have.

        Raises:
            BrokerUnavailable: try again later.
            Unroutable: no queue takes a key.
            Forbidden: the connecting user may not publish under a key.
            Rejected: some records of a message are not taken; those behind it were not sent.
        """

    def close(self) -> None:
        """Let go of connections; a closed publisher is not used again."""


class Consumer(Protocol):
    """Receives the deliveries of one queue. One thread at a time uses it."""

    def receive(self, wait: float) -> list[Delivery]:
        """Deliveries beyond those held already, oldest first, up to the prefetch limit; [] after `wait` seconds.

        Raises:
            BrokerUnavailable: the connection is lost; all deliveries held will come again. Open a new consumer.
        """

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these for good: their sink has committed. Never called before that."""

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back unprocessed, for another consumer or a later try; not counted as a redelivery."""

    def park(self, delivery: Delivery, reason: str) -> None:
        """Put a message aside that nothing can be read from, with the reason, and acknowledge it."""

    def replace(self, delivery: Delivery, messages: Sequence[Message]) -> None:
        """Put messages into this queue, and no other, in place of a delivery, which is acknowledged.

        The messages are stored before the delivery is forgotten: who is killed in between has both.
        """

    def close(self) -> None:
        """Give back everything held, then let go of connections."""


class Broker(Protocol):
    """A place where messages wait durably between those who emit and those who store."""

    def declare(self, topology: Mapping[str, Sequence[str]]) -> None:
        """Make queues and bindings, or leave those that are there; queue name to topic patterns (see topology).

        A user who may publish but not configure declares nothing, and takes the topology as it is.

        Raises:
            BrokerUnavailable: it cannot be reached now.
            BrokerError: what is there contradicts what should be in a way that could lose records; permanent.
        """

    def publisher(self) -> Publisher:
        """A publisher of its own for one thread."""

    def consumer(self, queue: str, name: str, prefetch: int) -> Consumer:
        """A consumer of a queue.

        Args:
            queue: a declared queue.
            name: stable across restarts of the same consumer, so that it gets back at once what it held when it
                was killed; two living consumers never share one.
            prefetch: most messages held unacknowledged.

        Raises:
            BrokerError: this broker only takes; permanent.
        """

    def status(self) -> list[QueueStatus]:
        """Every queue, by name."""

    def close(self) -> None:
        """Close what this object opened."""


class ParkedMessages(Protocol):
    """Whole messages that were parked; a broker offers it beside the Broker contract."""

    def parked(self) -> list[ParkedMessage]:
        """All of them, oldest first."""

    def replay(self, numbers: Sequence[int]) -> int:
        """Put messages back into their queue; the number of messages moved."""

    def discard(self, numbers: Sequence[int]) -> int:
        """Forget messages; the number forgotten."""


class TakesOnly(Protocol):
    """A broker for who emits, which gives nothing back; said beside the Broker contract."""

    def refuse_readers(self) -> NoReturn:
        """Say what whoever would consume has to write instead.

        Raises:
            BrokerError: always; permanent.
        """


class RemovableQueues(Protocol):
    """Queues of sinks that are no longer installed; a broker offers it beside the Broker contract."""

    def remove(self, queue: str) -> int:
        """Remove a queue with everything that waits or is parked in it; the number of records lost by that.

        Raises:
            BrokerError: there is no such queue.
        """
