"""What travels: the header, the columns, and how rows are put into an envelope."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from siteward.records import Kind, Row

VERSION: Final = 1
MAX_BYTES: Final = 16 * 2**20
"""Largest envelope accepted, after decompression; one larger is refused before it is decoded."""
MAX_RECORDS: Final = 50_000
LONGEST_PRODUCER: Final = 1_024
"""Characters of a producer's name; stores index it, and some take no more than 32,766 bytes."""
MSGPACK: Final = "application/vnd.siteward.envelope+msgpack"
JSON: Final = "application/vnd.siteward.envelope+json"
ZSTD: Final = "zstd"
_EMPTY: Final = b"\xc0"

Columns = dict[str, list[Any]]
"""Validated values by column name, all lists of one length; times as microseconds since 1970 UTC."""


class Header(msgspec.Struct):
    """What an envelope says about its records.

    Attributes:
        v: version of this format.
        id: 16 random bytes; names the message, and the records of kinds without an identity.
        kind: name of the records' kind.
        vo: VO of every record in it.
        producer: the program and host that sent it; at most LONGEST_PRODUCER characters.
        sent: when it was sealed, microseconds since 1970 UTC.
        receipt: the producer asked to be told what became of each record.
        units: units the producer believes in, by measure; one that differs from the kind's refuses the envelope.
        first: place of its first record in the envelope that it was cut from; see siteward.envelope.dividing.
    """

    v: int
    id: bytes
    kind: str
    vo: str
    producer: str
    sent: int
    receipt: bool = False
    units: dict[str, str] = {}
    first: int = 0


class Envelope(Header):
    """A header and the records' columns, as they travel in MessagePack. Columns all at their default are left out."""

    columns: msgspec.Raw = msgspec.Raw(_EMPTY)
    count: int = 0


_encoder = msgspec.msgpack.Encoder()


def seal(
    kind: Kind,
    rows: Sequence[Row],
    producer: str,
    now: int,
    *,
    receipt: bool = False,
    identifier: bytes = b"",
    first: int = 0,
) -> bytes:
    """Put validated rows of one VO into an envelope.

    Args:
        kind: the rows' kind.
        rows: at least one row; all of the same VO.
        producer: the sending program and host; cut after LONGEST_PRODUCER characters.
        now: microseconds since 1970 UTC.
        receipt: ask the collectors to note what became of each record.
        identifier: 16 bytes that name the envelope; random where not given.
        first: place of the first row among those that the identifier names.
    """
    columns: Columns = {}
    # All values row by row, of which a column is every so manyth: several times faster than attribute by attribute.
    flat = list(chain.from_iterable(map(astuple, rows)))
    for place, column in enumerate(kind.columns[1:], 1):
        values = flat[place :: len(kind.columns)]
        # Most columns of a wide kind have their default in every row; those that have not mostly differ in the first.
        if column.required or values[0] != column.default or values.count(column.default) != len(values):
            columns[column.name] = values
    return _encoder.encode(
        Envelope(
            v=VERSION,
            id=identifier or secrets.token_bytes(16),
            kind=kind.name,
            vo=rows[0].vo,  # type: ignore[attr-defined]  # every row has one.
            producer=producer[:LONGEST_PRODUCER],
            sent=now,
            receipt=receipt,
            first=first,
            columns=msgspec.Raw(_encoder.encode(columns)),
            count=len(rows),
        )
    )
