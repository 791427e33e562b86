"""Odd messages of other programs on RabbitMQ: each is delivered or put aside, and whoever comes behind is served."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pika
import pika.data
import pytest
from rabbitmq_server import Vhost, eventually

from siteward.broker import Delivery, Message
from siteward.broker.rabbitmq import RabbitBroker, RabbitConsumer, open_broker
from siteward.broker.rabbitmq.messages import COUNT, PUBLISHED
from siteward.broker.rabbitmq.parked import AT, LIMIT_REASON, REASON
from siteward.broker.rabbitmq.plan import EXCHANGE, queue_of, side_of
from siteward.broker.rabbitmq.tables import tolerant
from siteward.envelope import MAX_RECORDS

TOPOLOGY = {"everything": ("#",)}
Sending = Callable[..., None]


class _Raw(bytes):
    """A header's value as it travels, with the letter of its type."""


def _nested(depth: int) -> _Raw:
    value = b"V"
    for _ in range(depth):
        value = b"A" + struct.pack(">I", len(value)) + value
    return _Raw(value)


NEVER = _Raw(b"T" + struct.pack(">Q", 2**62))


@pytest.fixture
def broker(vhost: Vhost) -> Iterator[RabbitBroker]:
    """A broker with one sink's queues."""
    settings = vhost.settings(delivery_limit=3)
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
        yield opened


@pytest.fixture
def send(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sending]:
    """Sends as another program might."""
    encode = pika.data.encode_value

    def encode_value(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, _Raw):
            pieces.append(value)
            return len(value)
        return encode(pieces, value)

    monkeypatch.setattr(pika.data, "encode_value", encode_value)
    connection = pika.BlockingConnection(pika.URLParameters(vhost.url.replace("guest@", "guest:guest@")))
    channel = connection.channel()
    channel.confirm_delivery()

    def send(exchange: str, key: Any, **properties: Any) -> None:
        channel.basic_publish(exchange, key, b"odd", pika.BasicProperties(**properties))

    yield send
    connection.close()


def _take(consumer: RabbitConsumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []

    def enough() -> bool:
        taken.extend(consumer.receive(0.5))
        return len(taken) >= count

    eventually(enough)
    return taken


@pytest.mark.parametrize("value", [NEVER, _nested(3_000)], ids=["time", "depth"])
def test_headers_that_cannot_be_read_stop_nobody(broker: RabbitBroker, send: Sending, value: _Raw) -> None:
    """The message comes without its headers, the next one behind it, and both can be put aside and listed."""
    send(EXCHANGE, "v.job", headers={COUNT: 7, "odd": value}, message_id="odd")
    send(EXCHANGE, "v.job", headers={COUNT: 7, "good": {"as": ["ever"]}}, message_id="good")
    send(side_of("everything", "parked"), "v.job", headers={"odd": value}, message_id="straight")
    with closing(broker.consumer("everything", "c", 10)) as consumer:
        taken = _take(consumer, 2)
        assert [(each.message.id, each.message.count) for each in taken] == [("odd", 1), ("good", 7)]
        for each in taken:
            consumer.park(each, "unreadable")
    assert [each.message.id for each in broker.parked()] == ["straight", "odd", "good"]


def test_a_table_within_a_table_is_never_skipped() -> None:
    """Only where the outermost table ends is known; one whose length cannot be read fails as before."""
    inner = struct.pack(">I", 11) + b"\1b" + NEVER
    outer = struct.pack(">I", len(inner) + 3) + b"\1aF" + inner + b"rest"
    assert pika.data.decode_table(outer, 0) == ({}, len(outer) - 4)
    assert pika.data.decode_table(struct.pack(">I", 4) + b"\1at\1", 0) == ({"a": True}, 8)
    with pytest.raises(struct.error):
        tolerant(pika.data.decode_table)(b"\0", 0)


def test_texts_that_are_not_utf8_are_escaped(broker: RabbitBroker, send: Sending) -> None:
    """Key, id, type and encoding are text whatever came, short enough to be put aside and sent again."""
    odd = b"\xff" * 255
    send(queue_of("everything"), b"\xff.job", content_type=b"\xff", content_encoding=b"\xfe", message_id=b"a\xff")
    send(queue_of("everything"), odd, content_type=odd, content_encoding=odd, message_id=odd)
    with closing(broker.consumer("everything", "c", 10)) as consumer:
        short, long = _take(consumer, 2)
        assert short.message == Message("\\xff.job", b"odd", 1, "\\xff", "\\xfe", "a\\xff")
        assert long.message.key == long.message.id == ("\\xff" * 64)[:255]
        consumer.park(short, "unreadable")
        consumer.park(long, "unreadable")
    parked = broker.parked()
    assert [each.message for each in parked] == [short.message, long.message]
    assert broker.replay([each.number for each in parked]) == 2


@pytest.mark.parametrize(("said", "count"), [(2**62, MAX_RECORDS), (-(2**62), 1), ("lots", 1), (None, 1)])
def test_a_made_up_count_is_bounded(broker: RabbitBroker, send: Sending, said: object, count: int) -> None:
    """No header makes a message hold fewer records than one, or more than an envelope can."""
    send(EXCHANGE, "v.job", headers={COUNT: said})
    with closing(broker.consumer("everything", "c", 10)) as consumer:
        assert _take(consumer, 1)[0].message.count == count


def test_odd_parked_messages_are_listed_and_forgotten(broker: RabbitBroker, send: Sending) -> None:
    """A bad time is 0, a bad reason empty; one odd message hides none of the others."""
    exchange = side_of("everything", "parked")
    send(exchange, b"\xff\xfe.job", headers={AT: "soon", REASON: {"a": 1}})
    send(exchange, "v.job", headers={PUBLISHED: 2**62, REASON: b"\xff"})
    send(exchange, "v.job", timestamp=2**63)
    send(exchange, "v.job", headers={AT: -1}, message_id=b"\xff")
    parked = broker.parked()
    assert [each.message.key for each in parked] == ["\\xff\\xfe.job", "v.job", "v.job", "v.job"]
    assert [each.reason for each in parked] == ["", "\\xff", LIMIT_REASON, LIMIT_REASON]
    assert {each.at.year for each in parked} == {1970}
    assert broker.discard([each.number for each in parked]) == 4
    assert broker.parked() == []


def test_what_expired_is_not_taken_for_a_danger(broker: RabbitBroker, send: Sending) -> None:
    """A sender's time limit brings a message among the returned ones, without a single delivery; it is just taken."""
    send(EXCHANGE, "v.job", expiration="1")
    # Whoever has not seen it die has only a sender's word for it.
    send(side_of("everything", "returned"), "v.job", headers={"x-first-death-reason": "expired"}, message_id="straight")
    eventually(lambda: broker.status()[0].ready == 2)
    with closing(broker.consumer("everything", "c", 10)) as consumer:
        found: dict[str, int] = {}
        while len(found) < 2:
            deliveries = consumer.receive(1.0)
            found |= {each.message.id: each.redelivered for each in deliveries}
            consumer.acknowledge(deliveries)
    assert found == {"": 0, "straight": 3}
