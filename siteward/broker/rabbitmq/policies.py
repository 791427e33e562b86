"""What policies change in queues and exchanges of ours: RabbitMQ lets operators do so behind the back of a declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from siteward.broker.rabbitmq.difference import Difference
from siteward.broker.rabbitmq.management import FoundExchange, FoundPolicy, FoundQueue
from siteward.broker.rabbitmq.plan import PARKED, Arguments, Plan

LOWER_WINS: Final = frozenset({"max-length", "max-length-bytes", "delivery-limit"})
"""Of a queue's argument and its policy RabbitMQ takes the lower. With `overflow` 3.10 takes the policy's."""
DISCARDS: Final = frozenset({"message-ttl", "expires", "overflow"})
"""These let messages vanish of which nobody hears; what expires may be kept in other queues, until it expires there."""
KEEPS: Final = frozenset(
    {
        # Where a queue lives and how it is kept.
        "ha-mode",
        "ha-params",
        "ha-sync-mode",
        "ha-sync-batch-size",
        "ha-promote-on-failure",
        "ha-promote-on-shutdown",
        "initial-cluster-size",
        "max-in-memory-bytes",
        "max-in-memory-length",
        "queue-leader-locator",
        "queue-master-locator",
        "queue-mode",
        "queue-version",
        "target-group-size",
        # Who holds a message for so long gets it again.
        "consumer-timeout",
        # What another broker has comes as well; nothing goes there unless that broker fetches it.
        "federation-upstream",
        "federation-upstream-set",
    }
)
"""These take nothing away and change nothing that we ask for."""


def effects(
    plan: Plan,
    queues: Mapping[str, FoundQueue],
    exchanges: Mapping[str, FoundExchange],
    policies: Mapping[str, FoundPolicy],
) -> Iterator[Difference]:
    """All that policies change, queues first; pure. Policies are asked for exchanges only."""
    arguments = {queue.name: queue.arguments for queue in plan.queues}
    for name in sorted(queues):
        says = queues[name].effective_policy_definition
        names = " + ".join(each for each in (queues[name].policy, queues[name].operator_policy) if each)
        for key, found in sorted(says.items()) if isinstance(says, dict) else ():
            problem = _of_queue(name, key, found, arguments.get(name, {}))
            if problem:
                wanted = str(arguments.get(name, {}).get(f"x-{key}", ""))
                yield Difference("policy", f"{names} -> {name}", problem, key, str(found), wanted)
    for exchange in plan.exchanges:
        there = exchanges.get(exchange.name)
        policy = policies.get(there.policy or "") if there else None
        # An exchange's own argument goes over a policy's.
        if policy and "alternate-exchange" in policy.definition and "alternate-exchange" not in exchange.arguments:
            found = str(policy.definition["alternate-exchange"])
            yield Difference("policy", f"{policy.name} -> {exchange.name}", "discards", "alternate-exchange", found, "")


def _of_queue(name: str, key: str, found: object, arguments: Arguments) -> Literal["", "differs", "discards"]:
    wanted = arguments.get(f"x-{key}")
    if key in KEEPS or found == wanted:
        return ""
    if key in LOWER_WINS and isinstance(found, int) and isinstance(wanted, int):
        if found >= wanted:
            return ""
        # Behind the queue of what was put aside there is no other: who looks at it too often would use it up.
        return "discards" if key == "delivery-limit" and name.endswith(f".{PARKED}") else "differs"
    return "discards" if key in DISCARDS else "differs"
