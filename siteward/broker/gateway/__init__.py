"""The application as a broker for programs that only emit: its gateway takes their messages, over HTTP with a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, Self
from urllib.parse import urlsplit

from siteward.broker import BrokerError
from siteward.broker.gateway.publisher import GatewayPublisher
from siteward.broker.gateway.tokens import token_source
from siteward.broker.tls import WrongAddress, tls_context
from siteward.openers import host_of
from siteward.plain_text import check_encrypted
from siteward.settings import Settings

EXAMPLE: Final = "https://siteward.example.org"


class OnlyPublishes(BrokerError):  # noqa: N818  # reads as the state it is.
    """The application's address takes messages and gives none."""

    permanent = True


def open_broker(url: str, settings: Settings) -> GatewayBroker:
    """The gateway at an address such as `https://siteward.example.org`; connects when first used.

    Raises:
        BrokerError: the address, or a file that the settings name, cannot be used, or what asks for tokens is not
            installed; permanent.
    """
    return GatewayBroker(url, settings)


class GatewayBroker:
    """Takes messages for the broker behind an application; every publisher has a connection of its own."""

    def __init__(self, url: str, settings: Settings) -> None:
        """Name the server; nothing is opened yet."""
        self._url = _checked(url, settings)
        self._context = tls_context(settings.broker) if self._url.startswith("https:") else None
        self._tokens = token_source(self._url, settings)
        self._timeout = settings.broker.timeout

    def __enter__(self) -> Self:
        """The broker itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    def declare(self, topology: Mapping[str, Sequence[str]]) -> None:
        """Take the topology as it is: the application declares it."""

    def publisher(self) -> GatewayPublisher:
        """A publisher with a connection of its own."""
        return GatewayPublisher(self._url, self._context, self._tokens, self._timeout)

    def consumer(self, queue: str, name: str, prefetch: int) -> NoReturn:
        """Nobody can consume here.

        Raises:
            OnlyPublishes: always.
        """
        message = f"{name} cannot consume {prefetch} messages of the queue {queue!r}: {self._only_publishes()}"
        raise OnlyPublishes(message)

    def status(self) -> NoReturn:
        """Nobody can look into queues here.

        Raises:
            OnlyPublishes: always.
        """
        raise OnlyPublishes(self._only_publishes())

    def refuse_readers(self) -> NoReturn:
        """Nobody can read here.

        Raises:
            OnlyPublishes: always.
        """
        raise OnlyPublishes(self._only_publishes())

    def close(self) -> None:
        """Nothing is open beside the publishers."""

    def _only_publishes(self) -> str:
        return (
            f"setting broker.url: {self._url} is the address of an application, which takes records of programs that "
            "emit; what reads them needs the broker itself, embedded://, amqp:// or amqps://"
        )


def _checked(url: str, settings: Settings) -> str:
    try:
        host_of(url, EXAMPLE)
        check_encrypted("broker.url", url, settings.network.plain)
    except ValueError as error:
        message = f"setting broker.url: {error}"
        raise WrongAddress(message) from error
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        message = f"setting broker.url: expected a URL such as {EXAMPLE}, without ? and #"
        raise WrongAddress(message)
    return url.rstrip("/")
