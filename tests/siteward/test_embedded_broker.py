"""What the embedded broker promises beyond the contract: leases, counts of records, one file for many processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from siteward.broker import BrokerError, Consumer, Delivery, Message, Unroutable
from siteward.broker.embedded import EmbeddedBroker

TOPOLOGY = {"everything": ("#",), "jobs": ("#.job",)}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedBroker]:
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


def _numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.message.id) for delivery in deliveries]


def _drain(consumer: Consumer) -> list[Delivery]:
    taken: list[Delivery] = []
    while deliveries := consumer.receive(0):
        consumer.acknowledge(deliveries)
        taken += deliveries
    return taken


def test_the_embedded_broker_counts_records(embedded: EmbeddedBroker) -> None:
    """It knows records, bytes and age at every step, which RabbitMQ does not."""
    _publish(embedded, *map(_message, range(3)))
    consumer = embedded.consumer("jobs", "c", 2)
    held = consumer.receive(0)
    jobs = embedded.status()[1]
    assert (jobs.ready, jobs.unacked, jobs.records, jobs.bytes) == (1, 2, 6, 18)
    assert jobs.oldest is not None
    consumer.acknowledge(held)
    jobs = embedded.status()[1]
    assert (jobs.ready, jobs.unacked, jobs.published, jobs.acknowledged) == (1, 0, 6, 3)
    consumer.close()


def test_the_embedded_broker_stores_all_or_nothing(embedded: EmbeddedBroker) -> None:
    """One unroutable message keeps the others out as well; and patterns that are no longer declared are unbound."""
    embedded.declare({"everything": ("#.job",), "jobs": ("#.job",)})
    with pytest.raises(Unroutable):
        _publish(embedded, _message(0), _message(1, "v.host"))
    assert all(status.ready == 0 for status in embedded.status())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A file that is no broker's is never written to."""
    path = tmp_path / "b.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(BrokerError, match="not a database") as caught:
        EmbeddedBroker(path).declare(TOPOLOGY)
    assert caught.value.permanent


def test_a_long_sink_write_keeps_what_is_held(embedded: EmbeddedBroker) -> None:
    """A consumer that is busy for several leases without a call still holds its messages."""
    _publish(embedded, _message(0))
    busy, other = embedded.consumer("jobs", "busy", 1), embedded.consumer("jobs", "other", 1)
    held = busy.receive(0)
    assert other.receive(2.5) == []
    busy.acknowledge(held)
    assert embedded.status()[1].acknowledged == 1
    busy.close()
    other.close()


def test_a_clock_set_back_keeps_no_message_from_anybody(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease given by a clock that was a day ahead does not hold for a day."""
    _publish(embedded, _message(0))
    with monkeypatch.context() as ahead:
        real = time.time_ns
        ahead.setattr(time, "time_ns", lambda: real() + 86_400 * 10**9)
        dead = embedded.consumer("jobs", "dead", 1)
        assert len(dead.receive(0)) == 1
        dead._stop.set()
    other = embedded.consumer("jobs", "other", 1)
    assert _numbers(other.receive(1)) == [0]
    dead.close()
    other.close()


def test_a_late_acknowledgement_takes_nothing_from_the_successor(embedded: EmbeddedBroker) -> None:
    """Who lost its messages cannot acknowledge them away from the one who has them now."""
    _publish(embedded, _message(0))
    old = embedded.consumer("jobs", "same", 1)
    held = old.receive(0)
    new = embedded.consumer("jobs", "same", 1)
    again = new.receive(0)
    old.acknowledge(held)
    assert embedded.status()[1].unacked == 1
    new.acknowledge(again)
    assert embedded.status()[1].acknowledged == 1
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
