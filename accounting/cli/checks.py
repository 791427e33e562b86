"""`siteward ledger verify` and `rebuild`: buckets beside the records that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

import typer

from accounting.cli.opened import opened
from siteward.cli.options import options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, shows_all, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from accounting.checks.verifying import Counts, Finding, Scope
    from accounting.ledger import Ledger
    from siteward.settings import Settings

MOST_SHOWN: Final = 1000
"""Findings that are shown unless more are asked for; all are counted."""
COLUMNS: Final = ("kind", "what", "start", "width", "series", "measure", "booked", "computed", "why")
FOLDER: Final = "Of the archive's files; by default as the settings say."
START: Final = "First day: a date, -30d, or a calendar word."
END: Final = "First day after the last."


@shows_all(Permission.ACCOUNT)
def verify(
    context: typer.Context,
    kinds: Annotated[list[str] | None, typer.Argument(help="Kinds; all by default.")] = None,
    start: Annotated[str, typer.Option(help=START)] = "",
    end: Annotated[str, typer.Option(help=END)] = "",
    folder: Annotated[str, typer.Option("--folder", help=FOLDER)] = "",
    limit: Annotated[int, typer.Option(min=0, help="Findings that are shown; all are counted.")] = MOST_SHOWN,
) -> None:
    """Compare files with their digests, series with theirs, buckets with records, signed months with what was signed.

    Writing may go on meanwhile. Ends with 1 where anything differs. Days whose records are not all there cannot be
    told: they are shown, and change nothing of how it ends.
    """
    from accounting.checks.verifying import Counts  # noqa: PLC0415  # `--help` needs none of it.
    from accounting.checks.verifying import verify as compare  # noqa: PLC0415  # as above.

    chosen = options(context)
    counts = Counts()
    with opened(chosen.settings) as ledger:
        findings = compare(ledger, scope(ledger, chosen.settings, kinds or (), (start, end), folder), counts)
        shown = list(islice(findings, limit))
        unshown = sum(1 for _ in findings)
    show(COLUMNS, map(_row, shown), chosen.output)
    if unshown:
        tell(f"and {unshown} more; --limit shows them")
    tell(_told(counts))
    if counts.differences:
        tell("`siteward ledger rebuild` makes buckets what their records come to")
    if counts.differences or counts.bad_files or counts.bad_months or counts.bad_numbers:
        raise typer.Exit(1)


@changes(Permission.PLATFORM)
def rebuild(
    context: typer.Context,
    kinds: Annotated[list[str] | None, typer.Argument(help="Kinds; all by default.")] = None,
    start: Annotated[str, typer.Option(help=START)] = "",
    end: Annotated[str, typer.Option(help=END)] = "",
    folder: Annotated[str, typer.Option("--folder", help=FOLDER)] = "",
) -> None:
    """Compute buckets anew from their records, some days at a time, while writing goes on.

    It may be killed: called again it goes on where it was. Days whose records are not all there are left as they are,
    and named.
    """
    from accounting.upkeep.rebuild import rebuild as compute  # noqa: PLC0415  # `--help` needs none of it.

    chosen = options(context)
    rows: list[Sequence[object]] = []
    with opened(chosen.settings) as ledger:
        for done in compute(ledger, scope(ledger, chosen.settings, kinds or (), (start, end), folder)):
            first, last = _day(done.first), _day(done.last - 1)
            rows.append((done.kind, first, last, done.records, done.changed, sum(each.days for each in done.untold)))
            for each in done.untold:
                tell(f"{each.kind}: left alone from {each.first.date()} to {each.last.date()}: {each.why}")
    columns = ("kind", "from", "to", "records", "changed", "left_alone")
    was_wrong = [dict(zip(columns, row, strict=True)) for row in rows if row[columns.index("changed")]]
    tell_change(context, was_wrong, [])
    show(columns, rows, chosen.output)


def scope(ledger: Ledger, settings: Settings, kinds: Sequence[str], window: tuple[str, str], folder: str) -> Scope:
    """What a command is asked to look at.

    Raises:
        QueryError: a kind or a day is not one.
    """
    from accounting.checks.verifying import Scope  # noqa: PLC0415  # as above.
    from accounting.opening import archive_folder  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.query_text import find_named  # noqa: PLC0415  # as above.
    from siteward.records import microseconds  # noqa: PLC0415  # as above.
    from siteward.usage_window import parse_instant  # noqa: PLC0415  # as above.

    known = {name: name for name in ledger.kinds}
    names = tuple(find_named(kind, known, "kind in the ledger") for kind in kinds)
    now = datetime.now(UTC)
    first, last = (microseconds(parse_instant(text, now)) if text else None for text in window)
    return Scope(archive_folder(settings, folder), names, first, last)


def _row(finding: Finding) -> tuple[object, ...]:
    from accounting.checks.numbered import BadNumber  # noqa: PLC0415  # as above.
    from accounting.checks.verify_sums import BadMonth  # noqa: PLC0415  # as above.
    from accounting.checks.verifying import BadFile, Untold  # noqa: PLC0415  # `--help` needs none of it.

    match finding:
        case BadFile():
            return finding.kind, "file", None, None, finding.file, None, None, None, finding.why
        case BadNumber():
            row = f"{finding.table} {finding.number}"
            return finding.kind, "number", None, None, row, None, None, None, finding.why
        case BadMonth():
            return finding.kind, finding.what, f"{finding.month:%Y-%m}", None, None, None, None, None, finding.why
        case Untold():
            days = f"{finding.first.date()} to {finding.last.date()}"
            return finding.kind, "not told", days, None, None, None, None, None, finding.why
        case _:
            series = ", ".join(f"{name}={value}" for name, value in finding.series.items() if value not in {None, ""})
            start = finding.start.isoformat().replace("+00:00", "Z")
            figures = finding.measure, finding.booked, finding.computed
            return finding.kind, finding.attribution, start, finding.width, series, *figures, None


def _told(counts: Counts) -> str:
    looked_at = (
        f"looked at {counts.buckets} buckets of {counts.days} days of the kinds, {counts.records} records, and "
        f"{counts.files} files with {counts.archived} records"
    )
    untold = f"; {counts.untold} days cannot be told, since not all of their records are there" if counts.untold else ""
    files = f"; {counts.bad_files} files are not as they should be" if counts.bad_files else ""
    months = f"; {counts.bad_months} months are not what they should be" if counts.bad_months else ""
    numbers = f"; rows that are not what they were numbered as: {counts.bad_numbers}" if counts.bad_numbers else ""
    return f"{looked_at}: {counts.differences or 'no'} differences{numbers}{files}{months}{untold}"


def _day(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).date().isoformat()
