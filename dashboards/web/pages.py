"""The pages: a frame rendered here, filled and kept up to date in the browser from the same API that others use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dashboards.web.assets import Assets
from siteward import __version__
from siteward.server.auth import Permission, requires
from siteward.settings import Settings

ASK_AGAIN: Final = {"Cache-Control": "no-cache"}
"""A page names the static files' version, so it is asked for anew each time; the app adds the security headers."""
FOR_EVER: Final = "public, max-age=31536000, immutable"


class Page(msgspec.Struct, frozen=True):
    """One page of the navigation.

    Attributes:
        name: also the template's name.
        path: where it is.
        title: its word in the navigation.
        windowed: whether what it shows depends on the time range.
    """

    name: str
    path: str
    title: str
    windowed: bool = True


PAGES: Final = (
    Page("overview", "/", "Overview"),
    Page("explore", "/explore", "Explore"),
    Page("dead_letters", "/dead-letters", "Dead letters", windowed=False),
    Page("kinds", "/kinds", "Kinds", windowed=False),
)
"""The navigation, in the order of the data path: what is happening, what it says, what was refused, what it means."""


def router(_settings: Settings) -> APIRouter:
    """Routes of the pages and their static files."""
    routes = APIRouter(include_in_schema=False)
    assets = Assets()
    templates = _templates(assets)
    for page in PAGES:
        _add_page(routes, templates, page)

    login = templates.get_template("login.html").render()

    @routes.get("/login", dependencies=[Depends(requires(Permission.PUBLIC))])
    def log_in() -> Response:
        """Where people say who they are."""
        return Response(login, media_type="text/html; charset=utf-8", headers=ASK_AGAIN)

    @routes.get("/static/{version}/{name}", dependencies=[Depends(requires(Permission.PUBLIC))])
    def static(version: str, name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        """One static file; kept for ever under its version, checked each time under any other."""
        asset = assets.files.get(name)
        if asset is None:
            raise HTTPException(404, f"there is no static file {name!r}")
        headers = {
            "Cache-Control": FOR_EVER if version == assets.version else "no-cache",
            "ETag": asset.etag,
            "X-Content-Type-Options": "nosniff",
        }
        if asset.etag in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    return routes


def _add_page(routes: APIRouter, templates: Environment, page: Page) -> None:
    """Render once at start: a page holds no data, and a template that does not render stops the start."""
    content = templates.get_template(f"{page.name}.html").render(page=page, pages=PAGES)

    @routes.get(page.path, name=page.name, dependencies=[Depends(requires(Permission.READ))])
    def show() -> Response:
        return Response(content, media_type="text/html; charset=utf-8", headers=ASK_AGAIN)


def _templates(assets: Assets) -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"static": assets.url, "version": __version__}
    return templates
