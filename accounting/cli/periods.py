"""`siteward ledger periods`, `close`, `sign`, `reopen`, `adjustments`, `verify-periods`: months whose figures stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from accounting.cli.opened import REASON, Person, opened, person
from siteward.cli import PLAIN
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, reads
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from accounting.ledger import Ledger
    from accounting.periods.closed_months import ClosedMonth
    from siteward.settings import Settings

commands = typer.Typer(**PLAIN)
COLUMNS = ("kind", "month", "state", "closed_by", "closed_at", "signed_by", "signed_at", "digest")

Kind = Annotated[str, typer.Argument(help="Name of the kind, such as job.")]
Month = Annotated[str, typer.Argument(help="Such as 2026-10.")]
OfKind = Annotated[str, typer.Option("--kind", help="Only those of this kind.")]


@commands.command(short_help="List closed and signed months.")
@reads(Permission.READ)
def periods(context: typer.Context, kind: OfKind = "") -> None:
    """List the months that were closed at some time; all others are open."""
    from accounting.periods.closed_months import periods_in  # noqa: PLC0415  # `--help` needs none of it.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        show(COLUMNS, map(_row, periods_in(ledger, kind)), chosen.output)


@commands.command(short_help="Close a month: from now on its figures change visibly only.")
@changes(Permission.ACCOUNT)
def close(context: typer.Context, kind: Kind, month: Month, by: Person = "") -> None:
    """Close a month: from now on what changes its by-end figures is an adjustment, with date, entry and cause."""
    from accounting.periods.closing import close as end  # noqa: PLC0415  # as above.

    with opened(options(context).settings) as ledger:
        _tell(end(ledger, kind, _month(month), person(by)))


@commands.command(short_help="Stand for the figures of a closed month.")
@changes(Permission.ACCOUNT)
def sign(context: typer.Context, kind: Kind, month: Month, by: Person = "") -> None:
    """Stand for a closed month's figures as of closing: a digest of them is kept with your name.

    Its buckets are compared with its records first: a month that is not what they say is not signed.
    """
    from accounting.periods.signatures import sign as stand_for  # noqa: PLC0415  # as above.

    settings = options(context).settings
    with opened(settings) as ledger:
        _refuse_wrong(ledger, settings, kind, _month(month))
        period = stand_for(ledger, kind, _month(month), person(by))
        _tell(period)
        tell(f"SHA-256 of its figures: {period.digest}")


def _refuse_wrong(ledger: Ledger, settings: Settings, kind: str, month: int) -> None:
    """Refuse a month whose buckets are not what its records say; of one whose records are not all there, tell it."""
    from accounting.booking.buckets import SECOND  # noqa: PLC0415  # as above.
    from accounting.checks.verifying import Counts, Scope, Untold, checked_buckets  # noqa: PLC0415  # as above.
    from accounting.opening import archive_folder  # noqa: PLC0415  # as above.
    from accounting.periods.closed_months import PeriodError  # noqa: PLC0415  # as above.
    from accounting.upkeep.months import month_end  # noqa: PLC0415  # as above.

    scope = Scope(archive_folder(settings), (kind,), month * SECOND, month_end(month) * SECOND)
    found = list(checked_buckets(ledger, scope, Counts()))
    wrong = sum(1 for each in found if not isinstance(each, Untold))
    if wrong:
        message = f"{wrong} sums of the month are not what its records say: `siteward ledger verify`, then `rebuild`"
        raise PeriodError(message)
    for each in found:
        assert isinstance(each, Untold)
        tell(f"not compared with records: {each.first.date()} to {each.last.date()}: {each.why}")


@commands.command(short_help="Let a closed month change again.")
@changes(Permission.ACCOUNT)
def reopen(
    context: typer.Context,
    kind: Kind,
    month: Month,
    reason: Annotated[str, typer.Option(help=REASON)],
    by: Person = "",
) -> None:
    """Let a closed or signed month change again without adjustments; a signature of it is void."""
    from accounting.periods.closing import reopen as open_again  # noqa: PLC0415  # as above.

    with opened(options(context).settings) as ledger:
        _tell(open_again(ledger, kind, _month(month), person(by), reason))


@commands.command(short_help="Show what has changed a closed month.")
@reads(Permission.READ)
def adjustments(context: typer.Context, kind: Kind, month: Month) -> None:
    """Show what has changed a month since it was closed: when, why, by which entry, and by how much."""
    from accounting.periods.adjusted import adjustments_of  # noqa: PLC0415  # as above.
    from siteward.records import moment  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        found = adjustments_of(ledger, kind, _month(month))
    dimensions = list(dict.fromkeys(name for each in found for name, value in each.group.items() if value))
    measures = list(dict.fromkeys(name for each in found for name in each.differences if _is_shown(name)))
    names = [name.removeprefix("_") for name in measures]
    rows = (
        (
            moment(each.at),
            each.cause,
            each.action,
            each.author,
            each.reason,
            *(each.group.get(name) for name in dimensions),
            *(each.differences.get(name, 0) for name in measures),
        )
        for each in found
    )
    show(("at", "cause", "entry", "author", "reason", *dimensions, *names), rows, chosen.output)
    tell(f"{len(found)} adjustments since {month} was closed")


@commands.command("verify-periods", short_help="Compute the digests of signed months again.")
@reads(Permission.ACCOUNT)
def verify_periods(context: typer.Context, kind: OfKind = "") -> None:
    """Compute the digests of signed months again; ends with 1 where one is not what was signed."""
    from accounting.periods.signatures import verified_periods  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        found = list(verified_periods(ledger, kind))
    rows = (
        (each.kind, each.month, each.signed_by, "right" if each.is_right else "wrong", ", ".join(each.changed))
        for each in found
    )
    show(("kind", "month", "signed_by", "digest", "declared_otherwise"), rows, chosen.output)
    wrong = sum(not each.is_right for each in found)
    tell(f"{len(found)} signed months, {wrong} of them are not what was signed")
    if wrong:
        raise typer.Exit(1)


def _is_shown(name: str) -> bool:
    """Measures and the number of records; not what ratios and means need beside them."""
    from accounting.tables import RECORDS  # noqa: PLC0415  # as above.

    return name == RECORDS or not name.startswith("_")


def _month(text: str) -> int:
    from accounting.periods.closed_months import PeriodError  # noqa: PLC0415  # as above.
    from accounting.upkeep.months import parse_month  # noqa: PLC0415  # as above.

    try:
        return parse_month(text)
    except ValueError as error:
        raise PeriodError(str(error)) from error


def _row(period: ClosedMonth) -> tuple[object, ...]:
    from siteward.records import moment  # noqa: PLC0415  # as above.

    return (
        period.kind,
        period.name,
        period.state,
        period.closed_by,
        moment(period.closed_at),
        period.signed_by,
        None if period.signed_at is None else moment(period.signed_at),
        period.digest,
    )


def _tell(period: ClosedMonth) -> None:
    tell(f"{period.name} of {period.kind} is {period.state}")
