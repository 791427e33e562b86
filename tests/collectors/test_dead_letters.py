"""Dead letters: kept until a person decides, and what happens when one does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from examples import JOB, NOW, job
from in_memory import MemoryBroker, MemorySink

from collectors.dead_letters import DeadLetters, Decided, Letter, Stage, State, UnknownLetter, Which, place_id
from collectors.resubmission import Resubmission
from siteward.broker import BrokerUnavailable
from siteward.envelope import as_json, open_envelope
from siteward.records import Kind, Refused, kind_from_table
from siteward.server.people_table import PeopleTable
from siteward.settings import Settings

MESSAGE = b"m" * 16
NOTICE = kind_from_table(
    "notice", {"doc": "A line.", "shape": "event", "dimensions": {"text": {"doc": "What it says."}}}
)
"""A kind without identity."""


@pytest.fixture
def people(tmp_path: Path) -> Iterator[PeopleTable]:
    """A table of people."""
    with closing(PeopleTable(Settings(data=str(tmp_path)))) as table:
        yield table


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[DeadLetters]:
    with DeadLetters(tmp_path / "collectors.sqlite") as opened:
        yield opened


def letter(number: int = 0, **changes: Any) -> Letter:
    """A job refused for its wall time."""
    fields: dict[str, Any] = {
        "queue": "monitoring",
        "record": place_id(MESSAGE, number),
        "stage": Stage.VALIDATE,
        "kind": "job",
        "vo": "example",
        "producer": "pilot@node7",
        "message": MESSAGE,
        "refused": Refused("expected int >= 0", kind="job", field="wall_time", value=-1),
        "original": original(number, wall_time=-1),
    }
    return Letter(**(fields | changes))


def original(number: int, **changes: Any) -> bytes:
    """A job as the JSON object that the dead letters keep."""
    row = JOB.row_of(job(number), NOW)
    return json.dumps(json.loads(as_json(JOB, [getattr(row, name) for name in JOB.names])) | changes).encode()


def test_a_redelivered_letter_is_the_same_letter(letters: DeadLetters) -> None:
    """A crash between commit and acknowledgement leaves no trace."""
    letters.put([letter(), letter(1)], NOW)
    letters.put([letter(), letter(1)], NOW + 5)
    first, second = letters.find()
    assert (first.times, first.first_seen, first.last_seen) == (1, NOW, NOW)
    assert (first.field, first.value, first.reason) == ("wall_time", "-1", "expected int >= 0")
    assert second.number > first.number


def test_a_record_that_comes_again_in_another_message_is_counted_and_open_again(letters: DeadLetters) -> None:
    """What was discarded stays so, unless its bytes have changed."""
    letters.put([letter(), letter(1)], NOW)
    first, second = letters.find()
    letters.discard(first.number, "ann", "test data", NOW)
    letters.discard(second.number, "ann", "test data", NOW)
    letters.put([letter(message=b"n" * 16), letter(1, message=b"n" * 16, original=b"{}")], NOW + 9)
    assert [(each.state, each.times, each.last_seen) for each in letters.find()] == [
        (State.DISCARDED, 2, NOW + 9),
        (State.OPEN, 2, NOW + 9),
    ]


def test_letters_are_found_by_what_is_known_of_them(letters: DeadLetters) -> None:
    """By state, kind, VO, queue, part of the reason; in pages."""
    letters.put([letter(number) for number in range(5)], NOW)
    letters.put([letter(9, vo="other", refused=Refused("is missing", field="Site"))], NOW)
    assert len(letters.find(Which(vo="example"))) == 5
    assert [each.vo for each in letters.find(Which(reason="MISSING site"))] == ["other"]
    assert letters.count(Which(queue="monitoring", kind="job", state="open")) == 6
    assert letters.count(Which(kind="host")) == 0
    page = letters.find(limit=2)
    assert [each.number for each in letters.find(limit=2, after=page[-1].number)] == [3, 4]
    assert letters.counts() == [("monitoring", "job", "open", 6)]


def test_a_letter_may_hold_any_text(letters: DeadLetters) -> None:
    """Half characters and NULs are somebody's mistake, and are kept in a form that can be shown."""
    letters.put([letter(producer="\ud800", refused=Refused("bad \udfff", field="\ud800\0"))], NOW)
    (found,) = letters.find()
    assert (found.producer, found.reason) == ("\\ud800", "bad \\udfff")


def test_an_unknown_number_is_an_error(letters: DeadLetters) -> None:
    """Nobody decides about nothing."""
    letters.put([letter()], NOW)
    with pytest.raises(UnknownLetter, match="no dead letter 7"):
        letters.discard(7, "ann", "", NOW)
    with pytest.raises(UnknownLetter):
        letters.show(0)


def test_two_processes_share_the_file(tmp_path: Path) -> None:
    """What one has committed the other sees; both may write."""
    path = tmp_path / "deep" / "collectors.sqlite"
    with DeadLetters(path) as one, DeadLetters(path) as other:
        one.put([letter()], NOW)
        other.put([letter(1)], NOW)
        assert one.count() == other.count() == 2


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older program does not touch what it does not understand."""
    path = tmp_path / "collectors.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="newer Siteward"):
        DeadLetters(path)


class Desk:
    """A person's desk: letters, a broker and a sink."""

    def __init__(self, letters: DeadLetters, kinds: dict[str, Kind], people: PeopleTable) -> None:
        self.letters = letters
        self.kinds = kinds
        self.broker = MemoryBroker("monitoring", "ledger")
        self.sink = MemorySink()
        self.again = Resubmission(letters, kinds, self.broker, lambda _: self.sink, people)

    def published_ids(self) -> list[bytes]:
        """Record ids of everything that was sent again."""
        bodies = [(message.body, message.content_type) for message in self.broker.published]
        return [id_ for body, type_ in bodies for id_ in open_envelope(body, type_, self.kinds, NOW).ids]


def test_a_fixed_record_is_validated_sent_and_noted(letters: DeadLetters, people: PeopleTable) -> None:
    """The mended record goes to the broker, and the audit says who did it."""
    desk = Desk(letters, {"job": JOB}, people)
    letters.put([letter()], NOW)
    with pytest.raises(Refused, match="wall_time"):
        desk.again.fix(1, original(0, wall_time=-2), "ann")
    assert letters.show(1).state is State.OPEN
    desk.again.fix(1, original(0, wall_time=5), "ann", "minus sign")
    assert letters.show(1).state is State.FIXED
    (decision,) = letters.audit(1)
    assert (decision.who, decision.action, decision.note) == ("ann", State.FIXED, "minus sign")
    assert decision.submitted == original(0, wall_time=5)
    assert desk.published_ids() == [JOB.id_of(JOB.row_of(job(), NOW))]


def test_a_replay_is_judged_by_the_kinds_of_today(letters: DeadLetters, people: PeopleTable) -> None:
    """What is refused still stays open; what is accepted now is sent as it was."""
    desk = Desk(letters, {"job": JOB}, people)
    letters.put([letter(), letter(1, original=original(1)), letter(2, kind="gone")], NOW)
    with pytest.raises(Refused, match="wall_time"):
        desk.again.replay(1, "ann")
    with pytest.raises(Refused, match="no kind of this name"):
        desk.again.replay(3, "ann")
    desk.again.replay(2, "ann")
    assert [each.state for each in letters.find()] == [State.OPEN, State.REPLAYED, State.OPEN]
    with pytest.raises(Decided, match="was replayed by ann"):
        desk.again.replay(2, "ann")
    with pytest.raises(Decided):
        letters.discard(2, "ann", "", NOW)


def test_a_discarded_letter_may_still_be_replayed(letters: DeadLetters, people: PeopleTable) -> None:
    """People change their minds; the audit keeps both decisions."""
    desk = Desk(letters, {"job": JOB}, people)
    letters.put([letter(original=original(0))], NOW)
    letters.discard(1, "ann", "noise", NOW)
    desk.again.replay(1, "bob", "not noise")
    assert [each.who for each in letters.audit(1)] == ["ann", "bob"]


def test_a_broker_that_is_away_leaves_the_letter_open(letters: DeadLetters, people: PeopleTable) -> None:
    """A letter is marked after its record was taken, never before."""
    desk = Desk(letters, {"job": JOB}, people)
    letters.put([letter(original=original(0))], NOW)
    desk.broker.away = True
    with pytest.raises(BrokerUnavailable):
        desk.again.replay(1, "ann")
    assert letters.show(1).state is State.OPEN
    assert letters.audit(1) == []


def test_a_repeated_replay_gives_the_same_record(
    letters: DeadLetters, people: PeopleTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between sending and marking, a replay is done again: even a kind without identity is stored once."""
    desk = Desk(letters, {"notice": NOTICE}, people)
    text = b'{"vo": "example", "time": "2026-03-02T12:00:00Z", "text": "hello"}'
    letters.put([letter(kind="notice", original=text), letter(kind="notice", queue="ledger", original=text)], NOW)
    with monkeypatch.context() as patch:
        patch.setattr(DeadLetters, "decide", lambda *_: None)
        desk.again.replay(1, "ann")
    desk.again.replay(1, "ann")
    desk.again.replay(2, "ann")
    assert len(desk.published_ids()) == 3
    assert len(set(desk.published_ids())) == 1


def test_what_one_sink_rejected_without_identity_goes_back_to_that_sink_only(
    letters: DeadLetters, people: PeopleTable
) -> None:
    """The other sinks have it under its first id; a new envelope would make it another record."""
    desk = Desk(letters, {"notice": NOTICE}, people)
    text = b'{"vo": "example", "time": "2026-03-02T12:00:00Z", "text": "hello"}'
    known = b"k" * 16
    letters.put([letter(kind="notice", record=known, stage=Stage.WRITE, original=text)], NOW)
    desk.sink.reject = lambda _: True
    with pytest.raises(Refused, match="the sink does not like it"):
        desk.again.replay(1, "ann")
    desk.sink.reject = lambda _: False
    desk.again.replay(1, "ann")
    assert list(desk.sink.stored) == [known]
    assert desk.broker.published == []
    assert letters.show(1).state is State.REPLAYED


def test_a_replayed_record_that_is_rejected_again_is_open_again(letters: DeadLetters, people: PeopleTable) -> None:
    """Nothing hides behind an old decision."""
    known = JOB.id_of(JOB.row_of(job(), NOW))
    rejected = letter(record=known, stage=Stage.WRITE, original=original(0))
    letters.put([rejected], NOW)
    Desk(letters, {"job": JOB}, people).again.replay(1, "ann")
    letters.put([letter(record=known, stage=Stage.WRITE, original=original(0), message=b"n" * 16)], NOW + 1)
    assert letters.show(1).state is State.OPEN


def test_a_record_rejected_after_each_replay_is_open_after_each(letters: DeadLetters, people: PeopleTable) -> None:
    """The second time is news too, though nothing has changed."""
    known = JOB.id_of(JOB.row_of(job(), NOW))
    letters.put([letter(record=known, stage=Stage.WRITE, original=original(0))], NOW)
    desk = Desk(letters, {"job": JOB}, people)
    for _ in range(3):
        desk.again.replay(1, "ann")
        sent = bytes.fromhex(desk.broker.published[-1].id)
        letters.put([letter(record=known, stage=Stage.WRITE, original=original(0), message=sent)], NOW)
        assert letters.show(1).state is State.OPEN
