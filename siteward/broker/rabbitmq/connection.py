"""One AMQP connection with a thread of its own, so that heartbeats never depend on what its user is doing."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from pika import SelectConnection
from pika.channel import Channel
from pika.exceptions import ChannelClosed

from siteward.broker import BrokerError, BrokerUnavailable
from siteward.broker.rabbitmq import tables  # noqa: F401  # makes pika outlive tables that it cannot read.
from siteward.broker.rabbitmq.addresses import Address, parameters_of
from siteward.broker.rabbitmq.loop import Loop
from siteward.broker.rabbitmq.refusals import Refusal, told
from siteward.settings import BrokerSettings

CLOSE_SECONDS: Final = 5.0
"""How long a server may take to answer a goodbye."""
READ_BYTES: Final = 2**18
"""What is read from the socket at once."""

# Each failure is told by an error of ours; pika would tell the same several times, with traces, to whoever emits.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class Link:
    """A connection and its channel. Once lost it stays lost: open another one.

    Everything of pika is touched by the link's own thread only. What others are told changes under `changed`.
    """

    def __init__(self, address: Address, settings: BrokerSettings, purpose: str) -> None:
        """Connect, and open a channel.

        Raises:
            BrokerUnavailable: nobody answers there now.
            BrokerError: not with this user, password, virtual host or certificate; permanent.
        """
        self.changed = threading.Condition()
        self.failure: BrokerError | None = None
        self.blocked = ""
        """Why the server takes nothing at present; empty while it does."""
        self._address = address
        self._parameters = parameters_of(address, settings, f"{purpose} (process {os.getpid()})")
        self._timeout = settings.timeout
        self._connection: SelectConnection | None = None
        self._channel: Channel | None = None
        self._refusal: Refusal | None = None
        self._over = False
        self._asking = threading.Lock()
        self._loop = Loop()
        self._thread = threading.Thread(target=self._run, name=f"amqp-{purpose}", daemon=True)
        _links.add(self)
        self._thread.start()
        self._wait(lambda: self._connection is not None, "did not answer")

    def tell(self, action: Callable[[Channel], object]) -> None:
        """Have the link's thread do something with the open channel; nothing happens where there is none."""

        def act() -> None:
            if self._channel is not None and self._channel.is_open:
                action(self._channel)

        self._loop.add_callback_threadsafe(act)

    def ask(self, question: Callable[[Channel, Callable[[Any], None]], object]) -> Any:  # noqa: ANN401  # AMQP method.
        """Ask the server something and wait for the answer; opens a channel where there is none.

        Args:
            question: called by the link's thread with the channel and what has to be called with the answer.

        Raises:
            Refusal: the server closed the channel instead; the next question gets another one.
            BrokerUnavailable: the link is lost, or the server took too long.
        """
        if self.failure is not None:
            raise self.failure
        with self._asking:
            answers: list[Any] = []
            with self.changed:
                self._refusal = None

            def answer(value: object) -> None:
                with self.changed:
                    answers.append(value)
                    self.changed.notify_all()

            def put(channel: Channel) -> None:
                self._guard(lambda: question(channel, answer))

            self._loop.add_callback_threadsafe(lambda: self._guard(lambda: self._with_channel(put)))
            self._wait(lambda: bool(answers) or self._refusal is not None, "did not answer a question")
            if answers:
                return answers[0]
            assert self._refusal is not None  # what _wait waited for.
            raise self._refusal

    def wait(self, enough: Callable[[], bool], seconds: float) -> None:
        """Wait, holding `changed`, until something is so, the link is lost, or time is up."""
        self.changed.wait_for(lambda: enough() or self.failure is not None, seconds)

    def lose(self, failure: BrokerError) -> None:
        """Give the link up: it serves nobody any more."""
        with self.changed:
            self.failure = self.failure or failure
            self.changed.notify_all()

    def close(self) -> None:
        """Say goodbye, behind everything told before, and let go; a server that does not answer is left alone."""
        if self._over:
            return
        deadline = time.monotonic() + (0.0 if self.blocked else CLOSE_SECONDS)

        def leave() -> None:
            if self._connection is not None and self._connection.is_open:
                self._connection.close()

        if not self.blocked:
            self._loop.add_callback_threadsafe(leave)
        with self.changed:
            self.changed.wait_for(lambda: self._over, max(0.0, deadline - time.monotonic()))
        while not self._over:
            self._loop.cut()
            if self._connection is None:
                self._loop.add_callback_threadsafe(self._loop.stop)
            self._thread.join(0.1)
        self._thread.join()
        self.lose(BrokerUnavailable("the connection is closed"))

    def cut(self) -> None:
        """End without a goodbye, as soon as the server has read everything told before."""
        with suppress(BrokerError):
            self.ask(lambda channel, answer: channel.basic_qos(prefetch_count=1, callback=answer))
        self._loop.cut()

    def abandon(self) -> None:
        """In a forked child: this link is the parent's."""
        self._loop.abandon()
        self.changed = threading.Condition()
        self._over = True
        self.failure = BrokerUnavailable("the connection belongs to the process this one was forked from")

    def _wait(self, enough: Callable[[], bool], what: str) -> None:
        with self.changed:
            self.wait(enough, self._timeout)
            if enough():
                return
        if self.failure is None:
            self.lose(BrokerUnavailable(f"{self._address} {what} within {self._timeout:g} s"))
        self.close()
        assert self.failure is not None  # lose() saw to it.
        raise self.failure

    def _run(self) -> None:
        try:
            SelectConnection.create_connection(self._parameters, self._on_connected, custom_ioloop=self._loop)
            self._loop.start()
        except Exception as error:  # noqa: BLE001  # whatever ends the thread, whoever waits has to hear of it.
            self.lose(told(error, self._address))
        finally:
            self._loop.close()
            with self.changed:
                self._over = True
                self.failure = self.failure or BrokerUnavailable(f"the connection to {self._address} is closed")
                self.changed.notify_all()

    def _guard(self, action: Callable[[], object]) -> None:
        """Do what may fail for a reason that only the asker can judge."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  # told to the asker.
            self.lose(told(error, self._address))

    def _on_connected(self, result: SelectConnection | BaseException) -> None:
        if isinstance(result, BaseException):
            self.lose(told(result, self._address))
            self._loop.stop()
            return
        result.add_on_close_callback(self._on_closed)
        result.add_on_connection_blocked_callback(lambda _, method: self._block(method.method.reason or "blocked"))
        result.add_on_connection_unblocked_callback(lambda _, __: self._block(""))
        # pika reads 4 kB at a time, and puts each piece behind a copy of those before it.
        transport = getattr(result, "_transport", None)
        for name, size in (("_MAX_RECV_BYTES", READ_BYTES), ("_MAX_CONSUME_BYTES", 4 * READ_BYTES)):
            if hasattr(transport, name):
                setattr(transport, name, size)
        with self.changed:
            self._connection = result
            self.changed.notify_all()

    def _block(self, reason: str) -> None:
        with self.changed:
            self.blocked = reason
            self.changed.notify_all()

    def _on_closed(self, _connection: object, error: BaseException) -> None:
        self.lose(told(error, self._address))
        self._loop.stop()

    def _with_channel(self, action: Callable[[Channel], None]) -> None:
        if self._channel is not None and self._channel.is_open:
            action(self._channel)
        elif self._connection is not None:

            def opened(channel: Channel) -> None:
                channel.add_on_close_callback(self._on_channel_closed)
                self._channel = channel
                action(channel)

            self._connection.channel(on_open_callback=opened)

    def _on_channel_closed(self, _channel: object, error: BaseException) -> None:
        with self.changed:
            self._channel = None
            if isinstance(error, ChannelClosed):
                self._refusal = Refusal(error.reply_code, error.reply_text)
            self.changed.notify_all()

    @property
    def refusal(self) -> Refusal | None:
        """Why the server closed the channel, if it did."""
        return self._refusal


_links: weakref.WeakSet[Link] = weakref.WeakSet()
_abandoned: list[Link] = []
"""In a forked child: its parent's links, kept so that nothing of them is ever tidied up."""


def _after_fork_in_child() -> None:
    for link in list(_links):
        link.abandon()
        _abandoned.append(link)
    _links.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
