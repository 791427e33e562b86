"""A person in a browser: to an OpenID provider that is not ours, back to the page, and out again."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest
from browsers import launched
from playwright.sync_api import Browser, BrowserContext, Page, expect
from served import served

from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Role, grant
from siteward.settings import GrantSettings, IssuerSettings, Settings

expect.set_options(timeout=30_000)


class Place(msgspec.Struct, frozen=True):
    """A running app that trusts a running provider."""

    url: str
    provider: str
    folder: Path


@contextmanager
def provider(users: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """An OpenID provider in a process of its own, where what it is built of may warn of whatever it likes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [part for user in users for part in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *options]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while not answers(f"{url}/.well-known/openid-configuration"):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Whether something does."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("login")
    users = [
        {"sub": "member", "wlcg.groups": ["/dteam", "/dteam/ops"]},
        {"sub": "stranger", "wlcg.groups": ["/another"]},
    ]
    with provider(users) as url:
        given = IssuerSettings(
            profile="wlcg",
            url=url,
            vos=("dteam",),
            audiences=("https://siteward.example.org",),
            client="siteward",
            client_secret="of-the-test",  # the provider takes any.
            scopes=("openid",),
            grants=(GrantSettings(when="group:/dteam", role="reader"),),
        )
        local = IssuerSettings(profile="local")
        settings = Settings(data=str(folder), issuers={"dteam": given, "local": local})
        with served(create_app(settings)) as app:
            yield Place(app, url, folder)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of somebody new, that tells of every error on a page."""
    context = browser.new_context()
    problems: list[str] = []
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield context
    context.close()
    assert problems == []


def logged_in(page: Page, place: Place, subject: str, path: str = "/kinds") -> None:
    """Go to a page, and through the provider."""
    page.goto(f"{place.url}{path}")
    page.get_by_role("link", name="Log in with dteam").click()
    page.wait_for_url(f"{place.provider}/**")
    page.get_by_placeholder("sub").fill(subject)
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{place.url}/**")


def test_a_member_logs_in_and_out(context: BrowserContext, place: Place) -> None:
    """Lands on the page that was asked for, is named there, and after log-out sees nothing any more."""
    page = context.new_page()
    logged_in(page, place, "member", "/kinds?range=day")
    page.wait_for_url(f"{place.url}/kinds?range=day**")
    expect(page.locator("#kinds")).to_contain_text("job")
    account = page.locator("#account")
    expect(account).to_contain_text("member")
    expect(account).to_contain_text("reader of dteam")
    cookie = next(each for each in context.cookies() if each["name"] == "siteward-session")
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert "siteward" not in page.evaluate("document.cookie")
    page.get_by_role("button", name="Log out", exact=True).click()
    expect(page).to_have_url(f"{place.url}/login?out=1")
    expect(page.get_by_text("You are logged out here.")).to_be_visible()
    page.goto(f"{place.url}/kinds")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_log_out_everywhere(browser: Browser, context: BrowserContext, place: Place) -> None:
    """The other browser is sent to log in with its next question; this one, to the provider's own log-out."""
    other = browser.new_context()
    elsewhere = other.new_page()
    logged_in(elsewhere, place, "member", "/kinds")
    expect(elsewhere.locator("#account")).to_contain_text("member")
    page = context.new_page()
    logged_in(page, place, "member", "/kinds")
    page.get_by_role("button", name="Log out everywhere").click()
    page.get_by_role("button", name="Really everywhere?").click()
    page.wait_for_url(f"{place.provider}/oauth2/end_session**")
    elsewhere.wait_for_url(f"{place.url}/login?to=%2Fkinds**", timeout=60_000)
    other.close()


def test_a_stranger_is_told(context: BrowserContext, place: Place) -> None:
    """Whom no grant lets in gets no page, and is told why; whoever refuses at the provider, too."""
    page = context.new_page()
    logged_in(page, place, "stranger")
    expect(page.get_by_role("alert")).to_contain_text("have no role here that lets you see this")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out here.")).to_be_visible()
    page.get_by_role("link", name="Log in with dteam").click()
    page.get_by_role("button", name="Deny").click()
    # This provider leaves the state away when it refuses, so it could be anybody's refusal.
    page.wait_for_url(f"{place.url}/login?refused=other**")
    expect(page.get_by_role("alert")).to_contain_text("was not begun in this browser")


def test_a_token_is_enough(context: BrowserContext, place: Place) -> None:
    """One of our own issuer, typed in once; a wrong one is explained."""
    page = context.new_page()
    # A link to our log-in that would lead elsewhere behind it: browsers take the tab out.
    page.goto(f"{place.url}/login?to=%2F%09%2Fevil.example")
    field = page.get_by_label("With a token")
    field.fill("nonsense")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("is no signed JSON Web Token")
    token = LocalIssuer(place.folder / "issuer.json").token("robot", (grant(Role.READER, ("dteam",)),), 1)
    field.fill(token)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{place.url}/")
    expect(page.locator("#account")).to_contain_text("robot")
    # A telephone shows the ways out, too.
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Log out", "Log out everywhere"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
