"""The RabbitMQ broker beyond the contract: windows, prefetch by size, shards, order, what is delivered too often."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest
from examples import JOB, NOW, job_rows
from rabbitmq_server import Vhost, eventually

from siteward.broker import BrokerUnavailable, Delivery, Message
from siteward.broker.rabbitmq import RabbitBroker, RabbitConsumer, open_broker
from siteward.broker.rabbitmq.consumer import HELD_BYTES
from siteward.broker.rabbitmq.parked import LIMIT_REASON
from siteward.broker.rabbitmq.publisher import WINDOW_BYTES
from siteward.envelope import seal
from siteward.settings import ShardSettings

TOPOLOGY = {"everything": ("#",), "hosts": ("#.host",)}
Opening = Callable[..., RabbitBroker]


@pytest.fixture
def opening(vhost: Vhost) -> Iterator[Opening]:
    """Opens brokers in the test's virtual host, with settings of [broker]; they are closed at the end."""
    opened: list[RabbitBroker] = []

    def open_with(**settings: object) -> RabbitBroker:
        chosen = vhost.settings(**settings)
        opened.append(open_broker(chosen.broker.url, chosen))
        opened[-1].declare(TOPOLOGY)
        return opened[-1]

    yield open_with
    for broker in opened:
        broker.close()


def publish(broker: RabbitBroker, messages: Sequence[Message]) -> None:
    """Publish over a connection of its own."""
    with closing(broker.publisher()) as publisher:
        publisher.publish(messages)


def take(consumer: RabbitConsumer, count: int) -> list[Delivery]:
    """So many deliveries, or more where more are there."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + 20
    while len(taken) < count and time.monotonic() < deadline:
        taken += consumer.receive(0.5)
    assert len(taken) >= count
    return taken


def drain(consumer: RabbitConsumer, count: int) -> list[Delivery]:
    """So many deliveries, acknowledged as they come."""
    taken: list[Delivery] = []
    while len(taken) < count:
        deliveries = take(consumer, 1)
        consumer.acknowledge(deliveries)
        taken += deliveries
    return taken


def ready(vhost: Vhost, queue: str) -> int:
    """Messages in a queue, as the management plugin sees them."""
    found = vhost.node.api("GET", f"queues/{vhost.path}/{queue}")
    return int(found.get("messages", 0))


def test_a_call_larger_than_the_window_is_confirmed_as_a_whole(opening: Opening) -> None:
    """Only so many bytes are on their way at once, and all arrive in order."""
    broker = opening()
    body = bytes(2**20)
    count = 2 * WINDOW_BYTES // len(body) + 3
    publish(broker, [Message("v.job", body, id=str(number)) for number in range(count)])
    with closing(broker.consumer("everything", "c", 200)) as consumer:
        seen: list[int] = []
        while len(seen) < count:
            deliveries = consumer.receive(5)
            seen += [int(delivery.message.id) for delivery in deliveries]
            consumer.acknowledge(deliveries)
    assert seen == list(range(count))


def test_large_messages_are_held_by_size(opening: Opening) -> None:
    """However many messages the prefetch allows, no more bytes are held than a collector has room for."""
    broker = opening()
    publish(broker, [Message("v.job", bytes(2**20), id=str(number)) for number in range(30)])
    with closing(broker.consumer("everything", "c", 200)) as consumer:
        held = []
        while deliveries := consumer.receive(0.5):
            held += deliveries
        assert sum(len(delivery.message.body) for delivery in held) <= HELD_BYTES


def test_the_prefetch_follows_the_size_of_messages(opening: Opening) -> None:
    """Of small messages as many are held as the prefetch allows; of large ones that come later, fewer again."""
    broker = opening()
    publish(broker, [Message("v.job", b"small") for _ in range(400)])
    with closing(broker.consumer("everything", "c", 150)) as consumer:
        held = take(consumer, 150)
        assert len(held) == 150
        assert consumer.receive(0.3) == []
        consumer.acknowledge(held)
        drain(consumer, 250)
        publish(broker, [Message("v.job", bytes(2**20), id=str(number)) for number in range(60)])
        # Those asked for before anybody knew their size.
        first = take(consumer, 1)
        while deliveries := consumer.receive(0.5):
            first += deliveries
        consumer.acknowledge(first)
        rest = take(consumer, 1)
        while deliveries := consumer.receive(0.5):
            rest += deliveries
        assert sum(len(delivery.message.body) for delivery in rest) <= 1.5 * HELD_BYTES


def test_heartbeats_do_not_wait_for_the_sink(opening: Opening, vhost: Vhost) -> None:
    """A collector that is busy for many heartbeats keeps its connection and what it holds."""
    broker = opening(heartbeat=1)
    publish(broker, [Message("v.job", b"1")])
    with closing(broker.consumer("everything", "c", 1)) as consumer:
        held = take(consumer, 1)
        # Nothing can be waited for: the promise is that nothing happens.
        time.sleep(4.0)
        consumer.acknowledge(held)
    eventually(lambda: ready(vhost, "siteward.everything") == 0)


def test_a_removed_queue_ends_its_consumer(opening: Opening, vhost: Vhost) -> None:
    """When the server cancels a consumer, its collector hears of it and looks for the queue again."""
    broker = opening()
    with closing(broker.consumer("everything", "c", 1)) as consumer:
        vhost.node.api("DELETE", f"queues/{vhost.path}/siteward.everything")
        with pytest.raises(BrokerUnavailable, match="cancelled"):
            consumer.receive(10)


def test_closing_leaves_no_thread_and_no_connection(opening: Opening, vhost: Vhost) -> None:
    """A program that opens brokers again and again collects nothing."""
    before = {thread.name for thread in threading.enumerate()}
    broker = opening()
    publish(broker, [Message("v.job", b"1")])
    with closing(broker.consumer("everything", "c", 1)) as consumer:
        take(consumer, 1)
    broker.close()
    assert {thread.name for thread in threading.enumerate()} <= before
    eventually(lambda: vhost.node.api("GET", f"vhosts/{vhost.path}/connections") == [])


def envelopes(producers: int, each: int) -> list[Message]:
    """Envelopes of several producers, in turn."""
    rows = job_rows(1)
    return [
        Message("example.job", seal(JOB, rows, f"producer{producer}", NOW), id=f"{producer}/{number}")
        for number in range(each)
        for producer in range(producers)
    ]


def test_a_busy_kind_is_spread_by_producer(opening: Opening, vhost: Vhost) -> None:
    """Each producer's envelopes are in one queue, several queues are used, and other kinds are where they were."""
    broker = opening(shards={"job": ShardSettings(queues=4)})
    publish(broker, [*envelopes(12, 5), Message("example.host", b"other")])
    eventually(lambda: ready(vhost, "siteward.everything") == ready(vhost, "siteward.hosts") == 1)
    places: dict[str, set[int]] = defaultdict(set)
    for number in range(4):
        queue = f"queues/{vhost.path}/siteward.everything.job.{number}"
        what = {"count": 100, "ackmode": "ack_requeue_true", "encoding": "base64"}
        for message in vhost.node.api("POST", f"{queue}/get", what):
            places[message["properties"]["message_id"].partition("/")[0]].add(number)
    assert len(places) == 12
    assert all(len(numbers) == 1 for numbers in places.values())
    assert len(set.union(*places.values())) > 1


def test_an_ordered_kind_is_taken_in_order_by_producer(opening: Opening) -> None:
    """One consumer takes what is in all shards, each producer's envelopes in the order in which they were sent."""
    broker = opening(shards={"job": ShardSettings(queues=4, ordered=True)})
    publish(broker, envelopes(12, 5))
    with closing(broker.consumer("everything", "c", 200)) as consumer:
        found = [delivery.message.id.partition("/") for delivery in drain(consumer, 60)]
    order: dict[str, list[str]] = defaultdict(list)
    for producer, _, number in found:
        order[producer].append(number)
    assert len(order) == 12
    assert all(numbers == list("01234") for numbers in order.values())


def test_a_busy_kind_is_spread_by_id(opening: Opening, vhost: Vhost) -> None:
    """Where order does not matter, one producer's envelopes use all queues."""
    broker = opening(shards={"job": ShardSettings(queues=3, by="id")})
    publish(broker, envelopes(1, 60))
    shards = [f"siteward.everything.job.{number}" for number in range(3)]
    eventually(lambda: sum(ready(vhost, shard) for shard in shards) == 60)
    assert all(ready(vhost, shard) for shard in shards)
    assert [(status.queue, status.ready) for status in broker.status()] == [("everything", 60), ("hosts", 0)]


def test_shards_that_the_settings_gave_up_are_still_emptied(opening: Opening) -> None:
    """With fewer queues than before nothing is left in the old ones, with the management plugin or without."""
    publish(opening(shards={"job": ShardSettings(queues=4, by="id")}), envelopes(1, 40))
    fewer = opening(shards={"job": ShardSettings(queues=1, by="id")}, management="http://127.0.0.1:1")
    none = opening()
    for broker, count in ((fewer, 60), (none, 20)):
        publish(broker, envelopes(1, 20))
        with closing(broker.consumer("everything", "c", 200)) as consumer:
            drain(consumer, count)


def test_an_ordered_sink_has_one_consumer_at_a_time(opening: Opening) -> None:
    """A second collector gets nothing as long as the first lives, and then what the first had not acknowledged."""
    broker = opening(ordered=("everything",))
    with (
        closing(broker.consumer("everything", "one", 10)) as one,
        closing(broker.consumer("everything", "two", 10)) as two,
    ):
        publish(broker, [Message("v.job", b"x", id=str(number)) for number in range(20)])
        held = take(one, 8)
        assert two.receive(0.3) == []
        one.acknowledge(held[:5])
        one.close()
        assert [int(delivery.message.id) for delivery in drain(two, 15)] == list(range(5, 20))


def _die(broker: RabbitBroker, times: int) -> None:
    """Take the first message and go without a word, as often."""
    for _ in range(times):
        with closing(broker.consumer("everything", "c", 1)) as consumer:
            take(consumer, 1)


def test_what_is_delivered_too_often_comes_once_more_with_a_mark(opening: Opening) -> None:
    """At the limit a message goes to a queue of its own, its consumer is told, and after as many more it is parked."""
    broker = opening(delivery_limit=3)
    message = Message("v.x.job", b"poison", 7, id="poison")
    publish(broker, [message])
    _die(broker, 4)
    with closing(broker.consumer("everything", "c", 1)) as consumer:
        (again,) = take(consumer, 1)
        assert again.message == message
        assert again.redelivered >= 3
        assert broker.parked() == []
    _die(broker, 3)
    eventually(lambda: len(broker.parked()) == 1)
    (parked,) = broker.parked()
    assert (parked.queue, parked.message, parked.reason) == ("everything", message, LIMIT_REASON)
    assert broker.replay([parked.number]) == 1
    with closing(broker.consumer("everything", "c", 1)) as consumer:
        (back,) = take(consumer, 1)
        assert (back.message, back.redelivered) == (message, 0)


def test_looking_at_parked_messages_never_uses_them_up(opening: Opening) -> None:
    """However often they are listed, they stay, with the same numbers."""
    broker = opening(delivery_limit=2)
    publish(broker, [Message("v.job", b"1")])
    with closing(broker.consumer("everything", "c", 1)) as consumer:
        consumer.park(take(consumer, 1)[0], "unreadable")
    first = broker.parked()
    assert len(first) == 1
    for _ in range(25):
        assert broker.parked() == first


FORKING = """
import os, sys
from contextlib import closing
from siteward.broker import BrokerUnavailable, Message
from siteward.broker.rabbitmq import open_broker
from siteward.settings import BrokerSettings, Settings

broker = open_broker(sys.argv[1], Settings(broker=BrokerSettings(url=sys.argv[1], heartbeat=2, timeout=10)))
broker.declare({"everything": ("#",)})
publisher = broker.publisher()
publisher.publish([Message("v.job", b"x", id="parent")])
consumer = broker.consumer("everything", "parent", 10)
held = consumer.receive(10)
child = os.fork()
if not child:
    publisher.publish([Message("v.job", b"x", id="child")])
    publisher.close()
    try:
        consumer.receive(1)
    except BrokerUnavailable as error:
        print(error)
    consumer.close()
    print(len(broker.status()), flush=True)
    broker.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
publisher.publish([Message("v.job", b"x", id="parent again")])
consumer.acknowledge(held)
found = []
while len(found) < 2:
    found += [delivery.message.id for delivery in consumer.receive(10)]
print(status, sorted(found))
for each in (publisher, consumer, broker):
    each.close()
"""


def test_a_forked_child_has_connections_of_its_own(opening: Opening, vhost: Vhost) -> None:
    """A child may go on with what it inherited, and nothing of the parent's is disturbed by that."""
    opening()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), vhost.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    assert done.stdout.splitlines() == [
        "the connection belongs to the process this one was forked from",
        "1",
        "0 ['child', 'parent again']",
    ], done.stderr
