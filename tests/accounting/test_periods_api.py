"""Periods over HTTP: by accountants of the VO, seen by whoever sees it, noted, and without names that are hidden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from collected import collected
from examples import JOB, NOON, batch_of, job
from fastapi.testclient import TestClient

from accounting import api, corrections_api, periods_api
from accounting.checks import verifying
from accounting.corrections.deciding import approve, propose
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.opening import open_ledger
from siteward.kinds import load_kinds
from siteward.pseudonyms import is_pseudonym
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.settings import AccessSettings, IssuerSettings, Settings
from siteward.sinks import SinkUnavailable

ROOT: Final = "/v1/accounting/periods"
MARCH: Final = f"{ROOT}/job/2026-03"
VOS: Final = ("alpha", "beta")
ROUTERS: Final = [api.router, corrections_api.router, periods_api.router]
ALL: Final = {"Siteward-VO": "*"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation whose ledger holds five jobs of either VO."""
    made = Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})
    book(made, *range(10))
    return made


def book(settings: Settings, *numbers: int) -> None:
    until = microseconds(NOON + timedelta(days=1))
    rows = [JOB.row_of(job(number, vo=VOS[number % 2], user=f"user{number % 3}"), until) for number in numbers]
    with closing(open_ledger(settings, load_kinds())) as ledger:
        ledger.write(collected(batch_of(JOB, rows), settings))


@pytest.fixture
def app(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, routers=ROUTERS)) as client:
        yield client


class Person:
    """Somebody with a role."""

    def __init__(self, app: TestClient, settings: Settings, name: str, role: Role, *vos: str) -> None:
        token = LocalIssuer(settings.issuer_file).token(name, (Grant(role, vos),), 1)
        self._app, self._headers = app, {"Authorization": f"Bearer {token}"}

    def post(self, path: str, /, **body: Any) -> Any:
        return self._app.post(path, json=body, headers=self._headers)

    def send(self, path: str, content: bytes) -> Any:
        return self._app.post(path, content=content, headers=self._headers)

    def get(self, path: str, /, headers: dict[str, str] | None = None, **parts: Any) -> Any:
        return self._app.get(path, params=parts, headers=self._headers | (headers or {}))


def test_a_month_of_a_vo_from_closing_to_reopening(app: TestClient, settings: Settings) -> None:
    """By its accountants, under the names of their tokens; what comes late is an adjustment; each step is noted."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    ben = Person(app, settings, "ben", Role.ACCOUNTANT, "alpha")
    closed = anna.post(f"{MARCH}/closing", vo="alpha").json()
    assert (closed["state"], closed["vo"], closed["closed"]["by"][:4]) == ("closed", "alpha", "anna")
    signed = ben.post(f"{MARCH}/signature", vo="alpha").json()
    assert (signed["period"]["state"], signed["not_compared"]) == ("signed", [])
    assert signed["period"]["signed"]["by"].startswith("ben of http")
    assert len(signed["period"]["digest"]) == 64
    book(settings, 20, 21)
    (late,) = anna.get(f"{MARCH}/adjustments", vo="alpha").json()["adjustments"]
    assert (late["cause"], late["group"]["user"], late["differences"]["records"]) == ("late record", "user2", 1)
    usage: dict[str, Any] = {"kind": "job", "window": "2026-03", "attribution": "by-end"}
    totals = [anna.get("/v1/accounting/usage", as_of=each, **usage).json() for each in ("present", "closing")]
    assert [each["totals"] for each in totals] == [[6], [5]]
    assert totals[0]["closed"] == [{"name": "2026-03", "state": "signed", "adjusted": True, "vo": "alpha"}]
    assert anna.post(f"{MARCH}/reopening", vo="alpha", reason="a site was late").json()["state"] == "reopened"
    (listed,) = anna.get(ROOT).json()["periods"]
    assert (listed["state"], listed["month"], listed["vo"]) == ("reopened", "2026-03", "alpha")
    resources = app.app.state.resources  # type: ignore[attr-defined]  # FastAPI's.
    noted = [each for each in resources.audit.find(vo="alpha") if each.of][::-1]
    assert [(each.subject, each.action.rpartition("/")[2], each.outcome) for each in noted] == [
        ("anna", "closing", "200"),
        ("ben", "signature", "200"),
        ("anna", "reopening", "200"),
    ]
    states = [(each.before and each.before["state"], each.after["state"]) for each in noted]
    assert states == [(None, "closed"), ("closed", "signed"), ("signed", "reopened")]
    assert noted[1].after["digest"] == signed["period"]["digest"]
    assert noted[2].after["reason"] == "a site was late"


STEPS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("closing", {}),
    ("signature", {}),
    ("reopening", {"reason": "why"}),
)


@pytest.mark.parametrize(("step", "body"), STEPS)
def test_nobody_decides_for_another_vo(app: TestClient, settings: Settings, step: str, body: dict[str, Any]) -> None:
    """Nor for all of them, but the platform's people; who reads, operates or reports decides nothing."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    for vo in ({"vo": "beta"}, {"vo": "*"}, {}, {"vo": "alpha|beta"}, {"vo": "alph*"}):
        assert anna.post(f"{MARCH}/{step}", **body, **vo).status_code == 403
    for role in (Role.READER, Role.USER, Role.OPERATOR, Role.REPORTER):
        olga = Person(app, settings, "olga", role, "alpha")
        assert olga.post(f"{MARCH}/{step}", **body, vo="alpha").status_code == 403
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, EVERY)
    for vo in ({"vo": "beta"}, {}):
        if step != "closing":
            assert root.post(f"{MARCH}/closing", **vo).status_code == 200
        assert root.post(f"{MARCH}/{step}", **body, **vo).status_code == 200


def test_what_is_not_the_time_for_it_is_a_conflict(app: TestClient, settings: Settings) -> None:
    """The problem says what to do; what can never be is refused as such."""
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, EVERY)

    def told(path: str, **body: Any) -> tuple[int, str, str]:
        answer = root.post(path, **body)
        return answer.status_code, answer.json()["type"], answer.json()["detail"]

    assert told(f"{ROOT}/job/2999-01/closing") == (
        409,
        "urn:siteward:period",
        "2999-01 is not over; close it afterwards",
    )
    assert told(f"{MARCH}/signature", vo="alpha")[::2] == (
        409,
        "2026-03 of job for the VO alpha is open; close it first",
    )
    root.post(f"{MARCH}/closing")
    assert told(f"{MARCH}/closing")[::2] == (409, "2026-03 of job is closed already")
    assert told(f"{MARCH}/closing", vo="alpha")[0] == 409
    assert told(f"{MARCH}/closing", vo="gamma")[::2] == (422, "job has no record of the VO 'gamma'; look at its name")
    assert told(f"{ROOT}/job/March/closing")[::2] == (422, "'March' is not a month; write one as 2026-10")
    for month in ("9999-12", "9999-01", "0000-12"):
        assert told(f"{ROOT}/job/{month}/closing")[::2] == (422, f"'{month}' is not a month; write one as 2026-10")
    assert told(f"{ROOT}/jobs/2026-03/closing")[0] == 422
    assert told(f"{ROOT}/host/2026-03/signature")[0] == 422
    assert root.get(f"{ROOT}/job/2026-02/adjustments", ALL).status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"vo": "alpha", "by": "somebody else"}', 422),
        (b'{"vo": "alpha", "Vo": "beta"}', 422),
        (b'{"vo": ""}', 422),
        (b'{"vo": 7}', 422),
        (b'{"vo": "alpha", "vo": "alpha"}', 422),
        (b'{"vo": NaN}', 422),
        (b'{"vo": "a\\u0000"}', 422),
        (b'{"vo": "\\ud800"}', 422),
        (b'{"vo": "' + b"a" * 256 + b'"}', 422),
        (b"[]", 422),
        (b"{", 422),
        (b"\xff", 422),
        (b'{"vo": "\xff"}', 422),
        (b" " * (2**16 + 1), 413),
        (b"", 403),
    ],
)
def test_bodies_are_bounded_and_mean_what_they_say(
    app: TestClient, settings: Settings, body: bytes, status: int
) -> None:
    """Who decides is never said there, no mistyped member is passed over; nothing at all stands for all VOs."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    assert anna.send(f"{MARCH}/closing", body).status_code == status
    assert anna.get(ROOT).json() == {"periods": []}


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": " "}, {"reason": "x" * 4001}, {"reason": "a\0"}])
def test_a_month_is_reopened_with_a_reason(app: TestClient, settings: Settings, body: dict[str, Any]) -> None:
    """It stays with the period, so it has to be one that can be kept."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    anna.post(f"{MARCH}/closing", vo="alpha")
    assert anna.post(f"{MARCH}/reopening", vo="alpha", **body).status_code == 422
    assert anna.get(ROOT).json()["periods"][0]["state"] == "closed"


def test_periods_of_other_vos_are_not_seen(app: TestClient, settings: Settings) -> None:
    """Nor that there are any; those of all VOs are, where they hold what is seen. The platform says that it asks."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    rita = Person(app, settings, "rita", Role.READER, "alpha")
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, EVERY)
    root.post(f"{MARCH}/closing", vo="beta")
    assert anna.get(ROOT).json() == rita.get(ROOT).json() == {"periods": []}
    root.post(f"{MARCH}/closing")
    (seen,) = rita.get(ROOT).json()["periods"]
    assert (seen["vo"], seen["without"], seen["closed"]["by"]) == ("*", [], "")
    assert anna.get(ROOT).json()["periods"][0]["closed"]["by"].startswith("root of")
    assert root.get(ROOT).status_code == 400
    whole = root.get(ROOT, ALL).json()["periods"]
    assert [(each["vo"], each["without"]) for each in whole] == [("*", ["beta"]), ("beta", [])]
    assert [each["vo"] for each in root.get(ROOT, ALL, vo="beta").json()["periods"]] == ["beta"]
    assert root.get(ROOT, ALL, kind="pilot").json() == {"periods": []}
    for path in (f"{MARCH}/adjustments", ROOT):
        assert anna.get(path, vo="beta").status_code == 403
    assert [each["vo"] for each in rita.get(ROOT, vo="*").json()["periods"]] == ["*"]
    assert Person(app, settings, "olga", Role.REPORTER, "alpha").get(ROOT).status_code == 403


def test_answers_as_of_closing_tell_nothing_of_periods_of_others(app: TestClient, settings: Settings) -> None:
    """Neither who has records nor who has none learns by them whether another VO has closed the month."""
    readers = [Person(app, settings, name, Role.READER, name) for name in ("alpha", "gamma")]
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, EVERY)

    def told() -> list[tuple[int, str]]:
        asked: dict[str, Any] = {"kind": "job", "window": "2026-03", "attribution": "by-end", "as_of": "closing"}
        answers = [each.get("/v1/accounting/usage", **asked) for each in readers]
        return [(each.status_code, each.json().get("detail") or str(each.json()["totals"])) for each in answers]

    nobody = told()
    assert [status for status, _ in nobody] == [400, 400]
    root.post(f"{MARCH}/closing", vo="beta")
    assert told() == nobody
    root.post(f"{MARCH}/closing")
    with_beta_apart = told()
    assert with_beta_apart == [(200, "[5]"), (200, "[0]")]
    root.post(f"{MARCH}/reopening", reason="again")
    root.post(f"{MARCH}/reopening", reason="again", vo="beta")
    assert told() == nobody
    root.post(f"{MARCH}/closing")
    assert told() == with_beta_apart


def test_adjustments_show_what_the_viewer_sees(app: TestClient, settings: Settings) -> None:
    """Of a month closed for all: an accountant the VO's by name, a reader by pseudonym, a person their own."""
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, EVERY)
    root.post(f"{MARCH}/closing")
    book(settings, *range(20, 26))
    move(settings, "alpha", "the records of user0")

    def seen(person: Person, headers: dict[str, str] | None = None) -> list[tuple[str, str, str, str]]:
        answer = person.get(f"{MARCH}/adjustments", headers).json()
        assert answer["more"] == ""
        return sorted(
            (each["group"]["vo"], each["group"]["user"], each["author"], each["reason"])
            for each in answer["adjustments"]
        )

    everything = seen(root, ALL)
    assert {vo for vo, *_ in everything} == set(VOS)
    accountant = seen(Person(app, settings, "anna", Role.ACCOUNTANT, "alpha"))
    assert accountant == [each for each in everything if each[0] == "alpha"]
    assert {each[2:] for each in accountant} == {("", ""), ("anna", "the records of user0")}
    reader = seen(Person(app, settings, "rita", Role.READER, "alpha"))
    assert len(reader) == len(accountant)
    assert all(is_pseudonym(user) and (author, reason) == ("", "") for _, user, author, reason in reader)
    assert len({user for _, user, *_ in reader}) == 3
    told = Person(app, settings, "rita", Role.READER, "alpha").get(f"{MARCH}/adjustments").json()
    assert "user" in told["pseudonyms"]
    own = seen(Person(app, settings, "user1", Role.USER, "alpha"))
    assert {user for _, user, *_ in own} == {"user1"}
    assert len(own) == sum(user == "user1" for _, user, *_ in accountant)
    assert all(each[2:] == ("", "") for each in own)


def move(settings: Settings, vo: str, reason: str) -> None:
    """A correction of all jobs of a VO."""
    text = DraftText(
        kind="job",
        action="move",
        where=(f"vo={vo}",),
        window="2026-03",
        given=("site=RIGHT",),
        author="anna",
        reason=reason,
    )
    with closing(open_ledger(settings, load_kinds())) as ledger:
        draft = parse_draft(text, ledger.kinds, NOON)
        approve(ledger, propose(ledger, draft).number, "ben")


def test_adjustments_come_in_portions(app: TestClient, settings: Settings) -> None:
    """As many as are asked for, until `more` is empty; what is not a place among them is refused."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    anna.post(f"{MARCH}/closing", vo="alpha")
    book(settings, *range(20, 30))
    everything = anna.get(f"{MARCH}/adjustments", vo="alpha").json()["adjustments"]
    found, after = [], ""
    for _ in range(len(everything)):
        answer = anna.get(f"{MARCH}/adjustments", vo="alpha", limit=1, after=after).json()
        found += answer["adjustments"]
        after = answer["more"]
    assert (found, after) == (everything, "")
    assert len(everything) > 1
    for wrong in ("x", "1.LATE.3", "1.NEVER.3.4", f"{2**63}.LATE.3.4", "1.LATE.x.4", "1.LATE.3.4.5"):
        assert anna.get(f"{MARCH}/adjustments", vo="alpha", after=wrong).status_code == 400
    assert anna.get(f"{MARCH}/adjustments", vo="alpha", limit=0).status_code == 422
    assert anna.get(f"{MARCH}/adjustments", vo="alpha", page=2).status_code == 400


def test_hidden_names_stay_hidden(settings: Settings) -> None:
    """Where this installation shows nobody's name, periods do not tell who decided, nor adjustments whose they are."""
    hiding = msgspec.structs.replace(settings, access=AccessSettings(names=False))
    with TestClient(create_app(hiding, routers=ROUTERS)) as app:
        anna = Person(app, hiding, "anna", Role.ACCOUNTANT, "alpha")
        anna.post(f"{MARCH}/closing", vo="alpha")
        move(settings, "alpha", "the records of user0")
        signed = anna.post(f"{MARCH}/signature", vo="alpha").json()["period"]
        (listed,) = anna.get(ROOT).json()["periods"]
        assert [each["by"] for each in (signed["closed"], signed["signed"], listed["closed"])] == ["", "", ""]
        found = anna.get(f"{MARCH}/adjustments", vo="alpha").json()["adjustments"]
        assert found
        assert all(each["author"] == each["reason"] == "" for each in found)
        assert all(is_pseudonym(each["group"]["user"]) for each in found)


def test_a_month_that_is_not_what_its_records_say_is_not_signed(app: TestClient, settings: Settings) -> None:
    """Over HTTP as by command: its buckets are compared with its records first."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    anna.post(f"{MARCH}/closing", vo="alpha")
    with closing(open_ledger(settings, load_kinds())) as ledger, ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE accounting_job_by_end SET wall_time = wall_time + 1")
    refused = anna.post(f"{MARCH}/signature", vo="alpha")
    assert (refused.status_code, "not what its records say" in refused.json()["detail"]) == (422, True)
    assert anna.get(ROOT).json()["periods"][0]["state"] == "closed"


def test_a_ledger_that_cannot_decide_now_says_so(
    app: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables are being changed: ask again later."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")

    def changing(*_: object, **__: object) -> None:
        message = "tables are being changed"
        raise SinkUnavailable(message)

    monkeypatch.setattr("accounting.ledger.Ledger.check", changing)
    answer = anna.post(f"{MARCH}/closing", vo="alpha")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "tables are being changed" in answer.json()["detail"]


def test_days_without_records_are_told_when_a_month_is_signed(
    app: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which days, and not where the files of the archive are."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    anna.post(f"{MARCH}/closing", vo="alpha")
    missing = verifying.Untold("job", NOON, NOON + timedelta(days=1), "records are missing: /somewhere/file")
    monkeypatch.setattr("accounting.checks.signing.checked_buckets", lambda *_: iter([missing]))
    days = [str(each.date()) for each in (missing.first, missing.last)]
    assert anna.post(f"{MARCH}/signature", vo="alpha").json()["not_compared"] == [days]
