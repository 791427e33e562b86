"""The door: who may pass, who not, and that no route is forgotten."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect

from siteward.exposure import check_exposure, is_loopback
from siteward.server.app import RouterFactory, create_app
from siteward.server.auth import Permission, requires
from siteward.server.auth.access import Guarded, UndeclaredError
from siteward.settings import ServerSettings, Settings, SettingsError

TOKEN = "correct-horse-battery-staple-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


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


def client(folder: Path, *, token: str = "", base: str = "http://127.0.0.1:8080") -> TestClient:
    settings = Settings(data=str(folder), server=ServerSettings(token=token))
    return TestClient(create_app(settings, routers=[doors]), base_url=base)


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


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "siteward.example.org"])
def test_other_hosts_need_a_token(tmp_path: Path, host: str) -> None:
    """Anything but loopback without a token refuses to start and says what to set."""
    with pytest.raises(SettingsError, match="token_file"):
        create_app(Settings(data=str(tmp_path), server=ServerSettings(host=host)), routers=[])
    create_app(Settings(data=str(tmp_path), server=ServerSettings(host=host, token=TOKEN)), routers=[])


@pytest.mark.parametrize("token", ["short", "x" * 31, "ü" * 40, "x" * 32 + "\n"])
def test_weak_tokens_are_refused(token: str) -> None:
    """A token that can be guessed, or that no header can carry, refuses to start wherever it listens."""
    with pytest.raises(SettingsError, match="at least 32 printable"):
        check_exposure("server", "127.0.0.1", token)


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


@pytest.mark.parametrize("path", ["/read", "/mounted", "/metrics", "/openapi.json"])
def test_token_is_asked_for(tmp_path: Path, path: str) -> None:
    """With a token, every route that is not public answers 401 with a challenge, and passes with the token."""
    door = client(tmp_path, token=TOKEN, base="http://siteward.example.org")
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Bearer"}, {"Authorization": TOKEN}):
        refused = door.get(path, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"
    assert door.get(path, headers=BEARER).status_code == 200
    assert door.get("/public").status_code == 200
    assert door.get("/health/live").status_code == 200


def test_token_is_asked_before_the_body_is_read(tmp_path: Path) -> None:
    """A caller without the token cannot make the server read a body, well-formed or not."""
    door = client(tmp_path, token=TOKEN)
    assert door.post("/report", content=b"{" * 10).status_code == 401
    assert door.post("/report", json={"a": 1}, headers=BEARER).json() == {"a": 1}


def test_browsers_may_give_the_token_as_password(tmp_path: Path) -> None:
    """A browser asks a person for name and password: any name, and the token."""
    door = client(tmp_path, token=TOKEN)

    def basic(text: str) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

    assert door.get("/read", headers=basic(f"me:{TOKEN}")).status_code == 200
    assert door.get("/read", headers=basic("me:wrong")).status_code == 401
    assert door.get("/read", headers={"Authorization": "Basic ***"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.example.org:8080", "localhost@evil.example.org", "["])
def test_other_names_are_not_answered(tmp_path: Path, host: str) -> None:
    """Without a token, a name that an attacker made point at this machine gets no answer."""
    refused = client(tmp_path).get("/public", headers={"Host": host})
    assert refused.status_code == 421
    assert "server.token" in refused.json()["detail"]


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
    for door in (client(tmp_path), client(tmp_path, token=TOKEN)):
        assert door.post("/report", json={"a": 1}, headers=headers | BEARER).status_code == status
        assert door.get("/read", headers=headers | BEARER).status_code == 200


def test_websockets_do_not_pass(tmp_path: Path) -> None:
    """A mounted application cannot be reached by a protocol that the door does not judge."""
    with pytest.raises(WebSocketDisconnect), client(tmp_path).websocket_connect("/mounted"):
        pass


def test_installed_routes_all_declare_a_permission(tmp_path: Path) -> None:
    """The app of this installation starts: none of our routes is forgotten."""
    assert isinstance(create_app(Settings(data=str(tmp_path))), FastAPI)
