"""The broker contract, asked of every implementation: durable, confirmed, redelivered, never twice at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rabbitmq_server import eventually

from siteward.broker import BrokerError, BrokerFull, Consumer, Delivery, Message, Unroutable
from siteward.broker.embedded import EmbeddedBroker
from siteward.broker.rabbitmq import RabbitBroker, open_broker

TOPOLOGY = {"everything": ("#",), "jobs": ("#.job",)}
QUIET = 0.3
"""Seconds for which nothing must come; a server would have sent it by then."""
AnyBroker = EmbeddedBroker | RabbitBroker


@pytest.fixture(params=["embedded", "rabbitmq"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyBroker]:
    """A broker with two queues, one for everything and one for jobs."""
    opened: AnyBroker
    if request.param == "embedded":
        opened = EmbeddedBroker(tmp_path / "broker.sqlite", lease=1.0)
    else:
        settings = request.getfixturevalue("vhost").settings()
        opened = open_broker(settings.broker.url, settings)
    with opened:
        opened.declare(TOPOLOGY)
        yield opened


def _message(number: int, key: str = "vo.one.job") -> Message:
    return Message(key=key, body=f"body {number}".encode(), count=number + 1, id=str(number))


def _publish(broker: AnyBroker, *messages: Message) -> None:
    publisher = broker.publisher()
    try:
        publisher.publish(messages)
    finally:
        publisher.close()


def _numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.message.id) for delivery in deliveries]


def _take(consumer: Consumer, count: int) -> list[Delivery]:
    """So many deliveries, however many calls they take."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + 20
    while len(taken) < count and time.monotonic() < deadline:
        taken += consumer.receive(1)
    return taken


def _drain(consumer: Consumer, count: int) -> list[Delivery]:
    """So many deliveries, acknowledged as they come, and nothing behind them."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + 20
    while len(taken) < count and time.monotonic() < deadline:
        deliveries = consumer.receive(1)
        consumer.acknowledge(deliveries)
        taken += deliveries
    assert consumer.receive(QUIET) == []
    return taken


def test_each_queue_gets_what_its_patterns_take(broker: AnyBroker) -> None:
    """A message waits once in every queue whose pattern matches, in the order of publishing."""
    _publish(broker, *(_message(n, "v.job" if n % 2 else "v.host") for n in range(6)))
    everything, jobs = (broker.consumer(queue, "c", 100) for queue in TOPOLOGY)
    assert _numbers(_drain(everything, 6)) == [0, 1, 2, 3, 4, 5]
    assert _numbers(_drain(jobs, 3)) == [1, 3, 5]
    everything.close()
    jobs.close()


def test_a_message_arrives_as_it_was_published(broker: AnyBroker) -> None:
    """Key, body, count, types and id are untouched."""
    message = Message(
        key="a.b.job", body=bytes(range(256)), count=9, content_type="x/y", content_encoding="zstd", id="i"
    )
    _publish(broker, message)
    consumer = broker.consumer("jobs", "c", 1)
    (delivery,) = _take(consumer, 1)
    assert delivery.message == message
    assert delivery.redelivered == 0
    assert abs(time.time() - delivery.published / 1_000_000) < 60
    consumer.close()


def test_an_unroutable_message_is_refused(broker: AnyBroker) -> None:
    """A confirm means that some sink will get it; without a queue there is no confirm."""
    broker.remove("everything")
    with pytest.raises(Unroutable, match=r"v\.host"):
        _publish(broker, _message(1, "v.host"))
    _publish(broker, _message(0))
    assert [status.ready for status in broker.status()] == [1]


def test_prefetch_bounds_what_is_held(broker: AnyBroker) -> None:
    """A consumer never holds more than its prefetch, and gets more as it acknowledges."""
    _publish(broker, *map(_message, range(5)))
    consumer = broker.consumer("jobs", "c", 2)
    first = _take(consumer, 2)
    assert _numbers(first) == [0, 1]
    assert consumer.receive(QUIET) == []
    consumer.acknowledge(first[:1])
    assert _numbers(_take(consumer, 1)) == [2]
    consumer.close()


def test_two_consumers_never_hold_the_same_message(broker: AnyBroker) -> None:
    """Work is shared: every message goes to one of them."""
    one, two = broker.consumer("jobs", "one", 5), broker.consumer("jobs", "two", 5)
    _publish(broker, *map(_message, range(10)))
    held = _numbers(_take(one, 5)) + _numbers(_take(two, 5))
    assert sorted(held) == list(range(10))
    one.close()
    two.close()


def test_what_a_closed_consumer_held_comes_again(broker: AnyBroker) -> None:
    """A graceful stop gives everything back, and forgets what was acknowledged just before it."""
    _publish(broker, *map(_message, range(3)))
    consumer = broker.consumer("jobs", "c", 10)
    consumer.acknowledge(_take(consumer, 3)[:1])
    consumer.close()
    again = broker.consumer("jobs", "d", 10)
    deliveries = _take(again, 2)
    assert _numbers(deliveries) == [1, 2]
    # RabbitMQ cannot tell a graceful stop from a crash, and counts it.
    counted = 1 if isinstance(broker, RabbitBroker) else 0
    assert {delivery.redelivered for delivery in deliveries} == {counted}
    assert again.receive(QUIET) == []
    again.close()


def test_deliveries_are_acknowledged_in_any_order(broker: AnyBroker) -> None:
    """What is acknowledged is forgotten, whatever was delivered before it; what is not, is not."""
    _publish(broker, *map(_message, range(6)))
    consumer = broker.consumer("jobs", "c", 10)
    held = _take(consumer, 6)
    consumer.acknowledge([held[4], held[1]])
    consumer.acknowledge([held[0], held[2]])
    consumer.close()
    again = broker.consumer("jobs", "d", 10)
    assert _numbers(_drain(again, 2)) == [3, 5]
    again.close()


def test_released_deliveries_come_again(broker: AnyBroker) -> None:
    """Release gives single deliveries back."""
    _publish(broker, *map(_message, range(3)))
    consumer = broker.consumer("jobs", "c", 10)
    consumer.release(_take(consumer, 3)[1:2])
    assert _numbers(_take(consumer, 1)) == [1]
    consumer.close()


def test_a_waiting_consumer_is_given_what_comes(broker: AnyBroker) -> None:
    """receive() returns soon after a message is published, long before its time is up."""
    consumer = broker.consumer("jobs", "c", 10)
    timer = threading.Timer(0.1, _publish, (broker, _message(0)))
    timer.start()
    began = time.monotonic()
    assert _numbers(consumer.receive(10)) == [0]
    assert time.monotonic() - began < 5
    timer.join()
    consumer.close()


def test_a_parked_message_is_kept_with_its_reason(broker: AnyBroker) -> None:
    """What nobody can read is put aside, listed, and can be put back or forgotten."""
    _publish(broker, *map(_message, range(2)))
    consumer = broker.consumer("jobs", "c", 10)
    for delivery in _take(consumer, 2):
        consumer.park(delivery, "unreadable")
    first, second = broker.parked()
    assert (first.queue, first.reason, first.message) == ("jobs", "unreadable", _message(0))
    assert broker.parked() == [first, second]
    assert [status.parked for status in broker.status()] == [0, 2]
    assert consumer.receive(QUIET) == []
    assert broker.replay([first.number, 99]) == 1
    (delivery,) = _take(consumer, 1)
    assert delivery.message == _message(0)
    assert broker.discard([second.number]) == 1
    assert broker.parked() == []
    consumer.close()


def test_a_replaced_delivery_goes_on_in_parts(broker: AnyBroker) -> None:
    """Messages take the place of a delivery in its own queue, and in no other."""
    _publish(broker, _message(0))
    consumer = broker.consumer("jobs", "c", 10)
    (whole,) = _take(consumer, 1)
    consumer.replace(whole, [_message(1), _message(2)])
    parts = _drain(consumer, 2)
    assert [part.message for part in parts] == [_message(1), _message(2)]
    consumer.close()
    other = broker.consumer("everything", "c", 10)
    assert _numbers(_drain(other, 1)) == [0]
    other.close()


def test_status_counts_what_is_where(broker: AnyBroker) -> None:
    """Messages that wait, and those that are held, are counted at every step; bytes and age where they are known."""
    _publish(broker, *map(_message, range(3)))
    consumer = broker.consumer("jobs", "c", 2)
    held = _take(consumer, 2)
    # What RabbitMQ's plugin tells comes with a delay.
    eventually(lambda: broker.status()[1].unacked == 2)
    jobs = broker.status()[1]
    assert (jobs.queue, jobs.ready) == ("jobs", 1)
    eventually(lambda: broker.status()[1].bytes == 18)
    consumer.acknowledge(held)
    assert len(_take(consumer, 1)) == 1
    eventually(lambda: (broker.status()[1].ready, broker.status()[1].unacked) == (0, 1))
    consumer.close()


def test_declaring_again_changes_nothing(broker: AnyBroker) -> None:
    """Set-up is idempotent: waiting messages and counts stay."""
    _publish(broker, _message(0))
    broker.declare(TOPOLOGY)
    assert [status.ready for status in broker.status()] == [1, 1]


def test_an_unknown_queue_is_an_error(broker: AnyBroker) -> None:
    """A consumer of a misspelt queue would wait for ever."""
    with pytest.raises(BrokerError, match="no queue 'job'"):
        broker.consumer("job", "c", 1)


def test_a_removed_queue_takes_only_its_own_with_it(broker: AnyBroker) -> None:
    """What another queue still wants stays; the records that only this one held are gone, and counted."""
    _publish(broker, _message(4, "v.host"))
    assert broker.remove("everything") == 5
    _publish(broker, _message(1, "v.job"))
    assert [status.queue for status in broker.status()] == ["jobs"]
    consumer = broker.consumer("jobs", "c", 10)
    assert _numbers(_drain(consumer, 1)) == [1]
    consumer.close()
    with pytest.raises(BrokerError, match="no queue"):
        broker.remove("everything")


@pytest.fixture(params=["embedded", "rabbitmq"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyBroker]:
    """A broker whose queue takes ten bytes, or hardly more."""
    opened: AnyBroker
    if request.param == "embedded":
        opened = EmbeddedBroker(tmp_path / "b.sqlite", max_bytes=10)
    else:
        settings = request.getfixturevalue("vhost").settings(max_bytes=10)
        opened = open_broker(settings.broker.url, settings)
    with opened:
        opened.declare({"q": ("#",)})
        yield opened


def test_a_full_broker_refuses(small: AnyBroker) -> None:
    """At its limit the broker takes nothing more, and takes again when there is room."""
    _publish(small, Message("v.job", b"12345678"))
    taken = 1
    if isinstance(small, RabbitBroker):
        # It refuses what comes after the limit was passed.
        _publish(small, Message("v.job", b"12345678"))
        taken = 2
    with pytest.raises(BrokerFull, match="takes no more"):
        _publish(small, Message("v.job", b"12345678"))
    consumer = small.consumer("q", "c", 1)
    assert len(_drain(consumer, taken)) == taken
    _publish(small, Message("v.job", b"12345678"))
    consumer.close()


EMBEDDED_CONSUMER = """
import sys, time
from pathlib import Path
from siteward.broker.embedded import EmbeddedBroker
consumer = EmbeddedBroker(Path(sys.argv[1]), lease=1.0).consumer("jobs", sys.argv[2], 2)
print(len(consumer.receive(10)), flush=True)
time.sleep(60)
"""
RABBIT_CONSUMER = """
import sys, time
from siteward.broker.rabbitmq import open_broker
from siteward.settings import BrokerSettings, Settings
consumer = open_broker(sys.argv[1], Settings(broker=BrokerSettings(url=sys.argv[1]))).consumer("jobs", sys.argv[2], 2)
held = []
while len(held) < 2:
    held += consumer.receive(10)
print(len(held), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("successor", "at_most"), [("first", 0.5), ("second", 10.0)])
def test_what_a_killed_consumer_held_is_delivered_again(
    broker: AnyBroker, request: pytest.FixtureRequest, successor: str, at_most: float
) -> None:
    """After kill -9 its namesake gets the messages at once, anybody else when the lease lapses; counted."""
    _publish(broker, *map(_message, range(2)))
    script, place = EMBEDDED_CONSUMER, ""
    if isinstance(broker, EmbeddedBroker):
        place = str(broker.path)
    else:
        script, place = RABBIT_CONSUMER, request.getfixturevalue("vhost").url
        # The server sees the connection end a moment later, whoever comes then.
        at_most = 10.0
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), place, "first"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"2\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    consumer = broker.consumer("jobs", successor, 10)
    began = time.monotonic()
    deliveries: list[Delivery] = []
    while len(deliveries) < 2 and time.monotonic() - began < at_most:
        deliveries += consumer.receive(0.1)
    assert _numbers(deliveries) == [0, 1]
    assert {delivery.redelivered for delivery in deliveries} == {1}
    consumer.close()
