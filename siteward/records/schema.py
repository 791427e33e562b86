"""JSON Schema of a kind: what the JSON door accepts, for people and programs in any language."""

from __future__ import annotations

from typing import Any, Final

from siteward.records import Column, Kind, Type
from siteward.records.fields import INT64_MAX, INT64_MIN, Dimension, Measure

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
LONGEST: Final = 255
"""Longest text of a field that says nothing else."""
MICROSECONDS: Final = 1_000_000
NO_NUL: Final = r"^[^\u0000]*$"


def json_schema(kind: Kind) -> dict[str, Any]:
    """The schema (draft 2020-12) of one record.

    It knows nothing of two fields at once: that an interval ends after it starts, and that times are not in the
    future, only the door checks. Keywords of our own: `x-role` (dimension, measure or time), `x-unit`,
    `x-combine`, `x-limit`, `x-personal`, `x-counter`, and at the top `x-shape`, `x-identity`, `x-time`, `x-products`,
    `x-ratios`, `x-sent-by`, and of the ledger `x-longest` and `x-tiers`, in seconds, `x-bounds` and `x-since`.
    """
    return {
        "$schema": DIALECT,
        "title": kind.name,
        "description": kind.doc,
        "type": "object",
        "properties": {column.name: _property(column) for column in kind.columns},
        "required": [column.name for column in kind.columns if column.required],
        "additionalProperties": False,
        "x-shape": str(kind.shape),
        "x-time": kind.time,
        "x-identity": list(kind.identity),
        "x-products": {
            name: {"factors": list(product.factors), "x-unit": product.unit, "description": product.doc}
            for name, product in kind.products.items()
        },
        "x-ratios": {
            name: {
                "numerator": ratio.numerator,
                "denominator": ratio.denominator,
                "times": ratio.times,
                "x-unit": ratio.unit,
                "description": ratio.doc,
            }
            for name, ratio in kind.ratios.items()
        },
        "x-bounds": [{"measure": bound.measure, "most": str(bound)} for bound in kind.bounds],
        "x-since": kind.since or None,
        "x-sent-by": kind.sent_by or None,
        "x-longest": None if kind.longest is None else kind.longest // MICROSECONDS,
        "x-tiers": [{"age": age, "width": width} for age, width in kind.tiers],
    }


def _property(column: Column) -> dict[str, Any]:
    schema = {"description": column.doc, **_value(column), **_meaning(column)}
    if column.optional:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    if not column.required:
        schema["default"] = column.default
    return schema


def _value(column: Column) -> dict[str, Any]:
    """The values that are accepted, as Column.wire_type says it to msgspec."""
    match column.type:
        case Type.STRING if column.values:
            return {"type": "string", "enum": [*([] if column.required else [""]), *column.values]}
        case Type.STRING:
            longest = column.role.max_length if isinstance(column.role, Dimension) else LONGEST
            shortest = 1 if column.required else 0
            return {"type": "string", "minLength": shortest, "maxLength": longest, "pattern": NO_NUL}
        case Type.INTEGER:
            low, high = _bounds(column)
            return {
                "type": "integer",
                "minimum": INT64_MIN if low is None else low,
                "maximum": INT64_MAX if high is None else high,
            }
        case Type.NUMBER:
            low, high = _bounds(column)
            bounds = {"minimum": low, "maximum": high}
            return {"type": "number", **{name: bound for name, bound in bounds.items() if bound is not None}}
        case Type.BOOLEAN:
            return {"type": "boolean"}
        case Type.TIME:
            return {"type": "string", "format": "date-time"}


def _bounds(column: Column) -> tuple[int | None, int | None]:
    return (column.role.minimum, column.role.maximum) if isinstance(column.role, Measure) else (None, None)


def _meaning(column: Column) -> dict[str, Any]:
    match column.role:
        case Measure():
            limit = {} if column.role.limit is None else {"x-limit": column.role.limit}
            counter = {"x-counter": True} if column.role.counter else {}
            combine = str(column.role.combine)
            return {"x-role": "measure", "x-unit": column.role.unit, "x-combine": combine, **limit, **counter}
        case Dimension():
            return {"x-role": "dimension", "x-personal": column.role.personal}
    return {"x-role": "time"}
