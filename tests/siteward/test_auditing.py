"""Every request that changes anything is noted; where it cannot be, nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, Request
from fastapi.testclient import TestClient

from siteward.server.app import create_app
from siteward.server.auth import Permission, requires
from siteward.server.auth.auditing import note_change
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.database import Conflict
from siteward.server.resources import Resources
from siteward.settings import IssuerSettings, Settings

ADMIN = Grant(Role.PLATFORM_ADMIN, ("*",))
ALL = {"Siteward-VO": "*"}


class Door:
    """An app with routes that change something."""

    def __init__(self, folder: Path) -> None:
        self.changed: list[str] = []
        settings = Settings(data=str(folder), issuers={"local": IssuerSettings(profile="local")})
        self.resources = Resources(settings, {})
        self.issuer = LocalIssuer(settings.issuer_file)
        app = create_app(settings, routers=[self.routes], resources=self.resources)
        self.client = TestClient(app, "http://localhost", raise_server_exceptions=False)

    def routes(self, _settings: Settings) -> APIRouter:
        routes = APIRouter()

        @routes.post("/operate/{what}", dependencies=[Depends(requires(Permission.OPERATE))])
        def operate(request: Request, what: str) -> str:
            self.changed.append(what)
            note_change(request, vo="dteam", before=["nothing"], after=[what])
            if what == "fails":
                raise RuntimeError(what)
            return what

        @routes.post("/report", dependencies=[Depends(requires(Permission.REPORT))])
        def report() -> str:
            return "reported"

        @routes.get("/read", dependencies=[Depends(requires(Permission.READ))])
        def read() -> str:
            return "read"

        return routes

    def bearer(self, *grants: Grant, name: str = "anna") -> dict[str, str]:
        """A token."""
        return {"Authorization": f"Bearer {self.issuer.token(name, grants, 1)}"}

    def audit(self, **query: Any) -> list[dict[str, Any]]:
        """What stands in it, asked for by the platform's administrator, but that this one looked at all of it."""
        found: list[dict[str, Any]] = self.client.get(
            "/v1/audit", params=query, headers=self.bearer(ADMIN, name="root") | ALL
        ).json()["audit"]
        return [each for each in found if each["outcome"] != "seen"]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """Such an app."""
    return Door(tmp_path)


def test_a_change_is_noted_with_who_what_and_how_it_ended(door: Door) -> None:
    """And with what it was and what it became; reading, and records, are not changes."""
    operator = door.bearer(Grant(Role.OPERATOR, ("dteam",)))
    assert door.client.post("/operate/ban", headers=operator).status_code == 200
    assert door.client.get("/read", headers=operator).status_code == 200
    assert door.client.post("/report", headers=door.bearer(Grant(Role.REPORTER, ("dteam",)))).status_code == 200
    done, asked = door.audit()
    assert (asked["action"], asked["outcome"], asked["subject"]) == ("POST /operate/ban", "asked", "anna")
    assert (done["outcome"], done["of"], done["vos"]) == ("200", asked["number"], ["dteam"])
    # Whoever may do so in one VO only does it there.
    assert asked["vos"] == ["dteam"]
    assert (done["before"], done["after"]) == (["nothing"], ["ban"])
    assert done["token"] not in {"", None}


def test_what_fails_is_noted_too(door: Door) -> None:
    """It may have changed something all the same."""
    operator = door.bearer(Grant(Role.OPERATOR, ("dteam",)))
    assert door.client.post("/operate/fails", headers=operator).status_code == 500
    done, asked = door.audit()
    assert (done["outcome"], done["after"], done["of"]) == ("broken off", ["fails"], asked["number"])
    assert (asked["vos"], done["vos"]) == (["dteam"], ["dteam"])


def test_what_is_refused_at_the_door_is_no_change(door: Door) -> None:
    """Nobody can fill the audit without a role."""
    for headers in ({}, door.bearer(), door.bearer(Grant(Role.READER, ("dteam",)))):
        assert door.client.post("/operate/ban", headers=headers).status_code in {401, 403}
    assert door.audit() == []


def test_nothing_is_changed_without_the_audit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away makes the answer 503, with the reason."""

    def away(*_: object) -> None:
        message = "the database is away"
        raise Conflict(message)

    monkeypatch.setattr(door.resources.audit, "ask", away)
    refused = door.client.post("/operate/ban", headers=door.bearer(Grant(Role.OPERATOR, ("dteam",))))
    assert refused.status_code == 503
    assert "audit" in refused.json()["detail"]
    assert door.changed == []


def test_a_vos_administrator_sees_what_was_changed_of_the_vo(door: Door) -> None:
    """And has to name it; others see nothing."""
    operator = door.bearer(Grant(Role.OPERATOR, ("dteam",)))
    door.client.post("/operate/ban", headers=operator)
    admin = door.bearer(Grant(Role.ADMIN, ("dteam",)), name="boris")
    assert len(door.client.get("/v1/audit", params={"vo": "dteam"}, headers=admin).json()["audit"]) == 2
    assert door.client.get("/v1/audit", params={"vo": "biomed"}, headers=admin).status_code == 403
    assert door.client.get("/v1/audit", headers=admin).status_code == 403
    assert door.client.get("/v1/audit", params={"vo": "dteam"}, headers=operator).status_code == 403


def test_who_looks_at_the_whole_audit_says_so_and_is_noted(door: Door) -> None:
    """The platform's own name a VO, or say that they want all; nobody else may."""
    door.client.post("/operate/ban", headers=door.bearer(Grant(Role.OPERATOR, ("dteam",))))
    root = door.bearer(ADMIN, name="root")
    refused = door.client.get("/v1/audit", headers=root)
    assert (refused.status_code, "which is noted" in refused.json()["detail"]) == (400, True)
    named = door.client.get("/v1/audit", params={"vo": "dteam"}, headers=root).json()["audit"]
    assert [each["action"] for each in named] == ["GET /v1/audit", "POST /operate/ban", "POST /operate/ban"]
    found = door.client.get("/v1/audit", headers=root | ALL).json()["audit"]
    looks = [(each["subject"], each["action"], each["vos"]) for each in found[:2]]
    assert looks == [("root", "GET /v1/audit", ["*"]), ("root", "GET /v1/audit", ["dteam"])]
    admin = door.bearer(Grant(Role.ADMIN, ("dteam",)), name="boris")
    assert door.client.get("/v1/audit", headers=admin | ALL).status_code == 403


def test_a_vos_administrator_learns_nothing_of_another_vo(door: Door) -> None:
    """Of an entry that is about others too: who, when, and what was asked for; not what it was and became."""
    audit, both = door.resources.audit, Caller(Identity(issuer="i", subject="s", token="t", expires=0.0), ())
    audit.note(both, "POST /v1/records/job", "200", ("biomed", "dteam"), {"queued": {"dteam": 1, "biomed": 7}})
    audit.note(both, "task retention", "done", ("*",), {"deleted": 9})
    audit.note(both, "POST /v1/records/job", "200", ("dteam",), {"queued": {"dteam": 2}})
    admin = door.bearer(Grant(Role.ADMIN, ("dteam",)), name="boris")
    found = door.client.get("/v1/audit", params={"vo": "dteam"}, headers=admin).json()["audit"]
    assert [(each["vos"], each["after"]) for each in found] == [
        (["dteam"], {"queued": {"dteam": 2}}),
        (["*"], None),
        (["dteam"], None),
    ]
    assert [each["after"] for each in door.audit(vo="dteam")][-1]["queued"] == {"dteam": 1, "biomed": 7}


def test_denying_is_noted(door: Door) -> None:
    """With the reason, and what it takes the place of; taking it back, with what it was."""
    admin = door.bearer(ADMIN, name="root")
    entry = {"issuer": "local", "subject": "anna", "reason": "her laptop was stolen"}
    assert door.client.post("/v1/denied", json=entry, headers=admin).status_code == 200
    first = door.audit()[0]
    assert (first["before"], first["after"]["reason"]) == (None, "her laptop was stolen")
    assert door.client.post("/v1/denied", json=entry | {"reason": "it was sold"}, headers=admin).status_code == 200
    second = door.audit()[0]
    assert second["before"]["reason"] == "her laptop was stolen"
    assert second["before"]["by"].startswith("root (")
    assert second["after"]["reason"] == "it was sold"
    assert door.client.delete("/v1/denied?issuer=local&subject=anna", headers=admin).status_code == 200
    third = door.audit()[0]
    assert (third["before"]["reason"], third["before"]["at"] > 0, third["after"]) == ("it was sold", True, None)
    assert door.client.delete("/v1/denied?issuer=local&subject=anna", headers=admin).status_code == 404
    assert (door.audit()[0]["outcome"], door.audit()[0]["before"]["subject"]) == ("404", "anna")


def test_the_audit_says_who_is_denied_however_much_is_said(door: Door) -> None:
    """A reason that is too long for an entry is refused, and so is a name that is given twice."""
    admin = door.bearer(ADMIN, name="root")
    entry = {"issuer": "local", "subject": "anna", "reason": "x" * 1000}
    assert door.client.post("/v1/denied", json=entry | {"reason": "x" * 1001}, headers=admin).status_code == 422
    twice = '{"issuer": "local", "subject": "anna", "subject": "ben", "reason": "r"}'
    assert door.client.post("/v1/denied", content=twice, headers=admin).status_code == 422
    assert door.client.post("/v1/denied", json=entry, headers=admin).status_code == 200
    assert (door.audit()[0]["after"]["subject"], len(door.audit()[0]["after"]["reason"])) == ("anna", 1000)


def test_who_reads_who_is_denied_is_noted(door: Door) -> None:
    """Subjects of every issuer stand there."""
    admin = door.bearer(ADMIN, name="root")
    for _ in range(2):
        assert door.client.get("/v1/denied", headers=admin).status_code == 200
    listed = door.client.get("/v1/audit", params={"action": "GET /v1/denied"}, headers=admin | ALL).json()["audit"]
    assert [(each["subject"], each["outcome"], each["vos"]) for each in listed] == [("root", "seen", ["*"])]


def test_entries_are_asked_for_by_what_they_say(door: Door) -> None:
    """Whose token, which one, what was done, when; a time or an issuer that cannot be read is told."""
    operator = door.bearer(Grant(Role.OPERATOR, ("dteam",)))
    door.client.post("/operate/ban", headers=operator)
    door.client.post("/operate/lift", headers=door.bearer(Grant(Role.OPERATOR, ("biomed",)), name="boris"))
    newest = door.audit()[0]
    assert len(door.audit(token=newest["token"])) == 2
    assert {each["subject"] for each in door.audit(issuer="local", action="POST /operate/ban")} == {"anna"}
    assert len(door.audit(issuer=newest["issuer"], since="-1h")) == 4
    assert door.audit(until="-1h") == []
    assert door.audit(issuer="https://nobody.example") == []
    refused = door.client.get("/v1/audit?since=yesterday", headers=door.bearer(ADMIN, name="root"))
    assert refused.status_code == 400
