"""Completeness over HTTP, from the shell and on `/metrics`: one answer everywhere."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accounted import ran
from examples import JOB, batch_of, job
from fastapi.testclient import TestClient

from accounting.api import router
from accounting.opening import open_ledger
from accounting.tasks import completing, run_completeness
from siteward import extensions
from siteward.kinds import load_kinds
from siteward.kinds.record_count import RecordCount
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.server.resources import Resources
from siteward.settings import CollectorSettings, Settings
from siteward.telemetry import LEDGER_MISSING, LEDGER_OVERDUE, telemetry

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
AWAY = TODAY - timedelta(days=4)
UNTIL = f"{TODAY - timedelta(days=2):%Y-%m-%d}"
"""When the last records came."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation that had a job every hour of five weeks until two days ago, but for one day."""
    made = Settings(data=str(tmp_path), collector=CollectorSettings(leave_out=()))
    with closing(open_ledger(made, load_kinds())) as ledger:
        for day in range(-35, -2):
            ends = [TODAY + timedelta(days=day, hours=hour, minutes=1) for hour in range(24)]
            jobs = [job(day * 24 + hour, start=end - timedelta(hours=1), end=end) for hour, end in enumerate(ends)]
            if TODAY + timedelta(days=day) != AWAY:
                ledger.clock = partial(microseconds, ends[-1])
                ledger.write(batch_of(JOB, [JOB.row_of(each, microseconds(TODAY)) for each in jobs]))
    return made


def test_completeness_from_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """The day that is missing, and who is silent; in a table and as JSON."""
    assert ran(monkeypatch, settings, "ledger", "completeness", "--start=-6d", f"--end={UNTIL}", "--gaps") == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()[1:]
    assert line.split()[:2] == ["job", "test"]
    assert f"{AWAY:%Y-%m-%d}T00:00:00Z" in line
    assert "job: test is silent since" in printed.err
    assert "24 records are missing" in printed.err
    assert ran(monkeypatch, settings, "--output", "json", "ledger", "completeness", "--kind", "job") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["silent"] for row in found["producers"]] == [True]
    assert {row["model"] for row in found["rows"]} == {"cadence"}
    assert ran(monkeypatch, settings, "ledger", "completeness", "--kind", "jobs") == 2
    assert "did you mean 'job'" in capsys.readouterr().err


def test_what_cannot_be_told_is_said_beside_the_sum(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """A count that cannot be compared is no nought that passes for an answer; the task says so in its log, too."""
    count = RecordCount(vo="all", counted="downtime", number=7, start=AWAY, end=AWAY + timedelta(days=1))
    with closing(open_ledger(settings, load_kinds())) as ledger:
        kind = ledger.kinds["record-count"]
        ledger.write(batch_of(kind, [kind.row_of(count, microseconds(TODAY))]))
    asked = ("ledger", "completeness", "--start=-6d", f"--end={UNTIL}", "--gaps", "--kind", "downtime")
    assert ran(monkeypatch, settings, *asked) == 2, "no question is asked of a kind that is not booked"
    capsys.readouterr()
    assert ran(monkeypatch, settings, *asked[:-2]) == 0
    printed = capsys.readouterr()
    assert "kind 'downtime' is not in the ledger" in printed.out
    assert "1 rows cannot tell how much is missing, and say why\n24 records are missing" in printed.err
    with closing(Resources(settings)) as resources:
        run_completeness(resources)
    assert "what is missing cannot be told" in capsys.readouterr().err
    telemetry.reset()


def test_completeness_over_http(settings: Settings) -> None:
    """The same rows; wrong questions are refused with what is possible."""
    with TestClient(create_app(settings, routers=[router]), base_url="http://127.0.0.1") as client:

        def asked(**parts: Any) -> Any:
            return client.get("/v1/accounting/completeness", params=parts)

        answer = asked(kind="job", start="-6d", end=UNTIL, gaps="true").json()
        assert [(row["start"], row["expected"], row["came"], row["missing"]) for row in answer["rows"]] == [
            (f"{AWAY:%Y-%m-%d}T00:00:00Z", 24, 0, 24)
        ]
        assert answer["missing"] == 24
        assert asked(producer="nobody").json()["rows"] == []
        for wrong, hint in (({"spreads": 0}, "expected 1 to 100"), ({"kinds": "job"}, "did you mean 'kind'")):
            refused = asked(**wrong)
            assert (refused.status_code, refused.json()["type"]) == (400, "urn:siteward:query")
            assert hint in refused.json()["detail"]


def test_gaps_are_told_to_prometheus(settings: Settings) -> None:
    """The task is installed; what is missing and overdue is a gauge, and zero again once it has come."""
    assert extensions.load("siteward.tasks", "completeness") is completing
    with closing(Resources(settings)) as resources:
        run_completeness(resources)
        assert telemetry.value(LEDGER_MISSING, "job", "test") >= 24
        assert telemetry.value(LEDGER_OVERDUE, "job", "test") > 0
        with closing(open_ledger(settings, load_kinds())) as ledger:
            ends = [AWAY + timedelta(hours=hour) for hour in range(24 * 5)]
            late = [job(9000 + n, start=end - timedelta(hours=1), end=end) for n, end in enumerate(ends)]
            ledger.write(batch_of(JOB, [JOB.row_of(each, microseconds(TODAY) + 2 * 10**11) for each in late]))
        run_completeness(resources)
        assert telemetry.value(LEDGER_MISSING, "job", "test") == 0
        assert telemetry.value(LEDGER_OVERDUE, "job", "test") == 0
    telemetry.reset()
