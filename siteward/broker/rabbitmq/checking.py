"""What is there compared with what should be: from the management plugin, or as far as AMQP tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

import msgspec

from siteward.broker import BrokerUnavailable
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.difference import Difference, Thing
from siteward.broker.rabbitmq.making import exchange_is_there, make_exchange, make_queue, waiting_in
from siteward.broker.rabbitmq.management import FoundBinding, FoundExchange, FoundPolicy, FoundQueue, Management
from siteward.broker.rabbitmq.plan import EXCHANGE, Arguments, Binding, Exchange, Plan, Queue, sink_of
from siteward.broker.rabbitmq.policies import effects
from siteward.broker.rabbitmq.refusals import ACCESS_REFUSED, PRECONDITION_FAILED, Refusal

LIMITS: Final = ("x-max-length", "x-max-length-bytes", "x-delivery-limit")
"""Arguments whose difference loses nothing: the queue goes on with those it was made with."""
_INEQUIVALENT: Final = re.compile(r"inequivalent arg '([^']*)'.*?received (.*?) but current is (.*)", re.DOTALL)


class Report(msgspec.Struct, frozen=True):
    """All differences, and what could not be looked at."""

    differences: tuple[Difference, ...]
    unseen: tuple[str, ...] = ()


def checked(plan: Plan, link: Link, management: Management) -> Report:
    """Compare with the plugin's help, or else without.

    Raises:
        BrokerUnavailable: not even AMQP answers.
    """
    try:
        exchanges, queues, bindings = management.exchanges(), management.queues(), management.bindings()
    except BrokerUnavailable as error:
        differences, unseen = _over_amqp(plan, link)
        told = "policies, bindings and superfluous queues cannot be seen without it"
        return Report(tuple(differences), (str(error), told, *unseen))
    policies, unseen = _policies(exchanges, management)
    differences = [*compared(plan, exchanges, queues, bindings), *effects(plan, queues, exchanges, policies)]
    return Report(tuple(differences), tuple(unseen))


def _policies(
    exchanges: Mapping[str, FoundExchange], management: Management
) -> tuple[dict[str, FoundPolicy], list[str]]:
    """Policies by name where exchanges of ours have one, and what cannot be seen of them."""
    if not any(each.policy for each in exchanges.values()):
        return {}, []
    try:
        return {policy.name: policy for policy in management.policies()}, []
    except BrokerUnavailable as error:
        return {}, [f"policies of exchanges: {error}"]


def compared(
    plan: Plan,
    exchanges: Mapping[str, FoundExchange],
    queues: Mapping[str, FoundQueue],
    bindings: Iterable[FoundBinding],
) -> Iterator[Difference]:
    """Every difference: exchanges first, then queues, then bindings; pure."""
    for exchange in plan.exchanges:
        there = exchanges.get(exchange.name)
        if there is None:
            yield Difference("exchange", exchange.name, "missing")
            continue
        yield from _arguments(
            "exchange",
            exchange.name,
            {"type": there.type, "durable": there.durable, **there.arguments},
            {"type": exchange.type, "durable": True, **exchange.arguments},
        )
    for name in sorted(set(exchanges) - {exchange.name for exchange in plan.exchanges}):
        yield Difference("exchange", name, "superfluous")
    for queue in plan.queues:
        found = queues.get(queue.name)
        if found is None:
            yield Difference("queue", queue.name, "missing")
            continue
        yield from _arguments(
            "queue",
            queue.name,
            {"durable": found.durable, **found.arguments},
            {"durable": True, **queue.arguments},
        )
    for name in sorted(set(queues) - {queue.name for queue in plan.queues}):
        yield Difference("queue", name, "superfluous", messages=queues[name].messages)
    yield from _bindings(plan.bindings, bindings)


def _bindings(wanted: Iterable[Binding], found: Iterable[FoundBinding]) -> Iterator[Difference]:
    there = {_binding(each) for each in found}
    should = set(wanted)
    for binding in sorted(should - there, key=_shown):
        yield Difference("binding", _shown(binding), "missing")
    for binding in superfluous(wanted, found):
        yield Difference("binding", _shown(binding), "superfluous")


def superfluous(wanted: Iterable[Binding], found: Iterable[FoundBinding]) -> list[Binding]:
    """Bindings that take messages where nobody wants them; pure.

    Others may bind queues of their own to any exchange of ours but the first: what is bound to that one gets a message
    in place of the sinks.
    """
    extra = {_binding(each) for each in found} - set(wanted)
    return sorted((each for each in extra if each.source == EXCHANGE or sink_of(each.destination)), key=_shown)


def _binding(found: FoundBinding) -> Binding:
    return Binding(found.source, found.destination, found.routing_key, to_exchange=found.destination_type == "exchange")


def _shown(binding: Binding) -> str:
    return f"{binding.source} -> {binding.destination} ({binding.key})"


def _arguments(thing: Thing, name: str, found: Arguments, wanted: Arguments) -> Iterator[Difference]:
    for argument in sorted({*found, *wanted}):
        if found.get(argument) != wanted.get(argument):
            is_there, should = (str(each.get(argument, "")) for each in (found, wanted))
            yield Difference(thing, name, "differs", argument, is_there, should)


def _over_amqp(plan: Plan, link: Link) -> tuple[list[Difference], list[str]]:
    """What declaring again tells: for each thing the first argument that differs."""
    differences: list[Difference] = []
    unseen: list[str] = []
    items: tuple[Exchange | Queue, ...] = (*plan.exchanges, *plan.queues)
    for item in items:
        thing: Thing = "exchange" if isinstance(item, Exchange) else "queue"
        try:
            difference = _declared(thing, item, link)
        except Refusal as refusal:
            if refusal.code != ACCESS_REFUSED:
                raise
            unseen.append(f"the arguments of {thing} {item.name}: this user may not declare it")
        else:
            differences += [difference] if difference else []
    return differences, unseen


def _declared(thing: Thing, item: Exchange | Queue, link: Link) -> Difference | None:
    if isinstance(item, Exchange):
        is_there, make = exchange_is_there(link, item.name), partial(make_exchange, link, item)
    else:
        is_there, make = waiting_in(link, item.name) is not None, partial(make_queue, link, item)
    if not is_there:
        return Difference(thing, item.name, "missing")
    try:
        make()
    except Refusal as refusal:
        if refusal.code != PRECONDITION_FAILED:
            raise
        told = _INEQUIVALENT.search(refusal.text)
        if told is None:
            return Difference(thing, item.name, "differs", "", refusal.text)
        argument, wanted, found = (part.strip("'") for part in told.groups())
        return Difference(thing, item.name, "differs", argument, found, wanted)
    return None


def is_limit(refusal: Refusal) -> bool:
    """Whether a declare was refused for a limit only."""
    told = _INEQUIVALENT.search(refusal.text)
    return told is not None and told.group(1) in LIMITS
