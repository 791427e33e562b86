"""Corrections over HTTP: by accountants of the VOs concerned, approved by another one, and noted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from examples import JOB, NOON, batch_of, job
from fastapi.testclient import TestClient

from accounting import api, corrections_api
from accounting.opening import open_ledger
from siteward.kinds import load_kinds
from siteward.records import id_text, microseconds
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.server.people_table import PeopleTable
from siteward.settings import AccessSettings, IssuerSettings, Settings

ROOT: Final = "/v1/accounting/corrections"
VOS: Final = ("alpha", "beta")
MOVE: Final[dict[str, Any]] = {
    "kind": "job",
    "action": "move",
    "window": "2026-03",
    "given": ["site=RIGHT"],
    "reason": "a wrong name",
}


VOID: Final = b'{"kind": "job", "action": "void", "window": "2026-03", "reason": "x", "where": ["vo=alpha"]}'
"""One that is taken as it is."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation whose ledger holds five jobs of either VO."""
    made = Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})
    until = microseconds(NOON + timedelta(days=1))
    rows = [JOB.row_of(job(number, vo=VOS[number % 2]), until) for number in range(10)]
    with closing(open_ledger(made, load_kinds())) as ledger:
        ledger.write(batch_of(JOB, rows))
    return made


@pytest.fixture
def app(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, routers=[api.router, corrections_api.router])) as client:
        yield client


class Person:
    """Somebody with a role."""

    def __init__(self, app: TestClient, settings: Settings, name: str, role: Role, *vos: str) -> None:
        token = LocalIssuer(settings.issuer_file).token(name, (Grant(role, vos),), 1)
        self._app, self._headers = app, {"Authorization": f"Bearer {token}"}

    def post(self, path: str = "", /, **body: Any) -> Any:
        return self._app.post(f"{ROOT}{path}", json=body, headers=self._headers)

    def send(self, path: str, content: bytes) -> Any:
        return self._app.post(f"{ROOT}{path}", content=content, headers=self._headers)

    def get(self, path: str, **headers: str) -> Any:
        return self._app.get(path, headers=self._headers | headers).json()


def test_one_proposes_and_another_approves(app: TestClient, settings: Settings) -> None:
    """Shown first, then proposed, approved by somebody else, taken back; each step in the audit, every total right."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    ben = Person(app, settings, "ben", Role.ACCOUNTANT, "alpha")
    question = "/v1/accounting/usage?kind=job&measures=records&window=2026-03&where=site%3DRIGHT&attribution=by-end"
    shown = anna.post(**MOVE, where=["vo=alpha"], dry_run=True).json()
    assert (shown["records"], len(anna.get(ROOT)["corrections"])) == (5, 0)
    proposed = anna.post(**MOVE, where=["vo=alpha"])
    number = proposed.json()["number"]
    assert (proposed.status_code, proposed.json()["state"]) == (200, "proposed")
    assert proposed.json()["proposed"]["by"].startswith("anna of http")
    assert anna.get(question)["totals"] == [0]
    refused = anna.post(f"/{number}/approval", anew=False)
    assert (refused.status_code, "by another person" in refused.json()["detail"]) == (422, True)
    assert ben.post(f"/{number}/approval").json()["state"] == "applied"
    assert anna.get(question)["totals"] == [5]
    assert ben.post(f"/{number}/reversal", reason="it was right").json()["state"] == "reversed"
    assert anna.get(question)["totals"] == [0]
    another = anna.post(**MOVE, where=["vo=alpha"]).json()["number"]
    assert ben.post(f"/{another}/rejection", reason="no").json()["decided"]["reason"] == "no"
    resources = app.app.state.resources  # type: ignore[attr-defined]  # FastAPI's.
    entries = [each for each in resources.audit.find() if each.action == f"POST {ROOT}/{number}/approval" and each.of]
    assert [(each.subject, each.outcome) for each in entries] == [("ben", "200"), ("anna", "422")]
    assert (entries[0].before["state"], entries[0].after["state"]) == ("proposed", "applied")
    assert {each.vos for each in resources.audit.find() if each.action.startswith("POST")} == {("alpha",)}


def test_what_is_about_several_vos_is_found_in_the_audit_of_each(app: TestClient, settings: Settings) -> None:
    """Once it is known whose the records are; before, of whoever may correct those of any, it is nobody's."""
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, "*")
    assert root.post(**MOVE, where=["vo=alpha|beta"]).status_code == 200
    assert root.post(**MOVE, where=[]).status_code == 200
    audit = app.app.state.resources.audit  # type: ignore[attr-defined]  # FastAPI's.
    newest = audit.find(limit=4)
    assert [(each.outcome, each.vos) for each in newest] == [
        ("200", ("*",)),
        ("asked", ()),
        ("200", ("alpha", "beta")),
        ("asked", ()),
    ]
    assert {newest[0].number, newest[2].number} <= {each.number for each in audit.find(vo="beta")}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"where": ["vo=beta"]}, 403),
        ({"where": ["vo=alpha|beta"]}, 403),
        ({"where": []}, 403),
        ({"where": ["vo!=beta"]}, 403),
        ({"where": ["vo~alp*"]}, 403),
        ({"where": ["site=SITE-1"]}, 403),
        ({"where": ["vo=alpha"], "given": ["vo=beta"]}, 403),
        ({"where": ["vo=alpha"], "given": ["no=thing"]}, 400),
        ({"where": ["vo=alpha"], "kind": "jobs"}, 400),
        ({"where": ["vo=alpha"], "reason": ""}, 422),
        ({"where": ["vo=alpha", "vo=alpha|beta"]}, 200),
    ],
)
def test_accountants_correct_their_own_vo(
    app: TestClient, settings: Settings, body: dict[str, Any], status: int
) -> None:
    """What is concerned has to be named, and theirs; so has the VO to which anything goes."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    assert anna.post(**{**MOVE, **body}).status_code == status


BODIES: Final = [
    ("", b'{"kind": "job", "action": "void", "window": "2026-03", "reason": "x", "wehre": ["vo=alpha"]}', 422),
    ("", b'{"kind": "job", "action": "void", "window": "2026-03", "reason": "x", "author": "ben"}', 422),
    ("", VOID[:-1] + b', "where": ["vo=beta"]}', 422),
    ("", VOID.replace(b'"x"', b'"\\u0000"'), 422),
    ("", VOID.replace(b'"x"', b'"\\ud800"'), 422),
    ("", VOID.replace(b'"x"', b"7"), 422),
    ("", VOID.replace(b'"x"', b"NaN"), 422),
    ("", b'{"kind": ' + b"[" * 30_000, 422),
    ("", VOID[:-1] + b" " * 2**16 + b"}", 413),
    ("", b"", 422),
    ("", b"\xff", 422),
    ("/1/approval", b'{"anew": true, "anew": false}', 422),
    ("/1/approval", b'{"reason": "x"}', 422),
    ("/1/rejection", b'{"reason": "x", "by": "ben"}', 422),
    ("/1/rejection", b'{"reason": "x", "reason": "y"}', 422),
    ("/1/reversal", b"[]", 422),
    ("/1/reversal", b'{"reason": "' + b"x" * 2**16 + b'"}', 413),
]


def test_bodies_are_bounded_and_mean_what_they_say(app: TestClient, settings: Settings) -> None:
    """No mistyped member is passed over, none is said twice, who decides is never said there; nothing is decided."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    assert anna.post(**MOVE, where=["vo=alpha"]).json()["number"] == 1
    found = [(path, body, anna.send(path, body).status_code) for path, body, _ in BODIES]
    assert found == BODIES
    assert [each["state"] for each in anna.get(ROOT)["corrections"]] == ["proposed"]


def test_nobody_decides_for_another_vo(app: TestClient, settings: Settings) -> None:
    """Nor sees its corrections; the platform does both. Readers and operators correct nothing."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    carl = Person(app, settings, "carl", Role.ACCOUNTANT, "beta")
    root = Person(app, settings, "root", Role.PLATFORM_ADMIN, EVERY)
    # Who may see every VO says so, here as everywhere.
    assert root.get(ROOT)["status"] == 400
    assert root.get(ROOT, **{"Siteward-VO": "*"})["corrections"] == []
    number = anna.post(**MOVE, where=["vo=alpha"]).json()["number"]
    assert carl.get(ROOT)["corrections"] == []
    assert [each["number"] for each in anna.get(ROOT)["corrections"]] == [number]
    for step, body in (("approval", {}), ("rejection", {"reason": "x"}), ("reversal", {"reason": "x"})):
        assert carl.post(f"/{number}/{step}", **body).status_code == 403
    for role in (Role.READER, Role.OPERATOR, Role.REPORTER):
        assert Person(app, settings, "olga", role, "alpha").post(**MOVE, where=["vo=alpha"]).status_code == 403
    assert root.post(f"/{number}/approval").json()["state"] == "applied"
    assert root.post("/999/approval").status_code == 422


def test_no_id_tells_an_accountant_what_another_vo_has(app: TestClient, settings: Settings) -> None:
    """One of another VO is refused as one that never came; those of the VO itself are corrected."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    until = microseconds(NOON + timedelta(days=1))
    rows = [JOB.row_of(job(number, vo=VOS[number % 2]), until) for number in (0, 1)]
    mine, theirs = (id_text(each) for each in batch_of(JOB, rows).ids)
    by_id = {**MOVE, "window": "", "where": ["vo=alpha"], "dry_run": True}
    assert anna.post(**by_id, ids=[mine]).json()["records"] == 1
    refused = [anna.post(**by_id, ids=[each]) for each in (theirs, "00" * 16)]
    assert [each.status_code for each in refused] == [422, 422]
    assert refused[0].text.replace(theirs, "00" * 16) == refused[1].text


def test_hidden_names_are_not_told_by_corrections(settings: Settings) -> None:
    """Where people are pseudonyms, corrections are a matter of the command."""
    hiding = msgspec.structs.replace(settings, access=AccessSettings(names=False))
    with TestClient(create_app(hiding, routers=[api.router, corrections_api.router])) as app:
        anna = Person(app, hiding, "anna", Role.ACCOUNTANT, "alpha")
        assert anna.post(**MOVE, where=["vo=alpha"], dry_run=True).status_code == 403
        assert anna.get(ROOT)["status"] == 403
        root = Person(app, hiding, "root", Role.PLATFORM_ADMIN, EVERY)
        assert root.get(ROOT, **{"Siteward-VO": "*"})["status"] == 403


def test_corrections_tell_nobody_of_other_vos(app: TestClient, settings: Settings) -> None:
    """Neither by a pattern, nor by a pseudonym that was seen elsewhere, as condition or as new value."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    with closing(PeopleTable(settings)) as people:
        code = people.pseudonym("user", "Secret Person")
        people.enter({code: ("user", "Secret Person")})
    refused = anna.post(**MOVE, where=["vo=alpha", "user~*"])
    assert (refused.status_code, "one by one" in refused.text) == (403, True)
    told = anna.post(**MOVE, where=["vo=alpha", f"user!={code}"])
    assert told.status_code == 200
    assert told.json()["where"] == ["vo=alpha", f"user!={code}"]
    move = {**MOVE, "given": [f"user={code}"]}
    assert anna.post(**move, where=["vo=alpha"], dry_run=True).status_code == 422
    assert "Secret" not in refused.text + told.text + str(anna.get(ROOT))


def test_a_dry_run_enters_nobody(app: TestClient, settings: Settings) -> None:
    """It shows the name that was typed, and leaves nothing."""
    anna = Person(app, settings, "anna", Role.ACCOUNTANT, "alpha")
    move = {**MOVE, "given": ["user=Never Seen"]}
    shown = anna.post(**move, where=["vo=alpha"], dry_run=True).json()
    assert "Never Seen" in {each["group"]["user"] for each in shown["differences"]}
    with closing(PeopleTable(settings)) as people:
        code = people.pseudonym("user", "Never Seen")
        assert people.names([code]) == {}
        assert anna.post(**move, where=["vo=alpha"]).status_code == 200
        assert people.names([code]) == {code: "Never Seen"}
