"""HTTP to a Prometheus-compatible server: one request, one answer or one error that says whether to try again."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.client import HTTPException
from typing import IO, Final
from urllib.error import HTTPError, URLError

from monitoring.prometheus.deadline import Deadline, TimedRequest, timed_handlers
from siteward.openers import bearer, opener
from siteward.settings import PrometheusSettings, SettingsError

MOST_BYTES: Final = 16 * 2**20
"""Largest answer that is read; its points take about twenty times as much memory."""
PIECE: Final = 2**16
"""Bytes that are read between two looks at the clock."""
SHOWN: Final = 300
"""Characters of an answer that are quoted in an error."""


class PrometheusError(RuntimeError):
    """A server refused, failed, or could not be reached.

    Attributes:
        status: HTTP status; 0 where no answer came.
        body: the answer's body, as far as it was read.
        permanent: asking the same again gives the same answer.
    """

    def __init__(self, message: str, status: int = 0, body: bytes = b"", *, permanent: bool = False) -> None:
        """Keep the parts."""
        super().__init__(message)
        self.status = status
        self.body = body
        self.permanent = permanent


def trusted_by(settings: PrometheusSettings) -> ssl.SSLContext:
    """Who is believed over https; names are always checked.

    Raises:
        siteward.settings.SettingsError: the file of the authorities cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ssl.SSLError) as error:
        message = f"setting prometheus.ca: {settings.ca}: {error}"
        raise SettingsError(message) from error


class Connection:
    """One server. Nothing is kept open between requests; safe to use from any thread."""

    def __init__(self, url: str, token: str = "", timeout: float = 10.0, trusted: ssl.SSLContext | None = None) -> None:
        """Name the server.

        Args:
            url: http or https, with a path where the server is behind one.
            token: sent as a bearer's; "" for none.
            timeout: seconds after which a request has failed, however much of the answer has come.
            trusted: who is believed over https; by default the authorities of the system.

        Raises:
            ValueError: the URL is not http or https, or holds a password; or no header can carry the token.
        """
        self._opener = opener(url, *timed_handlers(trusted), example="http://127.0.0.1:9090")
        self._address = url.rstrip("/")
        self.url = self._address.partition("?")[0]
        """For messages: a query may hold a secret."""
        self._headers = bearer(token)
        self._timeout = timeout

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The body of the answer.

        Raises:
            PrometheusError: permanent for a request that the server will always refuse.
        """
        request = TimedRequest(self._address + path, body, {**self._headers, **headers})
        with Deadline(self._timeout) as request.deadline:
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    return self._body(response, request.deadline)
            except HTTPError as error:
                with error:
                    raise self._refusal(error, request.deadline) from error
            except (URLError, HTTPException, OSError) as error:
                late = f"not within {self._timeout:g} s" if request.deadline.passed else getattr(error, "reason", error)
                message = f"{self.url} does not answer: {late}"
                raise PrometheusError(message) from error
            except ValueError as error:
                # Without its text, which may quote a header.
                message = f"{self.url} cannot be asked: {type(error).__name__}; is its address right?"
                raise PrometheusError(message, permanent=True) from None

    def _body(self, response: IO[bytes], deadline: Deadline) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not deadline.passed and (part := response.read(PIECE)):
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                message = f"{self.url} answers more than {MOST_BYTES} bytes; ask for less"
                raise PrometheusError(message, permanent=True)
        if deadline.passed or getattr(response, "length", None):
            message = "the answer breaks off"
            raise ConnectionError(message)
        return b"".join(parts)

    def _refusal(self, error: HTTPError, deadline: Deadline) -> PrometheusError:
        try:
            body = self._body(error, deadline)
        except (HTTPException, OSError, PrometheusError):
            body = b""
        text = " ".join(body[:SHOWN].decode(errors="replace").split())
        permanent = 300 <= error.code < 500 and error.code not in {408, 429}  # noqa: PLR2004  # HTTP's classes.
        message = f"{self.url} answers {error.code} {error.reason}: {text}"
        return PrometheusError(message, error.code, body, permanent=permanent)
