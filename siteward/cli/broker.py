"""`siteward broker`: what waits between those who emit and those who store."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

import typer
from msgspec.structs import astuple

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, reads, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from siteward.broker import QueueStatus, RemovableQueues
    from siteward.broker.rabbitmq import RabbitBroker

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


@commands.command(short_help="Show every queue: what waits, how much, how long.")
@reads(Permission.PLATFORM)
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


@commands.command(short_help="Remove the queue of a sink that is no longer installed.")
@changes(Permission.PLATFORM)
def remove(
    context: typer.Context,
    queue: Annotated[str, typer.Argument(help="The queue, as `status` names it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, whatever waits in it.")] = False,
) -> None:
    """Remove the queue of a sink that is no longer installed, with everything that waits in it.

    Such a queue goes on filling, since nobody consumes it, until the broker is full.
    """
    from siteward.broker.opening import open_broker, topology  # noqa: PLC0415  # `--help` needs no broker.

    if queue in topology(options(context).settings):
        message = f"the sink {queue!r} is installed, so that its queue would be made again; uninstall it first"
        raise typer.BadParameter(message)
    with closing(open_broker(options(context).settings)) as opened:
        waiting = _waiting(opened.status(), queue)
        if waiting and not yes:
            typer.confirm(f"{waiting} wait in {queue!r} and will be lost to it. Remove?", abort=True)
        lost = cast("RemovableQueues", opened).remove(queue)
    tell_change(context, {"queue": queue, "waiting": waiting}, {"records_lost": lost})
    tell(f"removed {queue!r}; {lost} records went with it")


def _waiting(queues: list[QueueStatus], queue: str) -> str:
    """What waits in a queue, in words; empty where nothing does."""
    for standing in queues:
        if standing.queue == queue:
            if standing.records is not None:
                return f"{standing.records} records" if standing.records else ""
            messages = standing.ready + (standing.unacked or 0) + standing.parked
            return f"{messages} messages" if messages else ""
    # A broker that cannot list its queues may have it all the same.
    return "an unknown number of records"


CHECK_COLUMNS = ("thing", "name", "problem", "argument", "found", "wanted", "messages")


@commands.command(short_help="Compare RabbitMQ's queues with what should be there.")
@changes(Permission.PLATFORM)
def check(
    context: typer.Context,
    unbind: Annotated[bool, typer.Option("--unbind", help="Take away superfluous bindings.")] = False,
) -> None:
    """Compare queues, bindings, limits and policies on RabbitMQ with what settings and installed sinks ask for.

    Lists each difference, and exits 1 where there is one. What is missing is made whenever a collector starts.
    """
    from siteward.broker.opening import open_broker, topology  # noqa: PLC0415  # `--help` needs no broker.

    chosen = options(context)
    wanted = topology(chosen.settings)
    with closing(open_broker(chosen.settings)) as opened:
        if not hasattr(opened, "check"):
            tell("only queues on RabbitMQ can be compared; broker.url names another broker")
            return
        rabbit = cast("RabbitBroker", opened)
        if unbind:
            count = rabbit.unbind(wanted)
            tell_change(context, {"superfluous_bindings": count}, {"superfluous_bindings": 0})
            tell(f"{count} bindings taken away")
        report = rabbit.check(wanted)
    for unseen in report.unseen:
        tell(f"not seen: {unseen}")
    show(CHECK_COLUMNS, [astuple(difference) for difference in report.differences], chosen.output)
    if report.differences:
        raise typer.Exit(1)
