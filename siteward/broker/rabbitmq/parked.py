"""Whole messages that were put aside: in a queue of their own, with the reason in a header."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from hashlib import blake2b
from typing import Any, Final

from pika import BasicProperties
from pika.channel import Channel
from pika.spec import Basic

from siteward.broker import BrokerError, ParkedMessage
from siteward.broker.rabbitmq.addresses import Address
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.making import waiting_in
from siteward.broker.rabbitmq.messages import Headers, headers_of, message_of, published_of, text_of, time_of
from siteward.broker.rabbitmq.plan import PARKED, side_of
from siteward.broker.rabbitmq.refusals import NOT_FOUND, Refusal
from siteward.records import moment
from siteward.settings import BrokerSettings

REASON: Final = "x-siteward-reason"
AT: Final = "x-siteward-parked"
BACK_SECONDS: Final = 2.0
"""How long what was given back is waited for; somebody else may have taken it meanwhile."""
_PAUSE: Final = 0.02
LIMIT_REASON: Final = "was delivered again and again and never acknowledged"


def parking(reason: str) -> Headers:
    """The headers that a parked message gets."""
    return {REASON: reason, AT: time.time_ns() // 1000}


def parked_of(sink: str, key: str | bytes | None, properties: BasicProperties, body: bytes) -> ParkedMessage:
    """A message of a parked queue; one that RabbitMQ put there itself has no reason of ours."""
    headers = headers_of(properties)
    at = time_of(headers[AT]) if AT in headers else published_of(properties)
    reason = text_of(headers.get(REASON, LIMIT_REASON))
    message = message_of(key, properties, body)
    seal = blake2b(digest_size=6)
    for part in (sink, message.key, message.id, str(at), reason):
        seal.update(part.encode("utf-8", "replace") + b"\0")
    seal.update(body)
    return ParkedMessage(sink, int.from_bytes(seal.digest(), "big"), message, reason, moment(at))


class Shelf:
    """A connection of its own, since what it has taken goes back when it ends, whatever ends it."""

    def __init__(self, address: Address, settings: BrokerSettings) -> None:
        """Connect."""
        self._address = address
        self._settings = settings
        self._link = Link(address, settings, "siteward parked")
        self._empty: Any = None
        self._taken: Counter[str] = Counter()

    def messages(self, sink: str) -> Iterator[tuple[ParkedMessage, int]]:
        """What is parked for a sink, oldest first, with the tag that forget() takes."""
        while True:
            try:
                taken = self._link.ask(lambda channel, answer: self._get(channel, side_of(sink, PARKED), answer))
            except Refusal as refusal:
                if refusal.code == NOT_FOUND:
                    return
                raise
            if taken is None:
                return
            key, tag, properties, body = taken
            self._taken[sink] += 1
            yield parked_of(sink, key, properties, body), tag

    def forget(self, sink: str, tag: int) -> None:
        """Take a sink's message away for good."""
        self._link.tell(lambda channel: channel.basic_ack(tag))
        self._taken[sink] -= 1

    def close(self) -> None:
        """Give back what was not forgotten. A quorum queue has it a moment later: whoever looks next is to see it."""
        self._link.close()
        if not self._taken.total():
            return
        until = time.monotonic() + BACK_SECONDS
        with suppress(BrokerError), closing(Link(self._address, self._settings, "siteward parked")) as link:
            for sink, count in self._taken.items():
                while (waiting_in(link, side_of(sink, PARKED)) or 0) < count and time.monotonic() < until:
                    time.sleep(_PAUSE)

    def _get(self, channel: Channel, queue: str, answer: Any) -> None:  # noqa: ANN401  # a callback.
        def got(_: Channel, method: Basic.GetOk, properties: BasicProperties, body: bytes) -> None:
            answer((method.routing_key, method.delivery_tag, properties, body))

        if self._empty is None:
            # pika says nothing of an empty queue to who gets from it.
            channel.add_callback(lambda _: self._empty(None), [Basic.GetEmpty], one_shot=False)
        self._empty = answer
        channel.basic_get(queue, got)
