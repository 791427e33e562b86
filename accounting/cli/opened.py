"""The ledger of this installation, for the time of a command; who it is that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from getpass import getuser
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from accounting.ledger import Ledger
    from siteward.settings import Settings

Person = Annotated[
    str, typer.Option(envvar="SITEWARD_PERSON", help="Who does it; by default the name with which you logged in.")
]
REASON: Final = "Why; it stays with the entry."


@contextmanager
def opened(settings: Settings) -> Iterator[Ledger]:
    """The ledger of an installation, closed at the end."""
    from accounting.opening import open_ledger  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.

    with closing(open_ledger(settings, load_kinds(settings.kinds))) as ledger:
        yield ledger


def person(given: str) -> str:
    """Who runs a command."""
    return given or getuser()
