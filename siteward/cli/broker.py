"""`siteward broker`: what waits between those who emit and those who store."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show

commands = typer.Typer(help="What waits between those who emit and those who store.", **PLAIN)

COLUMNS = (
    "queue",
    "ready",
    "unacked",
    "parked",
    "records",
    "bytes",
    "oldest_seconds",
    "published",
    "acknowledged",
)


@commands.callback()
def broker() -> None:
    """What waits between those who emit and those who store."""


@commands.command()
def status(context: typer.Context) -> None:
    """Show every queue: messages ready, unacknowledged and parked, records, bytes, and the oldest one's age."""
    from siteward.broker.opening import open_declared  # noqa: PLC0415  # `--help` needs no broker.

    chosen = options(context)
    with closing(open_declared(chosen.settings)) as opened:
        queues = opened.status()
    now = datetime.now(UTC)
    rows = [
        (
            queue.queue,
            queue.ready,
            queue.unacked,
            queue.parked,
            queue.records,
            queue.bytes,
            round((now - queue.oldest).total_seconds(), 3) if queue.oldest else None,
            queue.published,
            queue.acknowledged,
        )
        for queue in queues
    ]
    show(COLUMNS, rows, chosen.output)
