"""The store as any process but the owner sees it: each call is a frame to the owner and one back."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

import msgspec

from monitoring.stores import StoreError
from monitoring.stores.duckdb.addresses import connect, socket_path
from monitoring.stores.duckdb.frames import (
    Call,
    Failure,
    ForgetCall,
    QueryCall,
    RecordsCall,
    ValuesCall,
    WriteCall,
    WrittenReply,
    receive,
    send,
)
from monitoring.stores.duckdb.owner import DONE
from siteward.query import Answer, Filter, Query, QueryError, StoredRecord
from siteward.records import Refused
from siteward.sinks import Batch, Outcome, Written

T = TypeVar("T")
UNSENDABLE: Final = (OverflowError, UnicodeError, TypeError)
"""What encoding raises: an integer beyond 64 bits, half a character, something that is no value at all."""
LONGEST_CALL: Final = 600.0
"""Seconds after which an owner that does not answer is taken for hung."""


class OwnerGone(StoreError):  # noqa: N818  # reads as the state it is.
    """The connection ended before the answer came: whether the call was done is not known, so call again."""


class StoreClient:
    """A Store in another process. Every thread that calls has a connection of its own while it calls."""

    def __init__(self, path: Path) -> None:
        """Connect at the first call only."""
        self._path = socket_path(path)
        self._idle: list[socket.socket] = []
        self._turn = Lock()

    def close(self) -> None:
        """Close idle connections."""
        with self._turn:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def write(self, batch: Batch) -> Written:
        """See Store.write."""
        call = WriteCall.of(batch)
        try:
            body = msgspec.msgpack.encode(call)
        except UNSENDABLE:
            return self._write_sendable(batch)
        return self._exchange(body, msgspec.msgpack.Decoder(WrittenReply)).written()

    def _write_sendable(self, batch: Batch) -> Written:
        """Reject the records that cannot even be sent, and write the rest."""
        reasons = {place: why for place in range(len(batch)) if (why := _why_unsendable(batch, place)) is not None}
        rest = [place for place in range(len(batch)) if place not in reasons]
        written = self.write(batch.part(rest))
        outcomes = [Outcome.REJECTED] * len(batch)
        for place, outcome in zip(rest, written.outcomes, strict=True):
            outcomes[place] = outcome
        return Written(outcomes, reasons | {rest[place]: why for place, why in written.reasons.items()})

    def query(self, query: Query) -> Answer:
        """See Store.query."""
        return self._call(QueryCall(query), msgspec.json.Decoder(Answer))

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """See Store.values."""
        call = ValuesCall(kind, field, tuple(filters), limit)
        return self._call(call, msgspec.msgpack.Decoder(list[str | int | bool | None]))

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        """See Store.records."""
        call = RecordsCall(kind, list(ids), start, end, tuple(filters), limit)
        return self._call(call, msgspec.msgpack.Decoder(list[StoredRecord]))

    def forget(self, kind: str, before: datetime) -> int:
        """See Store.forget."""
        return self._call(ForgetCall(kind, before), msgspec.msgpack.Decoder(int))

    def _call(self, call: Call, decoder: msgspec.msgpack.Decoder[T] | msgspec.json.Decoder[T]) -> T:
        """Ask the owner.

        Raises:
            OwnerGone: nobody answers at the socket.
            QueryError, SinkUnavailable, StoreError: what the owner's store raised.
        """
        try:
            body = msgspec.msgpack.encode(call)
        except UNSENDABLE as error:
            message = f"a value of the question cannot be sent to the store: {error}"
            raise QueryError(message) from error
        return self._exchange(body, decoder)

    def _exchange(self, body: bytes, decoder: msgspec.msgpack.Decoder[T] | msgspec.json.Decoder[T]) -> T:
        reply = self._send(body)
        if reply[:1] != DONE:
            raise msgspec.msgpack.decode(reply[1:], type=Failure).exception()
        return decoder.decode(memoryview(reply)[1:])

    def _send(self, body: bytes) -> bytes:
        with self._turn:
            link = self._idle.pop() if self._idle else None
        try:
            link = link or connect(self._path, LONGEST_CALL)
            send(link, body)
            reply = receive(link)
        except OSError as error:
            self._end(link)
            message = f"the process that owns the monitoring store does not answer at {self._path}: {error}"
            raise OwnerGone(message) from error
        except BaseException:
            self._end(link)
            raise
        if reply is None:
            self._end(link)
            message = f"the process that owns the monitoring store closed {self._path}"
            raise OwnerGone(message)
        with self._turn:
            self._idle.append(link)
        return reply

    def _end(self, link: socket.socket | None) -> None:
        """Drop this connection and the idle ones, which lead to the same owner."""
        if link is not None:
            with suppress(OSError):
                link.close()
        self.close()


def _why_unsendable(batch: Batch, place: int) -> Refused | None:
    for name, values in batch.columns.items():
        try:
            msgspec.msgpack.encode(values[place])
        except UNSENDABLE as error:
            return Refused(f"cannot be stored: {error}", kind=batch.kind.name, field=name, value=values[place])
    return None
