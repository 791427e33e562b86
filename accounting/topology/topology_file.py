"""Topologies as files: TOML with one table for each value, or CSV with one line for each entry; pure."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Any, Final

from accounting.topology.attributes import Entry, TopologyError
from siteward.records.doors import nearest

COLUMNS: Final = ("dimension", "value", "attribute", "attribute_value", "valid_from", "valid_to")
"""The header of a CSV file."""
LONGEST: Final = 255
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_OWN: Final = frozenset({"value", "from", "to"})


def parse_topology(text: str, form: str, dimensions: Iterable[str]) -> list[Entry]:
    """The entries of a file.

    Args:
        text: its content.
        form: "toml" or "csv".
        dimensions: that there are.

    Raises:
        TopologyError: naming the place, and what is expected there.
    """
    entries = list(_of_toml(text) if form == "toml" else _of_csv(text))
    known = tuple(dict.fromkeys(dimensions))
    for entry in entries:
        if entry.dimension not in known:
            hint = nearest(entry.dimension, known) or f"; there are {', '.join(known)}"
            _refuse(f"{entry.dimension!r} is not a dimension in the ledger's buckets{hint}")
        if not _NAME.fullmatch(entry.attribute):
            _refuse(f"attribute {entry.attribute[:80]!r}: write a name in lower case, such as country")
        for said in (entry.value, entry.attribute, entry.attribute_value):
            if not 0 < len(said) <= LONGEST or "\0" in said:
                _refuse(f"{entry.dimension} {entry.value[:80]!r}: expected texts of 1 to {LONGEST} characters")
    return entries


def _of_toml(text: str) -> Iterator[Entry]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"not TOML: {error}"
        raise TopologyError(message) from error
    for dimension, values in tables.items():
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            _refuse(f"{dimension}: write [[{dimension}]], once for each of its values")
        for place, table in enumerate(values, 1):
            yield from _of_table(dimension, table, f"[[{dimension}]] number {place}")


def _of_table(dimension: str, table: dict[str, Any], where: str) -> Iterator[Entry]:
    texts = {name: value for name, value in table.items() if name not in {"from", "to"}}
    wrong = next((name for name, value in texts.items() if not isinstance(value, str)), None)
    if wrong is not None:
        _refuse(f"{where}: {wrong} is {texts[wrong]!r}; write it as a text, in quotes")
    if "value" not in texts:
        _refuse(f"{where}: has no value; name the {dimension} with value = …")
    if not set(texts) - _OWN:
        _refuse(f"{where}: has no attribute, such as country = …")
    valid = _second(table.get("from"), where), _second(table.get("to"), where)
    for attribute, value in texts.items():
        if attribute not in _OWN:
            yield Entry(dimension, texts["value"], attribute, value, *valid)


def _of_csv(text: str) -> Iterator[Entry]:
    # The line ends of texts in quotes are part of them, and csv itself knows which characters end a line.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            _refuse(f"line 1: expected the header {','.join(COLUMNS)}")
        for line in reader:
            where = f"line {reader.line_num}"
            if None in line or None in line.values():
                _refuse(f"{where}: expected {len(COLUMNS)} fields")
            dimension, value, attribute, said, *valid = (line[name] for name in COLUMNS)
            yield Entry(dimension, value, attribute, said, *(_second(_instant(text, where), where) for text in valid))
    except csv.Error as error:
        message = f"line {reader.line_num}: not CSV: {error}"
        raise TopologyError(message) from error


def _instant(text: str, where: str) -> datetime | date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{where}: {text[:80]!r} is not a date; write one such as 2026-04-01, or nothing"
        raise TopologyError(message) from error


def _second(found: object, where: str) -> int | None:
    """Seconds since 1970 UTC; whether they are a midnight is the topology's to say."""
    match found:
        case None:
            return None
        case datetime() if found.tzinfo is not None and not found.microsecond:
            return int(found.timestamp())
        case date() if not isinstance(found, datetime):
            return int(datetime.combine(found, time(), UTC).timestamp())
    message = f"{where}: {found!s} is not a day; write one such as 2026-04-01"
    raise TopologyError(message)


def _refuse(message: str) -> None:
    raise TopologyError(message)
