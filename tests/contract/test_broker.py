"""The broker contract, asked of every implementation: durable, confirmed, redelivered, never twice at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from siteward.broker import BrokerError, BrokerUnavailable, Consumer, Delivery, Message, Unroutable
from siteward.broker.embedded import EmbeddedBroker
from siteward.broker.topology import matches, patterns_for, routing_key, split_key

TOPOLOGY = {"everything": ("#",), "jobs": ("#.job",)}


@pytest.fixture(params=["embedded"])
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker with two queues, one for everything and one for jobs; leases are short."""
    with EmbeddedBroker(tmp_path / "broker.sqlite", lease=1.0) as opened:
        opened.declare(TOPOLOGY)
        yield opened


def _message(number: int, key: str = "vo.one.job") -> Message:
    return Message(key=key, body=f"body {number}".encode(), count=number + 1, id=str(number))


def _publish(broker: EmbeddedBroker, *messages: Message) -> None:
    publisher = broker.publisher()
    publisher.publish(messages)
    publisher.close()


def _numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.message.id) for delivery in deliveries]


def _drain(consumer: Consumer) -> list[Delivery]:
    taken: list[Delivery] = []
    while deliveries := consumer.receive(0):
        consumer.acknowledge(deliveries)
        taken += deliveries
    return taken


def test_each_queue_gets_what_its_patterns_take(broker: EmbeddedBroker) -> None:
    """A message waits once in every queue whose pattern matches, in the order of publishing."""
    _publish(broker, *(_message(n, "v.job" if n % 2 else "v.host") for n in range(6)))
    everything, jobs = (broker.consumer(queue, "c", 100) for queue in TOPOLOGY)
    assert _numbers(_drain(everything)) == [0, 1, 2, 3, 4, 5]
    assert _numbers(_drain(jobs)) == [1, 3, 5]
    everything.close()
    jobs.close()


def test_a_message_arrives_as_it_was_published(broker: EmbeddedBroker) -> None:
    """Key, body, count, types and id are untouched."""
    message = Message(
        key="a.b.job", body=bytes(range(256)), count=9, content_type="x/y", content_encoding="zstd", id="i"
    )
    _publish(broker, message)
    consumer = broker.consumer("jobs", "c", 1)
    (delivery,) = consumer.receive(1)
    assert delivery.message == message
    assert delivery.redelivered == 0
    consumer.close()


def test_an_unroutable_message_is_refused(broker: EmbeddedBroker) -> None:
    """A confirm means that some sink will get it; without a queue there is no confirm."""
    broker.declare({"everything": ("#.job",), "jobs": ("#.job",)})
    with pytest.raises(Unroutable):
        _publish(broker, _message(0), _message(1, "v.host"))
    assert all(status.ready == 0 for status in broker.status())


def test_prefetch_bounds_what_is_held(broker: EmbeddedBroker) -> None:
    """A consumer never holds more than its prefetch, and gets more as it acknowledges."""
    _publish(broker, *map(_message, range(5)))
    consumer = broker.consumer("jobs", "c", 2)
    first = consumer.receive(0)
    assert _numbers(first) == [0, 1]
    assert consumer.receive(0) == []
    consumer.acknowledge(first[:1])
    assert _numbers(consumer.receive(0)) == [2]
    consumer.close()


def test_two_consumers_never_hold_the_same_message(broker: EmbeddedBroker) -> None:
    """Work is shared: every message goes to one of them."""
    _publish(broker, *map(_message, range(10)))
    one, two = broker.consumer("jobs", "one", 5), broker.consumer("jobs", "two", 5)
    held = _numbers(one.receive(0)) + _numbers(two.receive(0))
    assert sorted(held) == list(range(10))
    one.close()
    two.close()


def test_what_a_closed_consumer_held_comes_again_uncounted(broker: EmbeddedBroker) -> None:
    """A graceful stop gives everything back; that is no failed delivery."""
    _publish(broker, *map(_message, range(3)))
    consumer = broker.consumer("jobs", "c", 10)
    consumer.acknowledge(consumer.receive(0)[:1])
    consumer.close()
    again = broker.consumer("jobs", "d", 10)
    deliveries = again.receive(0)
    assert _numbers(deliveries) == [1, 2]
    assert {delivery.redelivered for delivery in deliveries} == {0}
    again.close()


def test_released_deliveries_come_again(broker: EmbeddedBroker) -> None:
    """Release gives single deliveries back."""
    _publish(broker, _message(0))
    consumer = broker.consumer("jobs", "c", 10)
    consumer.release(consumer.receive(0))
    assert _numbers(consumer.receive(0)) == [0]
    consumer.close()


def test_a_waiting_consumer_is_given_what_comes(broker: EmbeddedBroker) -> None:
    """receive() returns soon after a message is published, long before its time is up."""
    consumer = broker.consumer("jobs", "c", 10)
    timer = threading.Timer(0.1, _publish, (broker, _message(0)))
    timer.start()
    began = time.monotonic()
    assert _numbers(consumer.receive(10)) == [0]
    assert time.monotonic() - began < 5
    timer.join()
    consumer.close()


def test_a_parked_message_is_kept_with_its_reason(broker: EmbeddedBroker) -> None:
    """What nobody can read is put aside, listed, and can be put back or forgotten."""
    _publish(broker, *map(_message, range(2)))
    consumer = broker.consumer("jobs", "c", 10)
    for delivery in consumer.receive(0):
        consumer.park(delivery, "unreadable")
    first, second = broker.parked()
    assert (first.queue, first.reason, first.message) == ("jobs", "unreadable", _message(0))
    assert consumer.receive(0) == []
    assert broker.replay([first.number, 99]) == 1
    assert _numbers(consumer.receive(0)) == [0]
    assert broker.discard([second.number]) == 1
    assert broker.parked() == []
    consumer.close()


def test_status_counts_what_is_where(broker: EmbeddedBroker) -> None:
    """Depth, unacknowledged, records, bytes and age are right at every step."""
    _publish(broker, *map(_message, range(3)))
    consumer = broker.consumer("jobs", "c", 2)
    held = consumer.receive(0)
    jobs = broker.status()[1]
    assert (jobs.queue, jobs.ready, jobs.unacked, jobs.records, jobs.bytes) == ("jobs", 1, 2, 6, 18)
    assert jobs.oldest is not None
    consumer.acknowledge(held)
    jobs = broker.status()[1]
    assert (jobs.ready, jobs.unacked, jobs.published, jobs.acknowledged) == (1, 0, 6, 3)
    consumer.close()


def test_declaring_again_changes_nothing(broker: EmbeddedBroker) -> None:
    """Set-up is idempotent: waiting messages and counts stay."""
    _publish(broker, _message(0))
    broker.declare(TOPOLOGY)
    assert [status.ready for status in broker.status()] == [1, 1]


def test_an_unknown_queue_is_an_error(broker: EmbeddedBroker) -> None:
    """A consumer of a misspelt queue would wait for ever."""
    with pytest.raises(BrokerError, match="no queue 'job'"):
        broker.consumer("job", "c", 1)


def test_a_removed_queue_takes_only_its_own_with_it(broker: EmbeddedBroker) -> None:
    """What another queue still wants stays; what only this one held is gone, and counted."""
    _publish(broker, _message(0, "v.host"), _message(1, "v.job"))
    assert broker.remove("everything") == 1
    assert [status.queue for status in broker.status()] == ["jobs"]
    consumer = broker.consumer("jobs", "c", 10)
    assert _numbers(_drain(consumer)) == [1]
    consumer.close()
    with pytest.raises(BrokerError, match="no queue"):
        broker.remove("everything")


def test_a_full_broker_refuses(tmp_path: Path) -> None:
    """At its limit the broker takes nothing more, and takes again when there is room."""
    with EmbeddedBroker(tmp_path / "b.sqlite", max_bytes=10) as broker:
        broker.declare({"q": ("#",)})
        _publish(broker, Message("v.job", b"12345678"))
        with pytest.raises(BrokerUnavailable, match="takes no more"):
            _publish(broker, Message("v.job", b"12345678"))
        consumer = broker.consumer("q", "c", 1)
        assert len(_drain(consumer)) == 1
        _publish(broker, Message("v.job", b"12345678"))
        consumer.close()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A file that is no broker's is never written to."""
    path = tmp_path / "b.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(BrokerError, match="not a database") as caught:
        EmbeddedBroker(path).declare(TOPOLOGY)
    assert caught.value.permanent


CONSUMER = """
import sys, time
from pathlib import Path
from siteward.broker.embedded import EmbeddedBroker
consumer = EmbeddedBroker(Path(sys.argv[1]), lease=1.0).consumer("jobs", sys.argv[2], 2)
print(len(consumer.receive(10)), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("successor", "at_most"), [("first", 0.5), ("second", 10.0)])
def test_what_a_killed_consumer_held_is_delivered_again(broker: EmbeddedBroker, successor: str, at_most: float) -> None:
    """After kill -9 its namesake gets the messages at once, anybody else when the lease lapses; counted."""
    _publish(broker, *map(_message, range(2)))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CONSUMER), str(broker.path), "first"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"2\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    consumer = broker.consumer("jobs", successor, 10)
    began = time.monotonic()
    deliveries: list[Delivery] = []
    while not deliveries and time.monotonic() - began < at_most:
        deliveries = consumer.receive(0.1)
    assert _numbers(deliveries) == [0, 1]
    assert {delivery.redelivered for delivery in deliveries} == {1}
    consumer.close()


def test_a_long_sink_write_keeps_the_lease(broker: EmbeddedBroker) -> None:
    """A consumer that is busy for several leases without a call still holds its messages."""
    _publish(broker, _message(0))
    busy, other = broker.consumer("jobs", "busy", 1), broker.consumer("jobs", "other", 1)
    held = busy.receive(0)
    assert other.receive(2.5) == []
    busy.acknowledge(held)
    assert broker.status()[1].acknowledged == 1
    busy.close()
    other.close()


def test_a_clock_set_back_keeps_no_message_from_anybody(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease given by a clock that was a day ahead does not hold for a day."""
    _publish(broker, _message(0))
    with monkeypatch.context() as ahead:
        real = time.time_ns
        ahead.setattr(time, "time_ns", lambda: real() + 86_400 * 10**9)
        dead = broker.consumer("jobs", "dead", 1)
        assert len(dead.receive(0)) == 1
        dead._stop.set()
    other = broker.consumer("jobs", "other", 1)
    assert _numbers(other.receive(1)) == [0]
    dead.close()
    other.close()


def test_a_late_acknowledgement_takes_nothing_from_the_successor(broker: EmbeddedBroker) -> None:
    """Who lost its messages cannot acknowledge them away from the one who has them now."""
    _publish(broker, _message(0))
    old = broker.consumer("jobs", "same", 1)
    held = old.receive(0)
    new = broker.consumer("jobs", "same", 1)
    again = new.receive(0)
    old.acknowledge(held)
    assert broker.status()[1].unacked == 1
    new.acknowledge(again)
    assert broker.status()[1].acknowledged == 1
    old.close()
    new.close()


def _publish_many(path: str, first: int, count: int) -> None:
    with EmbeddedBroker(Path(path)) as broker:
        broker.declare(TOPOLOGY)
        publisher = broker.publisher()
        for number in range(first, first + count):
            publisher.publish([_message(number)])
        publisher.close()
    os._exit(0)


def test_several_processes_publish_at_once(tmp_path: Path) -> None:
    """Processes that make and use the file at the same moment lose nothing."""
    path = tmp_path / "broker.sqlite"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_publish_many, args=(str(path), first, 50)) for first in (0, 50, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with EmbeddedBroker(path) as broker:
        consumer = broker.consumer("jobs", "c", 1000)
        assert sorted(_numbers(_drain(consumer))) == list(range(150))
        consumer.close()


@pytest.mark.parametrize(
    ("pattern", "key", "taken"),
    [
        ("#", "a.job", True),
        ("#", "job", True),
        ("#.job", "vo.example.org.job", True),
        ("#.job", "job", True),
        ("#.job", "vo.jobs", False),
        ("#.job", "vo.myjob", False),
        ("*.job", "a.job", True),
        ("*.job", "a.b.job", False),
        ("a.#", "a", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("a.#.b", "axb", False),
        ("a+.job", "aa.job", False),
    ],
)
def test_patterns_follow_amqp(pattern: str, key: str, taken: bool) -> None:  # noqa: FBT001  # a column of the table.
    """The embedded broker routes as RabbitMQ would: `*` is a word, `#` any number of them."""
    assert matches(pattern, key) is taken


def test_a_vo_with_dots_keeps_its_kind() -> None:
    """VO names are often host names; the kind is what follows the last dot."""
    assert split_key(routing_key("vo.example.org", "data-operation")) == ("vo.example.org", "data-operation")
    assert patterns_for(["job"]) == ("#.job",)
    wrong: Callable[[], object] = lambda: split_key("job")  # noqa: E731
    with pytest.raises(ValueError, match="not <vo>"):
        wrong()
