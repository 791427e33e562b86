"""What publishing promises, asked of every broker that takes messages, also of those that give none: durable, once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import pytest
from examples import NOON, NOW, job
from gateway_server import KINDS, GatewayServer, parcel_of

from siteward.broker import Broker, BrokerUnavailable, Message
from siteward.broker.opening import open_broker
from siteward.broker.topology import EVERYTHING, routing_key
from siteward.compression import compress_zstd
from siteward.envelope import JSON, MSGPACK, ZSTD, Parcel, as_json, cut, seal
from siteward.kinds.data_operation import DataOperation
from siteward.records import Kind, Row
from siteward.settings import BrokerSettings, Settings

TOPOLOGY: Final = {"monitoring": (EVERYTHING,)}
OPERATION: Final = KINDS["data-operation"]
"""A kind without an identity: its records are called after their envelope."""
NAMES: Final = ("embedded", "rabbitmq", "gateway")


class Place:
    """A broker, and the one behind it from which its messages come.

    Attributes:
        settings: of who publishes.
        reading: of who reads.
    """

    def __init__(self, settings: Settings, reading: Settings) -> None:
        self.settings = settings
        self.reading = reading

    def publish(self, *messages: Message) -> None:
        with closing(self.opened()) as broker, closing(broker.publisher()) as publisher:
            publisher.publish(messages)

    def opened(self) -> Broker:
        broker = open_broker(self.settings)
        broker.declare(TOPOLOGY)
        return broker

    def take(self, count: int) -> list[Parcel]:
        """So many messages, as a collector reads them, and nothing behind them."""
        found: list[Parcel] = []
        with closing(open_broker(self.reading)) as broker:
            broker.declare(TOPOLOGY)
            with closing(broker.consumer("monitoring", "test", 1_000)) as consumer:
                while len(found) < count:
                    deliveries = consumer.receive(10)
                    assert deliveries
                    consumer.acknowledge(deliveries)
                    found += map(parcel_of, deliveries)
                assert consumer.receive(0.2) == []
        assert len(found) == count
        return found


Opening = Callable[[int], Place]
"""A place whose queue takes so many bytes."""


@pytest.fixture(params=NAMES)
def opening(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opening]:
    """Every implementation: one that is added to NAMES is asked all of it."""
    server = GatewayServer(tmp_path / "app")

    def opened(max_bytes: int) -> Place:
        if request.param == "rabbitmq":
            settings = request.getfixturevalue("vhost").settings(max_bytes=max_bytes)
            return Place(settings, settings)
        embedded = Settings(data=str(tmp_path / "app"), broker=BrokerSettings(max_bytes=max_bytes))
        if request.param == "embedded":
            return Place(embedded, embedded)
        server.start(broker=embedded.broker)
        monkeypatch.setenv("BEARER_TOKEN", server.token())
        return Place(server.program(tmp_path / "program"), embedded)

    yield opened
    server.stop()


@pytest.fixture
def place(opening: Opening) -> Place:
    """One that takes all that a test has."""
    return opening(2**30)


def jobs(*numbers: int) -> list[Row]:
    return [KINDS["job"].row_of(job(number), NOW) for number in numbers]


def operations(count: int) -> list[Row]:
    operation = DataOperation(vo="example", start=NOON, end=NOON, operation="download", state="done")
    return [OPERATION.row_of(operation, NOW) for _ in range(count)]


def sealed(kind: Kind, rows: Sequence[Row]) -> Message:
    return Message(routing_key("example", kind.name), seal(kind, rows, "test@node", NOW), len(rows))


def names(parcels: Sequence[Parcel]) -> list[str]:
    return [name for parcel in parcels for name in parcel.columns["local_job_id"]]


def test_what_is_published_waits_for_the_sinks(place: Place) -> None:
    """In the order of publishing, under the ids that follow from the records."""
    place.publish(*(sealed(KINDS["job"], jobs(number, number + 1)) for number in (0, 2, 4)))
    parcels = place.take(3)
    assert names(parcels) == list(map(str, range(6)))
    expected = [KINDS["job"].id_of(row) for row in jobs(*range(6))]
    assert [record for parcel in parcels for record in parcel.ids] == expected


def test_no_messages_are_published_at_once(place: Place) -> None:
    """Nothing to do is no error."""
    place.publish()
    place.take(0)


def test_a_message_sent_again_is_the_same_records(place: Place) -> None:
    """Also those that nothing but their envelope names: whoever got no answer sends again, and nothing is doubled."""
    message = sealed(OPERATION, operations(3))
    place.publish(message)
    place.publish(message, sealed(OPERATION, operations(3)))
    first, again, other = (parcel.ids for parcel in place.take(3))
    assert first == again
    assert len({*first, *other}) == 6


def test_parts_of_a_message_are_the_same_records(place: Place) -> None:
    """Whoever has to cut it gives each record the id that it has in the whole."""
    whole = sealed(OPERATION, operations(5))
    runs = [range(2), range(2, 3), range(4, 5)]
    bodies = cut(whole.body, MSGPACK, runs)
    place.publish(whole, *(Message(whole.key, body, len(run)) for body, run in zip(bodies, runs, strict=True)))
    all_of_it, *parts = (parcel.ids for parcel in place.take(4))
    assert parts == [all_of_it[run.start : run.stop] for run in runs]


@pytest.mark.parametrize("encoding", ["", ZSTD])
def test_a_compressed_message_says_the_same(place: Place, encoding: str) -> None:
    """As its content encoding says."""
    plain = sealed(KINDS["job"], jobs(7))
    body = compress_zstd(plain.body) if encoding else plain.body
    place.publish(Message(plain.key, body, 1, content_encoding=encoding))
    assert names(place.take(1)) == ["7"]


def test_a_message_in_json_is_taken_too(place: Place) -> None:
    """As other languages may write it."""
    (row,) = jobs(8)
    record = as_json(KINDS["job"], [getattr(row, name) for name in KINDS["job"].names]).decode()
    head = f'"v": 1, "id": "{"0" * 32}", "kind": "job", "vo": "example", "producer": "p", "sent": 1'
    place.publish(Message("example.job", f'{{{head}, "records": [{record}]}}'.encode(), content_type=JSON))
    assert names(place.take(1)) == ["8"]


def until_full(place: Place) -> int:
    """The number of messages that a place takes."""
    for number in range(100):
        try:
            place.publish(sealed(KINDS["job"], jobs(number)))
        except BrokerUnavailable:
            return number
    pytest.fail("it takes any number")


def test_who_is_full_takes_no_more_until_there_is_room(opening: Opening) -> None:
    """Said as what can be tried again; what was confirmed before is kept."""
    place = opening(1_000)
    published = until_full(place)
    assert names(place.take(published)) == [str(number) for number in range(published)]
    place.publish(sealed(KINDS["job"], jobs(100)))
    assert names(place.take(1)) == ["100"]


def test_several_publish_at_once(place: Place) -> None:
    """Each with a publisher of its own; nothing is lost."""

    def publish(first: int) -> None:
        with closing(place.opened()) as broker, closing(broker.publisher()) as publisher:
            for number in range(first, first + 10):
                publisher.publish([sealed(KINDS["job"], jobs(number))])

    threads = [threading.Thread(target=publish, args=(first,)) for first in range(0, 40, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names(place.take(40)), key=int) == [str(number) for number in range(40)]


DIES = """
import os, signal, sys
import msgspec
from siteward.broker import Message
from siteward.broker.opening import open_broker
from siteward.settings import Settings

settings, message = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, Message])
open_broker(settings).publisher().publish([message])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_confirmed_survives_its_sender(place: Place) -> None:
    """Killed in the next instruction, it has lost nothing."""
    place.publish()
    given = msgspec.msgpack.encode((place.settings, sealed(KINDS["job"], jobs(9))))
    done = subprocess.run([sys.executable, "-c", DIES], input=given, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert names(place.take(1)) == ["9"]
