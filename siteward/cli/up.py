"""`siteward up`: everything in one supervised process tree."""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import closing
from typing import Annotated, Final

import typer

from siteward.cli.options import options
from siteward.cli.output import tell
from siteward.cli.query import app_url
from siteward.cli.verbs import notes_itself
from siteward.client import Client
from siteward.server.auth import Permission
from siteward.server.undeclared import refuse_undeclared
from siteward.settings import Settings, SettingsError, told_passwords

LOOK: Final = 0.2
SLOW: Final = 60.0
"""Seconds after which it is said that the app does not answer yet."""


@notes_itself(Permission.PLATFORM)
def up(
    context: typer.Context,
    demo: Annotated[bool, typer.Option("--demo", help="Add a small simulated grid, labelled so.")] = False,
) -> None:
    """Run Siteward on this machine: collector, web application and probes, started again when they die."""
    # Every service needs the extra; without it the supervisor would start them again and again.
    import starlette  # noqa: F401, PLC0415  # its absence is told by the command.

    from siteward.broker.opening import check_gives, open_broker  # noqa: PLC0415  # `--help` needs no broker.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.
    from siteward.kinds.booked import booked_kinds  # noqa: PLC0415  # as above.
    from siteward.server.auth.door import check_trust  # noqa: PLC0415  # `--help` needs no server.
    from siteward.server.databases import check_databases  # noqa: PLC0415  # as above.
    from siteward.server.supervise import Supervisor, services  # noqa: PLC0415

    settings = options(context).settings
    refuse_undeclared()
    check_trust(settings)
    check_databases(settings)
    booked_kinds(settings, load_kinds(settings.kinds))
    for said in told_passwords(settings):
        tell(said)
    with closing(open_broker(settings)) as broker:
        # The collector would be started again for ever.
        check_gives(broker)
    _check_port(settings)
    stop, hurry = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    threading.Thread(target=_greet, args=(settings, stop), name="banner", daemon=True).start()
    Supervisor(settings, services(demo=demo)).run(stop, hurry)
    tell("Siteward has stopped. The same command goes on with the same data.")


def _check_port(settings: Settings) -> None:
    """Refuse to start where somebody else answers at our address: the app would be started again for ever.

    Raises:
        SettingsError: the port is taken.
    """
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            message = (
                f"{host}:{port} cannot be used ({error.strerror}); another siteward may be running there, "
                "or choose another port: SITEWARD_SERVER__PORT=8081"
            )
            raise SettingsError(message) from error


def _greet(settings: Settings, stop: threading.Event) -> None:
    """Say where the page is once it answers."""
    waited = 0.0
    while not stop.wait(LOOK):
        waited += LOOK
        url = app_url(settings)
        if url and Client(url, timeout=2).alive():
            tell(f"\n  Siteward is up:  {url}\n  Data folder:     {settings.folder}\n  Stop it with:    Ctrl-C\n")
            return
        if SLOW <= waited < SLOW + LOOK:
            tell("  The web application does not answer yet; the lines above say why.")
