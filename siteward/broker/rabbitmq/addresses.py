"""Where RabbitMQ is and how to prove who we are: from the URL and the settings to pika's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from pika import ConnectionParameters, PlainCredentials, SSLOptions

from siteward.broker.tls import WrongAddress, tls_context
from siteward.settings import BrokerSettings

PORTS: Final[Mapping[str, int]] = {"amqp": 5672, "amqps": 5671}
NO_HOST: Final = "setting broker.url names no host; write amqp://user@host/vhost"
NOT_ENCODED: Final = (
    "setting broker.url cannot be read: percent-encode the password in it (/ is %2F, # is %23, ? is %3F, [ is %5B, "
    "] is %5D), or give it as broker.password; an @ in the virtual host is %40"
)


@dataclass(frozen=True)
class Address:
    """What an `amqp://user@host:port,host:port/vhost` URL names.

    Attributes:
        hosts: names and ports of the cluster's nodes, tried in this order.
        vhost: `/` where the URL has no path.
        user: `guest` where the URL names nobody.
        password: never shown.
        tls: with `amqps`.
    """

    hosts: tuple[tuple[str, int], ...]
    vhost: str
    user: str
    password: str = field(repr=False)
    tls: bool = False

    def __str__(self) -> str:
        """The URL without the password, for logs and errors."""
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{scheme}://{self.user}@{hosts}/{'' if self.vhost == '/' else self.vhost}"


def address_of(url: str, settings: BrokerSettings) -> Address:
    """Read a URL.

    Raises:
        WrongAddress: no host, a port that is none, or a password that is not percent-encoded and so cuts the URL short;
            nothing of the password is in the message.
    """
    parts = _parts(url)
    account, _, places = parts.netloc.rpartition("@")
    user, _, password = (unquote(each) for each in account.partition(":"))
    hosts = tuple(_host(place, PORTS[parts.scheme]) for place in places.split(","))
    user = user or "guest"
    password = password or settings.password or ("guest" if user == "guest" else "")
    return Address(hosts, unquote(parts.path[1:]) or "/", user, password, parts.scheme == "amqps")


def _parts(url: str) -> SplitResult:
    """The parts of a URL, if the account is where it should be: else the password would be taken for a host or path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # What it says may quote the password.
        raise WrongAddress(NOT_ENCODED if "@" in url else NO_HOST) from None
    if "@" in url.replace(parts.netloc, "", 1):
        raise WrongAddress(NOT_ENCODED)
    return parts


def _host(place: str, port: int) -> tuple[str, int]:
    try:
        split = urlsplit(f"//{place}")
        host, port = split.hostname or "", split.port or port
    except ValueError as error:
        message = f"setting broker.url: {place!r} is no host and port: {error}"
        raise WrongAddress(message) from error
    if not host:
        raise WrongAddress(NO_HOST)
    return host, port


def parameters_of(address: Address, settings: BrokerSettings, purpose: str) -> list[ConnectionParameters]:
    """The parameters that pika takes, for every node of the address.

    Args:
        address: where.
        settings: certificates, heartbeat and timeout.
        purpose: shown with the connection in RabbitMQ's management pages.

    Raises:
        WrongAddress: a certificate file cannot be read.
    """
    context = tls_context(settings) if address.tls else None
    return [
        ConnectionParameters(
            host=host,
            port=port,
            virtual_host=address.vhost,
            credentials=PlainCredentials(address.user, address.password),
            ssl_options=SSLOptions(context, host) if context else None,
            heartbeat=min(settings.heartbeat, 65_535),
            socket_timeout=settings.timeout,
            stack_timeout=settings.timeout,
            client_properties={"connection_name": purpose, "product": "Siteward"},
        )
        for host, port in address.hosts
    ]
