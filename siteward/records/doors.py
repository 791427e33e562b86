"""The JSON door: records as other languages write them, checked as strictly as those made in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import msgspec

from siteward.records.declaration import Type
from siteward.records.identity import microseconds
from siteward.records.kind import Kind, Row
from siteward.records.refusal import Refused


def row_from_json(kind: Kind, text: bytes, now: int) -> Row:
    """Validate one record written as a JSON object.

    Times are RFC 3339 texts with an offset; integers must be written as integers and fit 64 bits; a key given
    twice, NaN, infinities, unknown keys and texts that are not UTF-8 are refused.

    Raises:
        Refused: with field, value and reason.
    """
    try:
        # Given bytes, json would guess between five encodings.
        pairs = json.loads(text.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"is not JSON: {error}"
        raise Refused(reason, kind=kind.name, value=text[:80]) from error
    if not isinstance(pairs, dict):
        reason = "expected a JSON object"
        raise Refused(reason, kind=kind.name, value=text[:80])
    return row_from_mapping(kind, pairs, now)


def row_from_mapping(kind: Kind, fields: Mapping[str, Any], now: int) -> Row:
    """Validate one record given as field names and values; times as aware datetimes or RFC 3339 texts.

    Raises:
        Refused: with field, value and reason.
    """
    for name in fields:
        if name not in kind.column:
            reason = f"is not a field of {kind.name}{nearest(name, kind.names)}"
            raise Refused(reason, kind=kind.name, field=str(name), value=fields[name])
    values: list[Any] = []
    for column in kind.columns:
        if column.name not in fields:
            if column.required:
                reason = "is missing"
                raise Refused(reason, kind=kind.name, field=column.name)
            values.append(column.default)
        elif column.type is Type.TIME:
            values.append(_time(kind, column.name, fields[column.name]))
        else:
            values.append(fields[column.name])
    return kind.checked(values, now)


def _time(kind: Kind, name: str, value: object) -> int:
    try:
        at = value if isinstance(value, datetime) else msgspec.convert(value, datetime)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        reason = "expected a time as RFC 3339 text with offset, such as 2026-11-22T10:00:00Z"
        raise Refused(reason, kind=kind.name, field=name, value=value) from error
    if at.tzinfo is None:
        reason = "has no time zone; write an offset, such as Z"
        raise Refused(reason, kind=kind.name, field=name, value=value)
    return microseconds(at)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        reason = "is given twice"
        raise Refused(reason, field=twice)
    return fields


def _no_constant(text: str) -> float:
    reason = f"{text} is not a JSON number"
    raise Refused(reason, value=text)


def nearest(name: str, known: tuple[str, ...]) -> str:
    """A hint (`; did you mean …?`) where a known name is close to a mistaken one, else nothing."""
    close = get_close_matches(str(name), known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
