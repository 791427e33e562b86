"""How an issuer is asked: bounded in size and time, over TLS, and replaced by a dictionary in tests."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Final, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request

import msgspec

from siteward.hiding import without_password
from siteward.loopback import is_loopback
from siteward.openers import opener

MOST_BYTES: Final = 2**20
SECONDS: Final = 10.0
"""Longest wait for a whole answer."""
PIECE: Final = 2**16


class FetchError(Exception):
    """No answer that can be used. The message names the address.

    Attributes:
        status: HTTP's; 0 where there is none.
    """

    permanent = False

    def __init__(self, message: str, status: int = 0) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


class Fetched(msgspec.Struct, frozen=True):
    """A good answer.

    Attributes:
        body: all of it.
        lasting: seconds for which its server says that it holds; None where it does not.
    """

    body: bytes
    lasting: float | None = None


class Posted(msgspec.Struct, frozen=True):
    """Any answer to what was sent: an issuer says in its body why it refuses.

    Attributes:
        status: HTTP's.
        body: all of it.
    """

    status: int
    body: bytes


class Fetch(Protocol):
    """Asks an issuer."""

    def __call__(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """The answer to GET; waits at most seconds.

        Raises:
            FetchError: there is none, or it is not 200.
        """


def check_address(url: str, what: str) -> None:
    """Refuse an address from which nothing believable comes.

    Raises:
        ValueError: it is not https, nor http of this machine's own loopback.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname and "@" not in parts.netloc:
        return
    if parts.scheme == "http" and is_loopback(parts.hostname or "") and "@" not in parts.netloc:
        return
    message = f"{what} {without_password(url)[:200]!r}: expected https://…; http only of this machine itself"
    raise ValueError(message)


class HttpFetch:
    """Asks over HTTP; follows no redirect."""

    def __init__(self, ca: str = "") -> None:
        """Trust the authorities of a file, or, by default, those of the system.

        Raises:
            OSError: the file cannot be read, or holds none.
        """
        self._context = ssl.create_default_context(cafile=ca or None)

    def __call__(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """GET it."""
        deadline = time.monotonic() + SECONDS
        with _told(url), self._opened(url, None, headers) as answer:
            if answer.status != HTTPStatus.OK:
                message = f"{url}: HTTP status {answer.status}"
                raise FetchError(message)
            return Fetched(_read(url, answer, deadline), _lasting(answer.headers.get("Cache-Control", "")))

    def post(self, url: str, form: bytes, headers: Mapping[str, str]) -> Posted:
        """POST a form; waits at most seconds.

        Raises:
            FetchError: there is no answer.
        """
        deadline = time.monotonic() + SECONDS
        with _told(url):
            try:
                with self._opened(url, form, headers) as answer:
                    return Posted(answer.status, _read(url, answer, deadline))
            except HTTPError as error:
                with error:
                    return Posted(error.code, _read(url, error, deadline))

    def _opened(self, url: str, form: bytes | None, headers: Mapping[str, str]) -> HTTPResponse:
        check_address(url, "address")
        request = Request(url, form, {"Accept": "application/json", **headers})  # noqa: S310  # checked above.
        opened: HTTPResponse = opener(url, HTTPSHandler(context=self._context)).open(request, timeout=SECONDS)
        return opened


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever goes wrong, as one error that names the address."""
    try:
        yield
    except (URLError, HTTPException, OSError, ValueError) as error:
        # A refused token stands in the request, never in what the server's library says of it.
        message = f"{url}: {error}"
        raise FetchError(message, getattr(error, "code", 0)) from error


def _read(url: str, answer: HTTPResponse | HTTPError, deadline: float) -> bytes:
    body = bytearray()
    # One byte at a time, a server could keep us for ever: each alone is in time.
    while piece := answer.read1(PIECE):
        body += piece
        if len(body) > MOST_BYTES:
            message = f"{url}: the answer has more than {MOST_BYTES} bytes"
            raise FetchError(message)
        if time.monotonic() > deadline:
            message = f"{url}: the answer was not whole after {SECONDS:.0f} seconds"
            raise FetchError(message)
    return bytes(body)


def _lasting(header: str) -> float | None:
    for directive in header.split(","):
        name, _, value = directive.strip().partition("=")
        if name.lower() == "max-age" and value.isascii() and value.isdecimal():
            return float(value[:12])
    return None
