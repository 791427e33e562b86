"""Making what the plan says, and looking whether it is there: one question over AMQP for each thing."""

from __future__ import annotations

from functools import partial
from typing import Any

from pika.channel import Channel

from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.plan import Binding, Exchange, Queue
from siteward.broker.rabbitmq.refusals import NOT_FOUND, Refusal


def make_exchange(link: Link, exchange: Exchange) -> None:
    """Declare an exchange; nothing changes where it is there.

    Raises:
        Refusal: it is there with other arguments, or the user may not.
    """
    link.ask(
        lambda channel, answer: channel.exchange_declare(
            exchange.name, exchange.type, durable=True, arguments=dict(exchange.arguments), callback=answer
        )
    )


def make_queue(link: Link, queue: Queue) -> None:
    """Declare a queue; as make_exchange."""
    link.ask(
        lambda channel, answer: channel.queue_declare(
            queue.name, durable=True, arguments=dict(queue.arguments), callback=answer
        )
    )


def make_binding(link: Link, binding: Binding) -> None:
    """Bind; nothing changes where it is bound."""
    link.ask(partial(_bind, binding))


def _bind(binding: Binding, channel: Channel, answer: Any) -> None:  # noqa: ANN401  # a callback of pika's.
    if binding.to_exchange:
        channel.exchange_bind(binding.destination, binding.source, binding.key, callback=answer)
    else:
        channel.queue_bind(binding.destination, binding.source, binding.key, callback=answer)


def unmake_binding(link: Link, binding: Binding) -> None:
    """Unbind; nothing happens where it is not bound."""
    link.ask(partial(_unbind, binding))


def _unbind(binding: Binding, channel: Channel, answer: Any) -> None:  # noqa: ANN401  # as above.
    if binding.to_exchange:
        channel.exchange_unbind(binding.destination, binding.source, binding.key, callback=answer)
    else:
        channel.queue_unbind(binding.destination, binding.source, binding.key, callback=answer)


def waiting_in(link: Link, queue: str) -> int | None:
    """Messages that wait in a queue, None where there is no such queue."""
    try:
        answer = link.ask(lambda channel, answer: channel.queue_declare(queue, passive=True, callback=answer))
    except Refusal as refusal:
        if refusal.code == NOT_FOUND:
            return None
        raise
    count: int = answer.method.message_count
    return count


def exchange_is_there(link: Link, exchange: str) -> bool:
    """Whether there is an exchange of a name."""
    try:
        link.ask(lambda channel, answer: channel.exchange_declare(exchange, passive=True, callback=answer))
    except Refusal as refusal:
        if refusal.code == NOT_FOUND:
            return False
        raise
    return True


def delete_queue(link: Link, queue: str) -> int:
    """Delete a queue where it is; the number of messages that went with it."""
    answer = link.ask(lambda channel, answer: channel.queue_delete(queue, callback=answer))
    count: int = answer.method.message_count
    return count


def delete_exchange(link: Link, exchange: str) -> None:
    """Delete an exchange where it is."""
    link.ask(lambda channel, answer: channel.exchange_delete(exchange, callback=answer))
