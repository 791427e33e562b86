"""Publishing to RabbitMQ: persistent, mandatory, and confirmed for a whole call at once."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from pika import BasicProperties
from pika.channel import Channel
from pika.spec import Basic

from siteward.broker import BrokerError, BrokerFull, BrokerUnavailable, Forbidden, Message, Unroutable
from siteward.broker.rabbitmq.addresses import Address
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.messages import Headers, properties_of
from siteward.broker.rabbitmq.plan import EXCHANGE
from siteward.broker.rabbitmq.refusals import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, Refusal, permanent
from siteward.settings import BrokerSettings

WINDOW_BYTES: Final = 16 * 2**20
"""Most bytes of bodies on their way and not yet confirmed."""


class RabbitPublisher:
    """Publishes to one exchange; a return is a confirm of every message by every queue's majority."""

    def __init__(self, address: Address, settings: BrokerSettings, exchange: str = EXCHANGE) -> None:
        """Connect when first used, and again whenever the connection was lost."""
        self._address = address
        self._settings = settings
        self._exchange = exchange
        self._link: Link | None = None
        self._outlet: _Outlet | None = None

    def publish(self, messages: Sequence[Message], headers: Headers | None = None) -> None:
        """Publish all messages and wait until every one is confirmed.

        Args:
            messages: sent in this order, as many at once as WINDOW_BYTES holds.
            headers: added to those of every message.

        Raises:
            BrokerFull: a queue is at its limit.
            BrokerUnavailable: no connection, no confirm for `broker.timeout` seconds, or the server is blocked by an
                alarm (its disk or memory is full), which is said at once.
            Unroutable: no queue takes one of the keys; the others may be stored.
            Forbidden: the user may not publish under one of the keys.
        """
        if not messages:
            return
        link, outlet = self._ready()
        outgoing = _Outgoing(messages, headers or {})
        link.tell(partial(outlet.send, outgoing))
        try:
            self._await(link, outgoing)
        except BaseException:
            # What is still on its way would be taken for an answer to the next call.
            self.close()
            raise
        if outgoing.failure is not None:
            raise outgoing.failure

    def close(self) -> None:
        """Close the connection."""
        link, self._link, self._outlet = self._link, None, None
        if link is not None:
            link.close()

    def _ready(self) -> tuple[Link, _Outlet]:
        if self._link is not None and (self._link.failure or self._link.refusal):
            self.close()
        if self._link is None or self._outlet is None:
            link = Link(self._address, self._settings, "siteward publisher")
            outlet = _Outlet(link, self._exchange, self._settings)
            try:
                link.ask(outlet.open)
            except BaseException:
                link.close()
                raise
            self._link, self._outlet = link, outlet
        if self._link.blocked:
            raise BrokerUnavailable(_blocked(self._link))
        return self._link, self._outlet

    def _await(self, link: Link, outgoing: _Outgoing) -> None:
        """Wait until all is confirmed or something failed; each confirm gives the rest another `broker.timeout`."""
        with link.changed:
            seen = -1
            while not outgoing.over and seen != outgoing.confirmed:
                seen = outgoing.confirmed
                link.wait(partial(_has_moved, link, outgoing, seen), self._settings.timeout)
                failure = _failure_of(link, self._exchange)
                if failure is not None and not outgoing.over:
                    raise failure
            if not outgoing.over:
                message = f"{self._address} confirmed nothing for {self._settings.timeout:g} s"
                raise BrokerUnavailable(message)


class _Outgoing:
    """The messages of one call. Changed by the link's thread, under its condition."""

    def __init__(self, messages: Sequence[Message], headers: Headers) -> None:
        self.waiting = deque(messages)
        self.headers = headers
        self.confirmed = 0
        self.flying: dict[int, int] = {}
        """Sizes of unconfirmed messages by their number in the channel, ascending."""
        self.bytes = 0
        self.failure: BrokerError | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to come: a return that came later would be taken for one of the next call."""
        return not self.flying and (self.failure is not None or not self.waiting)


class _Outlet:
    """The sending side, which lives in the link's thread."""

    def __init__(self, link: Link, exchange: str, settings: BrokerSettings) -> None:
        self._link = link
        self._exchange = exchange
        self._sharded = frozenset(settings.shards)
        self._outgoing: _Outgoing | None = None
        self._number = 0
        """Of the last message in the channel; confirms name it."""

    def open(self, channel: Channel, answer: Any) -> None:  # noqa: ANN401  # a callback of pika's.
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(partial(self._on_confirm, channel), callback=answer)

    def send(self, outgoing: _Outgoing, channel: Channel) -> None:
        self._outgoing = outgoing
        self._fill(channel)

    def _fill(self, channel: Channel) -> None:
        """Send what the window has room for."""
        outgoing = self._outgoing
        while outgoing and outgoing.waiting and not outgoing.failure and not self._link.blocked:
            size = len(outgoing.waiting[0].body)
            if outgoing.flying and outgoing.bytes + size > WINDOW_BYTES:
                return
            message = outgoing.waiting[0]
            try:
                properties = properties_of(message, self._sharded, outgoing.headers)
                channel.basic_publish(self._exchange, message.key, message.body, properties, mandatory=True)
            except Exception as error:  # noqa: BLE001  # a key or id that AMQP cannot carry must not end the thread.
                self._fail(Forbidden(f"RabbitMQ cannot carry the key {message.key[:80]!r}: {error}", message.key))
                return
            self._number += 1
            outgoing.flying[self._number] = size
            outgoing.bytes += size
            # Last: whoever waits looks at any time, and takes what neither waits nor flies for confirmed.
            outgoing.waiting.popleft()

    def _on_confirm(self, channel: Channel, frame: Any) -> None:  # noqa: ANN401  # pika's frame.
        outgoing, method = self._outgoing, frame.method
        if outgoing is None:
            return
        with self._link.changed:
            numbers = [method.delivery_tag]
            if method.multiple:
                numbers = [number for number in outgoing.flying if number <= method.delivery_tag]
            sizes = [outgoing.flying.pop(number) for number in numbers if number in outgoing.flying]
            outgoing.bytes -= sum(sizes)
            if sizes and isinstance(method, Basic.Nack):
                self._fail(BrokerFull(f"a queue behind {self._exchange!r} is full; it takes no more before it is read"))
            outgoing.confirmed += len(sizes)
            self._link.changed.notify_all()
        self._fill(channel)

    def _on_return(self, _channel: Channel, method: Basic.Return, _properties: BasicProperties, _body: bytes) -> None:
        self._fail(Unroutable(f"no queue is bound to {method.routing_key!r}; is any sink installed?"))

    def _fail(self, failure: BrokerError) -> None:
        if self._outgoing is not None:
            with self._link.changed:
                self._outgoing.failure = self._outgoing.failure or failure
                self._link.changed.notify_all()


def _has_moved(link: Link, outgoing: _Outgoing, seen: int) -> bool:
    return outgoing.over or bool(link.blocked or link.refusal) or outgoing.confirmed > seen


def _failure_of(link: Link, exchange: str) -> BrokerError | None:
    """Why the link serves no more, if so; what the server said goes before how it ended."""
    if link.refusal is not None:
        return _refused(link.refusal, exchange)
    if link.failure is not None:
        return link.failure
    return BrokerUnavailable(_blocked(link)) if link.blocked else None


def _blocked(link: Link) -> str:
    return f"RabbitMQ takes no messages at present: {link.blocked}; look for an alarm of its disk or memory"


def _refused(refusal: Refusal, exchange: str) -> BrokerError:
    """What the end of the channel means for who publishes."""
    if refusal.code == ACCESS_REFUSED:
        topic = re.search(r"topic '([^']*)'", refusal.text)
        return (
            Forbidden(str(refusal), topic.group(1))
            if topic
            else permanent(f"{refusal}; see rabbitmqctl set_permissions")
        )
    if refusal.code == NOT_FOUND:
        return BrokerUnavailable(f"there is no exchange {exchange!r} yet; start a collector, which makes it")
    # Such as a message that is larger than the server takes.
    return permanent(str(refusal)) if refusal.code == PRECONDITION_FAILED else refusal
