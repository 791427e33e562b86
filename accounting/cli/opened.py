"""The ledger of this installation, for the time of a command; who it is that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from getpass import getuser
from typing import TYPE_CHECKING, Annotated, Final

import typer

from accounting import SINK
from siteward.cli.output import tell

if TYPE_CHECKING:
    from accounting.ledger import Ledger
    from siteward.settings import Settings

Person = Annotated[
    str, typer.Option(envvar="SITEWARD_PERSON", help="Who does it; by default the name with which you logged in.")
]
REASON: Final = "Why; it stays with the entry."


@contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    """The ledger of an installation, closed at the end.

    Raises:
        LedgerError: its database does not answer, also while it is used.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # `--help` needs none of it.

    from accounting import LedgerError  # noqa: PLC0415  # as above.
    from accounting.opening import open_ledger  # noqa: PLC0415  # as above.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.
    from siteward.server.database import Conflict  # noqa: PLC0415  # as above.
    from siteward.sinks import SinkUnavailable  # noqa: PLC0415  # as above.

    away = "the ledger's database does not answer as it should; try again"
    try:
        ledger = open_ledger(settings, load_kinds(settings.kinds))
    except SinkUnavailable as error:
        message = f"{away}: {error}"
        raise LedgerError(message) from error
    tell_if_off(settings)
    with closing(ledger):
        try:
            yield ledger
        except SinkUnavailable as error:
            raise LedgerError(str(error)) from error
        except Conflict as error:
            message = f"others are at the same work; try again: {error}"
            raise LedgerError(message) from error
        except SQLAlchemyError as error:
            message = f"{away}: {ledger.database.told(error)}"
            raise LedgerError(message) from error


def tell_if_off(settings: Settings) -> None:
    """Say that nothing comes in: figures of an installation that books nothing look like those of one without usage."""
    if SINK in settings.collector.leave_out:
        tell('the ledger is switched off here: take "ledger" out of collector.leave_out for it to book what comes')


def person(given: str) -> str:
    """Who runs a command."""
    return given or getuser()
