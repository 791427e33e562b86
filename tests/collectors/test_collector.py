"""The consumer and its pipeline: nothing lost, nothing twice, whatever fails between broker and sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from examples import JOB, NOON, job_rows
from in_memory import MemoryBroker, MemoryConsumer, MemorySink, broken, dies_after_commit, unavailable

from collectors import pipeline as pipeline_module
from collectors.consumer import Collector
from collectors.dead_letters import DeadLetters, Stage
from collectors.pipeline import Pipeline
from collectors.receipts import Receipts
from collectors.session import Filling
from collectors.steps import UNREADABLE, Enrichment
from siteward.broker import Delivery, Message
from siteward.broker.topology import routing_key
from siteward.envelope import JSON, open_envelope, seal
from siteward.records import microseconds
from siteward.server.people_table import PeopleTable
from siteward.settings import BrokerSettings, CollectorSettings, Settings
from siteward.sinks import Batch
from siteward.telemetry import CONSUMED, DEAD_LETTERED, HELD_OLDEST, SINK_FAILURES, WRITTEN, telemetry

SENT = microseconds(NOON)
QUICK = CollectorSettings(batch_records=2_000, batch_age=0.02)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off as in real life, only shorter."""
    delays = pipeline_module.delays
    monkeypatch.setattr(pipeline_module, "delays", lambda: delays(0.01, 0.05))
    monkeypatch.setattr("collectors.consumer.delays", lambda: delays(0.01, 0.05))
    monkeypatch.setattr("collectors.session.LOOK_SECONDS", 0.02)
    telemetry.reset()


def message(count: int, first: int = 0, *, receipt: bool = False) -> Message:
    """An envelope of `count` jobs, numbered from `first`."""
    rows = job_rows(first + count)[first:]
    return Message(routing_key("example", "job"), seal(JOB, rows, "test", SENT, receipt=receipt), count)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something to become true; fail if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Scene:
    """One queue, its collector and what is around it."""

    def __init__(self, folder: Path, sink: MemorySink, settings: Settings, enrichments: list[Enrichment]) -> None:
        self.broker = MemoryBroker("monitoring")
        self.sink = sink
        self.letters = DeadLetters(folder / "collectors.sqlite")
        self.receipts = Receipts(folder / "collectors.sqlite")
        self.stop = threading.Event()
        self.people = PeopleTable(settings)
        pipeline = Pipeline(
            "monitoring", {"job": JOB}, sink.open, self.letters, self.receipts, self.people, enrichments
        )
        self.collector = Collector("monitoring", self.broker, pipeline, self.letters, settings)
        self.thread = threading.Thread(target=self.collector.run, args=(self.stop,))

    def publish(self, *messages: Message) -> None:
        self.broker.put(messages)

    @property
    def done(self) -> int:
        return sum(delivery.message.count for delivery in self.broker.acknowledged)


@contextmanager
def collecting(
    folder: Path,
    sink: MemorySink | None = None,
    *,
    collector: CollectorSettings = QUICK,
    prefetch: int = 200,
    enrichments: list[Enrichment] | None = None,
) -> Iterator[Scene]:
    settings = Settings(data=str(folder), collector=collector, broker=BrokerSettings(prefetch=prefetch))
    scene = Scene(folder, sink or MemorySink(), settings, enrichments or [])
    scene.thread.start()
    try:
        yield scene
    finally:
        scene.stop.set()
        scene.thread.join(10)
        assert not scene.thread.is_alive()
        scene.letters.close()
        scene.receipts.close()
        scene.people.close()


def test_every_record_reaches_the_sink_once_and_is_then_acknowledged(tmp_path: Path) -> None:
    """What is published is stored, and counted by outcome."""
    with collecting(tmp_path) as scene:
        scene.publish(*(message(100, 100 * number) for number in range(30)))
        until(lambda: scene.done == 3_000)
        assert len(scene.sink.stored) == 3_000
        assert telemetry.value(WRITTEN, "monitoring", "job", "stored") == 3_000
        assert telemetry.value(CONSUMED, "monitoring", "job") == 3_000


def test_batches_are_filled_by_count_and_by_age(tmp_path: Path) -> None:
    """A backlog is written in large batches; a single record does not wait for company."""
    with collecting(tmp_path, collector=CollectorSettings(batch_records=1_000, batch_age=0.05)) as scene:
        scene.publish(*(message(100, 100 * number) for number in range(20)))
        until(lambda: scene.done == 2_000)
        scene.publish(message(1, 9_000))
        until(lambda: scene.done == 2_001)
        assert scene.sink.writes[-1] == 1
        assert max(scene.sink.writes) == 1_000


@pytest.mark.parametrize("fault", [unavailable, broken, dies_after_commit])
def test_a_failing_sink_is_retried_until_it_commits(tmp_path: Path, fault: Callable[[MemorySink, Batch], None]) -> None:
    """Failures delay: in the end all is stored once, and nothing was acknowledged before."""
    sink = MemorySink([fault, fault, fault])
    with collecting(tmp_path, sink) as scene:
        scene.publish(message(50))
        until(lambda: scene.done == 50)
        assert len(sink.stored) == 50
        assert telemetry.value(SINK_FAILURES, "monitoring") == 3
        assert sink.opened == (4 if fault is broken else 1)


def test_a_sink_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    """Records wait in the broker until the sink opens."""

    class Reluctant(MemorySink):
        def open(self) -> MemorySink:
            super().open()
            if self.opened < 4:
                message = "locked by another process"
                raise OSError(message)
            return self

    with collecting(tmp_path, Reluctant()) as scene:
        scene.publish(message(5))
        until(lambda: scene.done == 5)
        assert scene.sink.opened == 4


def test_memory_stays_bounded_while_a_sink_is_away(tmp_path: Path) -> None:
    """A collector holds no more messages than the prefetch limit, however many wait."""
    sink = MemorySink([unavailable] * 20)
    with collecting(tmp_path, sink, prefetch=10) as scene:
        scene.publish(*(message(1, number) for number in range(200)))
        until(lambda: not sink.faults)
        until(lambda: scene.done == 200)
        assert scene.broker.most_held <= 10
        assert len(sink.stored) == 200


def test_stopping_while_the_sink_is_away_gives_everything_back(tmp_path: Path) -> None:
    """A stop is not held up by a sink that fails; the messages wait in the broker."""
    sink = MemorySink([unavailable] * 10_000)
    with collecting(tmp_path, sink) as scene:
        scene.publish(message(5), message(5, 5))
        until(lambda: len(sink.faults) < 9_998)
    assert scene.done == 0
    assert sum(each.count for _, each, _ in scene.broker.queues["monitoring"]) == 10


def test_stopping_finishes_the_batch_in_hand(tmp_path: Path) -> None:
    """A write that runs when the stop comes is acknowledged; what was not begun is given back."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(_sink: MemorySink, _batch: Batch) -> None:
        begun.set()
        assert go_on.wait(10)

    with collecting(tmp_path, MemorySink([slow])) as scene:
        scene.publish(message(10))
        assert begun.wait(10)
        scene.publish(message(10, 10))
        scene.stop.set()
        go_on.set()
    assert scene.done == 10
    assert len(scene.sink.stored) == 10
    assert len(scene.broker.queues["monitoring"]) == 1


def test_a_lost_broker_is_looked_for_again_and_redelivery_stores_nothing_twice(tmp_path: Path) -> None:
    """Between commit and acknowledgement the connection may break: the records come again, as duplicates."""
    holder: list[Scene] = []

    def connection_breaks(_sink: MemorySink, _batch: Batch) -> None:
        holder[0].broker.away = True

    with collecting(tmp_path, MemorySink([connection_breaks])) as scene:
        holder.append(scene)
        scene.publish(message(20))
        until(lambda: scene.sink.stored and scene.broker.turned_away)
        scene.broker.away = False
        until(lambda: scene.done == 20)
        assert len(scene.sink.stored) == 20
        assert telemetry.value(WRITTEN, "monitoring", "job", "duplicate") == 20


def test_one_bad_record_among_thousands_becomes_a_dead_letter(tmp_path: Path) -> None:
    """The others are stored at once; the bad one keeps its reason, producer and bytes."""
    rows = job_rows(5_000)
    body = seal(JOB, rows, "pilot@node7", SENT).replace(b"submit.example.org", b"submit\0example.org", 1)
    with collecting(tmp_path) as scene:
        scene.publish(Message(routing_key("example", "job"), body, 5_000))
        until(lambda: scene.done == 5_000)
        assert len(scene.sink.stored) == 4_999
        (letter,) = scene.letters.find()
    assert (letter.queue, letter.kind, letter.vo, letter.producer) == ("monitoring", "job", "example", "pilot@node7")
    assert (letter.field, letter.reason) == ("submit_host", "contains a NUL character")
    assert (letter.stage, letter.times) == (Stage.VALIDATE, 1)
    assert b'"local_job_id": "0"' in letter.original
    assert telemetry.value(DEAD_LETTERED, "monitoring", "job") == 1


def test_a_record_that_the_sink_rejects_becomes_a_dead_letter(tmp_path: Path) -> None:
    """It keeps its record id, so that a later rejection of the same record is the same letter."""
    sink = MemorySink()
    sink.reject = lambda fields: fields["site"] == "SITE-3"
    with collecting(tmp_path, sink) as scene:
        scene.publish(message(7))
        until(lambda: scene.done == 7)
        scene.publish(message(7))
        until(lambda: scene.done == 14)
        (letter,) = scene.letters.find()
    assert (letter.stage, letter.reason, letter.times) == (Stage.WRITE, "the sink does not like it", 2)
    assert letter.record not in sink.stored
    assert len(sink.stored) == 6


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (Message("example.job", b"\xc1 not an envelope"), "is not an envelope"),
        (Message("example.job", b"{}", content_type="text/html"), "expected the content type"),
        (Message("example.job", b"[1, 2", content_type=JSON), "is not an envelope"),
        (Message("example.job", b"junk", content_encoding="zstd"), "is not zstd"),
        (Message("example.job", b"junk", content_encoding="lzma"), "expected gzip, zstd or identity"),
        (Message("nodots", b""), "is not <vo>.<kind>"),
        (Message("other.job", seal(JOB, job_rows(1), "test", SENT)), "disagrees with the routing key"),
    ],
)
def test_a_message_that_cannot_be_read_is_put_aside_whole(tmp_path: Path, poison: Message, reason: str) -> None:
    """It is parked with the reason; the messages around it are stored."""
    with collecting(tmp_path) as scene:
        scene.publish(message(3), poison, message(3, 3))
        until(lambda: scene.done == 6)
        (parked,) = scene.broker.put_aside
        assert reason in parked.reason
        assert parked.message == poison
        assert len(scene.sink.stored) == 6


def test_a_reader_that_fails_in_an_unexpected_way_parks_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the decoder costs one message its place, not the queue its collector."""

    def fails(body: bytes, *args: object, **options: object) -> object:
        if body == b"surprise":
            message = "unexpected"
            raise ZeroDivisionError(message)
        return open_envelope(body, *args, **options)  # type: ignore[arg-type]  # passed on as they came.

    monkeypatch.setattr("collectors.steps.open_envelope", fails)
    with collecting(tmp_path) as scene:
        scene.publish(Message("example.job", b"surprise"), message(2))
        until(lambda: scene.done == 2)
        assert "ZeroDivisionError" in scene.broker.put_aside[0].reason


def test_what_an_unreadable_message_says_of_itself_stops_nothing(tmp_path: Path) -> None:
    """However many records it claims to hold it is one, and whatever its id is, the next messages are stored."""
    with collecting(tmp_path) as scene:
        scene.publish(Message("example.job", b"junk", 2**62), Message("example.job", b"junk", 50_000, id="\xff"))
        # What a broker of somebody else's might give.
        scene.publish(msgspec.structs.replace(message(1), body=b"junk", id=b"\xff"), message(10))
        until(lambda: len(scene.sink.stored) == 10 and len(scene.broker.put_aside) == 3)
        assert scene.letters.stops() == []
        assert telemetry.value(CONSUMED, "monitoring", UNREADABLE) == 3
        until(lambda: telemetry.value(DEAD_LETTERED, "monitoring", UNREADABLE) == 3)


def bad_message(count: int, first: int = 0) -> Message:
    """An envelope of jobs that are all refused."""
    body = seal(JOB, job_rows(first + count)[first:], "test", SENT).replace(b"submit.example", b"submit\0example")
    return Message(routing_key("example", "job"), body, count)


def test_a_flood_of_refused_records_stops_the_consumer_until_somebody_resumes_it(tmp_path: Path) -> None:
    """The queue is not drained into the dead letters; the reason is kept over restarts and says what to do."""
    limits = CollectorSettings(batch_records=100, batch_age=0.01, dead_letter_count=150, dead_letter_share=0.5)
    with collecting(tmp_path, collector=limits) as scene:
        scene.publish(*(bad_message(100, 100 * number) for number in range(20)))
        until(lambda: scene.letters.stops())
        (stop,) = scene.letters.stops()
        assert stop.reason.startswith("stopped: flood of refused records: 200 of the last 200")
        assert "siteward dead-letters resume" in stop.reason
        assert scene.letters.count() == 200
    scene_broker = scene.broker
    assert len(scene_broker.queues["monitoring"]) == 18
    with collecting(tmp_path) as again:
        again.publish(message(10))
        time.sleep(0.1)
        assert again.done == 0
        assert again.letters.resume() == ["monitoring"]
        until(lambda: again.done == 10)


def test_receipts_are_noted_for_those_who_asked(tmp_path: Path) -> None:
    """Stored, duplicate and parked records each leave their word; others leave nothing."""
    with collecting(tmp_path) as scene:
        scene.publish(message(2, receipt=True))
        until(lambda: scene.done == 2)
        scene.publish(message(1, receipt=True), message(1, 7))
        until(lambda: scene.done == 4)
        words = [
            [[sink.outcome for sink in submission.sinks] for submission in scene.receipts.of(record, ["monitoring"])]
            for record in scene.sink.stored
        ]
    assert words == [[["duplicate"], ["stored"]], [["stored"]], []]


def test_an_enrichment_adds_to_the_records_before_they_are_written(tmp_path: Path) -> None:
    """Extensions may fill in what a producer cannot know."""

    def name_project(batch: Batch) -> Batch:
        batch.columns["project"] = [f"project of {site}" for site in batch.columns["site"]]
        return batch

    with collecting(tmp_path, enrichments=[name_project]) as scene:
        scene.publish(message(1))
        until(lambda: scene.done == 1)
        (fields,) = scene.sink.stored.values()
        assert fields["project"] == "project of SITE-0"


def test_the_next_batch_is_decoded_while_one_is_written(tmp_path: Path) -> None:
    """Two threads work at once: no more than one haul is ahead of the sink."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(_sink: MemorySink, _batch: Batch) -> None:
        begun.set()
        assert go_on.wait(10)

    limits = CollectorSettings(batch_records=10, batch_age=0.01)
    with collecting(tmp_path, MemorySink([slow]), collector=limits, prefetch=1000) as scene:
        scene.publish(*(message(10, 10 * number) for number in range(10)))
        assert begun.wait(10)
        until(lambda: telemetry.value(CONSUMED, "monitoring", "job") == 20)
        time.sleep(0.1)
        assert telemetry.value(CONSUMED, "monitoring", "job") == 20
        go_on.set()
        until(lambda: scene.done == 100)


class DatedConsumer(MemoryConsumer):
    """Says when a message was published, as its id names it in seconds since 1970."""

    def receive(self, wait: float) -> list[Delivery]:
        return [
            msgspec.structs.replace(each, published=round(float(each.message.id or 0) * 1e6))
            for each in super().receive(wait)
        ]


def test_the_age_of_the_oldest_message_in_hand_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows while the sink does not get on, whatever newer messages come, and ends when the message is stored."""
    go_on = threading.Event()

    def slow(_sink: MemorySink, _batch: Batch) -> None:
        assert go_on.wait(10)

    def age() -> float:
        return telemetry.value(HELD_OLDEST, "monitoring")

    monkeypatch.setattr(
        MemoryBroker, "consumer", lambda broker, queue, _name, prefetch: DatedConsumer(broker, queue, prefetch)
    )
    now = time.time()
    with collecting(tmp_path, MemorySink([slow])) as scene:
        assert age() == 0
        scene.publish(*(msgspec.structs.replace(message(1, n), id=str(now - 100 * n)) for n in (1, 3, 2)))
        until(lambda: 300 <= age() < 400)
        reached = age()
        scene.publish(msgspec.structs.replace(message(1, 4), id=str(now - 50)), message(1, 5))
        until(lambda: reached < age() < 400)
        go_on.set()
        until(lambda: scene.done == 5 and age() == 0)


def test_filling_waits_for_records_age_or_messages() -> None:
    """A haul is due by whichever limit is met first, and takes no more than the limits say."""

    def deliveries(*counts: int) -> list[Delivery]:
        return [Delivery(Message("a.b", b"", count), tag) for tag, count in enumerate(counts)]

    filling = Filling(records=100, age=5.0, messages=4)
    assert filling.take(0.0) == []
    filling.add(deliveries(10, 10), 0.0)
    assert filling.take(4.9) == []
    assert len(filling.take(5.0)) == 2
    filling.add(deliveries(60, 60, 60), 6.0)
    assert len(filling.take(6.0)) == 2
    assert filling.take(6.0) == []
    filling.add(deliveries(1, 1, 1, 1), 6.0)
    assert len(filling.take(6.0)) == 4
