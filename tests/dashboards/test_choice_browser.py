"""Which VO the pages ask: the one that is chosen, all of them for those who may, and never every VO unasked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest
from browsers import launched
from examples import JOB, batch_of, job
from playwright.sync_api import Browser, Page, Request, expect
from served import served

from siteward.kinds import load_kinds
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.resources import Resources
from siteward.settings import IssuerSettings, Settings

expect.set_options(timeout=30_000)
PLATFORM: Final = Grant(Role.PLATFORM_ADMIN, ("*",))


class Place(msgspec.Struct, frozen=True):
    """A running app with jobs of the VOs `alpha` and `beta`."""

    url: str
    settings: Settings
    resources: Resources

    def seen(self, subject: str) -> set[tuple[str, ...]]:
        """The VOs at which somebody is noted to have looked."""
        return {each.vos for each in self.resources.audit.find(subject=subject) if each.outcome == "seen"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("choice")
    settings = Settings(data=str(folder), issuers={"local": IssuerSettings(profile="local")})
    now = datetime.now(UTC)
    end = now - timedelta(minutes=2)
    made = [
        JOB.row_of(job(number, vo=vo, start=end - timedelta(hours=1), end=end), microseconds(now))
        for vo, count in (("alpha", 3), ("beta", 4))
        for number in range(count)
    ]
    with closing(Resources(settings, load_kinds())) as resources:
        resources.store.write(batch_of(JOB, made))  # type: ignore[attr-defined]  # every store has it.
        with served(create_app(settings, resources=resources)) as url:
            yield Place(url, settings, resources)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as browser:
        yield browser


Enter = Callable[..., tuple[Page, list[str]]]


@pytest.fixture
def enter(browser: Browser, place: Place) -> Iterator[Enter]:
    """Logs somebody in with a new browser, on the page of jobs; the VOs that it asks from then on."""
    contexts = []

    def entered(subject: str, *grants: Grant) -> tuple[Page, list[str]]:
        context = browser.new_context(viewport={"width": 1400, "height": 900}, base_url=place.url)
        contexts.append(context)
        page, asked = context.new_page(), []
        page.set_default_timeout(30_000)

        def note(request: Request) -> None:
            if re.search(r"/v1/(query|values|records)\b", request.url):
                asked.append(request.headers.get("siteward-vo", ""))

        page.on("request", note)
        page.goto("/login?to=%2Fexplore%3Fkind%3Djob")
        token = LocalIssuer(place.settings.issuer_file).token(subject, grants, 1)
        page.get_by_label("With a token").fill(token)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{place.url}/explore**")
        expect(page.locator("#account")).to_contain_text(subject)
        return page, asked

    yield entered
    for context in contexts:
        context.close()


def choices(page: Page) -> list[str]:
    """What the selector offers."""
    return page.locator("#vo option").all_inner_texts()


def test_who_sees_different_things_asks_one_vo_after_the_other(enter: Enter) -> None:
    """The first one at once; all together is no choice, and nothing is refused."""
    page, asked = enter("anna", Grant(Role.READER, ("alpha",)), Grant(Role.ACCOUNTANT, ("beta",)))
    expect(page.locator("#content")).to_contain_text("3")
    assert set(asked) == {"alpha"}
    assert choices(page) == ["alpha", "beta"]
    page.locator("#vo").select_option("beta")
    expect(page).to_have_url(re.compile("vo=beta"))
    with page.expect_request(lambda request: request.headers.get("siteward-vo") == "beta"):
        pass
    with page.expect_download() as saved:
        page.get_by_role("link", name="JSON", exact=True).click()
    answer = msgspec.json.decode(saved.value.path().read_bytes())
    assert (saved.value.suggested_filename, answer["totals"]) == ("job.json", [4])
    # It is remembered while the browser's tab is open, also where an address says nothing.
    page.goto("/")
    expect(page.locator("#vo")).to_have_value("beta")
    expect(page).to_have_url(re.compile("vo=beta"))


def test_the_platforms_people_choose_before_they_see_anything(enter: Enter, place: Place) -> None:
    """Nothing is asked until then; one VO, or all of them, which both are noted."""
    page, asked = enter("olga", PLATFORM)
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator("#live-word")).to_have_text("live")
    assert choices(page)[:2] == ["choose a VO", "all VOs (noted)"]
    assert (asked, place.seen("olga")) == ([], set())
    with page.expect_response(lambda answer: "/v1/query" in answer.url and answer.ok):
        page.locator("#vo").select_option("")
    expect(page.locator("#choose")).to_be_hidden()
    expect(page.locator("#vo option", has_text="beta")).to_be_attached()
    with page.expect_response(lambda answer: "/v1/query" in answer.url and "vo=beta" in page.url and answer.ok):
        page.locator("#vo").select_option("beta")
    assert set(asked) == {"*", "beta"}
    assert {("*",), ("beta",)} <= place.seen("olga")


def test_who_sees_the_same_everywhere_sees_it_together(enter: Enter) -> None:
    """As before; one VO is a choice, and the others stay to be chosen."""
    page, asked = enter("carla", Grant(Role.READER, ("alpha", "beta")))
    expect(page.locator("#vo option", has_text="beta")).to_be_attached()
    assert choices(page) == ["all VOs", "alpha", "beta"]
    assert set(asked) == {"*"}
    with page.expect_request(lambda request: request.headers.get("siteward-vo") == "alpha"):
        page.locator("#vo").select_option("alpha")
    assert choices(page) == ["all VOs", "alpha", "beta"]
