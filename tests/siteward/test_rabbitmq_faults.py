"""RabbitMQ away, cut off, full or killed: what was confirmed is there, and who waits is told at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from rabbitmq_server import RabbitNode, Vhost, eventually

from siteward.broker import BrokerError, BrokerUnavailable, Delivery, Message
from siteward.broker.rabbitmq import RabbitBroker, RabbitPublisher, open_broker

TOPOLOGY = {"everything": ("#",)}


@pytest.fixture
def broker(vhost: Vhost) -> Iterator[RabbitBroker]:
    """A broker with one queue."""
    settings = vhost.settings()
    with open_broker(settings.broker.url, settings) as opened:
        opened.declare(TOPOLOGY)
        yield opened


def _taken(broker: RabbitBroker) -> list[str]:
    """Ids of all that waits, acknowledged."""
    found: list[str] = []
    with closing(broker.consumer("everything", "c", 200)) as consumer:
        while deliveries := consumer.receive(1.0):
            consumer.acknowledge(deliveries)
            found += [delivery.message.id for delivery in deliveries]
    return found


def _publish_until(publisher: RabbitPublisher, message: Message, patience: float = 60.0) -> None:
    """Publish one message, however often that takes."""
    deadline = time.monotonic() + patience
    while True:
        try:
            publisher.publish([message])
        except BrokerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_a_cut_while_publishing_loses_nothing(broker: RabbitBroker, vhost: Vhost) -> None:
    """Every call during which connections are cut fails or is confirmed; the next one connects again by itself."""
    done = threading.Event()
    confirmed: list[str] = []
    failed: list[str] = []

    def work() -> None:
        with closing(broker.publisher()) as publisher:
            number = 0
            while not done.is_set():
                messages = [Message("v.job", bytes(20_000), id=f"{number}/{part}") for part in range(10)]
                try:
                    publisher.publish(messages)
                except BrokerUnavailable as error:
                    failed.append(str(error))
                else:
                    confirmed.extend(message.id for message in messages)
                number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            before = len(confirmed)
            eventually(lambda: len(confirmed) > before + 20)  # noqa: B023  # called before the next turn.
            vhost.node.ctl("close_all_connections", "--vhost", vhost.name, "cut by the test")
        before = len(confirmed)
        eventually(lambda: len(confirmed) > before + 20)
    finally:
        done.set()
        thread.join(30)
    assert not thread.is_alive()
    assert failed
    assert set(confirmed) <= set(_taken(broker))


def test_a_publisher_connects_again_by_itself(broker: RabbitBroker, vhost: Vhost) -> None:
    """Who was cut off while it had nothing to say notices nothing."""
    with closing(broker.publisher()) as publisher:
        publisher.publish([Message("v.job", b"x", id="before")])
        before = threading.active_count()
        vhost.node.ctl("close_all_connections", "--vhost", vhost.name, "cut by the test")
        # Its connection's thread ends with it.
        eventually(lambda: threading.active_count() < before)
        publisher.publish([Message("v.job", b"x", id="after")])
    assert _taken(broker) == ["before", "after"]


def test_a_server_that_says_nothing_is_given_up(vhost: Vhost) -> None:
    """A host that accepts connections and does not answer holds nobody for longer than the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = vhost.settings(url=f"amqp://guest@127.0.0.1:{silent.getsockname()[1]}/", timeout=1.0)
        began = time.monotonic()
        with open_broker(settings.broker.url, settings) as opened, pytest.raises(BrokerUnavailable):
            opened.status()
        assert time.monotonic() - began < 5


def test_a_cut_while_consuming_gives_everything_back(broker: RabbitBroker, vhost: Vhost) -> None:
    """The consumer is told, what it held comes again to the next one, and what was acknowledged does not."""
    with closing(broker.publisher()) as publisher:
        publisher.publish([Message("v.job", b"x", id=str(number)) for number in range(4)])
    with closing(broker.consumer("everything", "c", 4)) as consumer:
        held: list[Delivery] = []
        while len(held) < 4:
            held += consumer.receive(5)
        consumer.acknowledge(held[:2])
        eventually(lambda: broker.status()[0].unacked == 2)
        vhost.node.ctl("close_all_connections", "--vhost", vhost.name, "cut by the test")
        with pytest.raises(BrokerUnavailable, match="cut by the test"):
            consumer.receive(10)
        with pytest.raises(BrokerUnavailable):
            consumer.acknowledge(held[2:])
    assert sorted(_taken(broker)) == ["2", "3"]


@pytest.fixture
def full_disk(rabbitmq: RabbitNode) -> Iterator[RabbitNode]:
    """A node whose disk is over its limit until told otherwise, and at the end of the test at the latest."""
    yield rabbitmq
    rabbitmq.ctl("set_disk_free_limit", "50MB")


def test_a_full_disk_is_said_at_once(broker: RabbitBroker, full_disk: RabbitNode) -> None:
    """While the server's disk is full nothing is waited for: not by who begins, nor by who waits already."""
    with closing(broker.publisher()) as publisher:
        publisher.publish([Message("v.job", b"x", id="before")])
        full_disk.ctl("set_disk_free_limit", "900000GB")
        eventually(full_disk.has_alarm)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="disk"):
                publisher.publish([Message("v.job", bytes(10**6), id="during")])
            assert time.monotonic() - began < 5
        full_disk.ctl("set_disk_free_limit", "50MB")
        _publish_until(publisher, Message("v.job", b"x", id="after"))
    # What was refused may come all the same, when the server reads on; who was told sends it again.
    assert {"before", "after"} <= set(_taken(broker))


@pytest.fixture(params=["stop", "kill"])
def ending(request: pytest.FixtureRequest, rabbitmq: RabbitNode) -> Iterator[Callable[[], None]]:
    """How a node ends; it runs again behind the test."""
    yield getattr(rabbitmq, request.param)
    if not rabbitmq.is_running:
        rabbitmq.start()


def test_a_node_that_is_away_is_told_and_found_again(
    broker: RabbitBroker, rabbitmq: RabbitNode, ending: Callable[[], None]
) -> None:
    """Stopped or killed: who publishes or consumes is told at once, and later finds all that was confirmed."""
    with closing(broker.publisher()) as publisher:
        publisher.publish([Message("v.job", b"x", id="before")])
        consumer = broker.consumer("everything", "c", 1)
        assert len(consumer.receive(10)) == 1
        ending()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            publisher.publish([Message("v.job", b"x")])
        with pytest.raises(BrokerUnavailable):
            consumer.receive(10)
        with pytest.raises(BrokerUnavailable):
            broker.status()
        assert time.monotonic() - began < 10
        consumer.close()
        rabbitmq.start()
        _publish_until(publisher, Message("v.job", b"x", id="after"))
    assert _taken(broker) == ["before", "after"]


def test_a_limit_that_differs_is_left_as_it_is(broker: RabbitBroker, vhost: Vhost) -> None:
    """Another length limit loses nothing: the queue goes on with the one it has."""
    settings = vhost.settings(max_messages=5, delivery_limit=50)
    with open_broker(settings.broker.url, settings) as other:
        other.declare(TOPOLOGY)
        with closing(other.publisher()) as publisher:
            publisher.publish([Message("v.job", b"x", id="1")])
    assert _taken(broker) == ["1"]


def test_a_queue_that_could_lose_records_is_refused(vhost: Vhost) -> None:
    """A queue of another type under our name is an error that names it, and not used."""
    vhost.node.api("PUT", f"queues/{vhost.path}/siteward.everything", {"durable": True, "arguments": {}})
    settings = vhost.settings()
    with (
        open_broker(settings.broker.url, settings) as broker,
        pytest.raises(BrokerError, match="contradicts") as caught,
    ):
        broker.declare(TOPOLOGY)
    assert caught.value.permanent
    assert "siteward.everything" in str(caught.value)
