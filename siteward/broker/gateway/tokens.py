"""The token that goes with every request: the program's own, asked of its issuer, or the one that is found."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from siteward.bearer_token import discovered_token
from siteward.broker import BrokerError
from siteward.broker.tls import WrongAddress
from siteward.settings import CredentialsSettings, Settings

if TYPE_CHECKING:
    from siteward.oauth.service import ServiceToken

NEEDS: Final = "siteward[service]"


class NoLibrary(BrokerError):  # noqa: N818  # reads as the state it is.
    """What asks an issuer for tokens is not installed."""

    permanent = True


class TokenSource(Protocol):
    """Gives the token to send now."""

    def __call__(self) -> str:
        """It, or "" where there is none; may ask the network, for some seconds.

        Raises:
            Exception: why there is none, in words without any token.
        """

    def refused(self, token: str) -> None:
        """This one was not taken; the next call gives another one, if there is one."""


class FoundToken:
    """Whatever stands now where every tool of the grid looks: somebody else keeps it fresh."""

    def __call__(self) -> str:
        """The token, or ""."""
        return discovered_token()

    def refused(self, token: str) -> None:
        """It is looked up each time."""


def token_source(url: str, settings: Settings) -> TokenSource:
    """Where tokens for an address come from.

    Raises:
        NoLibrary: the settings have credentials, and what uses them is not installed; says what to install.
        WrongAddress: the file in `credentials.ca` cannot be read.
    """
    credentials = settings.credentials
    return _service(credentials, credentials.audience or url) if credentials.issuer else FoundToken()


@cache
def _service(credentials: CredentialsSettings, audience: str) -> ServiceToken:
    """One for the process: who emits opens the broker again and again while it is away, and needs no new token."""
    try:
        from siteward.oauth.client import IssuerClient  # noqa: PLC0415  # an extra.
    except ImportError as error:
        message = f"[credentials] of the settings needs {error.name}: pip install '{NEEDS}'"
        raise NoLibrary(message) from error
    from siteward.oauth.fetching import HttpFetch  # noqa: PLC0415  # as above.
    from siteward.oauth.service import ServiceToken  # noqa: PLC0415  # as above.

    try:
        http = HttpFetch(credentials.ca)
    except OSError as error:
        message = f"setting credentials.ca: {credentials.ca}: {error}"
        raise WrongAddress(message) from error
    client = IssuerClient(credentials.issuer, credentials.client, credentials.client_secret, http=http)
    return ServiceToken(client, credentials.scopes, audience)


if hasattr(os, "register_at_fork"):
    # A thread that the child does not have may be asking in the middle of the fork, and would hold the lock for ever.
    os.register_at_fork(after_in_child=_service.cache_clear)
