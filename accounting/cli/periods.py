"""`siteward ledger periods`, `close`, `sign`, `reopen`, `adjustments`, `verify-periods`: months whose figures stand."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from accounting.cli.opened import REASON, Person, opened, person
from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, one_or_all, shows_all, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from accounting.ledger import Ledger
    from accounting.periods.closed_months import ClosedMonth
    from accounting.periods.signatures import Verified

commands = typer.Typer(**PLAIN)
COLUMNS = ("kind", "month", "vo", "state", "closed_by", "closed_at", "signed_by", "signed_at", "digest")

Kind = Annotated[str, typer.Argument(help="Name of the kind, such as job.")]
Month = Annotated[str, typer.Argument(help="Such as 2026-10.")]
OfKind = Annotated[str, typer.Option("--kind", help="Only those of this kind.")]
Vo = Annotated[str, typer.Option(help="Of this VO; `*`, the default, of all that have no period of their own.")]


@commands.command(short_help="List closed and signed months.")
@shows_all(Permission.READ, vos=one_or_all)
def periods(
    context: typer.Context,
    kind: OfKind = "",
    vo: Annotated[str, typer.Option(help="Only those that this VO's figures are in; `*`, the default, all.")] = "*",
) -> None:
    """List the months that were closed at some time; all others are open."""
    from accounting.booking.adjustments import ALL_VOS  # noqa: PLC0415  # `--help` needs none of it.
    from accounting.periods.closed_months import periods_in  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        found = [each for each in periods_in(ledger, kind) if vo == ALL_VOS or each.covers(vo)]
        show(COLUMNS, map(_row, found), chosen.output)


@commands.command(short_help="Close a month: from now on its figures change visibly only.")
@changes(Permission.ACCOUNT, vos=one_or_all)
def close(context: typer.Context, kind: Kind, month: Month, vo: Vo = "*", by: Person = "") -> None:
    """Close a month: from now on what changes its by-end figures is an adjustment, with date, entry and cause."""
    from accounting.periods.closing import close as end  # noqa: PLC0415  # as above.
    from accounting.periods.signatures import has_figures  # noqa: PLC0415  # as above.

    with opened(options(context).settings) as ledger:
        before = _known(ledger, kind, month, vo)
        period = end(ledger, kind, _month(month), person(by), vo)
        tell_change(context, before, _noted(period))
        _tell(period)
        if not has_figures(ledger, period):
            tell("nothing that ended in it is booked: `siteward ledger reopen` if another month was meant")
        if period.without:
            tell(f"left out, with periods of their own for the month: {', '.join(period.without)}")


@commands.command(short_help="Stand for the figures of a closed month.")
@changes(Permission.ACCOUNT, vos=one_or_all)
def sign(context: typer.Context, kind: Kind, month: Month, vo: Vo = "*", by: Person = "") -> None:
    """Stand for a closed month's figures as of closing: a digest of them is kept with your name.

    Its buckets are compared with its records first: a month that is not what they say is not signed.
    """
    from accounting.checks.signing import sign_compared  # noqa: PLC0415  # as above.
    from accounting.opening import archive_folder  # noqa: PLC0415  # as above.

    settings = options(context).settings
    with opened(settings) as ledger:
        before = _known(ledger, kind, month, vo)
        signed = sign_compared(ledger, archive_folder(settings), kind, _month(month), person(by), vo)
    tell_change(context, before, _noted(signed.period))
    for each in signed.untold:
        tell(f"not compared with records: {each.first.date()} to {each.last.date()}: {each.why}")
    _tell(signed.period)
    tell(f"SHA-256 of its figures: {signed.period.digest}")


@commands.command(short_help="Let a closed month change again.")
@changes(Permission.ACCOUNT, vos=one_or_all)
def reopen(
    context: typer.Context,
    kind: Kind,
    month: Month,
    reason: Annotated[str, typer.Option(help=REASON)],
    vo: Vo = "*",
    by: Person = "",
) -> None:
    """Let a closed or signed month change again without adjustments; a signature of it is void."""
    from accounting.periods.closing import reopen as open_again  # noqa: PLC0415  # as above.

    with opened(options(context).settings) as ledger:
        before = _known(ledger, kind, month, vo)
        period = open_again(ledger, kind, _month(month), person(by), reason, vo)
        tell_change(context, before, _noted(period))
        _tell(period)


@commands.command(short_help="Show what has changed a closed month.")
@shows_all(Permission.READ, vos=one_or_all)
def adjustments(context: typer.Context, kind: Kind, month: Month, vo: Vo = "*") -> None:
    """Show what has changed a month since it was closed: when, why, by which entry, and by how much."""
    from accounting.periods.adjusted import adjustments_of  # noqa: PLC0415  # as above.
    from accounting.periods.closed_months import tables_of_kind  # noqa: PLC0415  # as above.
    from accounting.query.usage import Usage  # noqa: PLC0415  # as above.
    from siteward.people import personal_names  # noqa: PLC0415  # as above.
    from siteward.records import moment  # noqa: PLC0415  # as above.
    from siteward.server.auth.local_person import local_viewer  # noqa: PLC0415  # as above.
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger, closing(PeopleTable(chosen.settings)) as people:
        found = adjustments_of(ledger, kind, _month(month), vo)
        tables = tables_of_kind(ledger, kind)
        sight = Usage(ledger, people).sight(tables.kind, local_viewer(chosen.settings))
        for name in personal_names([tables.kind]):
            sight.look_up(name, (each.group.get(name) for each in found))
    dimensions = list(dict.fromkeys(name for each in found for name, value in each.group.items() if value))
    measures = list(dict.fromkeys(name for each in found for name in each.shown))
    rows = (
        (
            moment(each.at),
            each.cause,
            each.action,
            each.author,
            each.reason,
            *(sight.shown(name, each.group.get(name)) for name in dimensions),
            *(each.shown.get(name, 0) for name in measures),
        )
        for each in found
    )
    show(("at", "cause", "entry", "author", "reason", *dimensions, *measures), rows, chosen.output)
    tell(f"{len(found)} adjustments since {month} was closed")


@commands.command("verify-periods", short_help="Compute the digests of signed months again.")
@shows_all(Permission.ACCOUNT)
def verify_periods(context: typer.Context, kind: OfKind = "") -> None:
    """Compute the digests of signed months again; ends with 1 where one is not what was signed."""
    from accounting.periods.signatures import verified_periods  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        found = list(verified_periods(ledger, kind))
    rows = ((each.kind, each.month, each.vo, each.signed_by, _word(each), ", ".join(each.changed)) for each in found)
    show(("kind", "month", "vo", "signed_by", "digest", "declared_otherwise"), rows, chosen.output)
    wrong = sum(not each.is_right for each in found)
    tell(f"{len(found)} signed months, {wrong} of them are not what was signed")
    if wrong:
        raise typer.Exit(1)


def _word(verified: Verified) -> str:
    return "right" if verified.is_right else "wrong"


def _month(text: str) -> int:
    from accounting.periods.closed_months import PeriodError  # noqa: PLC0415  # as above.
    from accounting.upkeep.months import parse_month  # noqa: PLC0415  # as above.

    try:
        return parse_month(text)
    except ValueError as error:
        raise PeriodError(str(error)) from error


def _known(ledger: Ledger, kind: str, month: str, vo: str) -> dict[str, str] | None:
    """A period as the audit tells it; None where it was never closed."""
    from accounting.periods.closed_months import periods_in  # noqa: PLC0415  # as above.

    mine = (kind, _month(month), vo)
    return next((_noted(each) for each in periods_in(ledger, kind) if (each.kind, each.month, each.vo) == mine), None)


def _noted(period: ClosedMonth) -> dict[str, str]:
    return {"state": str(period.state), "digest": period.digest}


def _row(period: ClosedMonth) -> tuple[object, ...]:
    from siteward.records import moment  # noqa: PLC0415  # as above.

    return (
        period.kind,
        period.name,
        period.vo,
        period.state,
        period.closed_by,
        moment(period.closed_at),
        period.signed_by,
        None if period.signed_at is None else moment(period.signed_at),
        period.digest,
    )


def _tell(period: ClosedMonth) -> None:
    tell(f"{period} is {period.state}")
