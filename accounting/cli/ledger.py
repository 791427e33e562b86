"""`siteward ledger`: the accounting ledger and its tables."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell

if TYPE_CHECKING:
    from accounting.migrations.differences import Change
    from siteward.settings import Settings

commands = typer.Typer(help="The accounting ledger and its tables.", no_args_is_help=True, **PLAIN)
COLUMNS: Final = ("where", "what", "present", "wanted", "changed")


@commands.callback()
def ledger() -> None:
    """The accounting ledger and its tables."""


@commands.command(short_help="Bring the ledger's tables up to the kinds.")
def upgrade(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
) -> None:
    """Bring the ledger's tables up to the kinds, and show what differed.

    Sums of a new product are computed from the records; collectors wait meanwhile. Ends with 1 where something differs
    that cannot be changed.
    """
    chosen = options(context)
    changes = _upgrade(chosen.settings, dry_run=dry_run)
    show(COLUMNS, [(each.where, each.what, each.present, each.wanted, each.step) for each in changes], chosen.output)
    impossible = sum(1 for each in changes if each.step == "never")
    if not changes:
        tell("everything is as it should be")
    if impossible:
        tell(
            f"{impossible} differences cannot be changed, so that their kinds were left alone: declare them as they "
            "were, and give what is changed a new name"
        )
        raise typer.Exit(1)


def _upgrade(settings: Settings, *, dry_run: bool) -> list[Change]:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # `--help` needs none of it.

    from accounting import LedgerError  # noqa: PLC0415  # as above.
    from accounting.migrations.upgrade import upgrade as bring  # noqa: PLC0415  # as above.
    from accounting.opening import booked_kinds  # noqa: PLC0415  # as above.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.
    from siteward.server.database import Conflict, Database  # noqa: PLC0415  # as above.

    kinds = booked_kinds(settings, load_kinds(settings.kinds))
    with closing(Database(settings.accounting_url, settings.accounting.password)) as database:
        try:
            return bring(database, kinds, dry_run=dry_run)
        except (Conflict, SQLAlchemyError) as error:
            message = f"the ledger's database does not answer as it should; try again: {database.told(error)}"
            raise LedgerError(message) from error
