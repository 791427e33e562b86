"""People log in with a browser: code and PKCE at an issuer that answers, sessions, and the way out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import APIRouter, Depends, Request
from fastapi.testclient import TestClient
from oidc_server import CLIENT, SUBJECT, OidcServer, oidc_server

from siteward.log import configure_logging
from siteward.oauth.client import IssuerRefuses, Tokens
from siteward.server.app import create_app
from siteward.server.auth import Permission, requires
from siteward.server.auth.cookies import LONGEST, UnderWay, cookie_in, read, set_cookie, written
from siteward.server.auth.door import check_trust
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.login import local_path
from siteward.server.auth.roles import Role, grant
from siteward.settings import GrantSettings, IssuerSettings, ServerSettings, Settings, SettingsError

PAGE = {"Accept": "text/html,application/xhtml+xml"}
OURS = {"Sec-Fetch-Site": "same-origin"}


def doors(_settings: Settings) -> APIRouter:
    """Something to look at, and something to change."""
    routes = APIRouter()

    @routes.get("/read", dependencies=[Depends(requires(Permission.READ))])
    def looked(request: Request) -> str:
        return str(request.scope["state"]["caller"].identity.subject)

    @routes.post("/change", dependencies=[Depends(requires(Permission.READ))])
    def changed() -> str:
        return "changed"

    return routes


@pytest.fixture
def issuer() -> Iterator[OidcServer]:
    with oidc_server() as server:
        yield server


def settings_of(folder: Path, issuer: OidcServer, **changes: Any) -> Settings:
    """An installation at which the issuer's members may read."""
    given = issuer.issuer.settings(GrantSettings(when="group:/dteam", role="reader"), client=CLIENT, **changes)
    return Settings(data=str(folder), issuers={"dteam": given, "local": IssuerSettings(profile="local")})


@pytest.fixture
def browser(tmp_path: Path, issuer: OidcServer) -> Iterator[TestClient]:
    app = create_app(settings_of(tmp_path, issuer), routers=[doors])
    with TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as client:
        yield client


def allowed(url: str) -> str:
    """Where an issuer sends the browser back to."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    location = connection.getresponse().headers["Location"]
    connection.close()
    return location


def logged_in(browser: TestClient, to: str = "/read") -> Any:
    """The answer to a browser that comes back from the issuer."""
    begun = browser.get("/login/start", params={"issuer": "dteam", "to": to})
    assert begun.status_code == 303
    return browser.get(allowed(begun.headers["location"]))


def test_a_person_logs_in_and_out(browser: TestClient) -> None:
    """From a page to the issuer and back to that page; a cookie out of scripts' reach; nothing after log-out."""
    asked = browser.get("/read?a=1", headers=PAGE)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?to=%2Fread%3Fa%3D1")
    back = logged_in(browser, "/read?a=1")
    assert (back.status_code, back.headers["location"]) == (303, "/read?a=1")
    (session,) = [each for each in back.headers.get_list("set-cookie") if each.startswith("siteward-session=")]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(session.split("; "))
    assert browser.get("/read").json() == SUBJECT
    told = browser.get("/v1/whoami").json()
    assert (told["subject"], told["grants"][0]["role"]) == (SUBJECT, "reader")
    assert browser.delete("/v1/session", headers=OURS).json() == {"ended": 1, "issuer": ""}
    assert browser.get("/read").status_code == 401
    browser.cookies.set("siteward-session", session.partition(";")[0].partition("=")[2])
    assert browser.get("/read").status_code == 401


def test_log_out_everywhere_ends_every_session(tmp_path: Path, issuer: OidcServer) -> None:
    """Of the same person in other browsers; not of others."""
    app = create_app(settings_of(tmp_path, issuer), routers=[doors])
    with (
        TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as one,
        TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as other,
        TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as somebody,
    ):
        logged_in(one)
        logged_in(other)
        token = LocalIssuer(tmp_path / "issuer.json").token("somebody", (grant(Role.READER, ("dteam",)),), 1)
        assert somebody.post("/v1/session", json={"token": token}).json()["subject"] == "somebody"
        left = one.delete("/v1/session?everywhere=true", headers=OURS).json()
        assert left["ended"] == 2
        back = "post_logout_redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2Flogin"
        assert left["issuer"].endswith(f"/logout?client_id={CLIENT}&{back}")
        assert other.get("/read").status_code == 401
        assert somebody.get("/read").json() == "somebody"
        entries = app.state.resources.audit.find()
    assert [each.action for each in entries if each.of] == [
        "DELETE /v1/session",
        "log in",
        "log in",
        "log in",
    ]


def test_log_out_everywhere_ends_tokens(browser: TestClient, issuer: OidcServer, tmp_path: Path) -> None:
    """Those of before, of this subject at this issuer; a later one is good, and so is the next log-in."""

    def answered(token: str) -> int:
        return browser.get("/read", headers={"Authorization": f"Bearer {token}"}).status_code

    def issued(seconds: float, **claims: object) -> str:
        at = time.time() + seconds
        return issuer.issuer.token(**{"sub": SUBJECT, "iat": at, "nbf": None, "exp": at + 600, **claims})

    before, other = issued(-5), issued(-5, sub="somebody-else")
    ours = LocalIssuer(tmp_path / "issuer.json").token(SUBJECT, (grant(Role.READER, ("dteam",)),), 1)
    assert [answered(each) for each in (before, other, ours)] == [200, 200, 200]
    logged_in(browser)
    assert browser.delete("/v1/session?everywhere=true", headers=OURS).json()["ended"] == 1
    assert [answered(each) for each in (before, other, ours)] == [401, 200, 200]
    assert answered(issued(5)) == 200
    assert logged_in(browser).headers["location"] == "/read"
    assert browser.get("/read").json() == SUBJECT


def test_only_our_pages_change_anything_with_a_session(browser: TestClient) -> None:
    """A page of another site cannot, nor whoever does not say what page it is; a token needs none of it."""
    logged_in(browser)
    for headers, status in (
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        (OURS, 200),
    ):
        assert browser.post("/change", headers=headers).status_code == status, headers


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"aud": "another-client"}, "proof"),
        ({"aud": [CLIENT, "another"]}, "proof"),
        ({"nonce": "of another log-in"}, "proof"),
        ({"nonce": None}, "proof"),
        ({"exp": 1_000_000_000}, "proof"),
        ({"iss": "https://elsewhere.example"}, "proof"),
        ({"sub": "somebody-else"}, "proof"),
    ],
)
def test_what_an_id_token_has_to_say(
    browser: TestClient, issuer: OidcServer, change: dict[str, object], why: str
) -> None:
    """Ours, of this log-in, valid, of the one whom userinfo tells of; else nobody is logged in."""
    issuer.claims |= change
    back = logged_in(browser)
    assert back.headers["location"] == f"/login?refused={why}&to=%2Fread"
    assert not any("siteward-session" in each for each in back.headers.get_list("set-cookie"))
    assert browser.get("/read").status_code == 401


def test_an_id_token_of_another_key_is_refused(browser: TestClient, issuer: OidcServer) -> None:
    """It is judged like every other token, by the keys that the issuer publishes."""
    published = issuer.issuer.published
    issuer.issuer.rotate()
    issuer.issuer.published = [{**published[0], "kid": issuer.issuer.published[0]["kid"]}]
    assert "refused=proof" in logged_in(browser).headers["location"]


def test_who_comes_back_has_to_be_who_went(browser: TestClient, issuer: OidcServer) -> None:
    """Another state, no cookie, another issuer's answer, a code twice, a refusal: nobody is logged in."""
    begun = browser.get("/login/start", params={"issuer": "dteam"}).headers["location"]
    cookie = browser.cookies["siteward-login"]
    back = allowed(begun)

    def refused(url: str) -> str:
        browser.cookies.set("siteward-login", cookie)
        answer = browser.get(url)
        assert answer.status_code == 303
        assert not any("siteward-session" in each for each in answer.headers.get_list("set-cookie"))
        return parse_qs(urlsplit(answer.headers["location"]).query)["refused"][0]

    assert refused(back.replace("state=", "state=x")) == "other"
    assert refused(back.replace("iss=", "iss=x")) == "other"
    assert refused(back.replace("code=", "code=x")) == "denied"
    browser.cookies.clear()
    assert "refused=other" in browser.get(back).headers["location"]
    browser.cookies.set("siteward-login", cookie)
    assert browser.get(back).headers["location"] == "/"
    assert refused(back) == "denied"
    issuer.consents = False
    browser.cookies.clear()
    assert "refused=denied" in logged_in(browser).headers["location"]


def test_an_issuer_that_is_away_is_said_to_be(browser: TestClient, issuer: OidcServer) -> None:
    """At the start, and on the way back; a name that is none is not found."""
    begun = browser.get("/login/start", params={"issuer": "dteam"}).headers["location"]
    back = allowed(begun)
    assert browser.get("/login/start", params={"issuer": "local"}).status_code == 404
    issuer.answers["token"] = (503, {"error": "down"})
    issuer.issuer.url = "http://127.0.0.1:1"
    assert browser.get(back).headers["location"].startswith("/login?refused=")


def test_grants_are_those_of_now(tmp_path: Path, issuer: OidcServer) -> None:
    """A session holds who somebody is; what that allows, the settings say anew at each request."""
    with TestClient(
        create_app(settings_of(tmp_path, issuer), routers=[doors]), base_url="http://127.0.0.1:8080"
    ) as app:
        app.follow_redirects = False
        logged_in(app)
        cookie = app.cookies["siteward-session"]
    none = Settings(data=str(tmp_path), issuers={"dteam": issuer.issuer.settings(client=CLIENT)})
    with TestClient(create_app(none, routers=[doors]), base_url="http://127.0.0.1:8080") as app:
        app.cookies.set("siteward-session", cookie)
        assert app.get("/read").status_code == 403
        assert app.get("/v1/whoami").json()["subject"] == SUBJECT
    with TestClient(
        create_app(Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")}), routers=[doors]),
        base_url="http://127.0.0.1:8080",
    ) as app:
        app.cookies.set("siteward-session", cookie)
        assert app.get("/v1/whoami").status_code == 401


def test_who_is_denied_has_no_session_any_more(browser: TestClient, issuer: OidcServer) -> None:
    """At once, in the process that was told."""
    logged_in(browser)
    resources = browser.app.state.resources  # type: ignore[attr-defined]  # FastAPI's.
    resources.denied.deny(issuer.issuer.url, subject=SUBJECT, by="test", reason="incident")
    assert browser.get("/read").json()["reason"] == "denied"
    assert "refused=denied" in logged_in(browser).headers["location"]


def test_a_token_that_proves_nothing_makes_no_session(browser: TestClient) -> None:
    """It is refused as it would be in a header."""
    for token, status in (("", 401), ("x", 401), ("a.b.c", 401), ("x" * 20_000, 401), ("x" * 40_000, 413)):
        answer = browser.post("/v1/session", json={"token": token})
        assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)


def test_who_is_allowed_again_logs_in_again(browser: TestClient, issuer: OidcServer, tmp_path: Path) -> None:
    """The browsers of before stay out: one of them was why."""
    logged_in(browser)
    admin = LocalIssuer(tmp_path / "issuer.json").token("root", (grant(Role.PLATFORM_ADMIN, ()),), 1)
    headers = {"Authorization": f"Bearer {admin}"}
    entry = {"issuer": issuer.issuer.url, "subject": SUBJECT}
    assert browser.post("/v1/denied", json=entry | {"reason": "stolen"}, headers=headers).status_code == 200
    assert browser.request("DELETE", "/v1/denied", params=entry, headers=headers).status_code == 200
    assert browser.get("/read").status_code == 401
    assert logged_in(browser).headers["location"] == "/read"


def test_a_session_of_a_vo_that_is_served_no_more(tmp_path: Path, issuer: OidcServer) -> None:
    """Is worth nothing there, nor one of our own issuer where it is trusted no more."""
    settings = settings_of(tmp_path, issuer)
    with TestClient(create_app(settings, routers=[doors]), base_url="http://127.0.0.1:8080") as app:
        app.follow_redirects = False
        logged_in(app)
        theirs = app.cookies["siteward-session"]
        token = LocalIssuer(tmp_path / "issuer.json").token("robot", (grant(Role.READER, ("dteam",)),), 1)
        app.cookies.clear()
        app.post("/v1/session", json={"token": token})
        ours = app.cookies["siteward-session"]
    other = issuer.issuer.settings(GrantSettings(when="group:/dteam", role="reader"), client=CLIENT, vos=("another",))
    with TestClient(
        create_app(Settings(data=str(tmp_path), issuers={"dteam": other}), routers=[doors]),
        base_url="http://127.0.0.1:8080",
    ) as app:
        app.cookies.set("siteward-session", theirs)
        assert app.get("/read").status_code == 403
        app.cookies.set("siteward-session", ours)
        assert app.get("/read").status_code == 401


def test_a_server_on_tls_sets_cookies_for_itself_only(tmp_path: Path, issuer: OidcServer) -> None:
    """Whatever address a request says; and without knowing its own, nobody can log in from elsewhere."""
    settings = settings_of(tmp_path, issuer)
    named = Settings(
        data=settings.data, issuers=settings.issuers, server=ServerSettings(url="https://siteward.example.org/")
    )
    with TestClient(create_app(named, routers=[doors]), base_url="http://evil.example", follow_redirects=False) as app:
        begun = app.get("/login/start", params={"issuer": "dteam"})
        asked = parse_qs(urlsplit(begun.headers["location"]).query)
        assert asked["redirect_uri"] == ["https://siteward.example.org/login/callback/dteam"]
        assert asked["scope"] == ["openid wlcg.groups"]
        cookie = begun.headers["set-cookie"]
        assert cookie.startswith("__Host-siteward-login=")
        assert cookie.endswith("; Secure")
    with TestClient(
        create_app(settings, routers=[doors]), base_url="http://evil.example", follow_redirects=False
    ) as app:
        assert app.get("/login/start", params={"issuer": "dteam"}).status_code == 421
        assert app.post("/v1/session", json={"token": "x"}).status_code == 421


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"host": "0.0.0.0", "certificate": "c.pem"}, "server.url: people who log in are sent back there"),
        ({"url": "http://siteward.example.org"}, "expected https"),
        ({"url": "https://siteward.example.org/path"}, "has a path"),
    ],
)
def test_settings_that_nobody_could_log_in_with(
    tmp_path: Path, issuer: OidcServer, server: dict[str, str], said: str
) -> None:
    """The app says so before it starts."""
    settings = settings_of(tmp_path, issuer)
    with pytest.raises(SettingsError, match=said):
        check_trust(Settings(data=str(tmp_path), issuers=settings.issuers, server=ServerSettings(**server)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/explore?kind=job", "/explore?kind=job"),
        ("//evil.example/", "/"),
        ("///evil.example/", "/"),
        ("////evil.example/", "/"),
        ("/\\/evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("explore", "/"),
        ("", "/"),
        ("/a\nb", "/"),
        ("/\t/evil.example", "/"),
        ("//[x", "/"),
        ("/" + "a" * 2_000, "/"),
    ],
)
def test_nobody_is_sent_elsewhere(asked: str, path: str) -> None:
    """By a link to our log-in."""
    assert local_path(asked) == path


def test_cookies_are_read_as_they_were_written() -> None:
    """Among those of others, whatever these are; what is no cookie of ours is nothing."""
    under_way = UnderWay("dteam", "s", "n", "v", "/é")
    header = set_cookie("siteward-login", written(under_way), 60, is_secure=True)
    given = f"odd[name]=\x7f; {header.partition(';')[0]}; other=1"
    assert read(cookie_in(given, "siteward-login", is_secure=True)) == under_way
    assert cookie_in(given, "siteward-login", is_secure=False) == ""
    assert cookie_in(f"siteward-login={'a' * (LONGEST + 1)}", "siteward-login", is_secure=False) == ""
    for planted in ("\xa0__Host-siteward-login=x", "__Host-siteward-login=x; __Host-siteward-login=y"):
        assert cookie_in(planted, "siteward-login", is_secure=True) == ""
    for value in ("", "é", "AAAA", "%%%", "e30="):
        assert read(value) is None


def test_nothing_of_a_log_in_stands_in_the_log(
    browser: TestClient,
    issuer: OidcServer,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Neither of a good one nor of one that is refused: no token, no code, no cookie; nor in the audit."""
    configure_logging("json", "debug")
    secrets = []
    for nonce in ({}, {"nonce": "of another log-in"}):
        issuer.claims |= nonce
        back = allowed(browser.get("/login/start", params={"issuer": "dteam", "to": "/read"}).headers["location"])
        secrets += [parse_qs(urlsplit(back).query)["code"][0], browser.cookies["siteward-login"]]
        browser.get(back)
    secrets.append(browser.cookies["siteward-session"])
    token = LocalIssuer(tmp_path / "issuer.json").token("robot", (grant(Role.READER, ("dteam",)),), 1)
    browser.post("/v1/session", json={"token": token}, headers=OURS)
    browser.post("/v1/session", json={"token": f"{token[:-4]}AAAA"}, headers=OURS)
    printed = "".join(capfd.readouterr())
    noted = str(browser.app.state.resources.audit.find())  # type: ignore[attr-defined]  # FastAPI's.
    assert "log-in refused" in printed
    assert "log in" in noted
    for secret in (*secrets, token, *issuer.given, *issuer.refreshing):
        assert secret not in printed
        assert secret not in noted


def test_tokens_are_never_shown(issuer: OidcServer) -> None:
    """Neither in what holds them, nor in errors about them."""
    assert "secret" not in repr(Tokens("secret", "secret", "secret"))
    assert "secret" not in str(IssuerRefuses("the issuer refuses", "denied"))
    assert issuer.asked == []
