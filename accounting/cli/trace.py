"""`siteward ledger trace`: from a figure to buckets, records and who sent them; from a record to its buckets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accounting.cli.opened import opened
from accounting.trace.traced import MOST_LISTED
from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.verbs import shows_all
from siteward.server.auth import Permission

if TYPE_CHECKING:
    from accounting.trace.traced import RecordTrace, Trace, TracedAdjustment, TracedRecord


@shows_all(Permission.READ)
def trace(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Name of the kind, such as job.")] = "",
    measures: Annotated[
        str, typer.Option(help="As in `siteward account`: core_time, efficiency, p95:wall_time, records.")
    ] = "records",
    where: Annotated[list[str] | None, typer.Option(help="Condition; may be repeated: site=A|B, vo!=x.")] = None,
    window: Annotated[str, typer.Option(help="A calendar word: 2026-03, last-month; or give start and end.")] = "",
    start: Annotated[str, typer.Option(help="First instant, as in `siteward account`.")] = "",
    end: Annotated[str, typer.Option(help="First instant after the window; now by default.")] = "",
    attribution: Annotated[str, typer.Option(help="prorated, the default, or by-end; of snapshots at-instant.")] = "",
    as_of: Annotated[
        str, typer.Option(help="present, or by end as of closing, with what has changed since.")
    ] = "present",
    limit: Annotated[int, typer.Option(min=1, max=MOST_LISTED, help="Buckets, and records, that are listed.")] = 100,
    after_bucket: Annotated[str, typer.Option(help="Go on with buckets, as the answer before said.")] = "",
    after_record: Annotated[str, typer.Option(help="Go on with records, as the answer before said.")] = "",
    after_adjustment: Annotated[
        str, typer.Option(help="Go on with changes since closing, as the answer before said.")
    ] = "",
    record: Annotated[str, typer.Option(help="In place of a figure: a record's id, 32 hexadecimal digits.")] = "",
    folder: Annotated[str, typer.Option("--folder", help="Of the archive; by default as the settings say.")] = "",
) -> None:
    """Follow a figure of `siteward account` to its buckets, its records, and the messages and producers they came from.

    A group is named by conditions: `--where site=A`. Or follow a record, by its id, to the buckets in which it is
    booked. Ends with 1 where a record's id is unknown.
    """
    from accounting.opening import archive_folder  # noqa: PLC0415  # `--help` needs none of it.
    from accounting.query.usage import Usage  # noqa: PLC0415  # as above.
    from accounting.trace.figure_trace import trace as follow  # noqa: PLC0415  # as above.
    from accounting.trace.record_trace import trace_record  # noqa: PLC0415  # as above.
    from accounting.trace.trace_text import TraceText, parse_record_id, parse_trace  # noqa: PLC0415  # as above.
    from siteward.query_text import split_list  # noqa: PLC0415  # as above.
    from siteward.server.auth.local_person import local_viewer  # noqa: PLC0415  # as above.
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415  # as above.

    chosen = options(context)
    if bool(kind) == bool(record):
        message = "give either a kind, or --record"
        raise typer.BadParameter(message)
    with opened(chosen.settings) as ledger, closing(PeopleTable(chosen.settings)) as people:
        archive = archive_folder(chosen.settings, folder)
        usage, viewer = Usage(ledger, people, archive), local_viewer(chosen.settings)
        if record:
            found = trace_record(usage, archive, parse_record_id(record), viewer)
            _show_record(found, chosen.output)
            return
        text = TraceText(
            kind=kind,
            measures=split_list(measures),
            where=tuple(where or ()),
            window=window,
            start=start,
            end=end,
            attribution=attribution,
            limit=limit,
            after_bucket=after_bucket,
            after_record=after_record,
            after_adjustment=after_adjustment,
            as_of=as_of,
        )
        _show(follow(usage, *parse_trace(text, ledger, datetime.now(UTC)), viewer), chosen.output)


def _show(found: Trace, output: str) -> None:
    if output == "json":
        show_object(found)
        return
    if output == "table":
        _show_tables(found)
    columns = ("id", "revision", "start", "end", *found.measures, "producer", "message", "entry", "received", "file")
    show(columns, [_row(each) for each in found.records], output, "records")
    for name, token in (
        ("after-bucket", found.more_buckets),
        ("after-record", found.more_records),
        ("after-adjustment", found.more_adjustments),
    ):
        if token:
            tell(f"there are more: --{name} {token}")
    for figure in found.figures:
        if figure.formula not in found.measures:
            names = "".join(f"; record {each.id} says {each.value}" for each in figure.records)
            tell(f"{figure.name} {figure.value}: {figure.formula}{names}")
    _tell(found)


def _show_tables(found: Trace) -> None:
    """What is listed beside records."""
    caption = f"{found.kind}, {found.attribution}, from {_time(found.start)} to {_time(found.end)}"
    if not found.of_records:
        buckets = [
            (_time(each.start), each.width, *each.amounts, "whole" if each.whole else "cut", _series(each.series))
            for each in found.buckets
        ]
        show(("start", "width", *found.measures, "taken", "series"), buckets, "table", f"buckets of {caption}")
    if found.adjustments:
        changed = [_changed(each) for each in found.adjustments]
        names = ("at", "entry", "cause", "action", "day", *found.measures, "series")
        show(names, changed, "table", f"changed since closing, {caption}")


def _tell(found: Trace) -> None:
    """The figure, and what a reader has to know of it."""
    for each in found.cycles:
        tell(
            f"{each.producer} looked {each.cycles} times, last {_time(each.last)}; {each.complete} times all was there"
        )
    if found.of_records:
        tell(f"computed from the records, not from buckets: only records say {', '.join(found.of_records)}")
    if found.as_of == "closing":
        now, since = _amounts(found.measures, found.present), _amounts(found.measures, found.changes)
        tell(f"as of closing: as of now {now}; less what has changed since: {since}")
    told = "all records are there, and add up to it" if found.complete else f"not all of it is explained: {found.why}"
    if found.complete and found.as_of == "closing":
        told = "all records are there, and add up to it with what has changed since"
    tell(f"total: {_amounts(found.measures, found.figure)}; {told}")


def _amounts(names: Sequence[str], values: Sequence[int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def _row(record: TracedRecord) -> list[object]:
    own = (record.id, record.revision, _time(record.start), _time(record.end))
    origin = (record.producer, record.message, record.entry, _time(record.received), record.file)
    return [*own, *record.parts, *origin]


def _changed(adjustment: TracedAdjustment) -> list[object]:
    what = (_time(adjustment.at), adjustment.entry, adjustment.cause, adjustment.action, adjustment.day.date())
    return [*what, *adjustment.amounts, _series(adjustment.series)]


def _show_record(found: RecordTrace, output: str) -> None:
    if output == "json":
        show_object(found)
    else:
        rows = [(each.attribution, _time(each.start), each.width, _series(each.parts)) for each in found.buckets]
        show(("attribution", "start", "width", "parts"), rows, output, f"{found.kind or 'record'} {found.id}")
        if found.fields:
            tell(_series(found.fields))
        origin = f" from {found.producer}, message {found.message}, entry {found.entry}" if found.producer else ""
        received = f", received {_time(found.received)}" if found.received else ""
        place = f" in {found.file}" if found.file else ""
        under = f", under correction {', '.join(map(str, found.corrections))}" if found.corrections else ""
        tell(f"{found.state}{place}{under}{origin}{received}{': ' if found.why else ''}{found.why}")
    if found.state == "unknown":
        raise typer.Exit(1)


def _series(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_plain(value)}" for name, value in values.items() if value not in {None, ""})


def _plain(value: object) -> object:
    return _time(value) if isinstance(value, datetime) else value


def _time(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
