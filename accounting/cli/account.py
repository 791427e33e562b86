"""`siteward account`: who used what, asked of the running app, or of the ledger where none runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from accounting.cli.answering import By, End, File, Form, Showing, Start, Url, Where, Window, Zone, ask
from accounting.cli.reports import report, reports
from siteward.cli import PLAIN
from siteward.cli.verbs import shows_all, unless_elsewhere
from siteward.query_text import split_list
from siteward.server.auth import Permission
from siteward.usage_text import UsageText


class _Account(TyperGroup):
    """Its commands; what is none of them is a question, with the name of a kind."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # click's classes have moved.
        """Ask, unless something else is said."""
        is_said = not args or args[0] in {*self.commands, "--help"}
        return super().parse_args(ctx, args if is_said else ["usage", *args])


account = typer.Typer(cls=_Account, no_args_is_help=True, **PLAIN)
account.command("reports", short_help="List the reports of a kind, or of all kinds.")(reports)
account.command("report", short_help="Show a report.")(report)


@account.callback()
def _account() -> None:
    """Account for who used what: exact totals of the ledger, by dimensions and calendar periods.

    `siteward account job …` is `siteward account usage job …`.
    """


@account.command(short_help="Ask any question: `usage` may be left out.")
@shows_all(Permission.READ, vos=unless_elsewhere)
def usage(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Name of the kind, such as job.")],
    measures: Annotated[
        str, typer.Option(help="What to compute, such as cpu_time,rate:core_time,efficiency,records.")
    ] = "records",
    by: By = "",
    where: Where = None,
    window: Window = "",
    start: Start = "",
    end: End = "",
    attribution: Annotated[
        str, typer.Option(help="prorated, the default, or by-end: whole where it ended; of snapshots at-instant.")
    ] = "",
    period: Annotated[
        str, typer.Option(help="A row for each hour, day, week, month, quarter, year; or whole.")
    ] = "whole",
    top: Annotated[int, typer.Option(min=0, help="Groups kept; the others become one. 0 keeps all.")] = 0,
    as_of: Annotated[
        str, typer.Option(help="Figures of closed months: present, or by end as of their closing.")
    ] = "present",
    zone: Zone = "UTC",
    form: Form = "",
    file: File = None,
    url: Url = "",
) -> None:
    """Ask who used what: exact totals of the ledger, by dimensions and calendar periods.

    Asked is the app of this installation where it runs, else the ledger itself; with --url only the app there. Without
    a window it is this month until now. Every figure says to which time usage belongs: its attribution.
    """
    showing = Showing(context, form, file)
    text = UsageText(
        kind=kind,
        measures=split_list(measures),
        by=split_list(by),
        where=tuple(where or ()),
        window=window,
        start=start,
        end=end,
        attribution=attribution,
        period=period,
        top=top,
        as_of=as_of,
    )
    showing.show(ask(text, zone, showing.settings, url))
