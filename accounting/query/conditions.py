"""The conditions of a question as SQL on the series, the same in every database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table, and_, not_, or_
from sqlalchemy.sql import ColumnElement

from siteward.query import Filter
from siteward.records import Kind, Type

Group = tuple[Any, ...]
"""Values of the dimensions grouped by."""


def conditions_of(series: Table, filters: Iterable[Filter]) -> list[ColumnElement[bool]]:
    """What a series has to meet; each filter one condition."""
    return [_condition(series.c[each.field], each) for each in filters]


def groups_of(kind: Kind, by: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Group]:
    """The group of each row, which begins with the values grouped by; truth values lie in columns of integers."""
    if not by:
        return [()] * len(rows)
    columns = list(zip(*rows, strict=True))[: len(by)]
    for place, name in enumerate(by[: len(columns)]):
        if kind.column[name].type is Type.BOOLEAN:
            columns[place] = tuple(None if value is None else bool(value) for value in columns[place])
    return list(zip(*columns, strict=True))


def _condition(column: ColumnElement[Any], condition: Filter) -> ColumnElement[bool]:
    parts: list[ColumnElement[bool]] = []
    if condition.values:
        if condition.wildcard:
            parts.append(or_(*(column.like(_pattern(str(value)), escape="!") for value in condition.values)))
        else:
            parts.append(_is_one_of(column, condition.values))
    if condition.minimum is not None:
        parts.append(column >= condition.minimum)
    if condition.maximum is not None:
        parts.append(column <= condition.maximum)
    met = and_(*parts)
    if not condition.negated:
        return met
    # What is not known is none of some values, unless it is named among them.
    return not_(met) if None in condition.values else or_(not_(met), column.is_(None))


def _is_one_of(column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    known = [int(value) if isinstance(value, bool) else value for value in values if value is not None]
    options = [column.in_(known)] if known else []
    options += [column.is_(None)] if None in values else []
    return or_(*options)


def _pattern(text: str) -> str:
    for character in "!%_":
        text = text.replace(character, f"!{character}")
    return text.replace("*", "%").replace("?", "_")
