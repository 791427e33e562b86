"""The conditions of a question as SQL on the series, the same in every database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table, and_, not_, or_
from sqlalchemy.sql import ColumnElement

from accounting.snapshot_tables import Tables
from siteward.query import Filter, is_met
from siteward.records import Kind, Type

Group = tuple[Any, ...]
"""Values of the dimensions grouped by."""


def conditions_of(series: Table, filters: Iterable[Filter]) -> list[ColumnElement[bool]]:
    """What a series has to meet; each filter one condition."""
    return [_condition(series.c[each.field], each) for each in filters]


def conditions_in(tables: Tables, filters: Iterable[Filter]) -> list[ColumnElement[bool]]:
    """The same of records joined with their series, where some filters are on what only records say."""
    return [_condition(column_in(tables, each.field), each) for each in filters]


def column_in(tables: Tables, name: str) -> ColumnElement[Any]:
    """A dimension's column, in the series or in the records."""
    column: ColumnElement[Any] = tables.series.c[name] if name in tables.series.c else tables.records.c[name]
    return column


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


def meets(condition: Filter, value: Any) -> bool:  # noqa: ANN401  # of any dimension.
    """Whether a value meets a condition, as the database would say."""
    bounds = condition.minimum, condition.maximum
    if bounds == (None, None):
        return is_met(condition, value)
    met = value is not None and not (condition.values and value not in condition.values)
    met = met and (bounds[0] is None or value >= bounds[0]) and (bounds[1] is None or value <= bounds[1])
    return met is not condition.negated


def _pattern(text: str) -> str:
    for character in "!%_":
        text = text.replace(character, f"!{character}")
    return text.replace("*", "%").replace("?", "_")
