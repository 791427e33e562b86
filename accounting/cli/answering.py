"""What the commands that ask the ledger have in common: whom they ask, and how they show the answer."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from accounting.cli.opened import opened, tell_if_off
from siteward.cli.options import options
from siteward.cli.output import show, show_object, tell
from siteward.cli.query import asked_app, refusals_of_questions
from siteward.query import QueryError
from siteward.query_text import find_named
from siteward.settings import Settings
from siteward.usage_json import UsageDocument, usage_document
from siteward.usage_table import arrow_bytes, csv_text, parquet_bytes
from siteward.usage_text import UsageText, parse_usage
from siteward.usage_window import parse_zone

FORMATS: Final = ("table", "csv", "json", "arrow", "parquet")
_BINARY: Final = frozenset({"arrow", "parquet"})
By = Annotated[str, typer.Option(help="What to group by: dimensions, such as site,vo, site.country, or processors.")]
Where = Annotated[
    list[str] | None, typer.Option(help="Condition; may be repeated: site=A|B, site~LCG.*, vo!=x, processors>=8.")
]
Window = Annotated[
    str, typer.Option(help="A calendar word: 2026, 2026-Q1, 2026-03, last-month; or give start and end.")
]
Start = Annotated[str, typer.Option(help="First instant: RFC 3339, a date, -30d, or a calendar word's first.")]
End = Annotated[str, typer.Option(help="First instant after the window; now by default.")]
Zone = Annotated[str, typer.Option(help="Time zone in which instants are written; periods are UTC's.")]
Form = Annotated[str, typer.Option("--format", help="table, csv, json, arrow or parquet; by default as --output says.")]
File = Annotated[Path | None, typer.Option(help="Write there, and not to standard output.")]
Url = Annotated[str, typer.Option(help="Ask the Siteward at this address, and nobody else.")]


class Showing:
    """How one command shows its answer, checked before anything is asked."""

    def __init__(self, context: typer.Context, form: str, file: Path | None) -> None:
        """Choose.

        Raises:
            QueryError: there is no such form, or a terminal cannot show it.
        """
        self.settings = options(context).settings
        self._form = find_named(form or options(context).output, {name: name for name in FORMATS}, "format")
        self._file = file
        if self._form in _BINARY and file is None and sys.stdout.isatty():
            message = (
                f"format {self._form!r} is not for terminals; name a file with --file, or send the output elsewhere"
            )
            raise QueryError(message)

    def show(self, document: UsageDocument) -> None:
        """Write it."""
        if self._file is not None:
            self._file.write_bytes(_written(document, self._form))
            tell(f"{self._file}: {len(document.rows)} rows, {document.attribution}")
            _tell_closed(document)
        elif self._form in {"csv", *_BINARY}:
            sys.stdout.buffer.write(_written(document, self._form))
        elif self._form == "json":
            show_object(document)
        else:
            _show_table(document)


def _written(document: UsageDocument, form: str) -> bytes:
    match form:
        case "arrow":
            return arrow_bytes(document)
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
    visible = f", only {' '.join(document.visible)}" if document.visible else ""
    pseudonyms = f", pseudonyms for {', '.join(document.pseudonyms)}" if document.pseudonyms else ""
    times = f"from {query.start} to {query.end}{zone}"
    caption = f"{query.kind}, {document.attribution}, {times}{visible}{pseudonyms}"
    show(columns, rows, "table", caption)
    totals = ", ".join(
        f"{column} {value} {unit}".removesuffix(" 1")
        for column, value, unit in zip(document.columns, document.totals, document.units, strict=True)
        if value is not None
    )
    groups = f"{document.groups} group{'' if document.groups == 1 else 's'}"
    tell(f"total: {totals or 'nothing'}; {groups}, {document.attribution}, {document.took_ms:.1f} ms")
    _tell_closed(document)


def _tell_closed(document: UsageDocument) -> None:
    """Say what a reader of the figures must know of closed months, and of corrections that are half done."""
    adjusted = [
        period.name if period.vo == "*" else f"{period.name} for {period.vo}"
        for period in document.closed
        if period.adjusted
    ]
    if document.query.as_of == "closing":
        tell("as of closing, without what has changed since")
    elif adjusted:
        tell(f"changed since it was closed: {', '.join(adjusted)}; --as-of closing shows what was closed")
    if document.of_records:
        tell(f"computed from the records, all of which are there: only they say {', '.join(document.of_records)}")
    for number in document.unfinished:
        tell(f"correction {number} is half done: the figures hold a part of it")


def ask(text: UsageText, zone: str, settings: Settings, url: str = "") -> UsageDocument:
    """The answer of the app at a URL; without one, that of this installation's app, else that of the ledger.

    Raises:
        QueryError: the question is at fault.
        siteward.client.ClientError: the app refuses, or the one at the URL does not answer.
    """
    client = asked_app(settings, url)
    if client is not None and not url:
        tell_if_off(settings)
    if client is None:
        return _ask_ledger(text, zone, settings)
    with refusals_of_questions():
        return client.usage(**msgspec.structs.asdict(text), zone=zone)


def _ask_ledger(text: UsageText, zone: str, settings: Settings) -> UsageDocument:
    from accounting.opening import archive_folder  # noqa: PLC0415  # as below.
    from accounting.query.usage import Usage, attributes_of  # noqa: PLC0415  # only where no app answers.
    from siteward.server.auth.local_person import local_viewer  # noqa: PLC0415
    from siteward.server.people_table import PeopleTable  # noqa: PLC0415

    in_zone = parse_zone(zone)
    with opened(settings) as ledger, closing(PeopleTable(settings)) as people:
        query = parse_usage(text, ledger.kinds, datetime.now(UTC), attributes_of(ledger))
        began = time.perf_counter()
        answer = Usage(ledger, people, archive_folder(settings)).ask(query, local_viewer(settings))
        return usage_document(answer, (time.perf_counter() - began) * 1000, in_zone)
