"""`siteward extensions`: what is installed at each extension point, and from which distribution."""

from __future__ import annotations

from typing import Annotated

import typer

from siteward.cli.options import options
from siteward.cli.output import show
from siteward.cli.verbs import reads
from siteward.extensions import GROUPS, found
from siteward.server.auth import Permission


@reads(Permission.PUBLIC)
def extensions(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Only this extension point, such as kinds.")] = "",
) -> None:
    """List what is installed at each extension point, and from which distribution."""
    known = [each for each in GROUPS if group in {"", each, each.removeprefix("siteward.")}]
    if not known:
        names = ", ".join(each.removeprefix("siteward.") for each in GROUPS)
        message = f"no extension point is called {group!r}; there are {names}"
        raise typer.BadParameter(message)
    rows = [
        (entry.group, entry.name, entry.value, entry.distribution, entry.version)
        for each in known
        for entry in found(each).values()
    ]
    show(("group", "name", "object", "distribution", "version"), rows, options(context).output)
