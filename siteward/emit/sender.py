"""The emitter's other half, in its own thread: seals batches, publishes them, spools what the broker did not take."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from siteward.broker import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    Forbidden,
    Message,
    Publisher,
    Rejected,
    Unroutable,
    opening,
)
from siteward.broker.topology import routing_key
from siteward.compression import compress_zstd
from siteward.emit.buffer import Buffer, Pending
from siteward.emit.forbidden import RETRY_SECONDS, ForbiddenKeys, Rejections
from siteward.emit.spool import Spool
from siteward.envelope import MAX_BYTES, ZSTD, seal
from siteward.log import get_logger
from siteward.settings import Settings
from siteward.telemetry import ASIDE, BUFFERED, CONFIRMED, EMIT_REFUSED, EMITTED, SPOOLED, Metric, telemetry

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0
REPLAY_SECONDS: Final = 1.0
"""How often an idle sender looks whether the spool can be emptied."""


class Sender:
    """Empties the buffer into the broker, else into the spool, and the spool into the broker."""

    def __init__(self, settings: Settings, producer: str, buffer: Buffer, closing: threading.Event) -> None:
        """Open nothing yet: this runs in the caller's thread."""
        self._settings = settings
        self._producer = producer
        self._buffer = buffer
        self._closing = closing
        self._compress = settings.emitter.compress and find_spec("zstandard") is not None
        if settings.emitter.compress and not self._compress:
            get_logger(__name__).warning("messages are not compressed", reason="siteward[zstd] is not installed")
        self.forbidden = ForbiddenKeys()
        """What this program may not publish; known when the broker has said so."""
        self.stop = threading.Event()
        """Set when nobody waits for the sender any more."""
        self._broker: Broker | None = None
        self._publisher: Publisher | None = None
        self._spool = Spool(settings.spool, settings.emitter.spool_bytes)
        self._rejections = Rejections()
        self._pause = 0.0
        self._next_try = 0.0
        self._not_before = 0.0

    def run(self) -> None:
        """Work until the emitter closes and nothing is left."""
        replay = threading.Thread(target=self._replay_for_ever, name="siteward-spool", daemon=True)
        replay.start()
        try:
            while batches := self._buffer.take():
                self._deliver(batches)
        finally:
            replay.join(timeout=LONGEST_PAUSE)
            self._let_go()
            self._spool.close()

    def _deliver(self, batches: Sequence[Pending]) -> None:
        """Publish or spool all batches at once; keeps trying while both fail, until the emitter gives up.

        Together, since a program may emit for many VOs, and since flush() and durable emitters wait by order of emit.
        """
        messages: list[Message] = []
        for batch in batches:
            telemetry.add(EMITTED, len(batch.rows), batch.kind.name)
            try:
                messages += self._seal(batch)
            except Exception:  # noqa: BLE001  # see below.
                # A defect of ours; but a sender that ends with it would take every later record along.
                telemetry.add(EMIT_REFUSED, len(batch.rows), batch.kind.name, "unsealed")
                get_logger(__name__).exception("records lost", kind=batch.kind.name, records=len(batch.rows))
        pause = FIRST_PAUSE
        while messages := self._remaining(messages):
            if self.stop.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
        self._buffer.finish(sum(len(batch.rows) for batch in batches))
        telemetry.set(BUFFERED, self._buffer.bytes)

    def _remaining(self, messages: Sequence[Message]) -> list[Message]:
        """Publish or spool messages; those that neither broker nor spool takes now. What is forbidden is spooled."""
        keys = {message.key for message in messages if message.key in self.forbidden}
        left = [message for message in messages if message.key in keys]
        left += self._unpublished([message for message in messages if message.key not in keys])
        return [] if not left or self._spooled(left) else left

    def _seal(self, batch: Pending) -> list[Message]:
        size = self._settings.emitter.batch_records
        messages = []
        parts = [batch.rows[first : first + size] for first in reversed(range(0, len(batch.rows), size))]
        while parts:
            rows = parts.pop()
            body = seal(batch.kind, rows, self._producer, time.time_ns() // 1000)
            self._buffer.learn(len(body) // len(rows))
            if len(body) > MAX_BYTES and len(rows) > 1:
                # No collector would read it; the buffer only guesses how large rows are.
                middle = len(rows) // 2
                parts += [rows[middle:], rows[:middle]]
                continue
            encoding = ""
            if self._compress:
                body, encoding = compress_zstd(body), ZSTD
            key = routing_key(batch.vo, batch.kind.name)
            messages.append(Message(key=key, body=body, count=len(rows), content_encoding=encoding))
        return messages

    def _unpublished(self, messages: list[Message]) -> list[Message]:
        """Publish messages; those that are for the spool."""
        if time.monotonic() < max(self._next_try, self._not_before):
            return messages
        left: list[Message] = []
        while messages:
            try:
                if self._publisher is None:
                    self._broker = opening.open_declared(self._settings)
                    self._publisher = self._broker.publisher()
                self._publisher.publish(messages)
            except Rejected as error:
                self._rejections.note(error)
                _count_partly(messages[: error.stored + 1], error.left)
                left += error.left
                messages = messages[error.stored + 1 :]
            except Exception as error:  # noqa: BLE001  # whatever a broker's library raises, the records go to the spool.
                self._give_up(error)
                stored = error.stored if isinstance(error, BrokerError) else 0
                _count(CONFIRMED, messages[:stored])
                return left + messages[stored:]
            else:
                self._pause = 0.0
                _count(CONFIRMED, messages)
                break
        return left

    def _give_up(self, error: Exception) -> None:
        if isinstance(error, Forbidden):
            self._note(error)
            return
        if not isinstance(error, Unroutable):
            self._let_go()
        self._back_off(error)

    def _spooled(self, messages: Sequence[Message]) -> bool:
        try:
            self._spool.put(messages)
        except Exception as error:  # noqa: BLE001  # tried again as long as memory holds them.
            get_logger(__name__).warning("spool does not take records", reason=str(error))
            return False
        _count(SPOOLED, messages)
        return True

    def _note(self, error: Forbidden) -> None:
        self.forbidden.add(error.key, str(error))
        get_logger(__name__).error("records may not be published, they stay in the spool", reason=str(error))

    def _replay_for_ever(self) -> None:
        """Empty the spool in order, oldest first, whenever the broker takes messages again.

        What the broker forbids is set aside, so that it holds up nothing else, and tried again after a while.
        """
        taken_back = -RETRY_SECONDS
        broker: Broker | None = None
        publisher: Publisher | None = None
        pause = REPLAY_SECONDS
        while not self._closing.wait(pause * random.uniform(0.8, 1.2)):  # noqa: S311  # spreads retries of many hosts.
            try:
                if time.monotonic() > taken_back + RETRY_SECONDS:
                    self._spool.take_back()
                    self._rejections.start_anew()
                    taken_back = time.monotonic()
                while not self._closing.is_set() and (messages := self._waiting()):
                    if publisher is None:
                        broker = opening.open_declared(self._settings)
                        publisher = broker.publisher()
                    self._replay(publisher, messages)
                telemetry.set(ASIDE, self._spool.aside())
                pause = REPLAY_SECONDS
            except Exception as error:  # noqa: BLE001  # tried again later, whatever it was.
                get_logger(__name__).info("spool waits for the broker", reason=str(error))
                self._heed(error)
                _close(publisher, broker)
                publisher = broker = None
                self._spool.release()
                pause = min(2 * pause, LONGEST_PAUSE)
        self._spool.release()
        _close(publisher, broker)

    def _waiting(self) -> list[Message]:
        """The oldest messages of the spool that the broker may take; [] while it asks to wait."""
        if time.monotonic() < self._not_before:
            return []
        while messages := self._spool.peek():
            barred = next((message.key for message in messages if message.key in self.forbidden), "")
            if not barred:
                break
            self._spool.set_aside(barred, self.forbidden.reason(barred))
        return messages

    def _replay(self, publisher: Publisher, messages: Sequence[Message]) -> None:
        """Publish what the spool gave; what the broker will not take is set aside."""
        try:
            publisher.publish(messages)
        except BrokerError as error:
            _count(CONFIRMED, messages[: error.stored])
            self._spool.forget(error.stored)
            if isinstance(error, Forbidden):
                self._note(error)
                self._spool.set_aside(error.key, str(error))
            elif isinstance(error, Rejected):
                self._rejections.note(error)
                _count_partly(messages[error.stored : error.stored + 1], error.left)
                self._spool.keep_only(error.left, str(error))
            else:
                raise
            return
        _count(CONFIRMED, messages)
        self._spool.forget(len(messages))
        self._next_try = 0.0

    def _heed(self, error: Exception) -> None:
        """Ask no sooner than the broker wants, if it says so."""
        wait = error.wait if isinstance(error, BrokerUnavailable) else 0.0
        wait *= random.uniform(1.0, 1.2)  # noqa: S311  # spreads retries of many hosts.
        self._not_before = max(self._not_before, time.monotonic() + wait)

    def _back_off(self, error: Exception) -> None:
        self._heed(error)
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads retries.
        get_logger(__name__).warning("broker is away, records go to the spool", reason=str(error))

    def _let_go(self) -> None:
        _close(self._publisher, self._broker)
        self._publisher = self._broker = None


def _count_partly(messages: Sequence[Message], left: Sequence[Message]) -> None:
    """Count messages of whose last one some records are left."""
    _count(CONFIRMED, messages)
    telemetry.add(CONFIRMED, -sum(message.count for message in left), messages[-1].key.rpartition(".")[2])


def _close(*ends: Publisher | Broker | None) -> None:
    for end in ends:
        if end is not None:
            end.close()


def _count(metric: Metric, messages: Sequence[Message]) -> None:
    for message in messages:
        telemetry.add(metric, message.count, message.key.rpartition(".")[2])
