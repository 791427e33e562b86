"""What the Emitter promises: accepted is confirmed or on disk, the caller is never disturbed, limits hold."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from examples import JOB, job

from siteward.broker import BrokerUnavailable, Forbidden, Message, opening
from siteward.broker.embedded import EmbeddedPublisher
from siteward.broker.opening import open_declared
from siteward.emit import AsyncEmitter, Emitter
from siteward.emit import sender as sender_module
from siteward.emit.buffer import Pending
from siteward.envelope import open_envelope
from siteward.kinds import load_kinds
from siteward.records import Event, Refused, kind_of
from siteward.settings import Settings, load_settings

FAR = 4_000_000_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a data folder of the test's own."""
    return load_settings(environ={"SITEWARD_DATA": str(tmp_path)})


def _arrived(settings: Settings) -> list[str]:
    """Local job ids of every record that waits in the monitoring queue, in order; takes them all."""
    broker = open_declared(settings)
    consumer = broker.consumer("monitoring", "test", 10_000)
    found: list[str] = []
    while deliveries := consumer.receive(0):
        for delivery in deliveries:
            message = delivery.message
            found += open_envelope(message.body, message.content_type, {"job": JOB}, FAR).columns["local_job_id"]
        consumer.acknowledge(deliveries)
    consumer.close()
    broker.close()
    return found


def _numbers(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


class Outage:
    """Makes the broker unreachable while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        real = opening.open_declared

        def opened(settings: Settings) -> Any:
            if self.on:
                reason = "switched off by the test"
                raise BrokerUnavailable(reason)
            return real(settings)

        monkeypatch.setattr(opening, "open_declared", opened)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """A broker that is away from the start; spools are looked at often."""
    monkeypatch.setattr(sender_module, "REPLAY_SECONDS", 0.05)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE", 0.2)
    return Outage(monkeypatch)


def test_everything_emitted_is_in_the_queue_after_close(settings: Settings) -> None:
    """Leaving the block sends all, in order."""
    with Emitter(settings) as emitter:
        for number in range(1234):
            assert emitter.emit(job(number)) is None
    assert _arrived(settings) == _numbers(1234)


def test_flush_returns_when_records_are_confirmed(settings: Settings) -> None:
    """After flush, what was emitted survives the process."""
    with Emitter(settings) as emitter:
        emitter.emit(job(1))
        assert emitter.flush(10)
        assert _arrived(settings) == ["1"]


def test_records_leave_by_themselves_within_the_batch_age(settings: Settings) -> None:
    """Nobody needs to call flush."""
    with Emitter(settings) as emitter:
        emitter.emit(job(1))
        deadline = time.monotonic() + 10
        while not (found := _arrived(settings)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found == ["1"]


def test_a_bad_record_is_answered_not_raised(settings: Settings) -> None:
    """Whatever is emitted, the caller gets a reason and its work goes on."""

    class Odd(Event):
        """A class that declares no kind."""

    wrong: list[Any] = [job(wall_time=-1), job(end=None), Odd(vo="x", time=None), None, object(), {"vo": "x"}]  # type: ignore[arg-type]
    with Emitter(settings) as emitter:
        for record in wrong:
            assert isinstance(emitter.emit(record), Refused)
        assert emitter.emit(job(1)) is None
    assert _arrived(settings) == ["1"]


def test_a_record_changed_after_emit_is_sent_as_it_was(settings: Settings) -> None:
    """emit copies: programs reuse their objects."""
    record = job(1)
    with Emitter(settings) as emitter:
        emitter.emit(record)
        record.local_job_id = "changed"
    assert _arrived(settings) == ["1"]


def test_nothing_is_emitted_after_close(settings: Settings) -> None:
    """A closed emitter says so instead of losing records in silence."""
    emitter = Emitter(settings)
    emitter.close()
    refused = emitter.emit(job(1))
    assert refused is not None
    assert "closed" in refused.reason


def test_an_outage_is_bridged_by_the_spool(settings: Settings, outage: Outage) -> None:
    """While the broker is away records go to disk; when it is back they arrive, all and once."""
    with Emitter(settings) as emitter:
        for number in range(300):
            emitter.emit(job(number))
            if number % 100 == 99:
                assert emitter.flush(10)
        outage.on = False
        deadline = time.monotonic() + 20
        found: list[str] = []
        while len(found) < 300 and time.monotonic() < deadline:
            found += _arrived(settings)
            time.sleep(0.05)
    assert found == _numbers(300)


def test_the_next_program_sends_what_the_last_one_spooled(settings: Settings, outage: Outage) -> None:
    """A spool outlives its program; any later emitter empties it."""
    with Emitter(settings) as emitter:
        emitter.emit(job(1))
    outage.on = False
    assert _arrived(settings) == []
    with Emitter(settings) as emitter:
        emitter.emit(job(2))
        deadline = time.monotonic() + 20
        found: list[str] = []
        while len(found) < 2 and time.monotonic() < deadline:
            found += _arrived(settings)
            time.sleep(0.05)
    assert sorted(found) == ["1", "2"]


class Ban:
    """A broker that forbids one routing key while it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        self.on = True
        self.asked = 0
        real = EmbeddedPublisher.publish

        def publish(publisher: EmbeddedPublisher, messages: Sequence[Message]) -> None:
            if self.on and publisher._file.path.name == "broker.sqlite" and any(each.key == key for each in messages):
                self.asked += 1
                reason = f"the user may not publish {key}"
                raise Forbidden(reason, key)
            real(publisher, messages)

        monkeypatch.setattr(EmbeddedPublisher, "publish", publish)


def test_a_forbidden_vo_is_refused_aloud_and_holds_up_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker forbids stays on disk, is refused from then on, and all other records arrive."""
    monkeypatch.setattr(sender_module, "REPLAY_SECONDS", 0.05)
    ban = Ban(monkeypatch, "foreign.job")
    with Emitter(settings) as emitter:
        assert emitter.emit(job(0, vo="foreign")) is None
        assert emitter.flush()
        refused = emitter.emit(job(1, vo="foreign"))
        assert refused is not None
        assert (refused.field, refused.value) == ("vo", "'foreign'")
        for number in range(2, 60):
            assert emitter.emit(job(number)) is None
            assert emitter.flush()
    assert ban.asked == 1, "it is not tried again and again"
    assert sorted(_arrived(settings), key=int) == _numbers(58, 2)
    ban.on = False
    with Emitter(settings) as emitter:
        assert emitter.emit(job(100)) is None
        _wait_until(lambda: set(_peeked(settings)) == {"0", "100"})


def _peeked(settings: Settings) -> list[str]:
    """Local job ids that wait, left where they are."""
    broker = open_declared(settings)
    consumer = broker.consumer("monitoring", "peek", 10_000)
    messages = [delivery.message for delivery in consumer.receive(0)]
    consumer.close()
    broker.close()
    return [
        name
        for message in messages
        for name in open_envelope(message.body, message.content_type, {"job": JOB}, FAR).columns["local_job_id"]
    ]


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_full_spool_refuses_new_records_and_keeps_old_ones(tmp_path: Path, outage: Outage) -> None:
    """Disk is bounded: beyond the limit memory fills, then emit refuses; what was accepted arrives."""
    environ = {"SITEWARD_DATA": str(tmp_path), "SITEWARD_EMITTER__SPOOL_BYTES": "3000"}
    environ |= {"SITEWARD_EMITTER__MEMORY_BYTES": "1", "SITEWARD_EMITTER__BATCH_RECORDS": "10"}
    settings = load_settings(environ=environ)
    emitter = Emitter(settings)
    accepted = []
    for number in range(500):
        if emitter.emit(job(number)) is None:
            accepted.append(str(number))
        if number % 10 == 0:
            emitter.flush(0.05)
    assert 10 <= len(accepted) < 500
    outage.on = False
    deadline = time.monotonic() + 20
    found: list[str] = []
    while len(found) < len(accepted) and time.monotonic() < deadline:
        found += _arrived(settings)
        time.sleep(0.05)
    emitter.close()
    assert sorted(found) == sorted(accepted)


def test_when_full_wait_makes_emit_wait_instead_of_refusing(tmp_path: Path) -> None:
    """Importers would rather wait than lose."""
    environ = {"SITEWARD_DATA": str(tmp_path), "SITEWARD_EMITTER__MEMORY_BYTES": "1"}
    settings = load_settings(environ=environ | {"SITEWARD_EMITTER__BATCH_RECORDS": "7"})
    with Emitter(settings, when_full="wait") as emitter:
        for number in range(200):
            assert emitter.emit(job(number)) is None
    assert _arrived(settings) == _numbers(200)


def test_large_batches_are_cut_into_envelopes(tmp_path: Path) -> None:
    """No envelope holds more records than the settings allow."""
    settings = load_settings(environ={"SITEWARD_DATA": str(tmp_path), "SITEWARD_EMITTER__BATCH_RECORDS": "50"})
    with Emitter(settings) as emitter:
        for number in range(225):
            emitter.emit(job(number))
    broker = open_declared(settings)
    consumer = broker.consumer("monitoring", "c", 100)
    assert max(delivery.message.count for delivery in consumer.receive(0)) <= 50
    consumer.close()
    broker.close()


def test_large_records_make_smaller_envelopes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """No envelope is larger than a collector reads, however large its records are."""
    monkeypatch.setattr(sender_module, "MAX_BYTES", 3_000)
    with Emitter(settings) as emitter:
        for number in range(225):
            emitter.emit(job(number))
    broker = open_declared(settings)
    consumer = broker.consumer("monitoring", "c", 1000)
    assert max(len(delivery.message.body) for delivery in consumer.receive(0)) <= 3_000
    consumer.close()
    broker.close()
    assert _arrived(settings) == _numbers(225)


def test_flush_waits_for_every_vo(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records emitted later, but sent earlier because of their VO, do not stand for those flushed."""
    held = threading.Event()
    seal = sender_module.Sender._seal

    def slow(self: sender_module.Sender, batch: Pending) -> list[Message]:
        if batch.vo == "second":
            held.wait(10)
        return seal(self, batch)

    monkeypatch.setattr(sender_module.Sender, "_seal", slow)
    with Emitter(settings) as emitter:
        emitter.emit(job(0, vo="first"))
        emitter.emit(job(1, vo="second"))
        emitter.emit(job(2, vo="first"))
        assert not emitter._buffer.wait_finished(2, 1)
        held.set()
        assert emitter.flush(10)
    assert sorted(_arrived(settings)) == ["0", "1", "2"]


def test_a_batch_that_cannot_be_sealed_holds_up_no_other(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in sealing costs its own batch, said aloud, and not the sender."""
    seal = sender_module.Sender._seal

    def broken(self: sender_module.Sender, batch: Pending) -> list[Message]:
        if batch.vo == "bad":
            reason = "a defect"
            raise RuntimeError(reason)
        return seal(self, batch)

    monkeypatch.setattr(sender_module.Sender, "_seal", broken)
    with Emitter(settings) as emitter:
        emitter.emit(job(0, vo="bad"))
        emitter.emit(job(1))
        assert emitter.flush(10)
    assert _arrived(settings) == ["1"]


def test_without_the_extra_messages_are_sent_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wish that cannot be met does not cost the records."""
    monkeypatch.setattr(sender_module, "find_spec", lambda _: None)
    settings = load_settings(environ={"SITEWARD_DATA": str(tmp_path), "SITEWARD_EMITTER__COMPRESS": "true"})
    with Emitter(settings) as emitter:
        emitter.emit(job(1))
    assert _arrived(settings) == ["1"]


def test_a_system_without_threads_is_an_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even then nothing is raised into the caller's work, and the next record is tried again."""

    def refused(_: threading.Thread) -> None:
        reason = "can't start new thread"
        raise RuntimeError(reason)

    with Emitter(settings) as emitter:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            assert isinstance(emitter.emit(job(1)), Refused)
        assert emitter.emit(job(2)) is None
    assert _arrived(settings) == ["2"]


@pytest.mark.parametrize("end", ["closed", "gone", "none"])
def test_a_program_that_nobody_listens_to_emits_all_the_same(settings: Settings, end: str) -> None:
    """A closed standard error, or one whose reader is gone: nothing is raised, the spool still takes the records."""
    program = """
        import os, sys
        from examples import job
        from siteward import Emitter
        from siteward.broker import opening

        def away(_):
            raise OSError("away")

        opening.open_declared, real = away, opening.open_declared
        end = sys.argv[1]
        if end == "closed":
            sys.stderr.close()
        elif end == "gone":
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, 2)
        else:
            sys.stderr = None
        emitter = Emitter()
        assert emitter.emit("no record") is not None
        assert emitter.emit(job(1)) is None
        assert emitter.flush(10)
        emitter.close()
        print("done")
        """
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), end],
        env=os.environ | {"SITEWARD_DATA": settings.data, "PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    # What is said belongs to standard error: another program may read the standard output.
    assert (done.returncode, done.stdout) == (0, b"done\n")
    with Emitter(settings) as emitter:
        emitter.emit(job(2))
        deadline = time.monotonic() + 10
        while emitter._sender._spool.peek() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert sorted(_arrived(settings)) == ["1", "2"]


@pytest.mark.parametrize("vos", [1, 2, 1000])
def test_a_burst_is_taken_whole(settings: Settings, vos: int) -> None:
    """A plain loop over thirty thousand records loses none with the default settings, however many VOs they are of."""
    ready = [job(number, vo=f"vo{number % vos}") for number in range(30_000)]
    with Emitter(settings) as emitter:
        assert [record for record in ready if emitter.emit(record) is not None] == []
    broker = open_declared(settings)
    assert broker.status()[0].records == 30_000
    broker.close()


def test_a_pipe_that_nobody_reads_does_not_block_emit(settings: Settings) -> None:
    """Standard error that is full blocks whoever writes to it; the program that emits does not."""
    program = "import fcntl\nend, full = os.pipe()\nos.dup2(full, 2)\nfcntl.fcntl(full, fcntl.F_SETFL, os.O_NONBLOCK)\n"
    program += "try:\n    while True: os.write(full, bytes(65536))\nexcept BlockingIOError: pass\n"
    program += "try:\n    while True: os.write(full, b'x')\nexcept BlockingIOError: pass\n"
    program += "fcntl.fcntl(full, fcntl.F_SETFL, 0)\nemitter = Emitter(settings)\n"
    program += "for n in range(20): assert emitter.emit(job(n, wall_time=-1)) is not None\n"
    program += "assert emitter.emit(job(1)) is None\nassert emitter.flush(20)\nos._exit(0)"
    assert _run(program, settings) == 0
    assert _arrived(settings) == ["1"]


def test_threads_may_share_an_emitter(settings: Settings) -> None:
    """Nothing is lost or doubled between threads."""
    with Emitter(settings) as emitter:
        threads = [
            threading.Thread(target=lambda first=first: [emitter.emit(job(n)) for n in range(first, first + 500)])
            for first in range(0, 2000, 500)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(_arrived(settings), key=int) == _numbers(2000)


def test_a_forked_child_sends_its_own_records_and_only_those(settings: Settings) -> None:
    """What waited in the parent is the parent's to send; the child starts with nothing and works."""
    emitter = Emitter(settings)
    emitter.emit(job(1))
    emitter.flush(10)
    emitter.emit(job(2))
    child = os.fork()
    if child == 0:
        emitter.emit(job(3))
        emitter.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    emitter.emit(job(4))
    emitter.close()
    assert sorted(_arrived(settings)) == ["1", "2", "3", "4"]


def test_a_parent_that_closes_takes_nothing_from_its_child(settings: Settings) -> None:
    """SQLite keeps its locks per process: without care, the parent's close would delete the child's log."""
    emitter = Emitter(settings)
    emitter.emit(job(1))
    assert emitter.flush(10)
    to_child, to_parent = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        emitter.emit(job(2))
        good = emitter.flush(10)
        os.write(to_parent[1], b"x")
        os.read(to_child[0], 1)
        emitter.emit(job(3))
        good = emitter.flush(10) and good
        os._exit(0 if good else 1)
    os.read(to_parent[0], 1)
    emitter.close()
    os.write(to_child[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*to_child, *to_parent):
        os.close(end)
    assert sorted(_arrived(settings)) == ["1", "2", "3"]


def test_forks_in_the_middle_of_sending_disturb_nobody(settings: Settings) -> None:
    """A process that forks while its threads write loses nothing, nor do the children hang."""
    children = []
    with Emitter(settings) as emitter:
        for number in range(2000):
            emitter.emit(job(number))
            if number % 200 == 100:
                child = os.fork()
                if child == 0:
                    emitter.emit(job(10_000 + number))
                    os._exit(0 if emitter.close(20) else 1)
                children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    expected = _numbers(2000) + [str(10_000 + number) for number in range(100, 2000, 200)]
    assert sorted(_arrived(settings), key=int) == expected


def test_asyncio_programs_emit_without_waiting(settings: Settings) -> None:
    """The same promises hold in an event loop."""

    async def program() -> None:
        async with AsyncEmitter(settings) as emitter:
            for number in range(10):
                assert await emitter.emit(job(number)) is None
            assert await emitter.flush(10)
        async with AsyncEmitter(settings, durable=True) as emitter:
            assert await emitter.emit(job(10)) is None

    asyncio.run(program())
    assert _arrived(settings) == _numbers(11)


def test_a_program_that_forgets_to_close_still_sends(settings: Settings) -> None:
    """Leaving the interpreter flushes."""
    _run("emitter = Emitter(settings)\nfor n in range(5): emitter.emit(job(n))", settings)
    assert _arrived(settings) == _numbers(5)


def test_a_durable_emitter_loses_nothing_when_killed(settings: Settings) -> None:
    """What a durable emit has accepted survives kill -9 in the next instruction."""
    program = "import signal\nemitter = Emitter(settings, durable=True)\n"
    program += "for n in range(20): assert emitter.emit(job(n)) is None\nos.kill(os.getpid(), signal.SIGKILL)"
    assert _run(program, settings) == -signal.SIGKILL
    assert _arrived(settings) == _numbers(20)


def test_a_durable_emitter_writes_to_the_spool_during_an_outage(settings: Settings, outage: Outage) -> None:
    """Durable means on disk, not at the broker."""
    with Emitter(settings, durable=True) as emitter:
        assert emitter.emit(job(1)) is None
    outage.on = False
    with Emitter(settings) as emitter:
        emitter.emit(job(2))
        deadline = time.monotonic() + 20
        found: list[str] = []
        while len(found) < 2 and time.monotonic() < deadline:
            found += _arrived(settings)
            time.sleep(0.05)
    assert sorted(found) == ["1", "2"]


def test_a_broker_that_breaks_in_an_unforeseen_way_is_an_outage(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a broker's library raises, records go to the spool and the program does not notice."""

    def broken(_: Settings) -> Any:
        reason = "a bug in somebody's library"
        raise RuntimeError(reason)

    monkeypatch.setattr(opening, "open_declared", broken)
    with Emitter(settings) as emitter:
        assert emitter.emit(job(1)) is None
        assert emitter.flush(10)


def test_kinds_of_the_settings_file_can_be_emitted_as_rows(settings: Settings) -> None:
    """A kind without a class is emitted through its row."""
    table = {"doc": "d", "shape": "event", "measures": {"n": {"doc": "n", "unit": "1"}}}
    kind = load_kinds({"beam": table})["beam"]
    row = kind.checked(["v", FAR, 3, False, 0], FAR)
    with Emitter(settings) as emitter:
        assert emitter.emit_row(kind, row) is None
    assert kind_of(type(job())) is JOB
    message = Message("v.beam", b"")
    assert message.count == 1


def _run(program: str, settings: Settings) -> int:
    head = f"""
    import os, sys
    sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
    from examples import job
    from siteward.emit import Emitter
    from siteward.settings import load_settings
    settings = load_settings(environ={{"SITEWARD_DATA": {settings.data!r}}})
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(head) + program], check=False, timeout=60).returncode
