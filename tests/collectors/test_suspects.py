"""A message that is delivered again and again: cut into records, the one at fault parked, the others stored."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import pytest
from examples import JOB, NOON, NOW, batch_of, job_rows
from hypothesis import given
from hypothesis import strategies as st
from in_memory import MemoryBroker
from rabbitmq_server import Vhost, eventually

from collectors.suspects import Suspects
from siteward.broker import Message
from siteward.broker.rabbitmq import RabbitConsumer, open_broker
from siteward.broker.topology import routing_key
from siteward.compression import compress_zstd, decompress
from siteward.envelope import JSON, MAX_BYTES, MSGPACK, ZSTD, Parcel, divide, open_envelope, seal
from siteward.kinds.data_operation import DataOperation
from siteward.records import Refused, kind_of
from siteward.telemetry import REDELIVERED, telemetry

TRANSFERS = kind_of(DataOperation)
KINDS = {"job": JOB, "data-operation": TRANSFERS}
LIMIT = 5


def transfers(count: int) -> bytes:
    """An envelope of records without an identity: their ids follow from their places."""
    record = {"vo": "example", "operation": "transfer", "source": "A", "destination": "B", "start": NOON.isoformat()}
    record |= {"end": NOON.isoformat(), "state": "done"}
    body = {
        "v": 1,
        "id": "ab" * 16,
        "kind": "data-operation",
        "vo": "example",
        "producer": "p",
        "sent": NOW,
        "records": [record | {"size": number} for number in range(count)],
    }
    return json.dumps(body).encode()


def opened(bodies: list[bytes], content_type: str) -> list[Parcel]:
    return [open_envelope(body, content_type, KINDS, NOW) for body in bodies]


@given(st.integers(1, 40))
def test_parts_hold_the_same_records(count: int) -> None:
    """Every record of the envelope is in one part, with the values and the id that it had."""
    body = seal(JOB, job_rows(count), "p", NOW)
    whole = open_envelope(body, MSGPACK, KINDS, NOW)
    parts = opened(divide(body, MSGPACK), MSGPACK)
    assert [part.ids for part in parts] == [[each] for each in whole.ids]
    for name, values in whole.columns.items():
        assert [value for part in parts for value in part.columns[name]] == values


def test_records_without_identity_keep_their_ids() -> None:
    """An id that follows from the place in the envelope is still that of the first envelope, cut twice even."""
    whole = open_envelope(transfers(7), JSON, KINDS, NOW)
    assert whole.refused == []
    parts = divide(transfers(7), JSON)
    again = [each for part in parts for each in divide(part, JSON)]
    for bodies in (parts, again):
        assert [part.ids for part in opened(bodies, JSON)] == [[each] for each in whole.ids]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", MSGPACK),
        (b"\xc1", MSGPACK),
        (b"{}", JSON),
        (b"[" * 100_000, JSON),
        (msgspec.msgpack.encode({"v": 1}), MSGPACK),
        (seal(JOB, job_rows(2), "p", NOW).replace(b"count\x02", b"count\x03"), MSGPACK),
        (seal(JOB, job_rows(2), "p", NOW), "text/plain"),
    ],
)
def test_what_is_no_envelope_is_refused(body: bytes, content_type: str) -> None:
    """Cutting says what is wrong and never anything else."""
    with pytest.raises(Refused):
        divide(body, content_type)


@pytest.mark.parametrize("first", [-1, 60_000])
def test_a_place_that_no_envelope_has_is_refused(first: int) -> None:
    """`first` is checked like everything that comes from outside."""
    body = json.dumps(json.loads(transfers(1)) | {"first": first}).encode()
    with pytest.raises(Refused, match="first"):
        open_envelope(body, JSON, KINDS, NOW)


class Queue:
    """A queue with one message that was delivered before."""

    def __init__(self, message: Message, redelivered: int) -> None:
        self.broker = MemoryBroker("q")
        self.broker.queues["q"].append((0, message, redelivered))
        self.consumer = self.broker.consumer("q", "c", 1000)
        self.suspects = Suspects("q", self.consumer, LIMIT)
        self.taken = self.suspects.taken_out(self.consumer.receive(0))

    @property
    def waiting(self) -> list[Message]:
        return [message for _, message, _ in self.broker.queues["q"]]


def message(count: int) -> Message:
    return Message(routing_key("example", "job"), seal(JOB, job_rows(count), "p", NOW), count, id="m")


def test_a_message_delivered_a_few_times_is_processed_and_counted() -> None:
    """Redelivery alone is no reason for anything: collectors are stopped and killed."""
    telemetry.reset()
    whole = message(3)
    queue = Queue(whole, LIMIT - 1)
    assert [delivery.message for delivery in queue.taken] == [whole]
    assert telemetry.value(REDELIVERED, "q") == 1


@pytest.mark.parametrize("encoding", ["", ZSTD])
def test_a_suspect_is_replaced_by_its_records(encoding: str) -> None:
    """At the limit every record gets a message of its own, in the same queue, encoded as it was."""
    whole = message(4)
    if encoding:
        whole = msgspec.structs.replace(whole, body=compress_zstd(whole.body), content_encoding=encoding)
    queue = Queue(whole, LIMIT)
    assert queue.taken == []
    assert [(each.key, each.count, each.id, each.content_encoding) for each in queue.waiting] == [
        (whole.key, 1, "m", encoding)
    ] * 4
    bodies = [decompress(each.body, encoding, MAX_BYTES) if encoding else each.body for each in queue.waiting]
    assert [part.ids[0] for part in opened(bodies, MSGPACK)] == batch_of(JOB, job_rows(4)).ids


def test_a_foreign_message_that_does_not_say_its_count_is_cut_all_the_same() -> None:
    """What another program sent over AMQP says nothing of its records; they are counted by looking."""
    queue = Queue(msgspec.structs.replace(message(4), count=1), LIMIT)
    assert queue.taken == []
    assert len(queue.waiting) == 4
    assert queue.broker.parked() == []


@pytest.mark.parametrize(
    ("whole", "redelivered", "reason"),
    [
        (message(1), 2 * LIMIT, "delivered 10 times and never acknowledged"),
        (message(4), 2 * LIMIT, "delivered 10 times and never acknowledged"),
        (msgspec.structs.replace(message(4), body=b"?"), LIMIT, "not an envelope"),
        (msgspec.structs.replace(message(4), content_encoding="rot13"), LIMIT, "rot13"),
    ],
)
def test_the_one_at_fault_is_parked(whole: Message, redelivered: int, reason: str) -> None:
    """A single record that nobody survives, or a message that nobody can cut, is put aside with the reason."""
    queue = Queue(whole, redelivered)
    assert queue.taken == []
    assert queue.waiting == []
    (parked,) = queue.broker.parked()
    assert reason in parked.reason
    assert parked.message == whole
    assert parked.at > datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("redelivered", [LIMIT, 2 * LIMIT - 1])
def test_a_single_suspect_is_tried_alone(redelivered: int) -> None:
    """It may only have been held beside the one at fault: it is processed by itself, and is nothing to anybody else."""
    queue = Queue(message(1), redelivered)
    assert (queue.taken, queue.waiting, queue.broker.parked()) == ([], [], [])
    assert queue.suspects.waits
    assert [each.message.count for each in queue.suspects.next_alone()] == [1]
    assert not queue.suspects.waits
    assert queue.suspects.next_alone() == []


def test_parts_know_their_places() -> None:
    """Receipts and dead letters name the place in the envelope that the producer sent."""
    parts = opened(divide(transfers(3), JSON), JSON)
    assert [part.header.first for part in parts] == [0, 1, 2]


@pytest.mark.parametrize("prefetch", [1, 20])
@pytest.mark.parametrize("unseen", [0, 3])
def test_on_rabbitmq_the_record_that_kills_is_parked_alone(vhost: Vhost, unseen: int, prefetch: int) -> None:
    """At the delivery limit an envelope is tried record by record; those held beside the deadly one are all stored."""
    settings = vhost.settings(delivery_limit=2)
    limit = settings.broker.delivery_limit
    ids = batch_of(JOB, job_rows(8)).ids
    stored: Counter[bytes] = Counter()
    deaths = 0

    def collect_or_die(consumer: RabbitConsumer) -> bool:
        """One collector, which dies of the third record before it acknowledges anything; whether it lives."""
        suspects = Suspects("q", consumer, limit)
        while deliveries := consumer.receive(1.0):
            waiting = suspects.taken_out(deliveries)
            while chosen := suspects.next_alone() or waiting[:1]:
                waiting = [each for each in waiting if each is not chosen[0]]
                (parcel,) = opened([chosen[0].message.body], chosen[0].message.content_type)
                if ids[2] in parcel.ids:
                    return False
                stored.update(parcel.ids)
                consumer.acknowledge(chosen)
        return True

    with open_broker(settings.broker.url, settings) as broker:
        broker.declare({"q": ("#",)})
        with closing(broker.publisher()) as publisher:
            publisher.publish([message(8)])
        for _ in range(unseen):
            # Whoever dies of something else does so before anybody looks at how often the message came.
            with closing(broker.consumer("q", "c", 1)) as consumer:
                eventually(lambda: bool(consumer.receive(1.0)))  # called before the next turn.
        place = f"queues/{vhost.path}/siteward.q.returned" if unseen else f"queues/{vhost.path}/siteward.q"
        eventually(lambda: vhost.node.api("GET", place).get("messages") == 1)
        lives = False
        while not lives and deaths < 20:
            with closing(broker.consumer("q", "c", prefetch)) as consumer:
                lives = collect_or_die(consumer)
            deaths += not lives
        (parked,) = broker.parked()
        assert opened([parked.message.body], parked.message.content_type)[0].ids == [ids[2]]
        assert parked.reason == f"was delivered {2 * limit} times and never acknowledged: it may kill its collectors"
        assert (broker.status()[0].ready, broker.status()[0].parked) == (0, 1)
    assert stored == Counter({each: 1 for each in ids if each != ids[2]})
