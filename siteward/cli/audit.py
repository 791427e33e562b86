"""`siteward audit`: who changed what, when, and how it ended."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer

from siteward.cli.options import options
from siteward.cli.output import show
from siteward.cli.verbs import reads
from siteward.server.auth import Permission

COLUMNS: Final = ("number", "at", "subject", "issuer", "action", "vo", "outcome", "of", "before", "after")


@reads(Permission.ADMINISTER)
def audit(
    context: typer.Context,
    subject: Annotated[str, typer.Option(help="Only what this one did.")] = "",
    vo: Annotated[str, typer.Option(help="Only what was changed of this VO.")] = "",
    limit: Annotated[int, typer.Option(help="Entries, the newest first.", min=1, max=1000)] = 100,
) -> None:
    """List who changed what: each change as it was asked for, and how it ended, with what it was and became."""
    from siteward.server.resources import Resources  # noqa: PLC0415  # `--help` needs none of it.

    with closing(Resources(options(context).settings)) as resources:
        found = resources.audit.find(subject=subject, vo=vo, limit=limit)
    rows = [
        (
            each.number,
            datetime.fromtimestamp(each.at / 1_000_000, UTC).isoformat(timespec="seconds"),
            each.subject,
            each.issuer,
            each.action,
            each.vo,
            each.outcome,
            each.of or None,
            _told(each.before),
            _told(each.after),
        )
        for each in found
    ]
    show(COLUMNS, rows, options(context).output)


def _told(state: object) -> str:
    return "" if state is None else msgspec.json.encode(state).decode()
