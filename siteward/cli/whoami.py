"""`siteward whoami`: whom your token proves, and what that allows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from siteward.cli.options import options
from siteward.cli.output import show
from siteward.cli.query import asked_app
from siteward.cli.verbs import reads
from siteward.server.auth import Permission

COLUMNS = ("subject", "issuer", "role", "vos", "sites", "allows", "expires", "producer")


@reads(Permission.IDENTIFIED)
def whoami(
    context: typer.Context,
    url: Annotated[str, typer.Option(help="Ask the app at this address; by default this installation's.")] = "",
) -> None:
    """Say who you are to the app, which roles you have, and what they allow."""
    chosen = options(context)
    client = asked_app(chosen.settings, url)
    if client is None:
        message = "no app of this installation runs; name another one with --url"
        raise typer.BadParameter(message)
    told = client.whoami()
    expires = "" if told.expires is None else datetime.fromtimestamp(told.expires, UTC).isoformat()
    roles = [(each.role, " ".join(each.vos), " ".join(each.sites), " ".join(each.allows)) for each in told.grants]
    rows = [(told.subject, told.issuer, *role, expires, told.producer or "") for role in roles or [("", "", "", "")]]
    show(COLUMNS, rows, chosen.output)
