"""From the store's URL and settings to a client of the cluster: hosts, user, TLS."""

from __future__ import annotations

import json
import logging
import os
import ssl
import weakref
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
from opensearchpy import OpenSearch, Transport, Urllib3HttpConnection
from opensearchpy.exceptions import SerializationError
from opensearchpy.serializer import Serializer

from monitoring.stores import StoreError
from siteward.settings import MonitoringSettings

PORT: Final = 9200
CONNECTIONS: Final = 10
"""Connections kept open to each host; more questions at once open more."""

# It logs a traceback for every request that fails; we raise each of them, and whoever gives up says so in one line.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)


class AddressError(StoreError):
    """A URL, certificate or key that cannot be used."""

    permanent = True


class Address(msgspec.Struct, frozen=True):
    """Where a cluster is and who asks.

    Attributes:
        hosts: name and port of each node that may be asked.
        path: what stands before every request's path, for clusters behind a proxy.
        user: the URL's user; "" where there is none.
        password: the URL's, else the settings'.
        is_secure: whether to speak TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    path: str
    user: str
    password: str
    is_secure: bool

    @property
    def shown(self) -> str:
        """The cluster as errors and logs name it: without user and password."""
        return f"OpenSearch at {','.join(f'{host}:{port}' for host, port in self.hosts)}"


def address_of(url: str, settings: MonitoringSettings) -> Address:
    """Read `opensearch://[user@]host[:port][,host[:port]…][/path]`; `opensearchs` for TLS.

    Raises:
        AddressError: saying what is wrong with it, without the password.
    """
    parts = _parts(url)
    given, _, netloc = parts.netloc.rpartition("@")
    if parts.scheme not in {"opensearch", "opensearchs"} or not netloc or parts.query or parts.fragment:
        message = "monitoring.url is not opensearch://host:9200 nor, with TLS, opensearchs://user@host:9200"
        raise AddressError(message)
    user, _, password = given.partition(":")
    password = unquote(password) or settings.password
    if bool(user) != bool(password):
        lacks = "a user in monitoring.url" if password else "monitoring.password or monitoring.password_file"
        message = f"OpenSearch wants a user and a password: {lacks} is missing"
        raise AddressError(message)
    hosts = tuple(_host(text) for text in netloc.split(","))
    return Address(hosts, parts.path.rstrip("/"), unquote(user), password, parts.scheme == "opensearchs")


def _parts(url: str) -> SplitResult:
    """The parts of the URL; where they are cut wrongly, some hold a piece of the password and are never quoted."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or url.count("@") > parts.netloc.count("@"):
        message = (
            "monitoring.url cannot be read: percent-encode the password in it (/ as %2F, # as %23, ? as %3F, [ as %5B, "
            "] as %5D, @ as %40), or set monitoring.password_file instead"
        )
        raise AddressError(message) from None
    return parts


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        message = f"monitoring.url: {text!r} is not a host, or host:port"
        raise AddressError(message)
    return host, PORT if port is None else port


def client_of(address: Address, settings: MonitoringSettings) -> OpenSearch:
    """A client of the cluster; nothing is sent yet. It may be used by any thread, and in a forked child.

    Raises:
        AddressError: a certificate or key cannot be read.
    """
    client = OpenSearch(**_options(address, settings))
    _clients[client] = (address, settings)
    return client


_clients: weakref.WeakKeyDictionary[OpenSearch, tuple[Address, MonitoringSettings]] = weakref.WeakKeyDictionary()
_parents: list[Transport] = []


def _after_fork() -> None:
    """In a forked child: its parent's connections are its parent's, so every client gets new ones."""
    for client, (address, settings) in list(_clients.items()):
        # Kept alive: closing them here would say goodbye, in TLS, on a connection that the parent still uses.
        _parents.append(client.transport)
        options = _options(address, settings)
        client.transport = Transport(options.pop("hosts"), **options)


os.register_at_fork(after_in_child=_after_fork)


def _options(address: Address, settings: MonitoringSettings) -> dict[str, Any]:
    hosts = [{"host": host, "port": port, "url_prefix": address.path} for host, port in address.hosts]
    options: dict[str, Any] = {
        "hosts": hosts,
        "connection_class": Urllib3HttpConnection,
        "serializer": Json(),
        "serializers": {Json.mimetype: Json()},
        "timeout": settings.timeout,
        "pool_maxsize": CONNECTIONS,
        # Another host is asked at once; whether to ask again later is decided where it is known what was asked.
        "max_retries": len(hosts) - 1,
        "retry_on_status": (),
        "retry_on_timeout": False,
    }
    if address.user:
        options["http_auth"] = (address.user, address.password)
    if address.is_secure:
        options |= {"use_ssl": True, "ssl_context": _tls(settings)}
    return options


def _tls(settings: MonitoringSettings) -> ssl.SSLContext:
    """What is trusted, and who we are; names are always checked."""
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.key or None)
    except (OSError, ssl.SSLError) as error:
        files = "monitoring.ca, monitoring.certificate or monitoring.key"
        message = f"{files} cannot be used: {error}"
        raise AddressError(message) from error
    return context


class Json(Serializer):
    """JSON by msgspec: an answer to a bulk request has an item per record."""

    mimetype = "application/json"

    def loads(self, s: str) -> Any:  # noqa: ANN401  # an answer is whatever JSON it is.
        """Decode an answer."""
        try:
            return msgspec.json.decode(s)
        except msgspec.DecodeError as error:
            raise SerializationError(s[:200], error) from error

    def dumps(self, data: Any) -> bytes | str:  # noqa: ANN401  # bodies are dictionaries, or ready-made.
        """Encode a request's body; bytes and texts are taken as they are."""
        if isinstance(data, (bytes, str)):
            return data
        try:
            return msgspec.json.encode(data)
        except OverflowError:
            return json.dumps(data)
