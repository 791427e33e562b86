"""What only RabbitMQ's management plugin tells: which queues, exchanges and bindings there are, and what is held."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Final, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPSHandler, Request

import msgspec

from siteward.broker import BrokerUnavailable
from siteward.broker.rabbitmq.addresses import Address
from siteward.broker.rabbitmq.plan import EXCHANGE, Arguments, WrongPlan
from siteward.broker.tls import tls_context
from siteward.openers import opener
from siteward.settings import BrokerSettings

PORTS: Final = {False: 15672, True: 15671}
SECONDS: Final = 3.0
"""How long it may take to answer."""
CACHE_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 30.0
"""How long nobody asks again after it could not be reached."""
_QUEUE: Final = (
    "name,arguments,type,durable,messages,messages_unacknowledged,message_bytes,head_message_timestamp,"
    "policy,operator_policy,effective_policy_definition"
)

T = TypeVar("T")


class FoundQueue(msgspec.Struct, frozen=True):
    """A queue as the plugin describes it; its counts are a few seconds old, and None before the first are taken."""

    name: str
    arguments: Arguments = {}
    type: str = ""
    durable: bool = True
    messages: int | None = None
    messages_unacknowledged: int | None = None
    message_bytes: int | None = None
    head_message_timestamp: int | None = None
    """Seconds since 1970 at which the first message was published; RabbitMQ tells it from version 4.1 on."""
    policy: str | None = None
    operator_policy: str | None = None
    effective_policy_definition: dict[str, object] | list[object] = {}
    """What both policies together say; some versions have a list where they say nothing."""


class FoundExchange(msgspec.Struct, frozen=True):
    """An exchange."""

    name: str
    type: str
    durable: bool = True
    arguments: Arguments = {}
    policy: str | None = None


class FoundPolicy(msgspec.Struct, frozen=True):
    """A policy; what it says of a queue stands with the queue, what it says of an exchange only here."""

    name: str
    definition: dict[str, object] = {}


class FoundBinding(msgspec.Struct, frozen=True):
    """A binding."""

    source: str
    destination: str
    destination_type: str
    routing_key: str


class Management:
    """Asks the plugin about our own things in one virtual host."""

    def __init__(self, address: Address, settings: BrokerSettings) -> None:
        """Take the address from `broker.management`, else from the broker's first host."""
        host = address.hosts[0][0]
        default = f"{'https' if address.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{PORTS[address.tls]}"
        self.url = (settings.management or default).rstrip("/")
        self._vhost = quote(address.vhost, safe="")
        account = f"{address.user}:{address.password}".encode()
        self._headers = {"Authorization": "Basic " + base64.b64encode(account).decode("ascii")}
        tls = [HTTPSHandler(context=tls_context(settings))] if self.url.startswith("https") else []
        try:
            self._opener = opener(self.url, *tls, example="http://127.0.0.1:15672")
        except ValueError as error:
            message = f"setting broker.management: {error}"
            raise WrongPlan(message) from error
        self._queues: dict[str, FoundQueue] | None = None
        self._until = 0.0

    def known_queues(self) -> dict[str, FoundQueue] | None:
        """Our queues by name, at most CACHE_SECONDS old; None where the plugin does not answer."""
        if time.monotonic() >= self._until:
            try:
                self._queues = self.queues()
                self._until = time.monotonic() + CACHE_SECONDS
            except BrokerUnavailable:
                self._queues = None
                self._until = time.monotonic() + SILENCE_SECONDS
        return self._queues

    def forget(self) -> None:
        """Ask again next time: something was changed."""
        self._until = 0.0

    def queues(self) -> dict[str, FoundQueue]:
        """Our queues by name.

        Raises:
            BrokerUnavailable: the plugin does not answer this user.
        """
        found = _convert(self._get("queues", columns=_QUEUE), list[FoundQueue])
        return {queue.name: queue for queue in found if queue.name.startswith(f"{EXCHANGE}.")}

    def exchanges(self) -> dict[str, FoundExchange]:
        """Our exchanges by name; raises as queues()."""
        found = _convert(self._get("exchanges", columns="name,type,durable,arguments,policy"), list[FoundExchange])
        return {each.name: each for each in found if each.name == EXCHANGE or each.name.startswith(f"{EXCHANGE}.")}

    def policies(self) -> list[FoundPolicy]:
        """Policies of the virtual host; raises as queues()."""
        return _convert(self._get("policies"), list[FoundPolicy])

    def bindings(self) -> list[FoundBinding]:
        """What our exchanges are bound to; raises as queues()."""
        found = _convert(self._get("bindings"), list[FoundBinding])
        return [each for each in found if each.source == EXCHANGE or each.source.startswith(f"{EXCHANGE}.")]

    def _get(self, what: str, **query: str) -> Any:  # noqa: ANN401  # JSON.
        url = f"{self.url}/api/{what}/{self._vhost}" + (f"?{urlencode(query)}" if query else "")
        try:
            with self._opener.open(Request(url, headers=self._headers), timeout=SECONDS) as answer:  # noqa: S310  # the settings' own address.
                return json.loads(answer.read())
        except HTTPError as error:
            with error:
                message = f"{self.url} answers {error.code} to this user; give it the tag `monitoring`"
            raise BrokerUnavailable(message) from error
        except (OSError, ValueError) as error:
            message = f"{self.url}: {error}; is the plugin rabbitmq_management enabled? See broker.management"
            raise BrokerUnavailable(message) from error


def _convert(found: Any, wanted: type[T]) -> T:  # noqa: ANN401  # JSON.
    try:
        return msgspec.convert(found, wanted, strict=False)
    except msgspec.ValidationError as error:
        message = f"the management plugin answers what this Siteward does not read: {error}"
        raise BrokerUnavailable(message) from error
