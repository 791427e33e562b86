"""`siteward topology`: what sites and storages belong to, and since when, for groups such as `site.country`."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from accounting.cli.opened import opened
from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, shows_all, tell_change
from siteward.people import personal_names
from siteward.server.auth import Permission
from siteward.usage_text import bucketed

commands = typer.Typer(help="Say what sites and storages belong to, and since when.", no_args_is_help=True, **PLAIN)


@commands.command("import")
@changes(Permission.ACCOUNT)
def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML with [[site]] tables, or CSV.")],
    rewrite_past: Annotated[
        bool,
        typer.Option("--rewrite-past", help="Also where it says otherwise of the past, or anything of closed months."),
    ] = False,
) -> None:
    """Take a topology: all that is known of the attributes that the file names.

    A site that moves has two entries: one that ends on the day of the move, and one that starts there. What was said
    of the past stays said, and what was unknown of a closed month stays unknown; a file that says otherwise is
    refused, unless --rewrite-past is given.
    """
    from accounting.periods.closed_months import closed_by_dimension  # noqa: PLC0415  # only this command needs it.
    from accounting.topology.naming import without_names  # noqa: PLC0415  # as above.
    from accounting.topology.topology_file import parse_topology  # noqa: PLC0415  # as above.
    from accounting.topology.topology_table import write_topology  # noqa: PLC0415
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415  # as above.

    form = "csv" if file.suffix == ".csv" else "toml"
    settings = options(context).settings
    with opened(settings) as ledger, closing(PeopleTable(settings)) as people:
        dimensions = [name for kind in ledger.kinds.values() for name in bucketed(kind)]
        # Not as a text file, whose line ends Python would make others.
        said = parse_topology(file.read_bytes().decode(), form, dimensions)
        entries = without_names(said, personal_names(ledger.kinds.values()), people)
        now = int(time.time())
        closed = closed_by_dimension(ledger)
        change = write_topology(
            ledger.database, ledger.common.topology, entries, now, closed, rewrite_past=rewrite_past
        )
        tell_change(context, change.gone, change.new)
    tell(f"{file}: {len(entries)} entries")


@commands.command("list")
@shows_all(Permission.READ)
def list_entries(context: typer.Context) -> None:
    """List what is known, with the days from and to which it is valid."""
    from accounting.topology.naming import with_names  # noqa: PLC0415  # see above.
    from accounting.topology.topology_table import read_topology  # noqa: PLC0415  # see above.
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415  # see above.

    settings = options(context).settings
    with opened(settings) as ledger, closing(PeopleTable(settings)) as people:
        with ledger.database.read() as connection:
            entries = list(read_topology(connection, ledger.common.topology))
        if settings.access.names:
            entries = with_names(entries, personal_names(ledger.kinds.values()), people)
    columns = ("dimension", "value", "attribute", "attribute_value", "valid_from", "valid_to")
    rows = (
        (each.dimension, each.value, each.attribute, each.attribute_value, _day(each.valid_from), _day(each.valid_to))
        for each in entries
    )
    show(columns, rows, options(context).output)


def _day(second: int | None) -> str | None:
    return None if second is None else datetime.fromtimestamp(second, UTC).date().isoformat()
