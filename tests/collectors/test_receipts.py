"""Receipts: what became of a record, per sink and submission, for some days."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from examples import JOB, NOW

from collectors import receipts as receipts_module
from collectors.receipts import GATEWAY, WHOLE, Receipt, Receipts
from siteward.server.resources import Resources
from siteward.settings import GatewaySettings, Settings

RECORD, OTHER = b"r" * 16, b"o" * 16
FIRST, SECOND = b"1" * 16, b"2" * 16


@pytest.fixture
def receipts(tmp_path: Path) -> Iterator[Receipts]:
    with Receipts(tmp_path / "collectors.sqlite") as opened:
        yield opened


def words(receipts: Receipts, record: bytes = RECORD) -> list[dict[str, str]]:
    """Sink and outcome of each submission of a record."""
    return [{sink.sink: sink.outcome for sink in each.sinks} for each in receipts.of(record, ["ledger", "monitoring"])]


def test_a_sink_that_has_not_answered_has_the_record_queued(receipts: Receipts) -> None:
    """Between gateway and sink the word is `queued`; then it is the sink's."""
    receipts.note([Receipt(FIRST, 0, GATEWAY, RECORD, "queued")], NOW)
    assert words(receipts) == [{"ledger": "queued", "monitoring": "queued"}]
    receipts.note([Receipt(FIRST, 0, "monitoring", RECORD, "stored")], NOW + 1)
    assert words(receipts) == [{"ledger": "queued", "monitoring": "stored"}]


def test_the_first_word_about_a_message_stands(receipts: Receipts) -> None:
    """A redelivery finds the record stored already; that does not make it a duplicate."""
    receipts.note([Receipt(FIRST, 0, "monitoring", RECORD, "stored")], NOW)
    receipts.note([Receipt(FIRST, 0, "monitoring", RECORD, "duplicate")], NOW + 1)
    assert words(receipts)[0]["monitoring"] == "stored"


def test_every_submission_has_its_own_answer_the_newest_first(receipts: Receipts) -> None:
    """A record sent twice is a duplicate the second time."""
    receipts.note([Receipt(FIRST, 0, GATEWAY, RECORD, "queued")], NOW)
    receipts.note([Receipt(SECOND, 4, GATEWAY, RECORD, "queued")], NOW + 1)
    receipts.note([Receipt(SECOND, 4, "monitoring", RECORD, "duplicate")], NOW + 2)
    receipts.note([Receipt(FIRST, 0, "monitoring", RECORD, "stored")], NOW + 3)
    assert [each["monitoring"] for each in words(receipts)] == ["duplicate", "stored"]


def test_a_record_refused_without_an_id_is_found_by_its_place(receipts: Receipts) -> None:
    """The gateway knew its id; the collector that refused it knows message and position."""
    receipts.note([Receipt(FIRST, place, GATEWAY, record, "queued") for place, record in enumerate((OTHER, RECORD))], 1)
    receipts.note([Receipt(FIRST, 1, "monitoring", None, "parked", "job.site: is missing")], 2)
    (submission,) = receipts.of(RECORD, [])
    assert [(each.outcome, each.reason) for each in submission.sinks] == [("parked", "job.site: is missing")]
    assert words(receipts, OTHER)[0]["monitoring"] == "queued"


def test_a_message_parked_whole_parks_every_record_in_it(receipts: Receipts) -> None:
    """The word about the message is the word about each of its records."""
    receipts.note([Receipt(FIRST, place, GATEWAY, record, "queued") for place, record in enumerate((OTHER, RECORD))], 1)
    receipts.note([Receipt(FIRST, WHOLE, "monitoring", None, "parked", "unknown kind")], 2)
    assert words(receipts)[0]["monitoring"] == words(receipts, OTHER)[0]["monitoring"] == "parked"
    assert receipts.is_known(FIRST)
    assert not receipts.is_known(SECOND)


def test_nothing_is_known_of_a_record_that_nobody_sent(receipts: Receipts) -> None:
    """An unknown id has no submissions."""
    assert receipts.of(RECORD, ["monitoring"]) == []


def test_a_retry_is_judged_by_the_clock_of_the_first_try(receipts: Receipts) -> None:
    """The same key gives the same instant, however late the retry comes."""
    assert receipts.began(b"key", NOW) == NOW
    assert receipts.began(b"key", NOW + 10) == NOW
    assert receipts.began(b"other", NOW + 10) == NOW + 10


def test_the_task_deletes_what_is_older_than_the_settings_say(tmp_path: Path) -> None:
    """Receipts are kept for some days and not for ever."""
    settings = Settings(data=str(tmp_path), gateway=GatewaySettings(receipts_days=1))
    task = receipts_module.task
    assert (task.name, task.every) == ("receipts", 3600)
    with Receipts(tmp_path / "collectors.sqlite") as opened:
        now = time.time_ns() // 1000
        opened.note(
            [Receipt(FIRST, 0, GATEWAY, RECORD, "queued")], now - timedelta(days=2) // timedelta(microseconds=1)
        )
        opened.note([Receipt(SECOND, 0, GATEWAY, OTHER, "queued")], now)
        resources = Resources(settings, {"job": JOB})
        task.run(resources)
        task.run(resources)
        (noted,) = resources.audit.find()
        resources.close()
        assert (noted.subject, noted.action, noted.vos, noted.after) == (
            "system",
            "task receipts",
            ("*",),
            {"receipts": 1},
        )
        assert opened.of(RECORD, []) == []
        assert len(opened.of(OTHER, [])) == 1
    with pytest.raises(AttributeError):
        _ = receipts_module.missing
