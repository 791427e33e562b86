"""`siteward ledger`: the accounting ledger and its tables."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from accounting.cli import checks, corrections, periods
from accounting.cli.completeness import completeness
from accounting.cli.opened import opened
from accounting.cli.trace import trace
from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, reads, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from accounting.archive.archive_file import File
    from accounting.migrations.differences import Change
    from siteward.settings import Settings

commands = typer.Typer(help="The accounting ledger and its tables.", no_args_is_help=True, **PLAIN)
commands.command(short_help="Compare archive and buckets with the records.")(checks.verify)
commands.command(short_help="Compute buckets anew from the records.")(checks.rebuild)
commands.command(short_help="Show what was expected of each producer, and what came.")(completeness)
commands.command(short_help="Follow a figure to its records, or a record to its buckets.")(trace)
commands.add_typer(corrections.making, name="correct")
commands.add_typer(corrections.commands)
commands.add_typer(periods.commands)
COLUMNS: Final = ("where", "what", "present", "wanted", "changed")


@commands.callback()
def ledger() -> None:
    """The accounting ledger and its tables."""


@commands.command(short_help="Bring the ledger's tables up to the kinds.")
@changes(Permission.PLATFORM)
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
    if not dry_run:
        made = [each for each in changes if each.step != "never"]
        before, after = (
            {f"{each.where} {each.what}": getattr(each, n) for each in made} for n in ("present", "wanted")
        )
        tell_change(context, before, after)
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


@commands.command(short_help="Put old buckets together into wider ones.")
@changes(Permission.PLATFORM)
def compact(context: typer.Context) -> None:
    """Put buckets that are older than their tier together into wider ones, and sum months; no total changes.

    `siteward up` does so every hour.
    """
    from accounting.upkeep.month_sums import sum_months  # noqa: PLC0415  # as above.
    from accounting.upkeep.tiers import compact as put_together  # noqa: PLC0415  # as above.

    with opened(options(context).settings) as ledger:
        buckets = put_together(ledger)
        tell(f"{buckets} buckets went into wider ones")
        months = sum_months(ledger)
        tell_change(context, {"buckets": buckets}, {"buckets": "in wider ones", "months_summed": months})
        tell(f"{months} months were summed")


@commands.command(short_help="Move old records into Parquet files.")
@changes(Permission.PLATFORM)
def archive(
    context: typer.Context,
    before: Annotated[str, typer.Argument(help="Days that end here or earlier: a date, or, after `--`, -400d.")],
    kind: Annotated[list[str] | None, typer.Option(help="Kind; may be repeated. All by default.")] = None,
    folder: Annotated[str, typer.Option("--folder", help="Of the files; by default as the settings say.")] = "",
) -> None:
    """Move the records of whole days into Parquet files, a day each, and show the files.

    Their totals stay in the ledger, and a record that is sent again is still a duplicate.
    """
    from accounting.archive.archiving import archive as put_away  # noqa: PLC0415  # as above.
    from accounting.opening import archive_folder  # noqa: PLC0415  # as above.
    from siteward.query_text import find_kind  # noqa: PLC0415  # as above.
    from siteward.query_window import parse_time  # noqa: PLC0415  # as above.

    chosen = options(context)
    until = parse_time(before, datetime.now(UTC))
    with opened(chosen.settings) as ledger:
        kinds = [find_kind(name, ledger.kinds).name for name in kind or ()]
        made: list[File] = []
        try:
            made.extend(put_away(ledger, archive_folder(chosen.settings, folder), until, kinds))
        finally:
            records = sum(each.records for each in made)
            tell_change(context, {"records_in_ledger": records}, {"files": [each.file for each in made]})
            _show_files(made, chosen.output)


@commands.command(short_help="List the files of the archive.")
@reads(Permission.READ)
def archived(context: typer.Context) -> None:
    """List the files of the archive: a day of one kind each."""
    from accounting.archive.archiving import files  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        _show_files(files(ledger), chosen.output)


@commands.command(short_help="Bring the records of a file of the archive back.")
@changes(Permission.PLATFORM)
def restore(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="As `siteward ledger archived` names it.")],
    folder: Annotated[str, typer.Option("--folder", help="Of the files; by default as the settings say.")] = "",
) -> None:
    """Bring the records of a file of the archive back into the database; no total changes."""
    from accounting.archive.restoring import restore as bring_back  # noqa: PLC0415  # as above.
    from accounting.opening import archive_folder  # noqa: PLC0415  # as above.

    settings = options(context).settings
    with opened(settings) as ledger:
        records = bring_back(ledger, archive_folder(settings, folder), file)
        tell_change(context, {"file": file}, {"records_in_ledger": records})
        tell(f"{records} records are back")


def _show_files(found: Iterable[File], output: str) -> None:
    rows = [(each.kind, datetime.fromtimestamp(each.day, UTC).date(), each.records, each.file) for each in found]
    show(("kind", "day", "records", "file"), rows, output)


def _upgrade(settings: Settings, *, dry_run: bool) -> list[Change]:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # `--help` needs none of it.

    from accounting import LedgerError  # noqa: PLC0415  # as above.
    from accounting.migrations.upgrade import upgrade as bring  # noqa: PLC0415  # as above.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.
    from siteward.kinds.booked import booked_kinds  # noqa: PLC0415  # as above.
    from siteward.server.database import Conflict  # noqa: PLC0415  # as above.
    from siteward.server.databases import ledger_database  # noqa: PLC0415  # as above.

    kinds = booked_kinds(settings, load_kinds(settings.kinds))
    with closing(ledger_database(settings)) as database:
        try:
            return bring(database, kinds, dry_run=dry_run)
        except (Conflict, SQLAlchemyError) as error:
            message = f"the ledger's database does not answer as it should; try again: {database.told(error)}"
            raise LedgerError(message) from error
