"""HTTP to a Prometheus-compatible server: one request, one answer or one error that says whether to try again."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import Request

from siteward.openers import opener

MOST_BYTES: Final = 64 * 2**20
"""Largest answer that is read."""
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


class Connection:
    """One server. Nothing is kept open between requests; safe to use from any thread."""

    def __init__(self, url: str, token: str = "", timeout: float = 10.0) -> None:
        """Name the server.

        Args:
            url: http or https, with a path where the server is behind one.
            token: sent as a bearer's; "" for none.
            timeout: seconds without a sign of life after which a request fails.

        Raises:
            ValueError: the URL is not http or https.
        """
        self._opener = opener(url, example="http://127.0.0.1:9090")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The body of the answer.

        Raises:
            PrometheusError: permanent for a request that the server will always refuse.
        """
        request = Request(self.url + path, body, {**self._headers, **headers})  # noqa: S310  # http or https, see __init__.
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer: bytes = response.read(MOST_BYTES + 1)
        except HTTPError as error:
            with error:
                raise _refusal(self.url, error) from error
        except (URLError, HTTPException, OSError) as error:
            message = f"{self.url} does not answer: {getattr(error, 'reason', error)}"
            raise PrometheusError(message) from error
        if len(answer) > MOST_BYTES:
            message = f"{self.url} answers more than {MOST_BYTES} bytes; ask for less"
            raise PrometheusError(message, permanent=True)
        return answer


def _refusal(url: str, error: HTTPError) -> PrometheusError:
    try:
        body = error.read(MOST_BYTES)
    except (HTTPException, OSError):
        body = b""
    text = " ".join(body[:SHOWN].decode(errors="replace").split())
    permanent = 300 <= error.code < 500 and error.code not in {408, 429}  # noqa: PLR2004  # HTTP's classes.
    return PrometheusError(f"{url} answers {error.code} {error.reason}: {text}", error.code, body, permanent=permanent)
