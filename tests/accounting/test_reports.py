"""Reports follow from what kinds declare: ours, and those that a community writes into its settings file."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from accounted import ran
from examples import JOB, NOON, batch_of, job
from fastapi.testclient import TestClient
from servers import REPOSITORY
from viewers import EVERYTHING

from accounting.api import router
from accounting.ledger import Ledger
from accounting.opening import open_ledger
from accounting.query.reports import reports_in
from accounting.query.usage import Usage
from collectors.service import collect
from siteward.client import Client
from siteward.kinds import load_kinds
from siteward.people import Nobody
from siteward.query_text import QueryText, parse_query
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.settings import CollectorSettings, Settings
from siteward.usage_text import UsageText, parse_usage

HERE: Final = "http://127.0.0.1"
NOW: Final = NOON + timedelta(days=1)
LICENCES: Final[dict[str, Any]] = {
    "doc": "One use of a licence.",
    "shape": "interval",
    "identity": ["number", "end"],
    "dimensions": {
        "product": {"doc": "licensed product"},
        "holder": {"doc": "who used it", "personal": True},
        "number": {"doc": "its number", "bucketed": False},
    },
    "measures": {
        "seats": {"doc": "seats taken", "unit": "1"},
        "used_time": {"doc": "time used", "unit": "s"},
    },
    "products": {"seat_time": {"factors": ["seats", "used_time"], "unit": "s", "doc": "seats times time"}},
    "ratios": {
        "idle": {"numerator": "used_time", "denominator": "seat_time", "unit": "1", "doc": "time per seat time"}
    },
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Of an installation, with ten jobs."""
    with closing(open_ledger(Settings(data=str(tmp_path)), load_kinds())) as opened:
        rows = [JOB.row_of(job(number, memory=10 * number), microseconds(NOW)) for number in range(10)]
        opened.write(batch_of(JOB, rows))
        yield opened


def test_every_report_answers(ledger: Ledger) -> None:
    """Whatever a kind declares: each of its reports is a question that the ledger takes, in the units it says."""
    usage = Usage(ledger, Nobody())
    kinds = ledger.kinds
    found = {report.name: report for report in reports_in(ledger)}
    assert {name.partition("/")[0] for name in found} == set(kinds)
    for report in found.values():
        by = report.by[:1]
        text = report.question(start="2026-03-01", end="2026-03-04", by=by)
        answer = usage.ask(parse_usage(text, kinds, NOW), EVERYTHING)
        assert answer.units == report.units, report.name
        assert (answer.query.by, str(answer.query.attribution)) == (by, report.attribution)

    def totals(name: str) -> tuple[Any, ...]:
        text = found[name].question(start="2026-03-02", end="2026-03-03")
        return usage.ask(parse_usage(text, kinds, NOW), EVERYTHING).totals

    assert totals("job/wall_time/total") == totals("job/wall_time/cumulative") == (36_000,)
    assert totals("job/wall_time/rate") == (36_000 / 86_400,)
    assert totals("job/records/rate") == (10 / 86_400,)
    assert totals("job/memory/mean") == (45.0,)
    assert totals("job/memory/spread") == (0, 45.0, 81.0, 85.5, 89.1, 90)


def test_a_question_takes_what_is_chosen(ledger: Ledger) -> None:
    """The rest stays as the report has it; nothing is chosen by an empty text."""
    (report,) = (each for each in reports_in(ledger, "job") if each.name == "job/core_time/total")
    assert report.question(by=(), where=(), window="2026", period="", top=None) == UsageText(
        kind="job", measures=("sum:core_time",), window="2026", attribution="prorated", top=10
    )
    assert report.question(by=("site",), period="month", top=0).top == 0
    assert {"site", "user", "state"} <= set(report.by)
    assert "simulated" not in report.by


def test_a_kind_without_code_is_emitted_booked_and_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """From a table in the settings file to its report, over every door, with nothing written but the table."""
    settings = Settings(
        data=str(tmp_path), kinds={"licence-use": LICENCES}, collector=CollectorSettings(leave_out=("prometheus",))
    )
    records = [
        ("solver", "alice", "2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z", 2),
        ("solver", "bob", "2026-03-02T23:00:00Z", "2026-03-03T01:00:00Z", 1),
        ("mesher", "alice", "2026-03-03T10:00:00Z", "2026-03-03T10:30:00Z", 4),
    ]
    lines = []
    for number, (product, holder, start, end, seats) in enumerate(records):
        used = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).seconds
        fields = {"vo": "lab", "product": product, "holder": holder, "number": str(number), "seats": seats}
        lines.append(json.dumps(fields | {"start": start, "end": end, "used_time": used}))
    file = tmp_path / "uses.ndjson"
    file.write_text("\n".join(lines))
    assert ran(monkeypatch, settings, "emit", "licence-use", "--file", str(file)) == 0
    capsys.readouterr()

    stop = threading.Event()
    thread = threading.Thread(target=collect, args=(settings, stop, ["ledger"]))
    thread.start()

    def told(*arguments: str) -> Any:
        assert ran(monkeypatch, settings, "--output", "json", "account", *arguments) == 0
        return json.loads(capsys.readouterr().out)

    window = ("--start=2026-03-02", "--end=2026-03-04")
    patience = datetime.now(UTC) + timedelta(minutes=1)
    try:
        while told("report", "licence-use/records/total", *window)["totals"] != [3]:
            assert datetime.now(UTC) < patience
    finally:
        stop.set()
        thread.join()

    names = {report["name"] for report in told("reports", "licence-use")}
    assert {"licence-use/seat_time/rate", "licence-use/idle", "licence-use/used_time/spread"} <= names
    answer = told("report", "licence-use/seat_time/sum", "--by", "product", *window)
    assert [(row["start"][:10], row["group"], row["values"]) for row in answer["rows"]] == [
        ("2026-03-02", ["solver"], [2 * 3600 + 3600]),
        ("2026-03-03", ["mesher"], [4 * 1800]),
        ("2026-03-03", ["solver"], [3600]),
    ]
    with TestClient(create_app(settings, routers=[router]), base_url=HERE) as client:
        listed = client.get("/v1/accounting/reports", params={"kind": "licence-use"}).json()["reports"]
        assert {report["name"] for report in listed} == names

        def read(_: Client, path: str, kind: type[Any]) -> Any:
            return msgspec.json.decode(client.get(path).content, type=kind)

        monkeypatch.setattr(Client, "_read", read)
        report = next(each for each in Client().usage_reports("licence-use") if each.name == "licence-use/idle")
        text = report.question(by=("product",), start="2026-03-02", end="2026-03-04", period="whole")
        usage = Client().usage(text.kind, text.measures, by=text.by, start=text.start, end=text.end)
    assert [row.values for row in usage.rows] == [(0.25,), (10_800 / 14_400,)]


def test_a_report_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The nearest one is named; of an unknown kind, the nearest kind."""
    settings = Settings(data=str(tmp_path))
    for name, hint in [("job/cpu_time/rates", "did you mean 'job/cpu_time/rate'"), ("jobs/x", "did you mean 'job'")]:
        assert ran(monkeypatch, settings, "account", "report", name) == 2
        assert hint in capsys.readouterr().err


def test_the_manual_has_every_report_of_dirac(ledger: Ledger) -> None:
    """In a table, and each question there is one that is answered."""
    page = (REPOSITORY / "docs" / "how-to" / "dirac-reports.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    table = [(name, here) for name, here in rows if name not in {"DIRAC", "---"}]
    # As many as DIRAC 9 has: of jobs, pilots, submissions, data operations, networks, WMS history and storage.
    assert len(table) == 27 + 6 + 2 + 6 + 5 + 3 + 5
    known = {report.name for report in reports_in(ledger)}
    kinds = load_kinds()
    for name, here in table:
        asked = re.findall(r"`([^`]+)`", here)
        for question in (each for each in asked if "/" in each):
            assert question in known, name
        for question in (each for each in asked if each.startswith("siteward ")):
            _, command, kind, *options = shlex.split(question)
            parts: dict[str, Any] = {
                flag.removeprefix("--"): value for flag, value in zip(options[::2], options[1::2], strict=True)
            }
            listed: dict[str, Any] = {
                part: tuple(parts.pop(part, "").split(",")) for part in ("measures", "by") if part in parts
            }
            if command == "query":
                assert parse_query(QueryText(kind=kind, **listed, **parts), kinds, NOW)
            else:
                query = parse_usage(UsageText(kind=kind, **listed, **parts), kinds, NOW)
                assert Usage(ledger, Nobody()).ask(query, EVERYTHING)
