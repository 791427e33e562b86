"""The RabbitMQ broker: durable quorum queues on a server or cluster of its own, chosen by `amqp://` and `amqps://`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import Self

from siteward.broker import ParkedMessage, QueueStatus
from siteward.broker.opening import topology as installed_topology
from siteward.broker.rabbitmq.addresses import Address, address_of
from siteward.broker.rabbitmq.checking import Report, checked, is_limit, superfluous
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.consumer import RabbitConsumer
from siteward.broker.rabbitmq.making import make_binding, make_exchange, make_queue, unmake_binding
from siteward.broker.rabbitmq.management import Management
from siteward.broker.rabbitmq.parked import Shelf
from siteward.broker.rabbitmq.plan import plan_of, queue_of
from siteward.broker.rabbitmq.publisher import RabbitPublisher
from siteward.broker.rabbitmq.refusals import ACCESS_REFUSED, PRECONDITION_FAILED, Refusal, permanent
from siteward.broker.rabbitmq.standing import all_sinks, queues_of, removed, standing_of
from siteward.log import get_logger
from siteward.settings import Settings

log = get_logger(__name__)


def open_broker(url: str, settings: Settings) -> RabbitBroker:
    """The broker at an `amqp://user@host/vhost` URL; connects when first used.

    Raises:
        BrokerError: the URL, or a file that the settings name, cannot be used; permanent.
    """
    return RabbitBroker(address_of(url, settings.broker), settings)


class RabbitBroker:
    """Queues on RabbitMQ; every publisher and consumer has a connection of its own."""

    def __init__(self, address: Address, settings: Settings) -> None:
        """Name the server; nothing is opened yet."""
        self.address = address
        self._settings = settings
        self._management = Management(address, settings.broker)
        self._link: Link | None = None
        self._turn = threading.RLock()
        self._process = os.getpid()
        self._topology: dict[str, Sequence[str]] = {}

    def __enter__(self) -> Self:
        """The broker itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def declare(self, topology: Mapping[str, Sequence[str]]) -> None:
        """Make exchanges, queues and bindings that are not there; what is there beyond them stays.

        Raises:
            BrokerUnavailable: no connection now.
            BrokerError: a queue or exchange of ours is there with another type or other guarantees; permanent.
        """
        plan = plan_of(topology, self._settings.broker)
        with self._connection() as link:
            try:
                for exchange in plan.exchanges:
                    _make(exchange.name, partial(make_exchange, link, exchange))
                for queue in plan.queues:
                    _make(queue.name, partial(make_queue, link, queue))
                for binding in plan.bindings:
                    make_binding(link, binding)
            except Refusal as refusal:
                if refusal.code != ACCESS_REFUSED:
                    raise
                log.debug("queues are taken as they are", reason=refusal.text)
            self._topology.update(topology)

    def publisher(self) -> RabbitPublisher:
        """A publisher with a connection of its own."""
        return RabbitPublisher(self.address, self._settings.broker)

    def consumer(self, queue: str, name: str, prefetch: int) -> RabbitConsumer:
        """A consumer with a connection of its own.

        Raises:
            BrokerUnavailable: no connection now.
            BrokerError: there is no such queue.
        """
        with self._connection() as link:
            names = queues_of(queue, link, self._settings.broker, self._management)
        return RabbitConsumer(self.address, self._settings.broker, queue, name, prefetch, names)

    def status(self) -> list[QueueStatus]:
        """Every queue, by name. RabbitMQ counts messages and bytes but no records; its plugin tells some of it.

        Raises:
            BrokerUnavailable: no connection now.
        """
        with self._connection() as link:
            known = self._management.known_queues()
            return [
                status
                for sink in all_sinks(self._sinks(), known)
                if (status := standing_of(sink, link, self._settings.broker, known)) is not None
            ]

    def parked(self) -> list[ParkedMessage]:
        """Whole messages put aside, oldest first."""
        with closing(self._shelf()) as shelf:
            found = [message for sink in self._parking_sinks() for message, _ in shelf.messages(sink)]
        return sorted(found, key=lambda message: message.at)

    def replay(self, numbers: Sequence[int]) -> int:
        """Put parked messages back at the end of their queue; the number moved."""

        def move(message: ParkedMessage) -> None:
            with closing(RabbitPublisher(self.address, self._settings.broker, queue_of(message.queue))) as publisher:
                publisher.publish([message.message])

        return self._take(numbers, move)

    def discard(self, numbers: Sequence[int]) -> int:
        """Forget parked messages; the number forgotten."""
        return self._take(numbers, lambda _: None)

    def remove(self, queue: str) -> int:
        """Remove a sink's queues and exchanges; the number of records that waited in them.

        They are read and counted on the way; whether another queue has them too, RabbitMQ does not tell.

        Raises:
            BrokerError: there is no such queue.
        """
        with self._connection() as link:
            names = queues_of(queue, link, self._settings.broker, self._management)
            lost = removed(queue, names, link, lambda: self.consumer(queue, "remove", self._settings.broker.prefetch))
            self._topology.pop(queue, None)
        self._management.forget()
        return lost

    def check(self, topology: Mapping[str, Sequence[str]]) -> Report:
        """Compare what is there with what should be; changes nothing.

        Raises:
            BrokerUnavailable: no connection now.
        """
        with self._connection() as link:
            return checked(plan_of(topology, self._settings.broker), link, self._management)

    def unbind(self, topology: Mapping[str, Sequence[str]]) -> int:
        """Take away the bindings that check() finds superfluous; their number.

        Raises:
            BrokerUnavailable: no connection, or no management plugin, which alone knows them.
        """
        plan = plan_of(topology, self._settings.broker)
        extra = superfluous(plan.bindings, self._management.bindings())
        with self._connection() as link:
            for binding in extra:
                unmake_binding(link, binding)
        return len(extra)

    def close(self) -> None:
        """Close the broker's own connection; publishers and consumers close theirs."""
        with self._turn:
            if self._link is not None:
                self._link.close()
                self._link = None

    @contextmanager
    def _connection(self) -> Iterator[Link]:
        """The broker's own connection, for one thread at a time; opened when there is none."""
        if self._process != os.getpid():
            # A thread that the forked child does not have may hold it.
            self._process, self._turn = os.getpid(), threading.RLock()
        with self._turn:
            if self._link is not None and self._link.failure:
                self.close()
            if self._link is None:
                self._link = Link(self.address, self._settings.broker, "siteward")
            yield self._link

    def _sinks(self) -> list[str]:
        return sorted(self._topology or installed_topology(self._settings))

    def _shelf(self) -> Shelf:
        return Shelf(self.address, self._settings.broker)

    def _parking_sinks(self) -> list[str]:
        return all_sinks(self._sinks(), self._management.known_queues())

    def _take(self, numbers: Sequence[int], use: Callable[[ParkedMessage], None]) -> int:
        wanted, taken = set(numbers), 0
        with closing(self._shelf()) as shelf:
            for sink in self._parking_sinks():
                for message, tag in shelf.messages(sink):
                    if message.number in wanted:
                        use(message)
                        shelf.forget(sink, tag)
                        taken += 1
        return taken


def _make(name: str, make: Callable[[], None]) -> None:
    """Make something; a limit that differs from the settings' is said and left, anything else is not."""
    try:
        make()
    except Refusal as refusal:
        if refusal.code != PRECONDITION_FAILED:
            raise
        if is_limit(refusal):
            _tell_limit(name)
            return
        message = f"{name!r} is there already and contradicts the settings: {refusal.text}; see `siteward broker check`"
        raise permanent(message) from refusal


@cache
def _tell_limit(name: str) -> None:
    """Say so once, however often the program connects."""
    log.warning("a queue has another limit than the settings; see `siteward broker check`", queue=name)


__all__ = ["RabbitBroker", "RabbitConsumer", "RabbitPublisher", "open_broker"]
