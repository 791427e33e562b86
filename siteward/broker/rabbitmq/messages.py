"""Messages as AMQP properties and bodies, and back; pure."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from pika import BasicProperties

from siteward.broker import Message
from siteward.broker.rabbitmq.plan import ENVELOPE, PRODUCER
from siteward.compression import decompress
from siteward.envelope import JSON, MAX_BYTES, MAX_RECORDS, MSGPACK

COUNT: Final = "x-siteward-count"
PUBLISHED: Final = "x-siteward-published"
"""Header: when, microseconds since 1970 UTC; AMQP's own property has seconds only."""
DEATHS: Final = "x-death"
"""Header: RabbitMQ's, why a message left a queue for another one; the last time first, whatever a sender wrote."""
EXPIRED: Final = "expired"
SHORT: Final = 255
"""Most bytes of a key, and of every other text beside a body."""
LATEST: Final = 2**53
"""Microseconds since 1970 UTC, in the year 2255; a later time is an odd sender's, and breaks calendars."""
PERSISTENT: Final = 2

Headers = Mapping[str, str | int]


class _Origin(msgspec.Struct):
    """What decides a shard, in an envelope as it travels; the rest of it is skipped, at a tenth of a millisecond."""

    id: bytes
    producer: str


class _JsonOrigin(msgspec.Struct):
    id: str
    producer: str


_origins: Final[dict[str, msgspec.msgpack.Decoder[_Origin] | msgspec.json.Decoder[_JsonOrigin]]] = {
    MSGPACK: msgspec.msgpack.Decoder(_Origin),
    JSON: msgspec.json.Decoder(_JsonOrigin),
}


def properties_of(message: Message, sharded: Collection[str], extra: Headers) -> BasicProperties:
    """What goes beside a message's body.

    Args:
        message: the message.
        sharded: kinds that are spread over queues, for which a compressed body is looked into as well.
        extra: headers to add.
    """
    now = time.time_ns() // 1000
    return BasicProperties(
        content_type=message.content_type,
        content_encoding=message.content_encoding or None,
        message_id=message.id or None,
        delivery_mode=PERSISTENT,
        timestamp=now // 1_000_000,
        headers={COUNT: message.count, PUBLISHED: now, **_origin(message, sharded), **extra},
    )


def _origin(message: Message, sharded: Collection[str]) -> Headers:
    """Producer and id of the envelope; none where it cannot be read, which is the collector's to say."""
    body, decoder = message.body, _origins.get(message.content_type)
    if decoder is None:
        return {}
    try:
        if message.content_encoding:
            if message.key.rpartition(".")[2] not in sharded:
                return {}
            body = decompress(body, message.content_encoding, MAX_BYTES)
        origin = decoder.decode(body)
    except Exception:  # noqa: BLE001  # whatever the reader says: the message goes as it is.
        return {}
    name = origin.id.hex() if isinstance(origin.id, bytes) else origin.id
    return {PRODUCER: origin.producer, ENVELOPE: name}


def message_of(key: str | bytes | None, properties: BasicProperties, body: bytes) -> Message:
    """The message that was published, whatever its sender wrote beside the body."""
    count = headers_of(properties).get(COUNT, 1)
    return Message(
        key=_short(key),
        body=body,
        # pika has an integer type of its own.
        count=min(max(int(count), 1), MAX_RECORDS) if isinstance(count, int) else 1,
        content_type=_short(properties.content_type),
        content_encoding=_short(properties.content_encoding),
        id=_short(properties.message_id),
    )


def text_of(value: object) -> str:
    """A text as AMQP brings it; with escapes where it is no UTF-8, which pika gives as bytes. Empty for all else."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else ""


def _short(value: object) -> str:
    """A text that can be sent again: escapes are longer than what they stand for."""
    text = text_of(value)
    return text if len(text) <= SHORT // 4 else text.encode("utf-8", "replace")[:SHORT].decode("utf-8", "ignore")


def published_of(properties: BasicProperties) -> int:
    """When a message was published, microseconds since 1970 UTC; 0 where its sender did not say."""
    return time_of(headers_of(properties).get(PUBLISHED, 1_000_000 * int(properties.timestamp or 0)))


def time_of(value: object) -> int:
    """A time of a header, microseconds since 1970 UTC; 0 for what is none."""
    return int(value) if isinstance(value, int) and 0 <= value <= LATEST else 0


def has_expired(properties: BasicProperties) -> bool:
    """Whether a message left its last queue because its sender gave it so little time, not for its deliveries."""
    deaths = headers_of(properties).get(DEATHS)
    # Not x-first-death-reason, which a sender can write.
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    return isinstance(last, dict) and last.get("reason") == EXPIRED


def headers_of(properties: BasicProperties) -> Mapping[str, Any]:
    """The headers; {} where there are none."""
    return properties.headers or {}
