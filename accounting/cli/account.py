"""`siteward account`: who used what, asked of the running app, or of the ledger where none runs."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.query import asked_app, refusals_of_questions
from siteward.kinds import load_kinds
from siteward.query import QueryError
from siteward.query_text import find_named, split_list
from siteward.settings import Settings
from siteward.usage_json import UsageDocument, usage_document
from siteward.usage_table import csv_text, parquet_bytes
from siteward.usage_text import UsageText, parse_usage
from siteward.usage_window import parse_zone

FORMATS: Final = ("table", "csv", "json", "parquet")


def account(  # noqa: PLR0917  # Typer reads the options from the signature.
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Name of the kind, such as job.")],
    measures: Annotated[
        str, typer.Option(help="What to compute, such as cpu_time,rate:core_time,efficiency,records.")
    ] = "records",
    by: Annotated[str, typer.Option(help="Bucketed dimensions to group by, such as site,vo, or site.country.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Condition; may be repeated: site=A|B, site~LCG.*, vo!=x.")
    ] = None,
    window: Annotated[
        str, typer.Option(help="A calendar word: 2026, 2026-Q1, 2026-03, last-month; or give start and end.")
    ] = "",
    start: Annotated[str, typer.Option(help="First instant: RFC 3339, a date, -30d, or a calendar word's first.")] = "",
    end: Annotated[str, typer.Option(help="First instant after the window; now by default.")] = "",
    attribution: Annotated[
        str, typer.Option(help="prorated, the default, or by-end: whole where it ended; of snapshots at-instant.")
    ] = "",
    period: Annotated[
        str, typer.Option(help="A row for each hour, day, week, month, quarter, year; or whole.")
    ] = "whole",
    top: Annotated[int, typer.Option(min=0, help="Groups kept; the others become one. 0 keeps all.")] = 0,
    zone: Annotated[str, typer.Option(help="Time zone in which instants are written; periods are UTC's.")] = "UTC",
    format: Annotated[  # noqa: A002  # the option's name.
        str, typer.Option(help="table, csv, json or parquet; by default as --output says.")
    ] = "",
    file: Annotated[Path | None, typer.Option(help="Write there, and not to standard output.")] = None,
    url: Annotated[str, typer.Option(help="Ask the Siteward at this address, and nobody else.")] = "",
) -> None:
    """Account for who used what: exact totals of the ledger, by dimensions and calendar periods.

    Asked is the app of this installation where it runs, else the ledger itself; with --url only the app there. Without
    a window it is this month until now. Every figure says to which time usage belongs: its attribution.
    """
    chosen = options(context)
    form = find_named(format or chosen.output, {name: name for name in FORMATS}, "format")
    if form == "parquet" and file is None and sys.stdout.isatty():
        message = "format 'parquet' is not for terminals; name a file with --file, or send the output elsewhere"
        raise QueryError(message)
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
    )
    document = ask(text, zone, chosen.settings, url)
    if file is not None:
        file.write_bytes(_written(document, form))
        tell(f"{file}: {len(document.rows)} rows, {document.attribution}")
    elif form in {"csv", "parquet"}:
        sys.stdout.buffer.write(_written(document, form))
    elif form == "json":
        show_object(document)
    else:
        _show_table(document)


def _written(document: UsageDocument, form: str) -> bytes:
    match form:
        case "parquet":
            return parquet_bytes(document)
        case "json":
            return msgspec.json.encode(document)
        case _:
            return csv_text(document).encode()


def _show_table(document: UsageDocument) -> None:
    query = document.query
    with_times = query.period != "whole"
    columns = (*(("start",) if with_times else ()), *query.by, *document.columns)
    rows = [
        [
            *([row.start.isoformat().replace("+00:00", "Z")] if with_times else []),
            *(("Other", *[""] * (len(query.by) - 1)) if row.other else row.group),
            *row.values,
        ]
        for row in document.rows
    ]
    zone = "" if document.time_zone == "UTC" else f", times in {document.time_zone}"
    caption = f"{query.kind}, {document.attribution}, from {query.start} to {query.end}{zone}"
    show(columns, rows, "table", caption)
    totals = ", ".join(
        f"{column} {value} {unit}".removesuffix(" 1")
        for column, value, unit in zip(document.columns, document.totals, document.units, strict=True)
        if value is not None
    )
    groups = f"{document.groups} group{'' if document.groups == 1 else 's'}"
    tell(f"total: {totals or 'nothing'}; {groups}, {document.attribution}, {document.took_ms:.1f} ms")


def ask(text: UsageText, zone: str, settings: Settings, url: str = "") -> UsageDocument:
    """The answer of the app at a URL; without one, that of this installation's app, else that of the ledger.

    Raises:
        QueryError: the question is at fault.
        siteward.client.ClientError: the app refuses, or the one at the URL does not answer.
    """
    client = asked_app(settings, url)
    if client is None:
        return _ask_ledger(text, zone, settings)
    with refusals_of_questions():
        return client.usage(
            text.kind,
            text.measures,
            by=text.by,
            where=text.where,
            window=text.window,
            start=text.start,
            end=text.end,
            attribution=text.attribution,
            period=text.period,
            top=text.top,
            zone=zone,
        )


def _ask_ledger(text: UsageText, zone: str, settings: Settings) -> UsageDocument:
    from accounting.opening import open_ledger  # noqa: PLC0415  # only where no app answers.
    from accounting.query import Usage  # noqa: PLC0415

    in_zone = parse_zone(zone)
    with closing(open_ledger(settings, load_kinds(settings.kinds))) as ledger:
        usage = Usage(ledger)
        query = parse_usage(text, ledger.kinds, datetime.now(UTC), usage.attributes())
        began = time.perf_counter()
        answer = usage.ask(query)
        return usage_document(answer, (time.perf_counter() - began) * 1000, in_zone)
