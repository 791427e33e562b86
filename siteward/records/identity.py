"""The record id: 128 bits, time first, then a hash of what makes two records the same record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec

ID_BYTES: Final = 16
HASH_BYTES: Final = 10
_encode = msgspec.msgpack.Encoder().encode


def record_id(time: int, kind: str, vo: str, identity: Sequence[object]) -> bytes:
    """The id of a record whose kind has an identity.

    Args:
        time: the kind's immutable partition time, microseconds since 1970 UTC.
        kind: the kind's name.
        vo: the record's VO.
        identity: values of the identity fields in declared order; times as microseconds.

    Returns:
        16 bytes: 6 of the time in milliseconds (big-endian), 10 of BLAKE2b over the MessagePack array
        `[kind, vo, *identity]` in its shortest forms. The same record gives the same id in any language.
    """
    return (time // 1000).to_bytes(6, "big") + blake2b(_encode((kind, vo, *identity)), digest_size=HASH_BYTES).digest()


def record_ids(
    times: Iterable[int], kind: str, vos: Sequence[str], identity: Iterable[Iterable[object]]
) -> list[bytes]:
    """The ids of many records of one kind, each as record_id gives it, in half the time.

    Args:
        times: of each record.
        kind: their kind's name.
        vos: of each record.
        identity: columns of the identity fields in declared order.
    """
    hashed = blake2b
    encoded = map(_encode, zip([kind] * len(vos), vos, *identity, strict=True))
    return [
        (time // 1000).to_bytes(6, "big") + hashed(data, digest_size=HASH_BYTES).digest()
        for time, data in zip(times, encoded, strict=True)
    ]


def anonymous_id(time: int, envelope: bytes, position: int) -> bytes:
    """The id of a record whose kind has no identity: its place in the envelope that brought it.

    An envelope's id is random, so two equal events stay two; a redelivered envelope gives the same ids again.
    """
    tail = blake2b(envelope + position.to_bytes(4, "big"), digest_size=HASH_BYTES).digest()
    return (time // 1000).to_bytes(6, "big") + tail


def id_text(identifier: bytes) -> str:
    """A record id as people and URLs see it: 32 hexadecimal digits."""
    return identifier.hex()


def id_bytes(text: str) -> bytes:
    """The inverse of id_text.

    Raises:
        ValueError: the text is not 32 hexadecimal digits.
    """
    if len(text) != 2 * ID_BYTES or not text.isascii():
        message = f"a record id is {2 * ID_BYTES} hexadecimal digits, got {text[:40]!r}"
        raise ValueError(message)
    return bytes.fromhex(text)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970 UTC, exactly.

    Raises:
        TypeError: the datetime is naive, or not a datetime.
    """
    span = moment - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def moment(time: int) -> datetime:
    """The inverse of microseconds: an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=time)
