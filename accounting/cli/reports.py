"""`siteward account reports` and `report`: the questions that follow from what kinds declare, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from accounting.cli.answering import By, End, File, Form, Showing, Start, Url, Where, Window, Zone, ask
from accounting.cli.opened import opened
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.query import asked_app, refusals_of_questions
from siteward.cli.verbs import reads, shows_all, unless_elsewhere
from siteward.query_text import split_list
from siteward.server.auth import Permission
from siteward.settings import Settings
from siteward.usage_report import UsageReport, find_report

COLUMNS = ("name", "title", "units", "attribution", "period")


@reads(Permission.READ)
def reports(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Name of a kind; by default those of all kinds.")] = "",
    url: Url = "",
) -> None:
    """List the reports of a kind, or of all kinds in the ledger: they follow from what the kind declares."""
    chosen = options(context)
    found = _reports(kind, chosen.settings, url)
    rows = [
        (each.name, each.title, ",".join(dict.fromkeys(each.units)), each.attribution, each.period) for each in found
    ]
    show(COLUMNS, rows, chosen.output)
    if kind and found:
        tell(f"by: {', '.join(found[0].by)}")


@shows_all(Permission.READ, vos=unless_elsewhere)
def report(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `siteward account reports` names it, such as job/core_time/rate.")],
    by: By = "",
    where: Where = None,
    window: Window = "",
    start: Start = "",
    end: End = "",
    period: Annotated[
        str, typer.Option(help="A row for each hour, day, week, month, quarter, year; or whole. Else the report's own.")
    ] = "",
    top: Annotated[
        int | None, typer.Option(min=0, help="Groups kept; the others become one. 0 keeps all. Else the report's own.")
    ] = None,
    zone: Zone = "UTC",
    form: Form = "",
    file: File = None,
    url: Url = "",
) -> None:
    """Show a report, by what is asked for; without a window of this month until now."""
    showing = Showing(context, form, file)
    kind = name.partition("/")[0]
    found = {each.name: each for each in _reports(kind, showing.settings, url)}
    text = find_report(name, found).question(
        by=split_list(by), where=tuple(where or ()), window=window, start=start, end=end, period=period, top=top
    )
    showing.show(ask(text, zone, showing.settings, url))


def _reports(kind: str, settings: Settings, url: str) -> list[UsageReport]:
    """Those of the app that would be asked, else those of the ledger."""
    client = asked_app(settings, url)
    if client is not None:
        with refusals_of_questions():
            return client.usage_reports(kind)
    from accounting.query.reports import reports_in  # noqa: PLC0415  # only where no app answers.

    with opened(settings) as ledger:
        return reports_in(ledger, kind)
