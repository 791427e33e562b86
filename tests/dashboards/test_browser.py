"""The pages in a browser, against the whole installation as `siteward up` starts it: real records, real clicks."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import msgspec
import pytest
from browsers import launched
from examples import job
from playwright.sync_api import Browser, Page, Route, expect

from siteward.broker import Message
from siteward.broker.opening import open_declared
from siteward.emit import Emitter
from siteward.envelope import JSON
from siteward.settings import Settings

PATIENCE: Final = 30.0
"""Seconds until something that has to happen counts as not happening."""
expect.set_options(timeout=PATIENCE * 1000)
HOSTILE: Final = '<img src=x onerror="window.hostile=1"><script>window.hostile=1</script>'
PATHS: Final = ["/", "/explore", "/dead-letters", "/kinds"]


class Installation(msgspec.Struct, frozen=True):
    """A running Siteward: its settings and the address of its pages."""

    settings: Settings
    url: str

    def emit(self, count: int, **fields: str | bool) -> None:
        """Finished jobs of the last minute, confirmed by the broker."""
        end = datetime.now(UTC) - timedelta(seconds=30)
        with Emitter(self.settings, durable=True) as emitter:
            for _ in range(count):
                given: dict[str, Any] = {
                    "vo": "example",
                    "site": "SITE-A",
                    "local_job_id": secrets.token_hex(8),
                } | fields
                assert emitter.emit(job(start=end - timedelta(hours=1), end=end, **given)) is None
            assert emitter.flush(PATIENCE)

    def refuse(self, producer: str) -> None:
        """A job with a negative wall time from a producer in another language: a dead letter."""
        now = datetime.now(UTC).isoformat()
        record = {"vo": "example", "site": HOSTILE, "local_job_id": "1", "start": now, "end": now, "wall_time": -5}
        envelope = {"v": 1, "id": secrets.token_hex(16), "kind": "job", "producer": producer, "vo": "example"}
        envelope |= {"sent": time.time_ns() // 1000, "records": [record]}
        broker = open_declared(self.settings)
        try:
            broker.publisher().publish([Message("example.job", msgspec.json.encode(envelope), content_type=JSON)])
        finally:
            broker.close()


def wait_for(what: Callable[[], bool]) -> None:
    """Look again and again until it is so."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


@contextmanager
def running(folder: Path) -> Iterator[Installation]:
    """`siteward up` with its data in a folder, on a free port."""
    environ = os.environ | {"SITEWARD_DATA": str(folder), "SITEWARD_SERVER__PORT": "0"}
    command = [sys.executable, "-c", "from siteward.cli import main; main()", "up"]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=folder)
    address = folder / "run" / "app.url"
    try:
        wait_for(lambda: address.is_file() and bool(address.read_text()))
        yield Installation(Settings(data=str(folder)), address.read_text())
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Installation]:
    """One installation for all tests of this file."""
    assert chromium
    with running(tmp_path_factory.mktemp("up")) as installation:
        yield installation


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Debian's Chromium, which asks nobody for anything."""
    with launched(chromium) as browser:
        yield browser


@pytest.fixture
def complaints() -> list[str]:
    """What went wrong in the browser; a test that expects something empties it."""
    return []


def _unless(complaints: list[str], fine: Callable[[Any], bool], words: Callable[[Any], str]) -> Callable[[Any], None]:
    """A listener that complains of what is not fine."""

    def listen(what: Any) -> None:
        if not fine(what):
            complaints.append(words(what))

    return listen


@pytest.fixture
def page(browser: Browser, installation: Installation, complaints: list[str]) -> Iterator[Page]:
    """A fresh page that reports every error and every request to another server, and fails the test for it."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, base_url=installation.url)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("console", _unless(complaints, lambda said: said.type not in {"error", "warning"}, lambda said: said.text))
    page.on(
        "request", _unless(complaints, lambda asked: asked.url.startswith(installation.url), lambda asked: asked.url)
    )
    yield page
    # The page goes on asking; an answer that a test was just about to change would fail the next test.
    page.unroute_all(behavior="wait")
    context.close()
    assert complaints == []


def figure(page: Page, name: str) -> int:
    """A counter of the data path; -1 before the first answer."""
    text = page.locator(f'[data-figure="{name}"]').inner_text()
    return int(text.replace(",", "")) if re.fullmatch(r"[\d,]+", text) else -1


def test_counters_follow_new_records(page: Page, installation: Installation) -> None:
    """Records emitted while the page is open are counted at every station, without anybody touching the page."""
    page.goto("/")
    wait_for(lambda: figure(page, "stored") >= 0)
    expect(page.locator("#live-word")).to_have_text("live")
    before = {name: figure(page, name) for name in ("emitted", "collected", "stored")}
    installation.emit(250)
    wait_for(lambda: all(figure(page, name) >= count + 250 for name, count in before.items()))
    expect(page.locator("#jobs-table")).to_contain_text("completed")
    expect(page.locator("#live-time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d UTC"))


def test_this_machine_is_shown(page: Page) -> None:
    """The host probe's figures arrive by themselves, as charts that can be read as text."""
    page.goto("/")
    charts = page.locator("#hosts svg")
    expect(charts).to_have_count(6)
    expect(charts.first).to_have_attribute("aria-label", re.compile(r"Processors in use.*UTC.*Latest: in use .*%"))
    page.locator("#hosts details").first.locator("summary").click()
    expect(page.locator("#hosts details").first.locator("tbody tr").first).to_contain_text("%")


def test_every_page_opens_from_the_navigation(page: Page) -> None:
    """One click each; nothing fails, and nothing is asked of another server."""
    page.goto("/")
    for path in PATHS[1:] + PATHS[:1]:
        page.locator(f'nav a[href^="{path}"]').last.click() if path != "/" else page.locator("nav a").first.click()
        page.wait_for_url(lambda url, path=path: urlsplit(url).path == path)  # type: ignore[misc]  # a default binds it.
        expect(page.locator("#live-word")).to_have_text("live")
        expect(page.locator("nav a[aria-current]")).to_have_text(re.compile(page.locator("h1").inner_text()))
        # Where the time range would change nothing, there is none.
        expect(page.locator("#ranges")).to_be_visible(visible=path in ("/", "/explore"))
        expect(page.locator(".problem")).to_have_count(0)


def test_hostile_values_stay_text(page: Page, installation: Installation) -> None:
    """A site whose name is markup is shown as that name, in tables, legends, filters and records."""
    installation.emit(3, site=HOSTILE, vo="markup")
    page.goto("/explore?kind=job&by=site&vo=markup")
    expect(page.locator("#answer-table a")).to_have_text(HOSTILE)
    expect(page.locator("#records")).to_contain_text(HOSTILE)
    page.locator("#answer-table a").click()
    expect(page.locator("#filters")).to_contain_text(HOSTILE)
    expect(page.locator("#answer-table tr.total")).to_contain_text("3")
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.hostile") is None


def test_simulated_figures_say_so(page: Page, installation: Installation) -> None:
    """As soon as one VO is simulated, its name, every sum with it, and every page say it."""
    installation.emit(2, vo="made-up", simulated=True)
    wait_for(lambda: _count(installation, "made-up") == 2)
    page.goto("/")
    expect(page.locator("#demo")).to_contain_text("made-up")
    expect(page.locator("#jobs-simulated")).to_have_text("includes simulated")
    expect(page.locator('#vo option[value="made-up"]')).to_have_text("made-up (simulated)")
    page.locator("#vo").select_option("example")
    expect(page.locator("#jobs-simulated")).to_be_hidden()


def _count(installation: Installation, vo: str) -> int:
    with urlopen(f"{installation.url}/v1/query?kind=job&where=vo%3D{vo}") as answer:
        total: int = msgspec.json.decode(answer.read())["totals"][0]
        return total


def test_address_keeps_what_is_shown(page: Page, installation: Installation) -> None:
    """Time range, VO and dimension stand in the address, follow into other pages, and come back with "back"."""
    installation.emit(1)
    page.goto("/")
    page.get_by_role("button", name="24 h").click()
    expect(page.locator('#vo option[value="example"]')).to_have_count(1)
    page.locator("#vo").select_option("example")
    page.locator("#jobs-by").select_option("site")
    expect(page.locator("#jobs-table th").first).to_have_text("site")
    assert parse_qs(urlsplit(page.url).query) == {"range": ["24h"], "vo": ["example"], "by": ["site"]}
    page.get_by_role("link", name="Explore").first.click()
    expect(page.locator('#ranges [aria-pressed="true"]')).to_have_text("24 h")
    expect(page.locator("#vo")).to_have_value("example")
    page.go_back()
    expect(page.locator("#jobs-by")).to_have_value("site")


def test_custom_range_is_utc(page: Page) -> None:
    """A typed window is taken as UTC, checked, and kept in the address."""
    page.goto("/explore?kind=job")
    page.get_by_role("button", name="Custom").click()
    page.locator("#custom-start").fill("2026-03-02T10:00")
    page.locator("#custom-end").fill("2026-03-02T09:00")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#custom-problem")).to_contain_text("after the start")
    page.locator("#custom-end").fill("2026-03-02T12:00")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#answer-note")).to_contain_text("2 Mar 2026 10:00 UTC to 2 Mar 2026 12:00 UTC")
    assert parse_qs(urlsplit(page.url).query)["start"] == ["2026-03-02T10:00:00Z"]


def test_dead_letter_is_fixed_from_its_page(page: Page, installation: Installation) -> None:
    """A refused record is listed with its reason; corrected by hand it reaches the store, and the deed is kept."""
    installation.refuse("batch.example.org")
    page.goto("/dead-letters")
    row = page.locator("#letters tbody tr").first
    expect(row).to_contain_text("wall_time")
    row.get_by_role("link").click()
    original = page.locator("#letter-original")
    expect(original).to_have_value(re.compile(r'"wall_time": ?-5'))
    original.fill(original.input_value().replace("-5", "9007199254740993"))
    page.locator("#letter-who").fill("an operator")
    page.get_by_role("button", name="Send corrected").click()
    expect(page.locator("#letter-result")).to_contain_text("on its way")
    expect(page.locator("#letter-audit")).to_contain_text("by an operator")
    page.goto("/explore?kind=job&function=sum&measure=wall_time&by=&where=wall_time>=9007199254740993")
    expect(page.locator("#answer-table tr.total span").last).to_have_attribute("title", "9,007,199,254,740,993 s")


def test_refused_action_is_explained(page: Page, installation: Installation, complaints: list[str]) -> None:
    """A record that is still wrong is refused again, with the field; the letter stays."""
    installation.refuse("other.example.org")
    page.goto("/dead-letters")
    page.locator("#letters tbody tr").first.get_by_role("link").click()
    page.locator("#letter-original").fill("{")
    page.get_by_role("button", name="Send corrected").click()
    expect(page.locator("#letter-result")).to_contain_text("not a record in JSON")
    page.get_by_role("button", name="Replay unchanged").click()
    expect(page.locator("#letter-result")).to_contain_text("wall_time")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Discard").click()
    expect(page.locator("#letter-result")).to_contain_text("Discarded")
    complaints[:] = [one for one in complaints if "422" not in one]


def test_page_says_when_the_server_is_away(page: Page, complaints: list[str]) -> None:
    """Without an answer the page keeps its figures, says how old they are, and recovers by itself."""
    page.goto("/")
    expect(page.locator("#live-word")).to_have_text("live")
    page.context.set_offline(True)
    expect(page.locator("#away")).to_contain_text("does not answer")
    expect(page.locator("#live-word")).to_have_text("no answer")
    page.context.set_offline(False)
    expect(page.locator("#away")).to_be_hidden()
    expect(page.locator("#live-word")).to_have_text("live")
    complaints[:] = [one for one in complaints if "ERR_INTERNET_DISCONNECTED" not in one]


def test_what_is_not_told_is_no_zero(page: Page) -> None:
    """Who sees some VOs only has dashes where figures are of all of them, and the rest of the page all the same."""

    def untold(route: Route) -> None:
        answer = route.fetch()
        said = answer.json()
        said["queues"] = [dict.fromkeys(queue) | {"queue": queue["queue"]} for queue in said["queues"]]
        said |= {name: dict.fromkeys(said[name]) for name in ("emitted", "collected", "outcomes", "refused")}
        route.fulfill(response=answer, json=said)

    page.route("**/v1/pipeline", untold)
    page.goto("/")
    expect(page.locator("#live-word")).to_have_text("live")
    for name in ("emitted", "queued", "collected", "refused-gateway", "dead-letters"):
        expect(page.locator(f'[data-figure="{name}"]')).to_have_text("\N{EN DASH}")
    expect(page.locator('[data-figure="stored"]')).to_have_text(re.compile(r"\d"))
    expect(page.locator('[data-rate="emitted"]')).to_have_text("of all VOs, not shown")
    expect(page.locator("#services")).to_contain_text("collector")


def test_page_rests_when_told(page: Page) -> None:
    """Paused, or in a tab that nobody sees, the page asks nothing; resumed, it goes on."""
    page.goto("/")
    expect(page.locator("#live-word")).to_have_text("live")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#live-word")).to_have_text("paused")
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)  # the counters are read every two seconds.
    assert asked == []
    with page.expect_request("**/v1/pipeline"):
        page.get_by_role("button", name="Resume").click()
    expect(page.locator("#live-word")).to_have_text("live")
    for hidden, word in (("true", "paused"), ("false", "live")):
        page.evaluate(f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}})")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#live-word")).to_have_text(word)


@pytest.mark.parametrize("path", PATHS)
def test_page_fits_small_screens(page: Page, path: str) -> None:
    """Nothing is wider than a phone or a tablet: only tables scroll, within themselves."""
    page.set_viewport_size({"width": 820, "height": 1180})
    page.goto(path)
    expect(page.locator("#live-word")).to_have_text("live")
    assert page.evaluate("document.documentElement.scrollWidth") <= 820
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_chart_is_read_with_the_keyboard(page: Page, installation: Installation) -> None:
    """Focus and an arrow key give the exact values of one bucket, aloud as well."""
    installation.emit(7, vo="keys")
    page.goto("/explore?kind=job&vo=keys&by=state")
    chart = page.locator("#answer-chart svg")
    expect(chart).to_have_attribute("aria-label", re.compile("number of records"))
    chart.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#answer-chart .readout")).to_contain_text("completed")
    expect(page.locator('#answer-chart [aria-live="polite"]')).to_contain_text("UTC")
    page.keyboard.press("Escape")
    expect(page.locator("#answer-chart .readout")).to_be_hidden()


def test_approximate_figures_say_so(page: Page, installation: Installation) -> None:
    """A percentile that a store computed with an error is marked with it; an exact one is not."""
    installation.emit(3, vo="rough")
    page.goto("/explore?kind=job&vo=rough&function=p90&measure=wall_time")
    expect(page.locator("#answer-table caption")).to_have_text("Exact totals")
    expect(page.locator("#answer-table")).not_to_contain_text("≈")

    def approximate(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"errors": [0.001]})

    page.route("**/v1/query?*", approximate)
    page.reload()
    expect(page.locator("#answer-table th").last).to_have_text("p90 wall time ≈ ±0.1 %")
    expect(page.locator("#answer-note")).to_contain_text("approximate: ≈ ±0.1 %")


def test_modules_compute_what_people_read(page: Page) -> None:
    """Units, exact integers, round ticks, gaps and thinning, asked of the modules themselves."""
    page.goto("/kinds")
    folder = page.locator('script[src$="frame.js"]').get_attribute("src")
    assert folder is not None
    found = page.evaluate(
        """async (folder) => {
          const [units, api, scale, marks] = await Promise.all(
            ["units", "api", "scale", "marks"].map((name) => import(`${folder}/${name}.js`)));
          const points = Array.from({length: 5000}, (_, i) => [i, i === 2500 ? 99 : 1]);
          const kept = marks.thinned(points, (time) => time / 50);
          return {
            bytes: units.short(13314398617, "B"), time: units.short(12600, "s"), share: units.short(0.4142, "%"),
            count: units.short(1204551), whole: units.whole(1204551),
            one: units.counted(1, "group"), groups: units.counted(1204, "group"), unknown: units.exact(null),
            big: units.exact(api.parse('{"x": 9007199254740993}').x, "B"),
            score: units.short(15300, "mHS23"), work: units.short(7.2e12, "mHS23.s"), share1000: units.short(500, "m1"),
            exactly: units.exact(api.parse('{"x": 9007199254740993}').x, "mHS23.s"), gpu: units.short(12600000, "ms"),
            moment: units.moment(Date.UTC(2026, 2, 2, 5, 4, 3)),
            ticks: scale.ticks(7.3, "1"), scores: scale.ticks(7300, "mHS23"),
            memory: scale.ticks(24 * 2 ** 30, "B").map((one) => one / 2 ** 30),
            hours: scale.ticks(9000, "s"),
            segments: marks.segments([[0, 1], [10, 1], [20, 1], [60, 1], [70, 1]], 10).map((one) => one.length),
            fewer: kept.length <= 210, peak: Math.max(...kept.map((one) => one[1])),
          };
        }""",
        folder.rpartition("/")[0],
    )
    assert found == {
        "bytes": "12.4 GiB",
        "time": "3.5 h",
        "share": "41.4 %",
        "count": "1.2 M",
        "whole": "1,204,551",
        "one": "1 group",
        "groups": "1,204 groups",
        "unknown": "unknown",
        "big": "9,007,199,254,740,993 B",
        "score": "15.3 HS23",
        "work": "7.2 GHS23.s",
        "share1000": "0.5",
        "exactly": "9,007,199,254,740.993 HS23.s",
        "gpu": "3.5 h",
        "moment": "2 Mar 2026 05:04:03 UTC",
        "ticks": [0, 2, 4, 6, 8],
        "scores": [0, 2000, 4000, 6000, 8000],
        "memory": [0, 8, 16, 24],
        "hours": [0, 3600, 7200, 10800],
        "segments": [3, 2],
        "fewer": True,
        "peak": 99,
    }
