"""The door: who may pass, who not, and that no route is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from msgspec import structs
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect

from siteward.cli.verbs import changes, notes_itself, reads
from siteward.exposure import check_token
from siteward.loopback import is_loopback
from siteward.server.app import RouterFactory, create_app
from siteward.server.auth import Permission, requires
from siteward.server.auth.access import Guarded, UndeclaredError
from siteward.server.auth.local_issuer import BRIEF, LocalIssuer
from siteward.server.auth.local_person import local_person
from siteward.server.auth.roles import Role, grant
from siteward.server.schedule import Task
from siteward.settings import IssuerSettings, NetworkSettings, ServerSettings, Settings, SettingsError

ISSUER = "issuer.json"


def doors(_settings: Settings) -> APIRouter:
    """One route for every permission, and a mounted application."""
    routes = APIRouter()

    @routes.get("/public", dependencies=[Depends(requires(Permission.PUBLIC))])
    def public() -> str:
        return "public"

    @routes.get("/read", dependencies=[Depends(requires(Permission.READ))])
    def read() -> str:
        return "read"

    @routes.post("/report", dependencies=[Depends(requires(Permission.REPORT))])
    def report(body: dict[str, int]) -> dict[str, int]:
        return body

    routes.mount("/mounted", Guarded(PlainTextResponse("mounted"), Permission.OPERATE))
    return routes


def client(folder: Path, *, trusting: bool = False, base: str = "http://127.0.0.1:8080") -> TestClient:
    """An app with these doors; one that trusts its own issuer asks for tokens, the other serves whoever is here."""
    issuers = {"local": IssuerSettings(profile="local")} if trusting else {}
    settings = Settings(data=str(folder), issuers=issuers)
    return TestClient(create_app(settings, routers=[doors]), base_url=base)


def bearer(folder: Path, role: Role = Role.PLATFORM_ADMIN, *vos: str) -> dict[str, str]:
    """The header with a token of the app's own issuer."""
    return {"Authorization": f"Bearer {LocalIssuer(folder / ISSUER).token('somebody', (grant(role, vos),), 1)}"}


def test_every_route_needs_a_permission(tmp_path: Path) -> None:
    """The app does not start with a route that declares nothing, and names it."""

    def bare(_settings: Settings) -> APIRouter:
        routes = APIRouter()
        routes.get("/forgotten")(lambda: "")
        return routes

    def mounted(_settings: Settings) -> APIRouter:
        routes = APIRouter()
        routes.mount("/files", PlainTextResponse(""))
        return routes

    def socket(_settings: Settings) -> APIRouter:
        routes = APIRouter()

        @routes.websocket("/socket")
        async def talk(_socket: WebSocket) -> None: ...

        return routes

    def nested(_settings: Settings) -> APIRouter:
        routes = APIRouter()
        routes.include_router(bare(_settings))
        return routes

    def twice(_settings: Settings) -> APIRouter:
        routes = APIRouter(dependencies=[Depends(requires(Permission.PUBLIC))])
        routes.get("/twice", dependencies=[Depends(requires(Permission.READ))])(lambda: "")
        return routes

    cases: list[tuple[RouterFactory, str]] = [
        (bare, "/forgotten"),
        (mounted, "/files"),
        (socket, "/socket"),
        (nested, "permission"),
        (twice, "more than one"),
    ]
    for factory, name in cases:
        with pytest.raises(UndeclaredError, match=name):
            create_app(Settings(data=str(tmp_path)), routers=[factory])


def test_a_route_that_comes_later_is_judged_too(tmp_path: Path) -> None:
    """By what it declares; what declares nothing is as if it were not there, also for who may do everything."""
    for trusting in (False, True):
        door = client(tmp_path, trusting=trusting)
        app = door.app
        assert isinstance(app, FastAPI)
        app.get("/late")(lambda: "open to all")
        app.post("/late-change")(lambda: "open to all")
        app.mount("/late-files", PlainTextResponse("open to all"))
        app.get("/late-read", dependencies=[Depends(requires(Permission.READ))])(lambda: "read")
        admin = bearer(tmp_path)
        for method, path in (("GET", "/late"), ("POST", "/late"), ("GET", "/late-change"), ("POST", "/late-change")):
            assert door.request(method, path, headers=admin).status_code == 404
        for path in ("/late-files", "/late-files/below"):
            assert door.get(path, headers=admin).status_code == 404
        assert door.get("/late-read", headers=admin).json() == "read"
        assert door.get("/late-read").status_code == (401 if trusting else 200)


def test_a_route_before_another_is_judged_by_its_own_declaration(tmp_path: Path) -> None:
    """One that is put before those of the start takes their requests, and none of their permissions."""
    door = client(tmp_path)
    app = door.app
    assert isinstance(app, FastAPI)
    assert door.get("/public").json() == "public"
    app.get("/public")(lambda: "taken over")
    app.router.routes.insert(0, app.router.routes.pop())
    assert door.get("/public").status_code == 404


@pytest.mark.parametrize("what", [None, "nonsense", "read", 1])
def test_only_a_permission_is_a_declaration(tmp_path: Path, what: Any) -> None:
    """Of routes, mounted applications, tasks and commands; what only looks like one is refused where it is written."""
    for declare in (
        requires,
        lambda given: Guarded(PlainTextResponse(""), given),
        lambda given: Task("x", 1.0, given, print),
        reads,
        changes,
        notes_itself,
    ):
        with pytest.raises(TypeError, match=r"expected Permission\.X, where X is one of PUBLIC"):
            declare(what)
    with pytest.raises(UndeclaredError, match="is no Task"):
        create_app(Settings(data=str(tmp_path)), routers=[], tasks=[what])


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "siteward.example.org"])
def test_other_hosts_need_a_trusted_issuer(tmp_path: Path, host: str) -> None:
    """Anything but loopback without an issuer of tokens refuses to start and says what to set."""
    alone = Settings(data=str(tmp_path), server=ServerSettings(host=host), network=NetworkSettings(plain=(host,)))
    with pytest.raises(SettingsError, match=r"\[issuers\.local\]"):
        create_app(alone, routers=[])
    create_app(structs.replace(alone, issuers={"local": IssuerSettings(profile="local")}), routers=[])


@pytest.mark.parametrize("token", ["short", "x" * 31, "ü" * 40, "x" * 32 + "\n"])
def test_weak_tokens_are_refused(token: str) -> None:
    """A token that can be guessed, or that no header can carry, refuses to start wherever it listens."""
    with pytest.raises(SettingsError, match="at least 32 printable"):
        check_token("prometheus", token)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback(host: str, own: bool) -> None:  # noqa: FBT001  # a table of cases.
    """Only this machine's own names count as loopback."""
    assert is_loopback(host) is own


@pytest.mark.parametrize("path", ["/read", "/mounted", "/metrics", "/openapi.json", "/v1/whoami"])
def test_a_token_is_asked_for(tmp_path: Path, path: str) -> None:
    """With an issuer, every route that is not public answers 401 with a challenge, and passes with a token."""
    door = client(tmp_path, trusting=True, base="http://siteward.example.org")
    good = bearer(tmp_path)
    changed = {"Authorization": good["Authorization"][:-4] + "AAAA"}
    for headers in ({}, changed, {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}, {"Authorization": "x"}):
        refused = door.get(path, headers=headers)
        assert refused.status_code == 401
        (challenge,) = refused.headers.get_list("www-authenticate")
        assert challenge.partition(" ")[0] == "Bearer"
        assert refused.headers["content-type"] == "application/problem+json"
    assert door.get(path, headers=good).status_code == 200
    assert door.get("/public").status_code == 200
    assert door.get("/health/live").status_code == 200


def test_a_token_is_asked_for_before_the_body_is_read(tmp_path: Path) -> None:
    """A caller without one cannot make the server read a body, well-formed or not."""
    door = client(tmp_path, trusting=True)
    assert door.post("/report", content=b"{" * 10).status_code == 401
    assert door.post("/report", json={"a": 1}, headers=bearer(tmp_path)).json() == {"a": 1}


def test_a_role_allows_what_it_allows_and_nothing_else(tmp_path: Path) -> None:
    """Reading is not reporting, reporting is not reading; the refusal names the roles that would do."""
    door = client(tmp_path, trusting=True)
    reader, reporter = bearer(tmp_path, Role.READER, "dteam"), bearer(tmp_path, Role.REPORTER, "dteam")
    assert door.get("/read", headers=reader).status_code == 200
    assert door.post("/report", json={"a": 1}, headers=reporter).status_code == 200
    for refused in (
        door.post("/report", json={"a": 1}, headers=reader),
        door.get("/read", headers=reporter),
        door.get("/mounted", headers=reader),
    ):
        assert refused.status_code == 403
        assert "platform-admin" in refused.json()["detail"]
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_who_has_no_role_is_told_who_they_are(tmp_path: Path) -> None:
    """So that they can ask for one."""
    door = client(tmp_path, trusting=True)
    nobody = {"Authorization": f"Bearer {LocalIssuer(tmp_path / ISSUER).token('somebody', (), 1)}"}
    told = door.get("/v1/whoami", headers=nobody).json()
    assert (told["subject"], told["grants"]) == ("somebody", [])
    assert door.get("/read", headers=nobody).status_code == 403


def test_without_issuers_the_person_at_this_machine_may_do_everything(tmp_path: Path) -> None:
    """But a token that is sent has to be good all the same."""
    door = client(tmp_path)
    assert door.get("/v1/whoami").json()["grants"][0]["role"] == "platform-admin"
    assert door.get("/read").status_code == 200
    assert door.get("/read", headers={"Authorization": "Bearer x"}).status_code == 401
    assert door.get("/read", headers=bearer(tmp_path, Role.REPORTER, "dteam")).status_code == 403


def test_a_token_of_another_installation_proves_nothing(tmp_path: Path) -> None:
    """Each has an issuer of its own."""
    door = client(tmp_path / "one", trusting=True)
    refused = door.get("/read", headers=bearer(tmp_path / "other"))
    assert (refused.status_code, refused.json()["reason"]) == (401, "issuer")


def test_our_own_issuer_is_trusted_only_where_the_settings_say_so(tmp_path: Path) -> None:
    """Else taking it out of them would take no token back; commands get along with tokens of a minute."""
    other = {"dteam": IssuerSettings(profile="wlcg", url="https://dteam.iam.example", vos=("dteam",))}
    settings = Settings(data=str(tmp_path), issuers=other)
    door = TestClient(create_app(settings, routers=[doors]), base_url="http://localhost")
    refused = door.get("/read", headers=bearer(tmp_path))
    assert (refused.status_code, refused.json()["reason"]) == (401, "audience")
    person = local_person()
    brief = LocalIssuer(tmp_path / ISSUER).token("me", person.grants, 1 / 1440, BRIEF)
    assert door.get("/read", headers={"Authorization": f"Bearer {brief}"}).status_code == 200


def test_what_is_denied_is_refused(tmp_path: Path) -> None:
    """A subject with all its tokens, until it is allowed again; who denies has to say why."""
    door = client(tmp_path, trusting=True)
    admin = bearer(tmp_path)
    issuer = LocalIssuer(tmp_path / ISSUER)
    other = {"Authorization": f"Bearer {issuer.token('other', (grant(Role.READER, ('dteam',)),), 1)}"}
    assert door.get("/read", headers=other).status_code == 200
    entry = {"issuer": issuer.settings.url, "subject": "other", "reason": "its laptop was stolen"}
    assert door.post("/v1/denied", json=entry, headers=other).status_code == 403
    assert door.post("/v1/denied", json=entry | {"reason": ""}, headers=admin).status_code == 422
    assert door.post("/v1/denied", json=entry, headers=admin).status_code == 200
    refused = door.get("/read", headers=other)
    assert (refused.status_code, refused.json()["reason"]) == (401, "denied")
    for unknown in ("https://other.example", f"{entry['issuer']}/", "locals", ""):
        mistaken = door.post("/v1/denied", json=entry | {"issuer": unknown}, headers=admin)
        assert (mistaken.status_code, entry["issuer"] in mistaken.json()["detail"]) == (422, True)
    listed = door.get("/v1/denied", headers=admin).json()["denied"]
    assert [(each["subject"], each["by"], each["reason"]) for each in listed] == [
        ("other", f"somebody ({entry['issuer']})", "its laptop was stolen")
    ]
    gone = door.request("DELETE", "/v1/denied", params={"issuer": entry["issuer"], "subject": "other"}, headers=admin)
    assert gone.status_code == 200
    assert door.get("/read", headers=other).status_code == 200


def test_browsers_are_sent_to_log_in(tmp_path: Path) -> None:
    """Where they ask for a page without a session; what asks for anything else is told what is missing."""
    door = client(tmp_path, trusting=True)
    page = {"Accept": "text/html"}
    asked = door.get("/read?a=b&c=d", headers=page, follow_redirects=False)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?to=%2Fread%3Fa%3Db%26c%3Dd")
    assert asked.headers["cache-control"] == "no-store"
    assert door.post("/report", headers=page, json={"a": 1}).status_code == 401
    assert client(tmp_path / "other").get("/read", headers=page).status_code == 200


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.example.org:8080", "localhost@evil.example.org", "["])
def test_other_names_are_not_answered(tmp_path: Path, host: str) -> None:
    """Without issuers, a name that an attacker made point at this machine gets no answer."""
    refused = client(tmp_path).get("/public", headers={"Host": host})
    assert refused.status_code == 421
    assert "[issuers.NAME]" in refused.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "[::1]:8080", "LOCALHOST"])
def test_own_names_are_answered(tmp_path: Path, host: str) -> None:
    """Loopback names pass with any port."""
    assert client(tmp_path).get("/read", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8080"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "https://evil.example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """What a browser marks as sent by a page of another origin may not post, with a token or without; programs may."""
    mine = bearer(tmp_path)
    for door in (client(tmp_path), client(tmp_path, trusting=True)):
        assert door.post("/report", json={"a": 1}, headers=headers | mine).status_code == status
        assert door.get("/read", headers=headers | mine).status_code == 200


def test_websockets_do_not_pass(tmp_path: Path) -> None:
    """A mounted application cannot be reached by a protocol that the door does not judge."""
    with pytest.raises(WebSocketDisconnect), client(tmp_path).websocket_connect("/mounted"):
        pass


def test_installed_routes_all_declare_a_permission(tmp_path: Path) -> None:
    """The app of this installation starts: none of our routes is forgotten."""
    assert isinstance(create_app(Settings(data=str(tmp_path))), FastAPI)
