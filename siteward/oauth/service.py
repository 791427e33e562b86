"""The token of a program that sends records by itself: asked of its issuer by its own name and secret, and renewed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from siteward.log import get_logger
from siteward.oauth.client import IssuerClient, IssuerRefuses, Tokens
from siteward.oauth.fetching import FetchError

MARGIN: Final = 60.0
"""Seconds before its end from which on a new token is asked for; the old one is sent while the issuer is away."""
UNKNOWN: Final = 300.0
"""Seconds for which a token is sent whose issuer does not say how long it is valid."""
RETRY: Final = 10.0
"""Seconds between two questions to an issuer that does not answer."""

log = get_logger(__name__)


class ServiceToken:
    """Gives the token to send now, for `siteward.client.Client`; any thread may ask.

    >>> client = IssuerClient("https://iam.example", "my-service", secret)  # doctest: +SKIP
    >>> Client("https://siteward.example.org", ServiceToken(client, ("siteward.report",)))  # doctest: +SKIP
    """

    def __init__(
        self,
        client: IssuerClient,
        scopes: Sequence[str] = (),
        audience: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            client: known to the issuer by a name and a secret.
            scopes: what the token is to allow, such as `siteward.report`.
            audience: the service it is for.
            clock: seconds.
        """
        self._client = client
        self._scopes = tuple(scopes)
        self._audience = audience
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: Tokens | None = None
        self._until = self._due = float("-inf")

    def __call__(self) -> str:
        """The token.

        Raises:
            IssuerRefuses: the issuer gives none.
            FetchError: it does not answer, and there is none that is still valid.
        """
        with self._lock:
            if self._kept is None or self._clock() >= self._due:
                self._renew()
            assert self._kept is not None
            return self._kept.access

    def refused(self, token: str) -> None:
        """Ask for another one the next time: this one is not taken, whatever its issuer said of its end."""
        with self._lock:
            if self._kept is not None and self._kept.access == token:
                self._kept = None

    def _renew(self) -> None:
        now = self._clock()
        try:
            self._kept = self._client.of_service(self._scopes, self._audience)
        except (FetchError, IssuerRefuses) as error:
            if self._kept is None or now >= self._until:
                raise
            log.warning("no new token; the old one is still valid", error=str(error))
            self._due = now + RETRY
            return
        self._until = now + (self._kept.lasting or UNKNOWN)
        self._due = max(self._until - MARGIN, now + (self._until - now) / 2)
