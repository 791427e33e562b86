"""What stands in a sink's queues, and which queues those are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from siteward.broker import BrokerError, QueueStatus
from siteward.broker.rabbitmq.connection import Link
from siteward.broker.rabbitmq.consumer import RabbitConsumer
from siteward.broker.rabbitmq.making import delete_exchange, delete_queue, waiting_in
from siteward.broker.rabbitmq.management import FoundQueue, Management
from siteward.broker.rabbitmq.plan import EXCHANGE, PARKED, RETURNED, queue_of, shard_of, side_of, sink_of
from siteward.settings import BrokerSettings

LAST_SECONDS: Final = 5.0
"""How long a removed queue is waited for to give its next message; another consumer may have taken it."""


def all_sinks(known: Iterable[str], found: Mapping[str, FoundQueue] | None) -> list[str]:
    """Names of the sinks that we know of, or that have queues, in order."""
    return sorted({*known, *(sink_of(name) for name in found or ())})


def queues_of(sink: str, link: Link, settings: BrokerSettings, management: Management) -> list[str]:
    """The queues of a sink that are there: its own, those of sharded kinds, and last that for what was returned.

    Shards beyond those of the settings are among them: they go on being filled until somebody removes them.

    Raises:
        BrokerError: there is no such sink's queue.
    """
    if waiting_in(link, queue_of(sink)) is None:
        message = f"there is no queue {sink!r}; see `siteward broker status`"
        raise BrokerError(message)
    found = _shards(sink, management.known_queues() or ())
    for kind in settings.shards:
        number = 0
        while shard_of(sink, kind, number) in found or waiting_in(link, shard_of(sink, kind, number)) is not None:
            found.add(shard_of(sink, kind, number))
            number += 1
    returned = side_of(sink, RETURNED)
    last = [returned] if waiting_in(link, returned) is not None else []
    return [queue_of(sink), *sorted(found), *last]


def _shards(sink: str, names: Iterable[str]) -> set[str]:
    pattern = re.compile(rf"{re.escape(queue_of(sink))}\.[^.]+\.\d+")
    return {name for name in names if pattern.fullmatch(name)}


def standing_of(
    sink: str, link: Link, settings: BrokerSettings, known: Mapping[str, FoundQueue] | None
) -> QueueStatus | None:
    """What stands in a sink's queues; None where it has none.

    Args:
        sink: its name.
        link: tells what is ready, now.
        settings: which kinds are sharded.
        known: from the management plugin, which tells the rest with a delay; None where it does not answer.
    """
    ready = waiting_in(link, queue_of(sink))
    if ready is None:
        return None
    shards = {shard_of(sink, kind, number) for kind, each in settings.shards.items() for number in range(each.queues)}
    others = [*sorted(shards | _shards(sink, known or ())), side_of(sink, RETURNED)]
    parts = [known[name] for name in (queue_of(sink), *others) if name in known] if known else []
    published = [each.head_message_timestamp for each in parts if each.head_message_timestamp]
    return QueueStatus(
        queue=sink,
        ready=ready + sum(waiting_in(link, name) or 0 for name in others),
        unacked=_sum(each.messages_unacknowledged for each in parts),
        parked=waiting_in(link, side_of(sink, PARKED)) or 0,
        records=None,
        # The plugin says nothing of the bytes of a queue that was always empty.
        bytes=_sum(0 if each.messages == 0 else each.message_bytes for each in parts),
        oldest=datetime.fromtimestamp(min(published), UTC) if published else None,
        published=None,
        acknowledged=None,
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """Their sum; None where one of them is not known, or there are none."""
    found = list(counts)
    known = [count for count in found if count is not None]
    return sum(known) if found and len(known) == len(found) else None


def removed(sink: str, names: Sequence[str], link: Link, open_consumer: Callable[[], RabbitConsumer]) -> int:
    """Take away a sink's queues and exchanges.

    Args:
        sink: its name.
        names: its queues, as queues_of gives them.
        link: what does it.
        open_consumer: of these queues; it reads what waits, since only the messages say how many records they hold.

    Returns:
        the number of records that waited.
    """
    left = sum(waiting_in(link, name) or 0 for name in names)
    kinds = {name.split(".")[2] for name in names if len(name.split(".")) > 3}  # noqa: PLR2004  # siteward.SINK.KIND.NUMBER.
    for exchange in (f"{EXCHANGE}.{sink}.{kind}" for kind in sorted(kinds)):
        delete_exchange(link, exchange)
    records = 0
    with closing(open_consumer()) as consumer:
        while left > 0 and (deliveries := consumer.receive(LAST_SECONDS)):
            records += sum(delivery.message.count for delivery in deliveries)
            consumer.acknowledge(deliveries)
            left -= len(deliveries)
    # Between the count and the end more may have come, whose records nobody has counted.
    records += sum(delete_queue(link, name) for name in names)
    delete_queue(link, side_of(sink, PARKED))
    for side in (queue_of(sink), side_of(sink, RETURNED), side_of(sink, PARKED)):
        delete_exchange(link, side)
    return records
