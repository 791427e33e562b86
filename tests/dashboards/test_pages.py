"""The pages as the server sends them: complete, clean under a strict policy, small, and asked for only when new."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest
from fastapi.testclient import TestClient

from dashboards.web import pages
from dashboards.web.assets import FOLDER, Assets
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Role, grant
from siteward.settings import IssuerSettings, Settings

HERE: Final = "http://127.0.0.1"
SOURCES: Final = sorted(path for path in FOLDER.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
MODULES: Final = [path for path in SOURCES if path.suffix == ".js"]
PATHS: Final = [page.path for page in pages.PAGES]


class Reading(HTMLParser):
    """What a browser would load or run of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inline: list[str] = []
        self._open = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"} and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # the parser's signature.
        self._open = ""

    def links(self) -> list[str]:
        """Every address within the page."""
        return [attributes[name] for _, attributes in self.tags for name in ("href", "src") if name in attributes]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """The real application with no router but that of the pages."""
    with TestClient(create_app(Settings(data=str(tmp_path)), routers=[pages.router]), base_url=HERE) as client:
        yield client


@pytest.mark.parametrize("path", [*PATHS, "/login"])
def test_page_is_clean_under_the_policy(client: TestClient, path: str) -> None:
    """A page carries a policy without exceptions and holds nothing that the policy would have to except."""
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    reading = Reading(answer.text)
    attributes = {name for _, named in reading.tags for name in named}
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert reading.inline == []
    assert "style" not in {tag for tag, _ in reading.tags} | attributes
    assert not [name for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("path", [*PATHS, "/login"])
def test_everything_a_page_links_is_here(client: TestClient, path: str) -> None:
    """Scripts, styles, icons and pages are all served by this server."""
    for link in Reading(client.get(path).text).links():
        if link.startswith("/v1/"):
            continue  # the API's, which this app leaves out.
        assert link[0] in "/#", link
        assert link[0] == "#" or client.get(link).status_code == 200, link


@pytest.mark.parametrize("path", PATHS)
def test_page_can_be_walked_without_eyes_or_mouse(client: TestClient, path: str) -> None:
    """Landmarks, one first heading, a language, one current page, and no form control without a name."""
    reading = Reading(client.get(path).text)
    tags = [tag for tag, _ in reading.tags]
    identifiers = [named["id"] for _, named in reading.tags if "id" in named]
    assert [tags.count(tag) for tag in ("main", "nav", "h1", "header")] == [1, 1, 1, 1]
    assert sum("aria-current" in named for _, named in reading.tags) == 1
    assert ("html", {"lang": "en"}) in reading.tags
    assert len(identifiers) == len(set(identifiers))
    targets = {named["for"] for tag, named in reading.tags if tag == "label" and "for" in named}
    controls = [named for tag, named in reading.tags if tag == "textarea"]
    assert all(named["id"] in targets for named in controls)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_module_never_makes_markup_of_text(module: Path) -> None:
    """Whatever a record's values are, no script of ours hands them to the browser's parser or to eval."""
    text = module.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|eval\(|new Function", text)
    assert 'setAttribute("style"' not in text


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_module_imports_what_exists(module: Path) -> None:
    """Each import names one of our own files, and each name imported is exported there."""
    for names, source in re.findall(r"import \{([^}]*)\} from \"([^\"]*)\"", module.read_text(encoding="utf-8")):
        assert source.startswith("./")
        exported = (FOLDER / source.removeprefix("./")).read_text(encoding="utf-8")
        for name in (name.strip() for name in names.split(",")):
            assert re.search(rf"export (async )?(function|const|class) {name}\b", exported), (source, name)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_source_is_small_and_stays_at_home(source: Path) -> None:
    """No file is long, and none names another server."""
    text = source.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert set(re.findall(r"https?://[^\s\"'`$]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_static_file_is_kept_for_ever_under_its_version(client: TestClient) -> None:
    """A browser asks once per release; under any other version it asks each time and hears that nothing changed."""
    assets = Assets()
    now = client.get(assets.url("frame.js"))
    old = client.get("/static/0/frame.js")
    again = client.get("/static/0/frame.js", headers={"If-None-Match": old.headers["etag"]})
    assert "immutable" in now.headers["cache-control"]
    assert old.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert now.headers["content-type"].startswith("text/javascript")


def test_version_follows_from_content(tmp_path: Path) -> None:
    """Another byte in any file is another version, and so another address of all of them."""
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "notes.txt").write_text("not served")
    before = Assets(tmp_path)
    (tmp_path / "a.js").write_text("2")
    assert before.version != Assets(tmp_path).version
    assert list(before.files) == ["a.js"]
    with pytest.raises(KeyError):
        before.url("notes.txt")


@pytest.mark.parametrize("name", ["none.js", "..%2Fpages.py", "%2Fetc%2Fpasswd", "tokens.css%00"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    """A name is looked up among the files read at start; no path is ever followed."""
    assert client.get(f"/static/0/{name}").status_code == 404


def test_pages_ask_for_a_token(tmp_path: Path) -> None:
    """Where an issuer is trusted, pages need a token; their static files hold no secret and do not."""
    settings = Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})
    token = LocalIssuer(settings.issuer_file).token("somebody", (grant(Role.READER, ("dteam",)),), 1)
    with TestClient(create_app(settings, routers=[pages.router]), base_url=HERE) as client:
        assert client.get("/").status_code == 401
        assert client.get("/", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert client.get(Assets().url("tokens.css")).status_code == 200
