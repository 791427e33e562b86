"""Envelopes as bodies of requests, from programs that emit over HTTP: believed no more than any other body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from collectors.bodies import Element, too_long
from collectors.sender import Sender
from siteward.envelope import JSON, MAX_RECORDS, MSGPACK, Parcel, open_envelope
from siteward.records import Kind, Refused, Row
from siteward.server.problems import Problem

ENVELOPES: Final = frozenset({MSGPACK, JSON})
LARGEST: Final = 4 * 2**20
"""Bytes of an envelope, decompressed: unlike other bodies it is held whole. Emitters cut what is larger."""
MOST: Final = 10_000
"""Records of an envelope: they are queued together, and answered for while who sent them waits."""
_encoder: Final = msgspec.msgpack.Encoder()


class Sent(NamedTuple):
    """The envelope that a body is.

    Attributes:
        identifier: 16 bytes that its records are named by, the same each time that this sender sends it.
        first: place of its first record in the envelope that it was cut from.
    """

    identifier: bytes
    first: int


def opened(  # what arrived, as what, from whom, when, and how much of it may be.
    pieces: Iterable[bytes], content_type: str, kind: Kind, sender: Sender, now: int, longest: int
) -> tuple[Sent, Iterator[Element]]:
    """An envelope and its records in order, each a row or why it is none.

    Of the header only the VO, the units and the places are read: whoever sends an envelope says who it is by its token.

    Args:
        pieces: of the body, decompressed.
        content_type: one of ENVELOPES.
        kind: of the address to which it was sent.
        sender: whose it is.
        now: microseconds since 1970 UTC.
        longest: largest record in bytes.

    Raises:
        Problem: 413, it is too large, or holds too many; 403, the sender does not speak for its VO.
        Refused: it cannot be read as an envelope of this kind.
    """
    body = b"".join(pieces)
    count = _count(body, content_type)
    if count > MOST:
        message = f"the envelope holds {count} records, more than {MOST}; send it in parts"
        raise Problem(413, message)
    parcel = open_envelope(body, content_type, {kind.name: kind}, now)
    header = parcel.header
    if header.first + len(parcel.ids) + len(parcel.refused) > MAX_RECORDS:
        # Cut from it anew, a part would name a place that no collector reads.
        reason = f"leads beyond the {MAX_RECORDS} records of an envelope"
        raise Refused(reason, kind=kind.name, field="first", value=header.first)
    if not sender.speaks_for(kind, header.vo):
        reason = f"your token does not report for the VO {header.vo[:80]!r}; it reports for {sender.vos(kind)}"
        parts = {"field": "vo", "value": header.vo[:80], "reason": reason}
        raise Problem(403, reason, parts=parts)
    # Another sender may have seen its id, and must not put its own records in place of these.
    identifier = blake2b(_encoder.encode((sender.account, kind.name, header.vo, header.id)), digest_size=16).digest()
    return Sent(identifier, header.first), _records(kind, parcel, longest)


class _Counted(msgspec.Struct):
    """As much of an envelope as says how many records it holds."""

    count: int = 0
    records: list[msgspec.Raw] = []


def _count(body: bytes, content_type: str) -> int:
    try:
        found = (msgspec.json if content_type == JSON else msgspec.msgpack).decode(body, type=_Counted)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0  # Whoever opens it says what is wrong.
    return max(int(found.count), len(found.records))


def _records(kind: Kind, parcel: Parcel, longest: int) -> Iterator[Element]:
    columns = (parcel.columns[name] for name in kind.names)
    rows = (kind.row(*values) for values in zip(*columns, strict=True))
    refused = {position: reason for position, reason, _ in parcel.refused}
    for position in range(len(parcel.ids) + len(refused)):
        yield refused[position] if position in refused else _short(next(rows), longest)


def _short(row: Row, longest: int) -> Row | Refused:
    return row if len(_encoder.encode(row)) <= longest else too_long(longest)
