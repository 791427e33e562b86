"""`siteward ledger correct`, `corrections`, `approve`, `reject`, `reverse`: records that said something wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accounting.cli.opened import REASON, Person, opened, person
from siteward.cli import PLAIN
from siteward.cli.options import Options, options
from siteward.cli.output import show, tell
from siteward.cli.verbs import changes, shows_all, tell_change
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from accounting.corrections.correction import Correction, Draft
    from accounting.corrections.figures import Figures
    from accounting.corrections.naming import Names
    from accounting.ledger import Ledger
    from siteward.people import People
    from siteward.settings import Settings

making = typer.Typer(help="Propose a correction: what it would change is shown.", no_args_is_help=True, **PLAIN)
commands = typer.Typer(**PLAIN)

Kind = Annotated[str, typer.Argument(help="Name of the kind, such as job.")]
LARGEST = 2**63 - 1
Number = Annotated[int, typer.Argument(min=1, max=LARGEST, help="As `siteward ledger corrections` lists it.")]
Where = Annotated[list[str] | None, typer.Option(help="Condition; may be repeated: site=A|B, user~x*, gpus>=1.")]
Window = Annotated[str, typer.Option(help="Of the records' partition time, a calendar word: 2026, 2026-Q1, 2026-03.")]
Start = Annotated[str, typer.Option(help="First instant, in place of a window.")]
End = Annotated[str, typer.Option(help="First instant after it.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Of a single record; may be repeated.")]
Given = Annotated[list[str], typer.Option("--set", help="New value, FIELD=VALUE; may be repeated.")]
Reason = Annotated[str, typer.Option(help=REASON)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would change.")]


def _concerned(given: Mapping[str, Any]) -> Collection[str]:
    """Whose records a correction is about that is to be proposed; unknown where it cannot be read."""
    from accounting.corrections.concerned import VO, concerned_vos  # noqa: PLC0415  # `--help` needs none of it.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.
    from siteward.query import QueryError  # noqa: PLC0415  # as above.

    kind = load_kinds().get(given["kind"])
    to = [value for name, _, value in (each.partition("=") for each in given.get("given", ())) if name == VO]
    try:
        return concerned_vos(kind, given.get("where", ()), {VO: to[-1]} if to else {}) if kind else ()
    except QueryError:
        # The command says what is wrong with it.
        return ()


proposes = changes(Permission.ACCOUNT, apart=("where", "given"), vos=_concerned)


@making.command(short_help="Give measures of records other values.")
@proposes
def change(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    kind: Kind,
    given: Given,
    reason: Reason,
    where: Where = None,
    window: Window = "",
    start: Start = "",
    end: End = "",
    ids: Ids = None,
    author: Person = "",
    dry_run: DryRun = False,
) -> None:
    """Give measures of records other values, such as a wrong benchmark: --set score=15000.

    Another person approves it; then every total is as if the records had come so.
    """
    _make(context, "change", kind, where, (window, start, end), ids, given, (author, reason), dry_run)


@making.command(short_help="Give dimensions of records other values.")
@proposes
def move(  # noqa: PLR0917  # as above.
    context: typer.Context,
    kind: Kind,
    given: Given,
    reason: Reason,
    where: Where = None,
    window: Window = "",
    start: Start = "",
    end: End = "",
    ids: Ids = None,
    author: Person = "",
    dry_run: DryRun = False,
) -> None:
    """Give dimensions of records other values, such as a wrong site: --set site=RIGHT --where site=WRONG.

    Another person approves it; then every total is as if the records had come so.
    """
    _make(context, "move", kind, where, (window, start, end), ids, given, (author, reason), dry_run)


@making.command(short_help="Let records count in nothing.")
@proposes
def void(  # noqa: PLR0917  # as above.
    context: typer.Context,
    kind: Kind,
    reason: Reason,
    where: Where = None,
    window: Window = "",
    start: Start = "",
    end: End = "",
    ids: Ids = None,
    author: Person = "",
    dry_run: DryRun = False,
) -> None:
    """Let records count in nothing; one that is sent again is still a duplicate.

    Another person approves it.
    """
    _make(context, "void", kind, where, (window, start, end), ids, [], (author, reason), dry_run)


@commands.command(short_help="List corrections, or show what one changes.")
@shows_all(Permission.READ)
def corrections(
    context: typer.Context,
    number: Annotated[
        int | None, typer.Argument(min=1, max=LARGEST, help="Of one, whose differences are shown.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Only those of this kind.")] = "",
    now: Annotated[bool, typer.Option("--now", help="What it would change if it were approved now.")] = False,
) -> None:
    """List corrections with their authors and reasons, or show what one changes, or has changed."""
    from accounting.corrections.correction_table import corrections_in  # noqa: PLC0415  # `--help` needs none of it.
    from accounting.corrections.deciding import found_correction, preview  # noqa: PLC0415  # as above.
    from accounting.corrections.naming import named_corrections  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        if number is None:
            with _naming(chosen.settings) as people:
                found = named_corrections(corrections_in(ledger, kind), people, conditions=True)
            show(COLUMNS, map(_row, found), chosen.output)
            return
        correction = found_correction(ledger, number)
        _show_figures(ledger, correction, preview(ledger, correction) if now else correction.figures, chosen)
        _tell(correction)


@commands.command(short_help="Apply a correction that another person has proposed.")
@changes(Permission.ACCOUNT)
def approve(
    context: typer.Context,
    number: Number,
    by: Person = "",
    anew: Annotated[
        bool, typer.Option("--anew", help="Also where it would change something else by now than as proposed.")
    ] = False,
) -> None:
    """Apply a correction, or go on with one that was approved and interrupted; show what it has changed.

    It may be killed at any moment: run it again, and it goes on where it was.
    """
    from accounting.corrections.deciding import approve as apply  # noqa: PLC0415  # as above.
    from accounting.corrections.deciding import found_correction  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        allowed = chosen.settings.accounting.self_approval
        before = found_correction(ledger, number)
        correction = apply(ledger, number, person(by), self_approval=allowed, anew=anew)
        tell_change(context, _noted(before), _noted(correction), _vos(ledger, correction))
        _show_figures(ledger, correction, correction.figures, chosen)
        _tell(correction)


@commands.command(short_help="Keep a correction from being applied.")
@changes(Permission.ACCOUNT)
def reject(context: typer.Context, number: Number, reason: Reason, by: Person = "") -> None:
    """Keep a correction that was proposed from being applied."""
    from accounting.corrections.deciding import found_correction  # noqa: PLC0415  # as above.
    from accounting.corrections.deciding import reject as refuse  # noqa: PLC0415  # as above.

    with opened(options(context).settings) as ledger:
        before = found_correction(ledger, number)
        correction = refuse(ledger, number, person(by), reason)
        tell_change(context, _noted(before), _noted(correction), _vos(ledger, correction))
        _tell(correction)


@commands.command(short_help="Take a correction back.")
@changes(Permission.ACCOUNT)
def reverse(context: typer.Context, number: Number, reason: Reason, by: Person = "") -> None:
    """Take a correction back: every record is what it would be without it. Or go on, if that was interrupted."""
    from accounting.corrections.deciding import found_correction  # noqa: PLC0415  # as above.
    from accounting.corrections.deciding import reverse as take_back  # noqa: PLC0415  # as above.

    chosen = options(context)
    with opened(chosen.settings) as ledger:
        before = found_correction(ledger, number)
        correction = take_back(ledger, number, person(by), reason)
        tell_change(context, _noted(before), _noted(correction), _vos(ledger, correction))
        _show_figures(ledger, correction, correction.undone, chosen)
        _tell(correction)


COLUMNS = (
    *("number", "kind", "action", "selection", "set", "records"),
    *("state", "author", "reason", "proposed", "decided_by"),
)


def _make(  # noqa: PLR0917  # what all three have.
    context: typer.Context,
    action: str,
    kind: str,
    where: list[str] | None,
    times: tuple[str, str, str],
    ids: list[str] | None,
    given: list[str],
    people: tuple[str, str],
    dry_run: bool,
) -> None:
    from accounting.corrections.deciding import preview, propose  # noqa: PLC0415  # as above.
    from accounting.corrections.drafting import DraftText, parse_draft  # noqa: PLC0415  # as above.
    from accounting.corrections.naming import without_names  # noqa: PLC0415  # as above.
    from siteward.kinds import load_kinds  # noqa: PLC0415  # as above.
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415  # as above.

    chosen = options(context)
    text = DraftText(
        kind=kind,
        action=action,
        where=tuple(where or ()),
        window=times[0],
        start=times[1],
        end=times[2],
        ids=tuple(ids or ()),
        given=tuple(given),
        author=person(people[0]),
        reason=people[1],
    )
    kinds = load_kinds(chosen.settings.kinds)
    with opened(chosen.settings) as ledger, closing(PeopleTable(chosen.settings)) as names:
        draft = parse_draft(text, kinds, datetime.now(UTC))
        unnamed = without_names(ledger, draft, kinds[draft.kind], names)
        draft = unnamed.draft
        if dry_run:
            figures = preview(ledger, draft)
            _show_figures(ledger, draft, figures, chosen, unnamed.names)
            tell(f"{figures.records} records; nothing was written")
            return
        names.enter(unnamed.names)
        correction = propose(ledger, draft)
        tell_change(context, None, _noted(correction), _vos(ledger, correction))
        _show_figures(ledger, draft, correction.figures, chosen)
        _tell(correction)


def _vos(ledger: Ledger, correction: Correction) -> Collection[str]:
    from accounting.corrections.concerned import concerned_vos  # noqa: PLC0415  # as above.

    kind = ledger.kinds.get(correction.kind)
    return concerned_vos(kind, correction.selection.where, correction.given) if kind else ()


def _noted(correction: Correction) -> dict[str, object]:
    """A correction as the audit tells it."""
    return {"number": correction.number, "state": str(correction.state)}


def _row(correction: Correction) -> tuple[object, ...]:
    from accounting.corrections.correction import selection_text  # noqa: PLC0415  # as above.
    from siteward.records import moment  # noqa: PLC0415  # as above.

    return (
        correction.number,
        correction.kind,
        correction.action,
        selection_text(correction.selection),
        ", ".join(f"{name}={'' if value is None else value}" for name, value in correction.given.items()),
        correction.figures.records,
        correction.state,
        correction.author,
        correction.reason,
        moment(correction.proposed_at),
        correction.decided_by,
    )


@contextmanager
def _naming(settings: Settings) -> Iterator[People]:
    """Who people are, as far as this installation shows it."""
    from siteward.people import Nobody  # noqa: PLC0415  # as above.
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415  # as above.

    with closing(PeopleTable(settings)) as people:
        yield people if settings.access.names else Nobody()


def _show_figures(ledger: Ledger, draft: Draft, figures: Figures, chosen: Options, names: Names | None = None) -> None:
    from accounting.corrections.naming import named_figures  # noqa: PLC0415  # as above.

    with _naming(chosen.settings) as people:
        figures = named_figures(figures, people, names)
    columns = ("month", "attribution", *figures.by, "measure", "difference", "period")
    show(columns, _differences(ledger, draft, figures), chosen.output)


def _differences(ledger: Ledger, draft: Draft, figures: Figures) -> Iterator[tuple[object, ...]]:
    from accounting.booking.adjustments import ALL_VOS  # noqa: PLC0415  # as above.
    from accounting.periods.closed_months import periods_in  # noqa: PLC0415  # as above.
    from accounting.upkeep.months import month_name  # noqa: PLC0415  # as above.
    from siteward.usage import Attribution  # noqa: PLC0415  # as above.

    states: defaultdict[int, list[str]] = defaultdict(list)
    for period in periods_in(ledger, draft.kind):
        states[period.month].append(str(period.state) if period.vo == ALL_VOS else f"{period.vo} {period.state}")
    for each in figures.changes:
        state = ", ".join(states.get(each.month, ["open"])) if each.attribution is Attribution.BY_END else ""
        name = each.measure.removeprefix("_")
        yield month_name(each.month), each.attribution, *each.group, name, each.difference, state


def _tell(correction: Correction) -> None:
    """Say where a correction stands, and who has to do what."""
    words = (
        f"correction {correction.number} of {correction.kind}: {correction.figures.records} records, {correction.state}"
    )
    if correction.state == "proposed":
        words += f"; another person applies it with `siteward ledger approve {correction.number}`"
    tell(words)
