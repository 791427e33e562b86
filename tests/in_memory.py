"""A broker and a sink in memory, of equal rank with the real ones, in which tests can cause faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from threading import Condition

from siteward.broker import (
    BrokerError,
    BrokerUnavailable,
    Delivery,
    Message,
    ParkedMessage,
    QueueStatus,
    Unroutable,
)
from siteward.broker.topology import matches
from siteward.kinds import Kinds
from siteward.records import Kind, Refused, moment
from siteward.server.resources import Resources
from siteward.settings import Settings
from siteward.sinks import Batch, Outcome, SinkUnavailable, Written


class MemoryBroker:
    """Queues in lists. `away` makes every call fail as if the broker were down."""

    def __init__(self, *queues: str) -> None:
        self.bindings: dict[str, tuple[str, ...]] = {}
        self.queues: dict[str, list[tuple[int, Message, int]]] = {}
        self.changed = Condition()
        self.away = False
        self.turned_away = 0
        self.published: list[Message] = []
        self.acknowledged: list[Delivery] = []
        self.released = 0
        self.most_held = 0
        self.put_aside: list[ParkedMessage] = []
        self._tags = count(1)
        self.declare(dict.fromkeys(queues, ("#",)))

    def declare(self, topology: Mapping[str, Sequence[str]]) -> None:
        for queue, patterns in topology.items():
            self.bindings[queue] = tuple(patterns)
            self.queues.setdefault(queue, [])

    def publisher(self) -> MemoryPublisher:
        self.check()
        return MemoryPublisher(self)

    def consumer(self, queue: str, name: str, prefetch: int) -> MemoryConsumer:
        self.check()
        assert name
        return MemoryConsumer(self, queue, prefetch)

    def status(self) -> list[QueueStatus]:
        self.check()
        return [
            QueueStatus(
                queue=queue,
                ready=len(waiting),
                unacked=0,
                parked=sum(each.queue == queue for each in self.put_aside),
                records=sum(message.count for _, message, _ in waiting),
                bytes=sum(len(message.body) for _, message, _ in waiting),
                oldest=None,
                published=sum(message.count for message in self.published),
                acknowledged=sum(each.message.count for each in self.acknowledged),
            )
            for queue, waiting in sorted(self.queues.items())
        ]

    def put(self, messages: Iterable[Message]) -> None:
        self.check()
        with self.changed:
            for message in messages:
                queues = [queue for queue, each in self.bindings.items() if any(matches(p, message.key) for p in each)]
                if not queues:
                    raise Unroutable(message.key)
                self.published.append(message)
                for queue in queues:
                    self.queues[queue].append((next(self._tags), message, 0))
            self.changed.notify_all()

    def check(self) -> None:
        if self.away:
            self.turned_away += 1
            message = "the broker is away"
            raise BrokerUnavailable(message)

    def parked(self) -> list[ParkedMessage]:
        return list(self.put_aside)

    def replay(self, numbers: Sequence[int]) -> int:
        moved = [each for each in self.put_aside if each.number in numbers]
        for each in moved:
            self.queues[each.queue].append((next(self._tags), each.message, 0))
        return self.discard(numbers)

    def discard(self, numbers: Sequence[int]) -> int:
        before = len(self.put_aside)
        self.put_aside = [each for each in self.put_aside if each.number not in numbers]
        return before - len(self.put_aside)

    def close(self) -> None:
        """Nothing is open."""


class MemoryPublisher:
    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(self, messages: Sequence[Message]) -> None:
        self._broker.put(messages)

    def close(self) -> None:
        """Nothing is open."""


class MemoryConsumer:
    """Gives back what it holds when it is closed; `break_after` acknowledgements it loses its connection."""

    def __init__(self, broker: MemoryBroker, queue: str, prefetch: int) -> None:
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._held: dict[int, tuple[int, Message, int]] = {}

    def receive(self, wait: float) -> list[Delivery]:
        deadline = time.monotonic() + wait
        broker = self._broker
        with broker.changed:
            while True:
                broker.check()
                waiting, room = broker.queues[self._queue], self._prefetch - len(self._held)
                if waiting and room > 0:
                    taken, broker.queues[self._queue] = waiting[:room], waiting[room:]
                    self._held.update((each[0], each) for each in taken)
                    broker.most_held = max(broker.most_held, len(self._held))
                    return [Delivery(message, tag, redelivered) for tag, message, redelivered in taken]
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                broker.changed.wait(left)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self._broker.check()
        for delivery in deliveries:
            if delivery.tag not in self._held:
                message = f"delivery {delivery.tag} is not held"
                raise BrokerError(message)
            del self._held[delivery.tag]
        self._broker.acknowledged += deliveries

    def release(self, deliveries: Sequence[Delivery]) -> None:
        with self._broker.changed:
            self._broker.released += len(deliveries)
            self._broker.queues[self._queue][:0] = [self._held.pop(delivery.tag) for delivery in deliveries]

    def park(self, delivery: Delivery, reason: str) -> None:
        del self._held[delivery.tag]
        parked = ParkedMessage(self._queue, delivery.tag, delivery.message, reason, moment(time.time_ns() // 1000))
        self._broker.put_aside.append(parked)

    def replace(self, delivery: Delivery, messages: Sequence[Message]) -> None:
        with self._broker.changed:
            del self._held[delivery.tag]
            self._broker.queues[self._queue] += [(next(self._broker._tags), message, 0) for message in messages]

    def close(self) -> None:
        with self._broker.changed:
            held = [(tag, message, redelivered + 1) for tag, message, redelivered in self._held.values()]
            self._broker.queues[self._queue][:0] = held
            self._held.clear()


class MemorySink:
    """Keeps records by id. `faults` are taken off one by one: each write meets the next one before it stores."""

    def __init__(self, faults: Iterable[Callable[[MemorySink, Batch], None]] = ()) -> None:
        self.stored: dict[bytes, dict[str, object]] = {}
        self.faults = list(faults)
        self.writes: list[int] = []
        self.opened = 0
        self.reject: Callable[[dict[str, object]], bool] = lambda _: False

    def open(self) -> MemorySink:
        self.opened += 1
        return self

    def write(self, batch: Batch) -> Written:
        if self.faults:
            self.faults.pop(0)(self, batch)
        return self.store(batch)

    def store(self, batch: Batch) -> Written:
        self.writes.append(len(batch))
        outcomes: list[Outcome] = []
        reasons: dict[int, Refused] = {}
        for position, (record, fields) in enumerate(zip(batch.ids, rows_of(batch.kind, batch), strict=True)):
            if self.reject(fields):
                outcomes.append(Outcome.REJECTED)
                reasons[position] = Refused("the sink does not like it", kind=batch.kind.name, field="site")
            elif record in self.stored:
                outcomes.append(Outcome.DUPLICATE)
            else:
                self.stored[record] = fields
                outcomes.append(Outcome.STORED)
        return Written(outcomes, reasons)

    def close(self) -> None:
        """Nothing is open."""


def rows_of(kind: Kind, batch: Batch) -> list[dict[str, object]]:
    """A batch's records as field names and values."""
    values = zip(*(batch.columns[name] for name in kind.names), strict=True)
    return [dict(zip(kind.names, row, strict=True)) for row in values]


def unavailable(_sink: MemorySink, _batch: Batch) -> None:
    """A fault: nothing is stored."""
    message = "the store is away"
    raise SinkUnavailable(message)


def broken(_sink: MemorySink, _batch: Batch) -> None:
    """A fault: an error that the contract does not know."""
    message = "disk I/O error"
    raise OSError(message)


def dies_after_commit(sink: MemorySink, batch: Batch) -> None:
    """A fault: everything is stored, but nobody learns of it."""
    sink.store(batch)
    message = "connection lost"
    raise SinkUnavailable(message)


__all__ = [
    "MemoryBroker",
    "MemoryConsumer",
    "MemoryPublisher",
    "MemorySink",
    "broken",
    "dies_after_commit",
    "unavailable",
]


class MemoryResources(Resources):
    """What an app shares, with a broker in memory."""

    def __init__(self, settings: Settings, kinds: Kinds) -> None:
        super().__init__(settings, kinds)
        self.memory = MemoryBroker("monitoring")

    @property
    def broker(self) -> MemoryBroker:
        return self.memory
