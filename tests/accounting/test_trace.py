"""A figure is followed over HTTP and from the shell; a record, to its buckets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from accounted import ran
from examples import JOB, NOON, batch_of, job
from fastapi.testclient import TestClient

from accounting.api import router
from accounting.opening import open_ledger
from accounting.periods.closing import close
from accounting.upkeep.months import parse_month
from siteward.kinds import load_kinds
from siteward.records import id_text, microseconds
from siteward.server.app import create_app
from siteward.settings import Settings

DAY: Final = "2026-03-02"
ROWS: Final = [JOB.row_of(job(number), microseconds(NOON + timedelta(days=1))) for number in range(10)]
IDS: Final = [id_text(JOB.id_of(row)) for row in ROWS]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation whose ledger holds ten jobs of an hour that end after noon."""
    made = Settings(data=str(tmp_path))
    with closing(open_ledger(made, load_kinds())) as ledger:
        ledger.write(batch_of(JOB, ROWS))
    return made


@pytest.fixture
def app(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, routers=[router]), base_url="http://127.0.0.1") as client:
        yield client


def asked(client: TestClient, **parts: Any) -> Any:
    return client.get("/v1/accounting/trace", params=parts)


def test_a_figure_is_followed_over_http(app: TestClient) -> None:
    """Portion after portion, until all that it is made of was listed."""
    question = {"kind": "job", "measures": "wall_time,records", "window": DAY, "where": "site=SITE-1|SITE-2"}
    first = asked(app, **question, attribution="by-end", limit=3).json()
    assert (first["figure"], first["parts"], first["complete"]) == ([4 * 3600, 4], [4 * 3600, 4], True)
    assert [record["id"] for record in first["records"]] == [IDS[number] for number in (1, 2, 8)]
    assert {record["producer"] for record in first["records"]} == {"test"}
    assert first["records"][0]["end"] == "2026-03-02T12:00:01Z"
    rest = asked(app, **question, attribution="by-end", limit=3, after_record=first["more_records"]).json()
    assert ([record["id"] for record in rest["records"]], rest["more_records"]) == ([IDS[9]], "")


def test_a_record_is_followed_over_http(app: TestClient) -> None:
    """To its fields, its origin and its buckets; an unknown one is explained."""
    found = asked(app, record=IDS[3]).json()
    assert (found["state"], found["kind"], found["fields"]["local_job_id"]) == ("booked", "job", "3")
    assert sum(bucket["parts"].get("wall_time", 0) for bucket in found["buckets"]) == 2 * 3600
    assert "did not come" in asked(app, record="0" * 32).json()["why"]


@pytest.mark.parametrize(
    ("parts", "hint"),
    [
        ({}, "give either a kind, or a record"),
        ({"kind": "job", "record": "0" * 32}, "give either a kind, or a record"),
        ({"record": "x"}, "a record id is 32 hexadecimal digits"),
        ({"kind": "jobs"}, "did you mean 'job'"),
        ({"kind": "job", "measures": "efficiencies"}, "did you mean 'efficiency'"),
        ({"kind": "job", "limit": 0}, "expected 1 to 10000"),
        ({"kind": "job", "by": "site"}, "parameter 'by' is unknown"),
    ],
)
def test_wrong_questions_are_refused(app: TestClient, parts: dict[str, Any], hint: str) -> None:
    """What is wrong with a question is a 400 that says what is possible."""
    answer = asked(app, **parts)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:siteward:query")
    assert hint in answer.json()["detail"]


def test_a_figure_is_followed_from_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """A table of buckets and one of records; where there is more, how to go on; as JSON the same as over HTTP."""
    question = ("ledger", "trace", "job", "--window", DAY, "--measures", "wall_time", "--limit", "4")
    assert ran(monkeypatch, settings, *question) == 0
    printed = capsys.readouterr()
    assert "buckets of job, prorated, from 2026-03-02T00:00:00Z to 2026-03-03T00:00:00Z" in printed.out
    assert IDS[0] in printed.out
    assert "there are more: --after-record 0-" in printed.err
    assert "total: wall_time 36000; all records are there, and add up to it" in printed.err
    assert ran(monkeypatch, settings, "--output", "json", *question) == 0
    assert json.loads(capsys.readouterr().out)["figure"] == [36_000]
    assert ran(monkeypatch, settings, "--output", "csv", *question) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    percentile = ("--measures", "p95:wall_time,p73:wall_time", "--attribution", "by-end")
    assert ran(monkeypatch, settings, "ledger", "trace", "job", "--window", DAY, *percentile) == 0
    told = capsys.readouterr().err
    assert "p95:wall_time 3600.0: the 95th percentile of wall_time over the records that know it; record" in told
    assert " says 3600" in told
    assert "p73:wall_time 3600.0: the 73rd percentile of wall_time over the records that know it; record" in told
    assert ran(monkeypatch, settings, "account", "job", "--window", DAY, *percentile) == 0
    assert "p73:wall_time 3600.0 s" in capsys.readouterr().err


def test_what_is_in_no_bucket_is_followed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """To the records that say it; the answer says that there are no buckets of it, and shows none."""
    question = ("ledger", "trace", "job", "--window", DAY, "--where", "local_job_id=5")
    assert ran(monkeypatch, settings, *question) == 0
    printed = capsys.readouterr()
    assert "buckets of job" not in printed.out
    assert IDS[5] in printed.out
    assert "computed from the records, not from buckets: only records say local_job_id" in printed.err
    assert "total: records 1; all records are there, and add up to it" in printed.err
    sizes = ("account", "job", "--window", DAY, "--by", "processors", "--where", "processors>=1")
    assert ran(monkeypatch, settings, *sizes) == 0
    printed = capsys.readouterr()
    assert "total: records 10; 8 groups" in printed.err
    assert "computed from the records, all of which are there: only they say processors" in printed.err


def test_a_figure_as_of_closing_is_followed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """To what it is now, and to each change since, over HTTP as from the shell."""
    with closing(open_ledger(settings, load_kinds())) as ledger:
        close(ledger, "job", parse_month("2026-03"), "anna")
        ledger.write(batch_of(JOB, [JOB.row_of(job(number), microseconds(NOON)) for number in (10, 11)]))
    question = (
        "ledger",
        "trace",
        "job",
        "--window",
        DAY,
        "--attribution",
        "by-end",
        "--as-of",
        "closing",
        "--limit",
        "1",
    )
    assert ran(monkeypatch, settings, *question) == 0
    printed = capsys.readouterr()
    assert "changed since closing, job, by-end" in printed.out
    assert "late record" in printed.out
    assert "as of closing: as of now records 12; less what has changed since: records 2" in printed.err
    assert "total: records 10; all records are there, and add up to it with what has changed since" in printed.err
    assert "there are more: --after-adjustment 0-" in printed.err
    with TestClient(create_app(settings, routers=[router]), base_url="http://127.0.0.1") as client:
        parts = {"kind": "job", "window": DAY, "attribution": "by-end", "as_of": "closing", "limit": 1}
        first = asked(client, **parts).json()
        assert (first["as_of"], first["figure"], first["present"], first["changes"]) == ("closing", [10], [12], [2])
        rest = asked(client, **parts, after_adjustment=first["more_adjustments"]).json()
        assert (rest["adjustments"][0]["amounts"], rest["more_adjustments"]) == ([1], "")
        assert asked(client, **parts | {"as_of": "closed"}).status_code == 400


def test_a_record_is_followed_from_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """To its buckets, and where it came from; an unknown id ends with 1."""
    assert ran(monkeypatch, settings, "ledger", "trace", "--record", IDS[0]) == 0
    printed = capsys.readouterr()
    assert "by-end" in printed.out
    assert "booked from test, message 00000000" in printed.err
    assert ran(monkeypatch, settings, "ledger", "trace", "--record", "0" * 32) == 1
    assert "A duplicate leaves no trace of its own" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "ledger", "trace") == 2
