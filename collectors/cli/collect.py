"""`siteward collect`: carry records from the broker to the sinks."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

import typer

from siteward.cli.options import options
from siteward.cli.verbs import notes_itself
from siteward.server.auth import Permission


@notes_itself(Permission.REPORT)
def collect(
    context: typer.Context,
    sinks: Annotated[
        list[str] | None, typer.Argument(metavar="[SINK]...", help="Sinks to serve; by default all that are installed.")
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            help="Name of this collector. One that is the same over restarts gets back at once what it held; "
            "two that run never share one. By default a new one each time."
        ),
    ] = "",
) -> None:
    """Carry records from the broker to the sinks until SIGTERM or Ctrl-C, then finish the batches in hand.

    `siteward up` does this already; this is a collector beside it, or one by itself.
    """
    from collectors.service import collect as collect_for  # noqa: PLC0415  # `--help` needs none of it.
    from collectors.service import installed_enrichments  # noqa: PLC0415  # as above.
    from siteward import extensions  # noqa: PLC0415  # as above.
    from siteward.broker.opening import sinks as fed_sinks  # noqa: PLC0415  # as above.

    settings = options(context).settings
    installed = extensions.found("siteward.sinks")
    for sink in sinks or ():
        if sink not in installed:
            message = f"no sink is called {sink!r}; installed are {', '.join(installed) or 'none'}"
            raise typer.BadParameter(message)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    collect_for(
        settings,
        stop,
        sorted(set(sinks)) if sinks else fed_sinks(settings),
        name=name or f"collect-{os.getpid()}",
        enrichments=installed_enrichments(),
    )
