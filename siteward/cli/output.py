"""How commands answer: a table for people, JSON or CSV for programs; data to standard output, the rest elsewhere."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

import msgspec

Output = Literal["table", "json", "csv"]
FORMS: Final = ("table", "json", "csv")


def show(columns: Sequence[str], rows: Iterable[Sequence[object]], output: str, caption: str = "") -> None:
    """Write rows to standard output.

    Args:
        columns: a heading for each column.
        rows: as many values as columns each; None is "unknown".
        output: "table" (aligned text, drawn with rich on a terminal), "json" (a list of objects, one per line) or
            "csv" (with a header line).
        caption: what all figures of a table have in common, said above it; programs find it in the rows.
    """
    match output:
        case "json":
            _show_json(columns, rows, sys.stdout)
        case "csv":
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_text(value) for value in row] for row in rows)
        case _ if sys.stdout.isatty():
            _show_rich(columns, rows, caption)
        case _:
            sys.stdout.write(f"{caption}\n" if caption else "")
            _show_plain(columns, [list(row) for row in rows], sys.stdout)


def show_object(value: object) -> None:
    """Write one JSON value, indented."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())  # noqa: T201  # output is its purpose.


def tell(message: str) -> None:
    """Say something to the person at the terminal: to standard error, so that data stays data."""
    print(message, file=sys.stderr)  # noqa: T201  # output is its purpose.


def _show_json(columns: Sequence[str], rows: Iterable[Sequence[object]], out: TextIO) -> None:
    separator = "["
    for row in rows:
        line = msgspec.json.encode(dict(zip(columns, row, strict=True)), enc_hook=str).decode()
        out.write(f"{separator}\n{line}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def _show_plain(columns: Sequence[str], rows: Sequence[Sequence[object]], out: TextIO) -> None:
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[position]) for row in cells) for position in range(len(columns))]
    numeric = _numeric(rows, len(columns))
    for row in cells:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        out.write("  ".join(padded).rstrip() + "\n")


def _show_rich(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> None:
    from rich.console import Console  # noqa: PLC0415  # costs more than most commands take.
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415  # cells are data, never markup.

    kept = [list(row) for row in rows]
    title = Text(caption) if caption else None
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for name, right in zip(columns, _numeric(kept, len(columns)), strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in kept:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console().print(table)


def _numeric(rows: Sequence[Sequence[object]], width: int) -> list[bool]:
    """Which columns hold numbers only, and at least one."""
    return [
        any(row[position] is not None for row in rows)
        and all(_is_number(row[position]) for row in rows if row[position] is not None)
        for position in range(width)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: object) -> str:
    """A value as a program reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _cell(value: object) -> str:
    """A value as a person reads it, without what would move a terminal's cursor."""
    text = f"{value:.6g}" if isinstance(value, float) else _text(value)
    return "".join(character if character.isprintable() else "�" for character in text)


__all__ = ["FORMS", "Output", "show", "show_object", "tell"]
