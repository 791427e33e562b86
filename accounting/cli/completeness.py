"""`siteward ledger completeness`: what was expected from each producer against what came."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from accounting.cli.opened import opened
from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.verbs import shows_all
from siteward.server.auth import Permission


@shows_all(Permission.READ)
def completeness(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    kind: Annotated[list[str] | None, typer.Option(help="Kind; may be repeated. All by default.")] = None,
    producer: Annotated[list[str] | None, typer.Option(help="Producer; may be repeated. All by default.")] = None,
    window: Annotated[str, typer.Option(help="A calendar word: 2026-03, last-month; or give start and end.")] = "",
    start: Annotated[str, typer.Option(help="First day: a date, -30d, or a calendar word. By default -7d.")] = "",
    end: Annotated[str, typer.Option(help="First day after the last; now by default.")] = "",
    spreads: Annotated[int, typer.Option(min=1, help="Spreads beyond what is usual at which records are missing.")] = 4,
    gaps: Annotated[bool, typer.Option("--gaps", help="Only what is missing, and who is silent.")] = False,
) -> None:
    """Show what was expected from each producer, kind and day, what came, and which producers are silent.

    Expected is what the source itself has counted (records of the kind record-count), else the median of the same hours
    in the last four weeks before that lie in no outage. Days are those of the records' partition times, in UTC.
    """
    from accounting.completeness.comparing import completeness as compare  # noqa: PLC0415  # `--help` needs none of it.
    from accounting.completeness.completeness_text import (  # noqa: PLC0415  # as above.
        CompletenessText,
        ExpectedRow,
        columns_of,
        completeness_document,
        parse_completeness,
    )

    chosen = options(context)
    text = CompletenessText(
        kinds=tuple(kind or ()),
        producers=tuple(producer or ()),
        window=window,
        start=start,
        end=end,
        spreads=spreads,
        gaps=gaps,
    )
    with opened(chosen.settings) as ledger:
        kinds = ledger.kinds
        asked = parse_completeness(text, kinds, datetime.now(UTC))
        document = completeness_document(compare(ledger, asked), asked, gaps=gaps)
    if chosen.output == "json":
        show_object(document)
        return
    show(ExpectedRow.__struct_fields__, columns_of(document.rows), chosen.output)
    for each in document.producers:
        if each.silent:
            tell(f"{each.kind}: {each.producer} is silent since {each.last}, overdue for {each.overdue // 3600} h")
    untold = sum(1 for row in document.rows if row.why)
    if untold:
        tell(f"{untold} rows cannot tell how much is missing, and say why")
    tell(f"{document.missing} records are missing from {document.start} to {document.end}")
