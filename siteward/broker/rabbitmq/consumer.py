"""Consuming the queues of one sink: held until acknowledged, bounded in bytes, given back when the collector goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from pika import BasicProperties
from pika.channel import Channel
from pika.spec import Basic

from siteward.broker import BrokerUnavailable, Delivery, Message
from siteward.broker.rabbitmq.addresses import Address
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.messages import has_expired, headers_of, message_of, published_of
from siteward.broker.rabbitmq.parked import parking
from siteward.broker.rabbitmq.plan import PARKED, RETURNED, queue_of, side_of
from siteward.broker.rabbitmq.publisher import RabbitPublisher
from siteward.settings import BrokerSettings

HELD_BYTES: Final = 8 * 2**20
"""Most bytes of bodies that a consumer aims to hold, so that a backlog of large envelopes stays out of memory."""
FIRST_PREFETCH: Final = 8
"""Messages asked for before their size is known; the emitter's largest ones are about 1 MiB."""
FEW: Final = 16
"""Messages after which their mean size is believed."""
COUNT_HEADER: Final = "x-delivery-count"


class RabbitConsumer:
    """Takes what waits for one sink: in its own queue, in those of sharded kinds, and what was returned."""

    def __init__(
        self, address: Address, settings: BrokerSettings, sink: str, name: str, prefetch: int, queues: Sequence[str]
    ) -> None:
        """Connect and begin to consume.

        Args:
            address: where.
            settings: limits and time-outs.
            sink: whose queues.
            name: of this consumer, shown in RabbitMQ's pages.
            prefetch: most messages held.
            queues: the sink's queues that are there, that for what was returned among them.

        Raises:
            BrokerUnavailable: no connection now.
        """
        self._prefetch = prefetch
        self._held: dict[int, Delivery] = {}
        self._link = Link(address, settings, f"siteward consumer {name}")
        self._inlet = _Inlet(self._link, settings, sink, name, prefetch, queues)
        try:
            self._link.ask(self._inlet.open)
        except BaseException:
            self._link.close()
            raise
        self._aside = RabbitPublisher(address, settings, side_of(sink, PARKED))
        self._again = RabbitPublisher(address, settings, queue_of(sink))

    def receive(self, wait: float) -> list[Delivery]:
        """Deliveries beyond those held, oldest first; [] when none came within `wait` seconds.

        Raises:
            BrokerUnavailable: the connection is lost, or the queue is gone.
        """
        with self._link.changed:
            has_room = len(self._held) < self._prefetch
            self._link.wait(lambda: bool((has_room and self._inlet.arrived) or self._lost()), wait)
            lost = self._lost()
            if lost:
                raise BrokerUnavailable(lost)
            taken: list[Delivery] = []
            while self._inlet.arrived and len(self._held) < self._prefetch:
                delivery = self._inlet.arrived.popleft()
                self._held[delivery.tag] = delivery
                taken.append(delivery)
            return taken

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these; sent before anything asked later, and before close() returns."""
        self._settle(deliveries, Channel.basic_ack)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back unprocessed; RabbitMQ counts that as a delivery."""
        self._settle(deliveries, Channel.basic_nack)

    def park(self, delivery: Delivery, reason: str) -> None:
        """Put a message into the sink's parked queue with the reason, and acknowledge it when that is confirmed."""
        self._aside.publish([delivery.message], parking(reason))
        self.acknowledge([delivery])

    def replace(self, delivery: Delivery, messages: Sequence[Message]) -> None:
        """Put messages at the end of the sink's own queue; the delivery is acknowledged when they are confirmed."""
        self._again.publish(messages)
        self.acknowledge([delivery])

    def close(self) -> None:
        """Give everything held back, and leave; acknowledgements sent before have reached the server."""
        self._aside.close()
        self._again.close()
        if self._inlet.is_ordered:
            # A consumer that takes its leave is succeeded before what it held is back: newer messages would overtake.
            self._link.cut()
        self._link.close()
        self._held.clear()

    def _lost(self) -> str:
        if self._link.failure or self._link.refusal or self._inlet.cancelled:
            return str(self._link.refusal or self._link.failure or self._inlet.cancelled)
        return ""

    def _settle(self, deliveries: Iterable[Delivery], say: Any) -> None:  # noqa: ANN401  # a call on pika's channel.
        tags = [delivery.tag for delivery in deliveries if self._held.pop(delivery.tag, None)]
        lost = self._lost()
        if lost:
            raise BrokerUnavailable(lost)
        if tags:
            self._link.tell(partial(self._inlet.settle, tags, say))


class _Inlet:
    """The receiving side, which lives in the link's thread."""

    def __init__(
        self, link: Link, settings: BrokerSettings, sink: str, name: str, prefetch: int, queues: Sequence[str]
    ) -> None:
        self.arrived: deque[Delivery] = deque()
        self.cancelled = ""
        self._link = link
        self._name = name
        self._returned = side_of(sink, RETURNED)
        self._limit = settings.delivery_limit
        self._most = prefetch
        self._queues = list(queues)
        self._unsettled: dict[int, None] = {}
        """Tags delivered and not yet settled, ascending."""
        self._room = 0
        self._share = 0
        self._turn = 0
        self._tags: list[str] = []
        self._mean = 0.0
        self._seen = 0
        self._since = 0
        """Messages since it consumed anew."""
        # Who is the only active consumer of a queue would hand it over by consuming anew.
        self.is_ordered = sink in settings.ordered or any(each.ordered for each in settings.shards.values())

    def open(self, channel: Channel, answer: Any) -> None:  # noqa: ANN401  # a callback of pika's.
        channel.add_on_cancel_callback(self._on_cancel)
        first = 2 * FIRST_PREFETCH if self.is_ordered else FIRST_PREFETCH
        self._consume(channel, min(self._most, first), answer)

    def _consume(self, channel: Channel, room: int, answer: Any = None) -> None:  # noqa: ANN401
        """Consume every queue, each with its share of the room."""
        self._room, self._turn, self._since = room, self._turn + 1, 0
        least = min(self._most, 2) if self.is_ordered else 1
        self._share = max(least, room // max(1, len(self._queues) - 1))
        self._tags = []
        channel.basic_qos(prefetch_count=self._share)
        for number, queue in enumerate(self._queues):
            if queue == self._returned:
                channel.basic_qos(prefetch_count=1)
            tag = f"{self._name}-{self._turn}-{number}"
            self._tags.append(tag)
            channel.basic_consume(
                queue, partial(self._on_message, queue), consumer_tag=tag, callback=answer if number == 0 else None
            )

    def _on_message(
        self, queue: str, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        before = headers_of(properties).get(COUNT_HEADER, 0)
        # pika has an integer type of its own.
        redelivered = int(before) if isinstance(before, int) else 1
        redelivered = max(redelivered, 1 if method.redelivered else 0)
        if queue == self._returned and not has_expired(properties):
            redelivered += self._limit
        tag = method.delivery_tag or 0
        message = message_of(method.routing_key, properties, body)
        delivery = Delivery(message, tag, redelivered, published_of(properties))
        self._unsettled[tag] = None
        with self._link.changed:
            self.arrived.append(delivery)
            self._link.changed.notify_all()
        self._adapt(channel, len(body))

    def _adapt(self, channel: Channel, size: int) -> None:
        """Ask for more small messages, or fewer large ones, by consuming anew."""
        self._since += 1
        self._seen += 1
        self._mean += (size - self._mean) / min(self._seen, FEW)
        if self.is_ordered:
            return
        room = max(1, min(self._most, int(HELD_BYTES / max(self._mean, 1.0))))
        # Between the two, mixed sizes would have it consume anew again and again.
        if room <= 0.75 * self._room or (self._since >= min(FEW, self._share) and room >= 2 * self._room):
            for tag in self._tags:
                channel.basic_cancel(tag)
            self._consume(channel, room)

    def _on_cancel(self, _frame: object) -> None:
        with self._link.changed:
            self.cancelled = "RabbitMQ has cancelled the consumer: its queue was removed, or its node went away"
            self._link.changed.notify_all()

    def settle(self, tags: Sequence[int], say: Any, channel: Channel) -> None:  # noqa: ANN401  # as above.
        """Settle many with one word where they are the oldest ones, the rest one by one."""
        wanted = set(tags)
        upto = 0
        for tag in self._unsettled:
            if tag not in wanted:
                break
            upto = tag
        if upto:
            say(channel, upto, multiple=True)
        for tag in tags:
            if tag in self._unsettled:
                del self._unsettled[tag]
                if tag > upto:
                    say(channel, tag, multiple=False)
