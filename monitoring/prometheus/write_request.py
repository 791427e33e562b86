"""Remote-write 1.0 on the wire: a WriteRequest in Protocol Buffers, in a Snappy block; pure.

Written out here because it is small: three messages of two fields each, and a block of literals, which every reader of
Snappy takes. A dependency would save traffic, and be one for everybody.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

STALE: Final = struct.pack("<Q", 0x7FF0000000000002)
"""The NaN by which Prometheus says that a series has ended."""
LITERAL: Final = 2**16
"""Bytes of one Snappy literal: the longest whose length fits two bytes."""
_TWO_BYTES: Final = 61 << 2
_LENGTH: Final = 2
"""Wire type of texts and messages: a length goes before them."""
Labels = tuple[tuple[str, str], ...]
"""Names and values, `__name__` among them, sorted by name; no empty value."""


class Sample(msgspec.Struct, frozen=True):
    """One value of one series; `stale` ends it instead.

    A flag beside the value, since a NaN loses its meaning where it is computed with.
    """

    labels: Labels
    value: float = 0.0
    stale: bool = False


def labels_of(name: str, labels: Mapping[str, str], more: Mapping[str, str]) -> Labels:
    """A series' labels as remote-write wants them; `more` are those that a scrape would add."""
    merged = {**labels, **more, "__name__": name}
    return tuple(sorted((label, value) for label, value in merged.items() if value))


def encoded(samples: Iterable[Sample], time: int) -> bytes:
    """A request body.

    Args:
        samples: each of another series.
        time: of all of them, milliseconds since 1970 UTC.
    """
    return _snappy(b"".join(_message(1, _series(sample, time)) for sample in samples))


def _series(sample: Sample, time: int) -> bytes:
    labels = b"".join(
        _message(1, _message(1, name.encode()) + _message(2, value.encode())) for name, value in sample.labels
    )
    value = STALE if sample.stale else struct.pack("<d", sample.value)
    # Field 1 as eight bytes, field 2 as a varint.
    return labels + _message(2, b"\x09" + value + b"\x10" + _varint(time))


def _message(field: int, body: bytes) -> bytes:
    return bytes([field << 3 | _LENGTH]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits a byte.
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _snappy(plain: bytes) -> bytes:
    """A Snappy block that copies nothing: the length, then literals, each with its own length less one."""
    return _varint(len(plain)) + b"".join(_literals(plain))


def _literals(plain: bytes) -> Iterator[bytes]:
    for start in range(0, len(plain), LITERAL):
        part = plain[start : start + LITERAL]
        yield bytes([_TWO_BYTES]) + struct.pack("<H", len(part) - 1) + part
