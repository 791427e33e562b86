"""Every route of this installation, walked by the description of itself: who may call it, and who not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from siteward.server.app import create_app
from siteward.server.auth import Permission
from siteward.server.auth.access import permissions
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import OF_SITES, PERMISSIONS, SENDING, Role, grant
from siteward.settings import IssuerSettings, Settings

PATHS: Final = {"kind": "job", "field": "site", "id": "0" * 32, "number": "1", "action": "discard"}
"""What stands for the parts of paths."""
Called = tuple[str, str, Permission]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of an installation that trusts its own issuer."""
    return Settings(data=str(tmp_path_factory.mktemp("routes")), issuers={"local": IssuerSettings(profile="local")})


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    """The app with everything that is installed."""
    return create_app(settings)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A caller without a token."""
    with TestClient(app, "http://siteward.example.org", raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def routes(app: FastAPI) -> list[Called]:
    """Method, path and permission of every operation."""
    return [
        (method, route.path.format_map(Parts()), permission)
        for route, permission in permissions(app.router.routes)
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]


class Parts(dict[str, str]):
    """The parts of any path."""

    def __missing__(self, name: str) -> str:
        return PATHS.get(name.partition(":")[0], "x")


def bearer(settings: Settings, role: Role | None) -> dict[str, str]:
    """A token with one role, or with none."""
    sites = ("SITE-A",) if role is Role.SITE_OPERATOR else ()
    grants = () if role is None else (grant(role, () if role is Role.PLATFORM_ADMIN else ("dteam",), sites),)
    return {"Authorization": f"Bearer {LocalIssuer(Path(settings.data) / 'issuer.json').token('anna', grants, 1)}"}


def call(client: TestClient, method: str, path: str, headers: dict[str, str]) -> Any:
    """Call it without anything that it would need to succeed."""
    return client.request(method, path, headers=headers)


def test_the_description_has_every_route_below_v1(app: FastAPI, routes: list[Called]) -> None:
    """So that whoever walks it misses none."""
    described = {
        (method.upper(), path.format_map(Parts())) for path, each in app.openapi()["paths"].items() for method in each
    }
    own = {(method, path) for method, path, _ in routes if path.startswith("/v1/")}
    assert own <= described
    assert len(own) > 20


def test_nobody_passes_without_a_token(client: TestClient, routes: list[Called]) -> None:
    """But to what is public."""
    for method, path, permission in routes:
        status = call(client, method, path, {}).status_code
        assert (status == 401) is (permission is not Permission.PUBLIC), (method, path)


def test_who_has_no_role_learns_nothing_but_that(client: TestClient, routes: list[Called], settings: Settings) -> None:
    """A good token alone opens no route but the one that tells whose it is."""
    nobody = bearer(settings, None)
    for method, path, permission in routes:
        status = call(client, method, path, nobody).status_code
        is_open = permission in {Permission.PUBLIC, Permission.IDENTIFIED}
        assert (status == 403) is not is_open, (method, path)


@pytest.mark.parametrize("role", Role)
def test_a_role_opens_what_it_allows(client: TestClient, routes: list[Called], settings: Settings, role: Role) -> None:
    """And nothing else; nothing that a caller sends, or leaves out, is the server's error."""
    headers = bearer(settings, role)
    allowed = {Permission.PUBLIC, Permission.IDENTIFIED, *PERMISSIONS[role]}
    if role is Role.PLATFORM_ADMIN:
        allowed.add(Permission.WATCH)
    if allowed & SENDING:
        allowed.add(Permission.SEND)
    for method, path, permission in routes:
        answer = call(client, method, path, headers)
        assert answer.status_code != 401, (method, path)
        assert answer.status_code < 500 or answer.status_code == 503, (method, path, answer.text)
        if permission not in allowed:
            assert answer.status_code == 403, (method, path)
            assert "takes one of the roles" in answer.json()["detail"]
        elif role is Role.PLATFORM_ADMIN:
            assert answer.status_code != 403, (method, path)


def test_roles_of_sites_are_those_that_write(settings: Settings) -> None:
    """A reader of a single site would see less than nothing says."""
    del settings
    assert {Role.REPORTER, Role.SITE_OPERATOR} == OF_SITES


def test_a_reader_of_what_all_share_may_watch_the_platform(client: TestClient, settings: Settings) -> None:
    """Prometheus scrapes with such a token; a VO's reader does not see other VOs' producers there."""
    issuer = LocalIssuer(Path(settings.data) / "issuer.json")
    scraper = {"Authorization": f"Bearer {issuer.token('prometheus', (grant(Role.READER, ('all',)),), 1)}"}
    assert client.get("/metrics", headers=scraper).status_code == 200
    for role, vo in ((Role.READER, "dteam"), (Role.USER, "all")):
        token = issuer.token("anna", (grant(role, (vo,)),), 1)
        refused = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert refused.status_code == 403
        assert "'all'" in refused.json()["detail"]
