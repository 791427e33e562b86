"""What travels over the owner's socket: calls of the Store contract and their replies, length first."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Any, Final

import msgspec

from monitoring.stores import StoreError
from siteward.query import Filter, Query, QueryError
from siteward.records import Kind, Refused
from siteward.records.identity import ID_BYTES
from siteward.sinks import Batch, Outcome, SinkUnavailable, Written

MOST_BYTES: Final = 512 * 2**20
"""Largest frame; a batch of 50,000 records takes a few tens of megabytes."""
_LENGTH: Final = 4
_OUTCOMES: Final = tuple(Outcome)


class WriteCall(msgspec.Struct, tag="write"):
    """A batch; ids and message ids are joined, they are 16 bytes each."""

    kind: str
    ids: bytes
    columns: dict[str, list[Any]]
    producers: list[str]
    messages: bytes
    received: int

    @classmethod
    def of(cls, batch: Batch) -> WriteCall:
        """Take a batch apart."""
        return cls(
            batch.kind.name,
            b"".join(batch.ids),
            batch.columns,
            batch.producers,
            b"".join(batch.messages),
            batch.received,
        )

    def batch(self, kind: Kind) -> Batch:
        """Put it together again."""
        return Batch(kind, _split(self.ids), self.columns, self.producers, _split(self.messages), self.received)


class QueryCall(msgspec.Struct, tag="query"):
    """Store.query."""

    query: Query


class ValuesCall(msgspec.Struct, tag="values"):
    """Store.values."""

    kind: str
    field: str
    filters: tuple[Filter, ...]
    limit: int


class RecordsCall(msgspec.Struct, tag="records"):
    """Store.records."""

    kind: str
    ids: list[bytes]
    start: datetime | None
    end: datetime | None
    filters: tuple[Filter, ...]
    limit: int


class ForgetCall(msgspec.Struct, tag="forget"):
    """Store.forget."""

    kind: str
    before: datetime


Call = WriteCall | QueryCall | ValuesCall | RecordsCall | ForgetCall


class WrittenReply(msgspec.Struct):
    """A Written: one byte per outcome, and a refusal's parts by position."""

    outcomes: bytes
    reasons: dict[int, tuple[str, str, str, str]]

    @classmethod
    def of(cls, written: Written) -> WrittenReply:
        """Take a Written apart."""
        reasons = {place: (why.reason, why.kind, why.field, why.value) for place, why in written.reasons.items()}
        return cls(bytes(map(_OUTCOMES.index, written.outcomes)), reasons)

    def written(self) -> Written:
        """Put it together again."""
        reasons = {}
        for place, (reason, kind, field, value) in self.reasons.items():
            reasons[place] = Refused(reason, kind=kind, field=field)
            reasons[place].value = value
        return Written([_OUTCOMES[number] for number in self.outcomes], reasons)


class Failure(msgspec.Struct):
    """An exception on its way to the caller."""

    name: str
    message: str
    permanent: bool

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Of any exception."""
        return cls(type(error).__name__, str(error), bool(getattr(error, "permanent", False)))

    def exception(self) -> Exception:
        """The same exception; what no contract names is a StoreError."""
        known: type[Exception]
        for known in (QueryError, SinkUnavailable):
            if known.__name__ == self.name:
                return known(self.message)
        error = StoreError(self.message)
        error.permanent = self.permanent
        return error


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES)]


def send(link: socket.socket, body: bytes) -> None:
    """Send one frame.

    Raises:
        StoreError: it is larger than MOST_BYTES; nothing was sent.
        OSError: the other end is gone.
    """
    if len(body) > MOST_BYTES:
        message = f"{len(body)} bytes are more than a call may carry ({MOST_BYTES}); send or ask for less at once"
        raise StoreError(message)
    link.sendall(len(body).to_bytes(_LENGTH, "big"))
    link.sendall(body)


def receive(link: socket.socket) -> bytes | None:
    """The next frame; None where the other end has closed the connection between two frames.

    Raises:
        OSError: the other end is gone, or sends what is no frame.
    """
    head = _read(link, _LENGTH)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    body = _read(link, length) if length <= MOST_BYTES else None
    if body is None:
        message = f"a frame of {length} bytes broke off, or is longer than {MOST_BYTES}"
        raise ConnectionError(message)
    return body


def _read(link: socket.socket, length: int) -> bytes | None:
    """Exactly so many bytes; None where the connection was closed before the first."""
    # Grown as bytes arrive, so that a false length alone takes no memory.
    buffer = bytearray()
    while len(buffer) < length:
        part = link.recv(min(length - len(buffer), 2**20))
        if not part:
            if buffer:
                message = "the connection was closed within a frame"
                raise ConnectionError(message)
            return None
        buffer += part
    return bytes(buffer)
