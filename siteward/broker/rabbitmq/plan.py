"""What should be there: exchanges, queues and bindings, from the topology and the settings; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from siteward.broker import BrokerError
from siteward.broker.topology import EVERYTHING
from siteward.settings import BrokerSettings, ShardSettings

EXCHANGE: Final = "siteward"
"""Where everybody publishes, with the routing key `<vo>.<kind>`."""
UNSHARDED: Final = "siteward.unsharded"
"""Gets what is of no sharded kind, and hands it to the sinks' queues by their patterns."""
RETURNED: Final = "returned"
PARKED: Final = "parked"
FOR_EVER: Final = 2**31 - 1
"""A delivery limit that is never met. Without one RabbitMQ 4 would lose what was looked at twenty times."""
PRODUCER: Final = "x-siteward-producer"
"""Header: the producer in the envelope."""
ENVELOPE: Final = "x-siteward-envelope"
"""Header: the id in the envelope."""
SHARD_HEADERS: Final = {"producer": PRODUCER, "id": ENVELOPE}

Arguments = dict[str, str | int | bool]


class WrongPlan(BrokerError):  # noqa: N818  # reads as the state it is.
    """Names or patterns that cannot be carried out on RabbitMQ."""

    permanent = True


class Exchange(msgspec.Struct, frozen=True):
    """A durable exchange."""

    name: str
    type: str
    arguments: Arguments = {}


class Queue(msgspec.Struct, frozen=True):
    """A durable quorum queue."""

    name: str
    arguments: Arguments = {}


class Binding(msgspec.Struct, frozen=True):
    """From an exchange to a queue or to another exchange."""

    source: str
    destination: str
    key: str
    to_exchange: bool = False


class Plan(msgspec.Struct, frozen=True):
    """All that should be there, in an order in which it can be made."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def queue_of(sink: str) -> str:
    """The main queue of a sink, and the exchange that leads into it and nowhere else."""
    return f"{EXCHANGE}.{sink}"


def side_of(sink: str, side: str) -> str:
    """The queue for what was delivered too often (RETURNED) or cannot be read (PARKED), and the exchange before it."""
    return f"{EXCHANGE}.{sink}.{side}"


def shard_of(sink: str, kind: str, number: int) -> str:
    """One of the queues that a busy kind is spread over."""
    return f"{EXCHANGE}.{sink}.{kind}.{number}"


def sink_of(queue: str) -> str:
    """The sink that any queue of ours belongs to; empty for a queue that is not ours."""
    first, _, rest = queue.partition(".")
    return rest.partition(".")[0] if first == EXCHANGE else ""


def plan_of(topology: Mapping[str, Sequence[str]], settings: BrokerSettings) -> Plan:
    """What should be there.

    Args:
        topology: patterns by sink.
        settings: limits and shards.

    Raises:
        WrongPlan: a name has a dot, or is one of ours; a sharded kind meets a pattern that is not of kinds.
    """
    _check_names(topology, settings)
    exchanges = [
        Exchange(EXCHANGE, "topic", {"alternate-exchange": UNSHARDED}),
        Exchange(UNSHARDED, "topic"),
    ]
    queues: list[Queue] = []
    bindings: list[Binding] = []
    for sink, patterns in topology.items():
        for name in (queue_of(sink), side_of(sink, RETURNED), side_of(sink, PARKED)):
            exchanges.append(Exchange(name, "fanout"))
            bindings.append(Binding(name, name, ""))
        queues += _own_queues(sink, settings)
        bindings += [Binding(UNSHARDED, queue_of(sink), pattern) for pattern in dict.fromkeys(patterns)]
        for kind in _sharded(patterns, settings.shards):
            shards = settings.shards[kind]
            name = f"{EXCHANGE}.{sink}.{kind}"
            exchanges.append(Exchange(name, "x-consistent-hash", {"hash-header": SHARD_HEADERS[shards.by]}))
            names = [shard_of(sink, kind, number) for number in range(shards.queues)]
            ordered = shards.ordered or sink in settings.ordered
            queues += [Queue(each, _main(sink, settings, ordered=ordered)) for each in names]
            bindings += [Binding(name, each, "1") for each in names]
            bindings.append(Binding(EXCHANGE, name, f"#.{kind}", to_exchange=True))
    return Plan(tuple(exchanges), tuple(queues), tuple(bindings))


def _check_names(topology: Mapping[str, Sequence[str]], settings: BrokerSettings) -> None:
    for sink in topology:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", sink) or queue_of(sink) == UNSHARDED:
            message = f"a sink called {sink!r} can have no queue; use letters, digits, `-` and `_`"
            raise WrongPlan(message)
    for kind in settings.shards:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", kind) or kind in {RETURNED, PARKED}:
            message = f"setting broker.shards.{kind}: a kind of this name cannot be spread over queues"
            raise WrongPlan(message)


def _sharded(patterns: Iterable[str], shards: Mapping[str, ShardSettings]) -> Iterator[str]:
    """The sharded kinds among those that patterns take."""
    wanted = set(patterns)
    for kind in shards:
        if EVERYTHING in wanted or f"#.{kind}" in wanted:
            yield kind
    strange = [each for each in wanted if each != EVERYTHING and not re.fullmatch(r"#\.[^.#*]+", each)]
    if shards and strange:
        message = f"the pattern {strange[0]!r} is not of a kind, and cannot be used together with broker.shards"
        raise WrongPlan(message)


def _own_queues(sink: str, settings: BrokerSettings) -> list[Queue]:
    returned = _limits(settings) | {
        "x-delivery-limit": settings.delivery_limit,
        "x-dead-letter-exchange": side_of(sink, PARKED),
        "x-dead-letter-strategy": "at-least-once",
    }
    return [
        Queue(queue_of(sink), _main(sink, settings, ordered=sink in settings.ordered)),
        Queue(side_of(sink, RETURNED), returned),
        Queue(side_of(sink, PARKED), _limits(settings) | {"x-delivery-limit": FOR_EVER}),
    ]


def _main(sink: str, settings: BrokerSettings, *, ordered: bool) -> Arguments:
    arguments = _limits(settings) | {
        "x-delivery-limit": settings.delivery_limit,
        "x-dead-letter-exchange": side_of(sink, RETURNED),
        "x-dead-letter-strategy": "at-least-once",
    }
    if ordered:
        arguments["x-single-active-consumer"] = True
    return arguments


def _limits(settings: BrokerSettings) -> Arguments:
    return {
        "x-queue-type": "quorum",
        "x-max-length": settings.max_messages,
        "x-max-length-bytes": settings.max_bytes,
        "x-overflow": "reject-publish",
    }
