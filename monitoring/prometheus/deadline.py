"""A request's last moment: whatever the other side does until then, the wait ends there."""

from __future__ import annotations

import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from socket import SHUT_RDWR, socket
from threading import Lock, Timer
from typing import Any, Self
from urllib.request import BaseHandler, HTTPHandler, HTTPSHandler, Request


class Deadline:
    """Shuts the sockets of one request down when its time is over.

    A socket's own timeout begins anew with every byte, so a server that drips would hold its caller for ever; and the
    header is read where no caller can look at the clock in between.
    """

    def __init__(self, seconds: float) -> None:
        """Let so many seconds pass, from now on."""
        self._end = time.monotonic() + seconds
        self._lock = Lock()
        self._sockets: list[socket] = []
        self._timer = Timer(seconds, self._cut)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def watch(self, opened: socket) -> None:
        """End this connection too, when it is time."""
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
                    each.shutdown(SHUT_RDWR)


class TimedRequest(Request):
    """A request with a deadline, for an opener with timed_handlers()."""

    deadline: Deadline


def timed_handlers() -> list[BaseHandler]:
    """What opens http and https so that a TimedRequest's deadline holds, from the TLS handshake on."""
    return [_Http(), _Https()]


class _Plain(HTTPConnection):
    deadline: Deadline

    def connect(self) -> None:
        super().connect()
        self.deadline.watch(self.sock)


class _Tls(HTTPSConnection, _Plain):
    """HTTPSConnection connects by what stands behind it here, and shakes hands afterwards."""


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_timed(_Plain, req), req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_timed(_Tls, req), req)


def _timed(kind: type[_Plain], request: Request) -> Any:  # noqa: ANN401  # a class to do_open(), which only calls it.
    assert isinstance(request, TimedRequest)

    def connection(host: str, **more: Any) -> _Plain:  # noqa: ANN401  # passed on.
        made = kind(host, **more)
        made.deadline = request.deadline
        return made

    return connection
