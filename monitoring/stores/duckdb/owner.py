"""The owner of a DuckDB file: holds its lock, has it open, and answers the other processes on a socket."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Final

import msgspec

from monitoring.stores.duckdb.addresses import listen, socket_path
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
from monitoring.stores.duckdb.store import DuckStore
from siteward.records import Kind
from siteward.settings import MonitoringSettings
from siteward.sinks import SinkUnavailable

DONE: Final = b"+"
FAILED: Final = b"!"
_calls: Final = msgspec.msgpack.Decoder(Call)


class Owner:
    """This process's hold on a store's file, for as long as it lives."""

    def __init__(self, lock: int, path: Path, settings: MonitoringSettings, kinds: Mapping[str, Kind]) -> None:
        """Open the file and listen. `lock` is the descriptor that holds the lock; it is released on failure.

        Raises:
            StoreError: the file cannot be opened.
            OSError: the socket cannot be made.
        """
        self._lock = lock
        self._links: set[socket.socket] = set()
        self._turn = Lock()
        self._closing = False
        self._path = socket_path(path)
        try:
            self.store = DuckStore(path, settings, kinds)
            try:
                self._door = listen(self._path)
            except OSError:
                self.store.close()
                raise
        except BaseException:
            os.close(lock)
            raise
        Thread(target=self._accept, name="store-door", daemon=True).start()

    def close(self) -> None:
        """Close the door, the connections and the file, then let another process own it."""
        self._path.unlink(missing_ok=True)
        with self._turn:
            self._closing = True
            # shutdown wakes the thread that waits in accept(); close alone would leave it there.
            for link in (self._door, *self._links):
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)
            self._door.close()
        self.store.close()
        os.close(self._lock)

    def abandon(self) -> None:
        """In a forked child: the lock and the connections are the parent's; let go of them without a trace."""
        os.close(self._lock)
        for link in (self._door, *self._links):
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._door.accept()
            except OSError:
                return
            with self._turn:
                if self._closing:
                    link.close()
                    return
                self._links.add(link)
            Thread(target=self._serve, args=(link,), name="store-link", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        """Answer one connection, call after call, until it ends."""
        try:
            # A connection that breaks off is the caller's to notice: it calls again.
            with suppress(OSError):
                while (body := receive(link)) is not None:
                    send(link, self._reply(body))
        finally:
            with self._turn:
                self._links.discard(link)
            link.close()

    def _reply(self, body: bytes) -> bytes:
        try:
            return DONE + self._answer(_calls.decode(body))
        except Exception as error:  # noqa: BLE001  # whatever went wrong is the caller's to know.
            return FAILED + msgspec.msgpack.encode(Failure.of(error))

    def _answer(self, call: Call) -> bytes:
        encode = msgspec.msgpack.encode
        match call:
            case WriteCall():
                return encode(WrittenReply.of(self.store.write(call.batch(self._kind(call)))))
            case QueryCall(query):
                # JSON, because MessagePack has no integers beyond 64 bits.
                return msgspec.json.encode(self.store.query(query))
            case ValuesCall(kind, field, filters, limit):
                return encode(self.store.values(kind, field, filters, limit))
            case RecordsCall(kind, ids, start, end, filters, limit):
                return encode(self.store.records(kind, ids=ids, start=start, end=end, filters=filters, limit=limit))
            case ForgetCall(kind, before):
                return encode(self.store.forget(kind, before))

    def _kind(self, call: WriteCall) -> Kind:
        kind = self.store.kinds.get(call.kind)
        if kind is None or set(kind.names) != set(call.columns):
            message = (
                f"the process that owns {self.store.path} knows no kind {call.kind!r} with these fields; "
                "restart it, so that it reads the present declarations"
            )
            raise SinkUnavailable(message)
        return kind


def lock_file(path: Path) -> int | None:
    """Take the lock beside a store's file; its descriptor, or None where another holds it.

    The kernel releases it when the process dies, however it dies.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
