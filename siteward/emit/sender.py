"""The emitter's other half, in its own thread: seals batches, publishes them, spools what the broker did not take."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from siteward.broker import Broker, Forbidden, Message, Publisher, Unroutable, opening
from siteward.broker.topology import routing_key
from siteward.compression import compress_zstd
from siteward.emit.buffer import Buffer, Pending
from siteward.emit.forbidden import RETRY_SECONDS, ForbiddenKeys
from siteward.emit.spool import Spool
from siteward.envelope import MAX_BYTES, ZSTD, seal
from siteward.log import get_logger
from siteward.settings import Settings
from siteward.telemetry import BUFFERED, CONFIRMED, EMIT_REFUSED, EMITTED, SPOOLED, Metric, telemetry

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
        self._pause = 0.0
        self._next_try = 0.0

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
        while messages and not self._handed_over(messages):
            if self.stop.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
        self._buffer.finish(sum(len(batch.rows) for batch in batches))
        telemetry.set(BUFFERED, self._buffer.bytes)

    def _handed_over(self, messages: Sequence[Message]) -> bool:
        """Whether all messages are with the broker or in the spool; what is forbidden goes straight to the spool."""
        keys = {message.key for message in messages if message.key in self.forbidden}
        left = [message for message in messages if message.key in keys]
        allowed = [message for message in messages if message.key not in keys] if left else messages
        if allowed and not self._publish(allowed):
            left = list(messages)
        return not left or self._spooled(left)

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

    def _publish(self, messages: Sequence[Message]) -> bool:
        if time.monotonic() < self._next_try:
            return False
        try:
            if self._publisher is None:
                self._broker = opening.open_declared(self._settings)
                self._publisher = self._broker.publisher()
            self._publisher.publish(messages)
        except Forbidden as error:
            self._note(error)
        except Unroutable as error:
            self._back_off(error)
        except Exception as error:  # noqa: BLE001  # whatever a broker's library raises, the records go to the spool.
            self._let_go()
            self._back_off(error)
        else:
            self._pause = 0.0
            _count(CONFIRMED, messages)
            return True
        return False

    def _spooled(self, messages: Sequence[Message]) -> bool:
        try:
            self._spool.put(messages)
        except Exception as error:  # noqa: BLE001  # tried again as long as memory holds them.
            get_logger(__name__).warning("spool does not take records", reason=str(error))
            return False
        _count(SPOOLED, messages)
        return True

    def _note(self, error: Forbidden) -> None:
        self.forbidden.add(error.key)
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
                    taken_back = time.monotonic()
                while not self._closing.is_set() and (messages := self._spool.peek()):
                    barred = next((message.key for message in messages if message.key in self.forbidden), "")
                    if barred:
                        self._spool.set_aside(barred, "the broker has refused this key lately")
                        continue
                    if publisher is None:
                        broker = opening.open_declared(self._settings)
                        publisher = broker.publisher()
                    try:
                        publisher.publish(messages)
                    except Forbidden as error:
                        self._note(error)
                        self._spool.set_aside(error.key, str(error))
                        continue
                    self._spool.forget()
                    _count(CONFIRMED, messages)
                    self._next_try = 0.0
                pause = REPLAY_SECONDS
            except Exception as error:  # noqa: BLE001  # tried again later, whatever it was.
                get_logger(__name__).info("spool waits for the broker", reason=str(error))
                _close(publisher, broker)
                publisher = broker = None
                self._spool.release()
                pause = min(2 * pause, LONGEST_PAUSE)
        self._spool.release()
        _close(publisher, broker)

    def _back_off(self, error: Exception) -> None:
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads retries.
        get_logger(__name__).warning("broker is away, records go to the spool", reason=str(error))

    def _let_go(self) -> None:
        _close(self._publisher, self._broker)
        self._publisher = self._broker = None


def _close(*ends: Publisher | Broker | None) -> None:
    for end in ends:
        if end is not None:
            end.close()


def _count(metric: Metric, messages: Sequence[Message]) -> None:
    for message in messages:
        telemetry.add(metric, message.count, message.key.rpartition(".")[2])
