"""The Emitter: takes records from a program, never blocks it, never raises into its work, loses nothing on the way."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from siteward.broker.topology import routing_key
from siteward.emit.buffer import Buffer
from siteward.emit.sender import Sender
from siteward.log import get_logger
from siteward.records import Kind, Record, Refused, Row, kind_of
from siteward.settings import PREFIX, Settings, load_settings
from siteward.telemetry import EMIT_REFUSED, telemetry

CLOSE_SECONDS: Final = 30.0
"""How long close() waits for what is still in memory."""
LOG_SECONDS: Final = 0.2
"""How long close() waits for each refusal to be logged."""
BROKER_URL: Final = f"{PREFIX}BROKER__URL"
_LOGGED_REFUSALS: Final = 10
"""Refusals are logged one by one up to this number, then only counted: a broken loop must not fill the disk."""
_living: weakref.WeakSet[Emitter] = weakref.WeakSet()


class Emitter:
    """Sends records to the broker in the background.

    `emit` validates, copies the record and returns; a thread seals envelopes and publishes them. What the broker does
    not confirm is spooled to disk and sent later, in order. Memory and disk are bounded: when either is full, new
    records are refused (and counted), never old ones dropped.

    Safe to use from any thread and after a fork; a forked child starts with nothing, since what was waiting is its
    parent's to send.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        producer: str = "",
        durable: bool = False,
        when_full: Literal["refuse", "wait"] | None = None,
    ) -> None:
        """Prepare; nothing is opened before the first record.

        Args:
            settings: None reads them as every Siteward program does; a text is the broker's URL, such as
                `https://siteward.example.org`, in place of theirs.
            producer: who sends, such as `pilot@node7.example.org`; by default program and host.
            durable: emit returns only when the record is on disk or confirmed, and then not even a power failure loses
                it; costs a disk write each time, shared by threads that emit at once.
            when_full: what emit does when memory is full: refuse the record, or wait; by default as the settings say.

        Raises:
            siteward.settings.SettingsError: a setting cannot be used.
        """
        if isinstance(settings, str):
            settings = load_settings(environ={**os.environ, BROKER_URL: settings})
        self.settings = settings or load_settings()
        self.producer = producer or f"{Path(sys.argv[0] or 'python').name}@{socket.gethostname()}"
        self._durable = durable
        self._wait = (when_full or self.settings.emitter.when_full) == "wait"
        self._kinds: dict[type[Record], Kind] = {}
        self._refusals = 0
        self._closed = False
        self._start_anew()
        _living.add(self)

    def __enter__(self) -> Self:
        """The emitter itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left and close."""
        self.close()

    def emit(self, record: Record) -> Refused | None:
        """Take one record.

        Returns:
            None when it was accepted; else why not, which was also counted and logged. Nothing is ever raised.
        """
        try:
            kind = self._kinds.get(type(record))
            if kind is None:
                kind = self._kinds[type(record)] = kind_of(type(record))
            row = kind.row_of(record, time.time_ns() // 1000)
        except Refused as refused:
            return self._refuse(refused, "invalid")
        except Exception as error:  # noqa: BLE001  # a mistake in a record must not end a payload.
            return self._refuse(Refused(f"is not a record: {error}", value=type(record).__name__), "invalid")
        return self.emit_row(kind, row)

    def emit_row(self, kind: Kind, row: Row) -> Refused | None:
        """Take one row that its kind has validated already, as the doors of other formats give them."""
        buffer = self._buffer
        if (self._thread is None and not (self._closed or self._has_started())) or self._sender.forbidden:
            refused = self._obstacle(kind, row)
            if refused:
                return refused
        while not buffer.add(kind, row):
            if self._closed:
                return self._refuse(Refused("the emitter is closed", kind=kind.name), "closed")
            if not self._wait:
                return self._refuse(Refused("memory for waiting records is full", kind=kind.name), "full")
            buffer.wait_room(1.0)
        if self._durable:
            return self._settle(kind)
        return None

    def _obstacle(self, kind: Kind, row: Row) -> Refused | None:
        """Why nothing can be sent at all, or not for this VO; None where it can."""
        if self._thread is None and not self._closed:
            return self._refuse(Refused("no thread can be started to send it", kind=kind.name), "thread")
        vo: str = row.vo  # type: ignore[attr-defined]  # every row has one.
        if routing_key(vo, kind.name) in self._sender.forbidden:
            reason = "the broker takes nothing for this VO from this user; its operator has to grant it"
            return self._refuse(Refused(reason, kind=kind.name, field="vo", value=vo), "forbidden")
        return None

    def flush(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Wait until everything emitted so far is confirmed by the broker or on disk; False when time is up first."""
        return self._buffer.wait_finished(self._buffer.hurry(), timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Flush and stop; False when something was still in memory when time was up, which is lost and logged."""
        if self._closed:
            return True
        self._closed = True
        self._closing.set()
        self._buffer.close()
        done = self._buffer.wait_finished(self._buffer.hurry(), timeout)
        if self._thread is not None:
            self._sender.stop.set()
            self._thread.join(max(timeout, 1.0))
        for thread in self._logging:
            thread.join(LOG_SECONDS)
        if not done:
            get_logger(__name__).error("records lost at close", records=self._buffer.added - self._buffer.finished)
        return done

    def _settle(self, kind: Kind) -> Refused | None:
        """Wait until the record just added is on disk; threads that wait together share one write."""
        if self._buffer.wait_finished(self._buffer.hurry(), CLOSE_SECONDS):
            return None
        return self._refuse(
            Refused("could not be written to broker or disk in time; it stays queued", kind=kind.name), "disk"
        )

    def _refuse(self, refused: Refused, why: str) -> Refused:
        telemetry.add(EMIT_REFUSED, 1, refused.kind, why)
        self._refusals += 1
        if self._refusals <= _LOGGED_REFUSALS:
            self._log_refusal(refused, self._refusals)
        return refused

    def _log_refusal(self, refused: Refused, number: int) -> None:
        """Log in a thread of its own: standard error may be a pipe that nobody reads, and would block the caller."""

        def log() -> None:
            get_logger(__name__).warning(
                "record refused", kind=refused.kind, field=refused.field, reason=refused.reason, refused=number
            )

        thread = threading.Thread(target=log, name="siteward-refusal", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._logging.append(thread)

    def _start_anew(self) -> None:
        limits = self.settings.emitter
        self._buffer = Buffer(limits.batch_records, limits.batch_bytes, limits.batch_age, limits.memory_bytes)
        self._closing = threading.Event()
        self._logging: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sender = Sender(self.settings, self.producer, self._buffer, self._closing)

    def _has_started(self) -> bool:
        """Start the sender; False where the system gives no thread, or the interpreter is about to end."""
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._sender.run, name="siteward-emitter", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
        return True


_abandoned: list[object] = []
"""What a forked child inherits of its parent's emitters; kept, since closing it would disturb the parent's files."""


def _after_fork() -> None:
    for emitter in list(_living):
        _abandoned.append((emitter._sender, emitter._buffer))  # noqa: SLF001  # the module's own.
        emitter._start_anew()  # noqa: SLF001


def _at_exit() -> None:
    for emitter in list(_living):
        emitter.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
