"""`siteward emit`: records from the shell, one given field by field or many as NDJSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from siteward.cli.kinds import find_kind
from siteward.cli.options import options
from siteward.cli.output import tell
from siteward.cli.verbs import noted_sending, sends
from siteward.emit import Emitter
from siteward.kinds import load_kinds
from siteward.query import QueryError
from siteward.query_window import parse_time
from siteward.records import Column, Kind, Refused, Row, Type, id_text
from siteward.records.doors import row_from_json, row_from_mapping
from siteward.server.auth import Permission

LONGEST_LINE: Final = 2**20
"""Bytes; a longer line is no record, and must not fill the memory."""
PATIENCE: Final = 60.0
"""Seconds that the broker or the disk have to take everything at the end."""
_TRUTH: Final = {"true": True, "false": False}
_EXPECTED: Final = {Type.INTEGER: "an integer", Type.NUMBER: "a number", Type.BOOLEAN: "true or false"}


@sends(Permission.REPORT, apart=["fields"])
def emit(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="Name of the kind, such as job; see `siteward kinds`.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIELD=VALUE]...", help="The record; times also as now, -1h, -30m."),
    ] = None,
    file: Annotated[str, typer.Option(help="NDJSON: one record as a JSON object per line; - is standard input.")] = "",
    ids: Annotated[bool, typer.Option("--ids", help="Print the id of each record of a kind with an identity.")] = False,
    durable: Annotated[bool, typer.Option("--durable", help="Wait for the disk after every single record.")] = False,
) -> None:
    """Emit records: checked at once, confirmed by the broker or spooled to disk before the command ends.

    Refused records are told one by one on standard error with line, field, value and reason; the others are emitted.
    """
    chosen = options(context)
    found = find_kind(load_kinds(chosen.settings.kinds), kind)
    if bool(file) == bool(fields):
        message = "give either FIELD=VALUE or --file"
        raise typer.BadParameter(message)
    emitted = refused = 0
    with (
        Emitter(chosen.settings, durable=durable, when_full="wait") as emitter,
        noted_sending(context, emitter.producer) as sent,
    ):
        for number, row in _rows(found, fields or [], file):
            reason = row if isinstance(row, Refused) else emitter.emit_row(found, row)
            if reason is not None:
                refused += 1
                sent.rejected += 1
                tell(f"line {number}: {reason}" if file else str(reason))
                continue
            emitted += 1
            if not isinstance(row, Refused):
                sent.add(found.name, row.vo)  # type: ignore[attr-defined]  # every row has one.
                if ids and found.identity:
                    typer.echo(id_text(found.id_of(row)))
        done = emitter.flush(PATIENCE)
    tell(f"{emitted} emitted, {refused} refused")
    if not done:
        tell("neither the broker nor the spool took everything in time; send the same again")
    if refused or not done:
        raise typer.Exit(1)


def _rows(kind: Kind, fields: Sequence[str], file: str) -> Iterator[tuple[int, Row | Refused]]:
    """Each record's line number and row, or why it is refused."""
    if not file:
        yield 1, _row_or_reason(lambda: row_from_mapping(kind, parse_fields(kind, fields, datetime.now(UTC)), _now()))
        return
    for number, line in _lines(file):
        if line.strip():
            yield number, _row_or_reason(partial(_row_of_line, kind, line))


def _row_or_reason(make: Callable[[], Row]) -> Row | Refused:
    try:
        return make()
    except Refused as refused:
        return refused


def _row_of_line(kind: Kind, line: bytes) -> Row:
    if len(line) > LONGEST_LINE:
        reason = f"is longer than {LONGEST_LINE} bytes"
        raise Refused(reason, kind=kind.name, field="line")
    return row_from_json(kind, line, _now())


def _now() -> int:
    return time.time_ns() // 1000


def _lines(file: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; of one that is too long only the beginning."""
    with nullcontext(sys.stdin.buffer) if file == "-" else _open(Path(file)) as stream:
        number, within = 0, False
        while line := stream.readline(LONGEST_LINE + 1):
            number += not within
            if not within:
                yield number, line
            within = not line.endswith(b"\n")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise typer.BadParameter(message) from error


def parse_fields(kind: Kind, texts: Sequence[str], now: datetime) -> dict[str, Any]:
    """`field=value` texts as typed values, by the kind's types.

    Raises:
        Refused: not of the form, given twice, or not of the field's type; unknown fields are left to the door.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            reason = "expected FIELD=VALUE"
            raise Refused(reason, kind=kind.name, value=text)
        if name in fields:
            reason = "is given twice"
            raise Refused(reason, kind=kind.name, field=name)
        column = kind.column.get(name)
        fields[name] = parse_value(kind, column, value, now) if column else value
    return fields


def parse_value(kind: Kind, column: Column, text: str, now: datetime) -> str | int | float | bool | datetime | None:
    """One value as its column's type; an empty text is None where the column may be unknown.

    Raises:
        Refused: the text is not of the type.
    """
    if not text and column.optional:
        return None
    try:
        match column.type:
            case Type.INTEGER:
                return int(text)
            case Type.NUMBER:
                return float(text)
            case Type.BOOLEAN:
                return _TRUTH[text]
            case Type.TIME:
                return parse_time(text, now)
    except (ValueError, KeyError) as error:
        reason = str(error) if isinstance(error, QueryError) else f"expected {_EXPECTED[column.type]}"
        raise Refused(reason, kind=kind.name, field=column.name, value=text) from error
    return text
