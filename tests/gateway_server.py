"""An application that takes records over HTTP and asks for tokens, stopped and started again at its address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
from rabbitmq_server import free_ports
from served import served

from collectors import gateway
from siteward.broker import Delivery
from siteward.broker.opening import open_declared
from siteward.compression import decompress
from siteward.envelope import MAX_BYTES, Parcel, open_envelope
from siteward.kinds import load_kinds
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.resources import Resources
from siteward.settings import BrokerSettings, EmitterSettings, GatewaySettings, IssuerSettings, Settings

KINDS = load_kinds()
LATER = 4_000_000_000_000_000
REPORTER = Grant(Role.REPORTER, ("example",))


class GatewayServer:
    """One application, on an embedded broker.

    Attributes:
        settings: of the application.
        url: its address, whether it runs or not.
    """

    def __init__(self, folder: Path, issuers: dict[str, IssuerSettings] | None = None) -> None:
        trusted = {"local": IssuerSettings(profile="local")} if issuers is None else issuers
        self.settings = Settings(data=str(folder), issuers=trusted)
        self._running: AbstractContextManager[str] | None = None
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, limits: GatewaySettings | None = None, broker: BrokerSettings | None = None) -> None:
        """Answer, with these limits."""
        settings = msgspec.structs.replace(
            self.settings, gateway=limits or GatewaySettings(), broker=broker or BrokerSettings()
        )
        app = create_app(settings, routers=[gateway.router], resources=Resources(settings, KINDS))
        self._running = served(app, self.port)
        assert self._running.__enter__() == self.url

    def stop(self) -> None:
        """Answer no more."""
        running, self._running = self._running, None
        if running is not None:
            running.__exit__(None, None, None)

    def token(self, *grants: Grant, name: str = "ce1.site.example") -> str:
        """One of our own issuer's."""
        return LocalIssuer(self.settings.issuer_file).token(name, grants or (REPORTER,), 1)

    def program(self, folder: Path, **emitter: float) -> Settings:
        """The settings of a program that sends here."""
        given = msgspec.convert({"batch_age": 0.02, **emitter}, EmitterSettings)
        return Settings(data=str(folder), broker=BrokerSettings(url=self.url), emitter=given)

    def take(self) -> list[Parcel]:
        """The envelopes that wait for the sink, which are forgotten."""
        broker = open_declared(self.settings)
        consumer = broker.consumer("monitoring", "test", 10_000)
        found: list[Delivery] = []
        while deliveries := consumer.receive(0):
            found += deliveries
            consumer.acknowledge(deliveries)
        consumer.close()
        broker.close()
        return [parcel_of(delivery) for delivery in found]

    def jobs(self) -> dict[str, str]:
        """The local ids of the jobs that wait, by their records' ids: one that came twice is there once."""
        parcels = self.take()
        return {
            record.hex(): name
            for parcel in parcels
            for record, name in zip(parcel.ids, parcel.columns["local_job_id"], strict=True)
        }


def parcel_of(delivery: Delivery) -> Parcel:
    """What a message holds, as a collector reads it."""
    message = delivery.message
    vo = message.key.rpartition(".")[0]
    body = decompress(message.body, message.content_encoding, MAX_BYTES)
    return open_envelope(body, message.content_type, KINDS, LATER, routed_vo=vo)


@contextmanager
def gateway_server(folder: Path, issuers: dict[str, IssuerSettings] | None = None) -> Iterator[GatewayServer]:
    """A running one."""
    server = GatewayServer(folder, issuers)
    server.start()
    try:
        yield server
    finally:
        server.stop()
