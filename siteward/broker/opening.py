"""Opening the broker that the settings name, with every installed sink's queue declared."""

from __future__ import annotations

from typing import cast

from siteward import extensions
from siteward.broker import Broker, TakesOnly
from siteward.broker.topology import EVERYTHING
from siteward.settings import Settings


def open_broker(settings: Settings) -> Broker:
    """The broker chosen by the scheme of the settings' URL.

    Raises:
        siteward.extensions.ExtensionError: no broker of that scheme is installed.
    """
    url = settings.broker_url
    broker: Broker = extensions.load("siteward.brokers", _scheme(url))(url, settings)
    return broker


def _scheme(url: str) -> str:
    """What a URL begins with; the rest is not looked at, since errors about it would quote a password."""
    scheme, found, _ = url.partition("://")
    return scheme.lower() if found else ""


def sinks(settings: Settings) -> list[str]:
    """Names of the installed sinks that are fed, in order: all but those that the settings leave out."""
    return sorted(name for name in extensions.found("siteward.sinks") if name not in settings.collector.leave_out)


def topology(settings: Settings) -> dict[str, tuple[str, ...]]:
    """One queue per sink that is fed; each gets everything and leaves aside the kinds it does not want."""
    return dict.fromkeys(sinks(settings), (EVERYTHING,))


def check_gives(broker: Broker) -> None:
    """Pass where messages can be consumed.

    Raises:
        BrokerError: the broker only takes, whether it can be reached or not; permanent.
    """
    if hasattr(broker, "refuse_readers"):
        cast("TakesOnly", broker).refuse_readers()


def open_consumed(settings: Settings) -> Broker:
    """The broker with its queues and bindings made, for who consumes.

    Raises:
        siteward.broker.BrokerUnavailable: it cannot be reached now.
        siteward.broker.BrokerError: it only takes; permanent.
    """
    broker = open_broker(settings)
    check_gives(broker)
    broker.declare(topology(settings))
    return broker


def open_declared(settings: Settings) -> Broker:
    """The broker with its queues and bindings made.

    Raises:
        siteward.broker.BrokerUnavailable: it cannot be reached now.
    """
    broker = open_broker(settings)
    broker.declare(topology(settings))
    return broker
