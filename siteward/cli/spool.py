"""`siteward spool`: what programs here have emitted and the broker has not taken yet, or will not take."""

from __future__ import annotations

from contextlib import closing
from typing import Final

import typer

from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import reads
from siteward.server.auth import Permission

COLUMNS: Final = ("state", "vo", "kind", "messages", "records", "since", "reason")


@reads(Permission.REPORT)
def spool(context: typer.Context) -> None:
    """Show what waits for the broker on this machine's disk, and what was set aside because it is not taken, and why.

    A program that emits sends what waits, oldest first, and tries what was set aside again every five minutes.
    """
    from siteward.broker.topology import split_key  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.emit.spool import Spool  # noqa: PLC0415  # as above.

    chosen = options(context)
    settings = chosen.settings
    with closing(Spool(settings.spool, settings.emitter.spool_bytes)) as opened:
        content = opened.content()
        rows = [
            (
                "aside" if each.reason else "waits",
                *split_key(each.key),
                each.messages,
                each.records,
                each.since.isoformat(timespec="seconds"),
                each.reason,
            )
            for each in content
        ]
    show(COLUMNS, rows, chosen.output)
    aside = sum(each.records for each in content if each.reason)
    tell(f"{sum(each.records for each in content) - aside} records wait, {aside} are set aside")
