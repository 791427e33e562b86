"""A request's last moment: whatever the other side does until then, the wait ends there."""

from __future__ import annotations

import socket
import time
from concurrent.futures import Future
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from ssl import SSLContext, create_default_context
from threading import Lock, Thread, Timer
from typing import Any, Self
from urllib.request import BaseHandler, HTTPHandler, HTTPSHandler, Request

Address = tuple[int, int, int, str, tuple[object, ...]]
"""What socket.getaddrinfo() says of one address: family, type, protocol, a name, and the place."""


class Deadline:
    """Bounds everything that one request waits for: the name's addresses, each of them, and the answer.

    A socket's own timeout begins anew with every address and every byte, so a name with many dead addresses, or a
    server that drips, would hold its caller for ever; and the header is read where no caller can look at the clock in
    between.
    """

    def __init__(self, seconds: float) -> None:
        """Let so many seconds pass, from now on."""
        self._end = time.monotonic() + seconds
        self._lock = Lock()
        self._sockets: list[socket.socket] = []
        self._timer = Timer(seconds, self._cut)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def connect(self, place: tuple[str, int], timeout: float | None = None, source: None = None) -> socket.socket:
        """Open a connection that is shut down when it is time; takes what socket.create_connection() takes.

        Each address of a name is given its share of the time that is left, so that a dead one keeps the next from
        being tried no longer than that.

        Raises:
            OSError: no address answers in time; that of the last one.
        """
        del source
        addresses = self._resolve(*place)
        failed = OSError(f"{place[0]} has no address")
        for number, address in enumerate(addresses):
            try:
                return self._open(address, self._left() / (len(addresses) - number), timeout)
            except OSError as error:
                failed = error
        raise failed

    def _open(self, address: Address, patience: float, timeout: float | None) -> socket.socket:
        family, type_, protocol, _, where = address
        opened = socket.socket(family, type_, protocol)
        try:
            opened.settimeout(patience)
            opened.connect(where)
            opened.settimeout(timeout)
            self._watch(opened)
        except OSError:
            opened.close()
            raise
        return opened

    def _resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of a name. No look-up can be called off: one that hangs ends by itself, and nobody waits."""
        found: Future[list[Address]] = Future()

        def look_up() -> None:
            try:
                found.set_result(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            except Exception as error:  # noqa: BLE001  # told to whoever waits.
                found.set_exception(error)

        Thread(target=look_up, name="look-up", daemon=True).start()
        return found.result(self._left())

    def _left(self) -> float:
        """Seconds until it is time.

        Raises:
            TimeoutError: it is.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _watch(self, opened: socket.socket) -> None:
        with self._lock:
            # Another descriptor of it: TLS takes the first one away, and closing it early must not hit a stranger.
            self._sockets.append(opened.dup())
        if self.passed:
            self._cut()

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the connections alone."""
        self._timer.cancel()
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()

    def _cut(self) -> None:
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class TimedRequest(Request):
    """A request with a deadline, for an opener with timed_handlers()."""

    deadline: Deadline


def timed_handlers(trusted: SSLContext | None = None) -> list[BaseHandler]:
    """What opens http and https so that a TimedRequest's deadline holds, from the look-up of the name on.

    Args:
        trusted: who is believed over https; by default the authorities of the system.
    """
    return [_Http(), _Https(trusted or create_default_context())]


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_timed(HTTPConnection, req), req)


class _Https(HTTPSHandler):
    def __init__(self, trusted: SSLContext) -> None:
        super().__init__(context=trusted)
        self._trusted = trusted

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_timed(HTTPSConnection, req), req, context=self._trusted)


def _timed(kind: type[HTTPConnection], request: Request) -> Any:  # noqa: ANN401  # a class to do_open(), which only calls it.
    assert isinstance(request, TimedRequest)

    def connection(host: str, **more: Any) -> HTTPConnection:  # noqa: ANN401  # passed on.
        made = kind(host, **more)
        # An attribute so that it can be replaced, says http.client; proxies and TLS handshakes come behind it.
        vars(made)["_create_connection"] = request.deadline.connect
        return made

    return connection
