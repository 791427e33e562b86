"""Corrections and periods as people use them: by command, and read over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from accounted import ran
from corrected_model import draft_of
from examples import JOB, NOON, batch_of, job
from fastapi.testclient import TestClient
from usage_model import USE

from accounting import api, periods_api
from accounting.corrections.correction import Action, CorrectionError
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.corrections.figures import Differences
from accounting.opening import open_ledger
from accounting.upkeep.months import month_end, month_name, months_within, parse_month
from siteward.kinds import load_kinds
from siteward.query import QueryError
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.settings import AccountingSettings, Settings

Told = Callable[..., Any]
WRONG: Final = ("--where", "site=SITE-0", "--window", "2026-03", "--reason", "a typing error")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation whose ledger holds fourteen jobs of an hour at seven sites."""
    made = Settings(data=str(tmp_path))
    with closing(open_ledger(made, load_kinds())) as ledger:
        rows = [JOB.row_of(job(number), microseconds(NOON + timedelta(days=1))) for number in range(14)]
        ledger.write(batch_of(JOB, rows))
    return made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings) -> Told:
    """Runs `siteward --output json ledger …`: what it shows, or what it says where it ends with another code."""

    def run(*arguments: str, code: int = 0, area: str = "ledger") -> Any:
        assert ran(monkeypatch, settings, "--output", "json", area, *arguments) == code
        out, err = capsys.readouterr()
        return err if code or not out else json.loads(out)

    return run


@pytest.fixture
def app(settings: Settings) -> Iterator[TestClient]:
    routers = [api.router, periods_api.router]
    with TestClient(create_app(settings, routers=routers), base_url="http://127.0.0.1") as client:
        yield client


def test_a_correction_from_proposal_to_reversal(told: Told, app: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run shows what it changes and writes nothing; another person applies it; anybody sees it over HTTP."""
    shown = told("correct", "move", "job", "--set", "site=RIGHT", *WRONG, "--dry-run")
    assert [(row["site"], row["difference"]) for row in shown if row["measure"] == "records"] == [
        ("RIGHT", 2),
        ("SITE-0", -2),
    ]
    assert told("corrections") == []
    assert told("correct", "move", "job", "--set", "site=RIGHT", *WRONG, "--author", "anna") == shown
    monkeypatch.setenv("SITEWARD_PERSON", "anna")
    assert "to be approved by another person" in told("approve", "1", code=1)
    assert told("approve", "1", "--by", "ben") == shown
    (listed,) = told("corrections")
    assert (listed["state"], listed["author"], listed["decided_by"], listed["records"]) == ("applied", "anna", "ben", 2)
    assert listed["selection"] == "site=SITE-0, from 2026-03-01T00:00:00Z to 2026-04-01T00:00:00Z"
    (document,) = app.get("/v1/accounting/corrections", params={"kind": "job"}).json()["corrections"]
    assert (document["where"], document["given"]) == (["site=SITE-0"], {"site": "RIGHT"})
    assert document["decided"]["by"] == "ben"
    assert {"month": "2026-03", "attribution": "by-end", "group": {"site": "RIGHT"}, "measure": "records"} in [
        {name: value for name, value in each.items() if name != "difference"} for each in document["differences"]
    ]
    undone = told("reverse", "1", "--reason", "it was right")
    assert sorted((row["site"], -row["difference"], row["measure"]) for row in undone) == sorted(
        (row["site"], row["difference"], row["measure"]) for row in shown
    )
    assert told("corrections", "1") == shown
    assert told("corrections", "1", "--now") == shown
    assert app.get("/v1/accounting/corrections", params={"kind": "pilot"}).json() == {"corrections": []}
    assert "there is no correction 7" in told("reject", "7", "--reason", "no", code=1)
    assert "1 to 255 characters" in told("reject", "1", "--reason", "no", "--by", "x" * 256, code=1)
    snapshots = ("correct", "void", "storage-share", "--window", "2026", "--reason", "wrong")
    assert "it selects no record" in told(*snapshots, code=1)


def test_a_month_from_closing_to_reopening(told: Told, app: TestClient, settings: Settings) -> None:
    """Signed figures stand; what comes later is shown as an adjustment, and answers say so."""
    told("close", "job", "2026-03", "--by", "dora")
    told("sign", "job", "2026-03", "--by", "emil")
    with closing(open_ledger(settings, load_kinds())) as ledger:
        late = JOB.row_of(job(20), microseconds(NOON + timedelta(days=1)))
        ledger.write(batch_of(JOB, [late]))
    (adjusted,) = told("adjustments", "job", "2026-03")
    assert (adjusted["cause"], adjusted["site"], adjusted["wall_time"]) == ("late record", "SITE-6", 3600)
    (verified,) = told("verify-periods")
    assert (verified["month"], verified["digest"]) == ("2026-03", "right")
    ask = ("job", "--measures", "records", "--window", "2026-03", "--attribution", "by-end", "--format", "json")
    present, before = (told(*ask, "--as-of", each, area="account") for each in ("present", "closing"))
    assert (present["totals"], before["totals"]) == ([15], [14])
    assert present["closed"] == [{"name": "2026-03", "state": "signed", "adjusted": True, "vo": "*"}]
    parts = {"kind": "job", "window": "2026-03", "attribution": "by-end", "as_of": "closing"}
    assert app.get("/v1/accounting/usage", params=parts).json()["totals"] == [14]
    (document,) = app.get("/v1/accounting/periods").json()["periods"]
    assert (document["state"], document["closed"]["by"], document["signed"]["by"]) == ("signed", "dora", "emil")
    told("reopen", "job", "2026-03", "--reason", "a site was late", "--by", "dora")
    (listed,) = told("periods")
    assert (listed["state"], listed["month"]) == ("reopened", "2026-03")
    assert "'March' is not a month; write one as 2026-10" in told("close", "job", "March", code=1)


def test_a_month_without_figures_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another one than was meant is a mistyped digit away."""

    def said(*arguments: str) -> bool:
        assert ran(monkeypatch, settings, "ledger", "close", "job", *arguments) == 0
        return "nothing that ended in it is booked" in capsys.readouterr().err

    assert said("2026-02")
    assert not said("2026-03", "--vo", "example")


def test_a_month_of_one_vo(
    told: Told, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Closed, signed, adjusted, listed and reopened by its name; what is closed for all leaves it out and says so."""
    with closing(open_ledger(settings, load_kinds())) as ledger:
        rows = [JOB.row_of(job(number, vo="alpha"), microseconds(NOON + timedelta(days=1))) for number in (20, 21)]
        ledger.write(batch_of(JOB, rows[:1]))
        told("close", "job", "2026-03", "--vo", "alpha", "--by", "dora")
        told("sign", "job", "2026-03", "--vo", "alpha", "--by", "emil")
        ledger.write(batch_of(JOB, rows))
    (adjusted,) = told("adjustments", "job", "2026-03", "--vo", "alpha")
    assert (adjusted["vo"], adjusted["records"]) == ("alpha", 1)
    ask = ("account", "job", "--window", "2026-03", "--attribution", "by-end")
    assert ran(monkeypatch, settings, *ask) == 0
    assert "changed since it was closed: 2026-03 for alpha; --as-of" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "ledger", "close", "job", "2026-03", "--by", "dora") == 0
    assert "left out, with periods of their own for the month: alpha" in capsys.readouterr().err
    assert told("adjustments", "job", "2026-03") == []
    listed = told("periods", "--kind", "job")
    assert [(each["vo"], each["state"], each["signed_by"]) for each in listed] == [
        ("*", "closed", ""),
        ("alpha", "signed", "emil"),
    ]
    assert [each["vo"] for vo in ("alpha", "beta") for each in told("periods", "--vo", vo)] == ["alpha", "*"]
    assert [(each["vo"], each["digest"]) for each in told("verify-periods")] == [("alpha", "right")]
    shown = told("correct", "void", "job", *WRONG, "--dry-run")
    assert {each["period"] for each in shown if each["attribution"] == "by-end"} == {"closed, alpha signed"}
    told("reopen", "job", "2026-03", "--vo", "alpha", "--reason", "a site was late", "--by", "dora")
    assert [each["state"] for each in told("periods")] == ["closed", "reopened"]
    assert "2026-03 of job for the VO alpha is reopened; close it" in told(
        "sign", "job", "2026-03", "--vo", "alpha", code=1
    )
    assert "job has no record of the VO 'ome'" in told("close", "job", "2026-03", "--vo", "ome", code=1)


def test_who_reads_an_adjusted_month_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, told: Told
) -> None:
    """Below the table, since the figures are not those that were closed."""
    told("close", "job", "2026-03")
    told("correct", "void", "job", *WRONG, "--author", "anna")
    told("approve", "1", "--by", "ben")
    ask = ("account", "job", "--window", "2026-03", "--attribution", "by-end")
    assert ran(monkeypatch, settings, *ask) == 0
    assert "changed since it was closed: 2026-03; --as-of closing shows what was closed" in capsys.readouterr().err


def test_a_corrected_record_is_verified_and_followed(told: Told) -> None:
    """Buckets are what the corrected records come to; a record says which corrections lie over it, a void one too."""
    identifier = JOB.id_of(JOB.row_of(job(0), microseconds(NOON + timedelta(days=1)))).hex()
    told("correct", "move", "job", "--set", "site=RIGHT", *WRONG, "--author", "anna")
    told("approve", "1", "--by", "ben")
    found = told("trace", "--record", identifier)
    assert (found["state"], found["corrections"], found["fields"]["site"]) == ("booked", [1], "RIGHT")
    assert told("verify") == []
    right = ("--where", "site=RIGHT", "--window", "2026-03", "--reason", "never ran")
    told("correct", "void", "job", *right, "--author", "anna")
    told("approve", "2", "--by", "ben")
    found = told("trace", "--record", identifier)
    assert (found["state"], found["corrections"], found["buckets"]) == ("void", [1, 2], [])
    assert told("verify") == []


def test_a_signature_that_is_not_right_ends_with_one(told: Told, settings: Settings) -> None:
    """Somebody has changed a bucket behind the ledger's back."""
    told("close", "job", "2026-03")
    told("sign", "job", "2026-03")
    with closing(open_ledger(settings, load_kinds())) as ledger, ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE accounting_job_by_end SET wall_time = wall_time + 1")
    assert "1 of them are not what was signed" in told("verify-periods", code=1)


def test_a_month_that_is_not_what_its_records_say_is_not_signed(told: Told, settings: Settings) -> None:
    """Else it could never be made right: what was signed would be wrong."""
    with closing(open_ledger(settings, load_kinds())) as ledger, ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE accounting_job_by_end SET wall_time = wall_time + 1")
    told("close", "job", "2026-03")
    assert "sums of the month are not what its records say" in told("sign", "job", "2026-03", code=1)
    told("rebuild", "job")
    told("sign", "job", "2026-03")


def test_self_approval_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings) -> None:
    """Where one person keeps the ledger."""
    alone = Settings(data=str(tmp_path), accounting=AccountingSettings(self_approval=True))
    assert ran(monkeypatch, settings, "ledger", "correct", "void", "job", *WRONG) == 0
    assert ran(monkeypatch, settings, "ledger", "approve", "1") == 1
    assert ran(monkeypatch, alone, "ledger", "approve", "1") == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "uses"}, "'uses' is not a kind; did you mean 'use'"),
        ({"action": "delete"}, "'delete' is not a action"),
        ({"where": ("sit=S",)}, "'sit' is not a field of use"),
        ({"window": ""}, "give a window over the end of the records, or the ids of single ones"),
        ({"window": "", "ids": ("12",)}, "id '12': expected 32 hexadecimal digits"),
        ({"window": "", "ids": ("0" * 32,) * 1001}, "1001 ids are more than 1000"),
        ({"given": ()}, "move: give at least one new value, FIELD=VALUE"),
        ({"given": ("site",)}, "'site': write FIELD=VALUE"),
        ({"given": ("wall_time=1",)}, "'wall_time' is not a dimension of use that move can set"),
        ({"given": ("site=",)}, "site=: expected `str` of length >= 1"),
        ({"given": ("simulated=maybe",)}, "simulated=maybe: expected boolean"),
        ({"given": ("code=x",)}, "code=x: expected integer"),
        ({"given": ("site=a\0",)}, "site: a text without NUL characters"),
        ({"given": ("site=\ud800",)}, "site: a text without NUL characters"),
        ({"action": "change", "given": ("core_time=1",)}, "core_time is computed from wall_time and processors"),
        ({"action": "void"}, "a void record has no new values"),
        ({"reason": " "}, "reason: give one of 1 to 4000 characters"),
        ({"author": "x" * 256}, "author: give one of 1 to 255 characters"),
    ],
)
def test_what_cannot_be_a_correction_is_refused(changes: dict[str, Any], message: str) -> None:
    """The error names the part at fault and what is possible."""
    given: dict[str, Any] = {"kind": "use", "action": "move", "window": "2026", "given": ("site=T",)}
    text = DraftText(**{**given, "author": "anna", "reason": "why", **changes})
    with pytest.raises((CorrectionError, QueryError)) as refused:
        parse_draft(text, {"use": USE}, datetime(2026, 6, 1, tzinfo=UTC))
    assert message in str(refused.value)


def test_values_are_of_their_fields_types() -> None:
    """Nothing behind the sign is unknown, where that may be."""
    draft = draft_of(Action.MOVE, given=("code=", "simulated=true", "user="))
    assert draft.given == {"code": None, "simulated": True, "user": ""}
    assert Differences(USE, ["site"]).figures().by == ("site",)


def test_months_have_names_and_ends() -> None:
    """Those of UTC, also over the end of a year."""
    december = parse_month("2025-12")
    assert [month_name(each) for each in months_within(december + 5, month_end(december) + 1)] == ["2025-12", "2026-01"]
    for text in ("2026-13", "2026-1", "0000-01", "2026-01-01"):
        with pytest.raises(ValueError, match="is not a month; write one as 2026-10"):
            parse_month(text)
