"""One connection to the application, kept open between requests; bounded in time and in what it reads."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from ssl import SSLContext
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from siteward.loopback import is_loopback

MOST_BYTES: Final = 8 * 2**20
"""Of an answer; one about ten thousand rejected records has about three million."""
PIECE: Final = 2**16


class Answer(msgspec.Struct, frozen=True):
    """What came back.

    Attributes:
        status: HTTP's.
        headers: by their names in small letters.
        body: all of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """To one server, or to the proxy that the environment names for it. One thread at a time uses it.

    Follows no redirect: the token would go with it.
    """

    def __init__(self, url: str, context: SSLContext | None) -> None:
        """Name the server; a context where it is spoken to over TLS."""
        self._parts = urlsplit(url)
        self._context = context
        self._http: HTTPConnection | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        """Send a body, once more on a new connection if an old one was ended meanwhile.

        Args:
            path: below that of the server's address.
            body: of the request.
            headers: of it.
            deadline: of time.monotonic().

        Raises:
            OSError: no connection, or no answer in time.
            HTTPException: no answer, or too much of it.
        """
        is_old = self._http is not None
        try:
            return self._posted(path, body, headers, deadline)
        except (OSError, HTTPException) as error:
            if not is_old or isinstance(error, TimeoutError):
                raise
        return self._posted(path, body, headers, deadline)

    def close(self) -> None:
        """Hang up."""
        http, self._http = self._http, None
        if http is not None:
            http.close()

    def _posted(self, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Answer:
        http = self._http = self._http or self._opened()
        try:
            response = self._response(http, path, body, headers, deadline)
            given = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, given, _read(http, response, deadline))
        except BaseException:
            # What was left of this answer would be taken for the beginning of the next one.
            self.close()
            raise
        if response.will_close:
            self.close()
        return answer

    def _response(
        self, http: HTTPConnection, path: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> HTTPResponse:
        http.timeout = _left(deadline)
        if http.sock is None:
            http.connect()
        http.sock.settimeout(_left(deadline))
        try:
            http.request("POST", self._parts.path.rstrip("/") + path, body, dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            # Who refuses a body may answer before it has read it, and hang up.
            if http.sock is None:
                raise
        return http.getresponse()

    def _opened(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is None:
            return HTTPConnection(host, port)
        # No proxy can reach this machine's own loopback.
        proxy = None if is_loopback(host) else _proxy(host)
        if proxy is None:
            return HTTPSConnection(host, port, context=self._context)
        tunnel = HTTPSConnection(proxy.hostname or "", proxy.port or 80, context=self._context)
        tunnel.set_tunnel(host, port, _account(proxy))
        return tunnel


def _read(http: HTTPConnection, response: HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    # One byte at a time, a server could keep us for ever: each alone is in time.
    while piece := response.read1(PIECE):
        body += piece
        if len(body) > MOST_BYTES:
            message = f"the answer has more than {MOST_BYTES} bytes"
            raise HTTPException(message)
        left = _left(deadline)
        if http.sock is not None:
            http.sock.settimeout(left)
    # At the end of its length it does not do so itself, and the connection would take no further request.
    response.close()
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        message = "timed out"
        raise TimeoutError(message)
    return left


def _proxy(host: str) -> SplitResult | None:
    found = getproxies().get("https", "")
    return urlsplit(found if "://" in found else f"http://{found}") if found and not proxy_bypass(host) else None


def _account(proxy: SplitResult) -> dict[str, str]:
    """The header with a proxy's user and password, where its address has them."""
    if proxy.username is None:
        return {}
    account = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(account.encode()).decode()}"}
