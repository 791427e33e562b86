"""The text form of a query, shared by HTTP and CLI: `sum:wall_time`, `site~LCG.*`, `-24h`, `auto`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from math import isfinite
from typing import Final, TypeVar

import msgspec

from siteward.query import Filter, Function, Query, QueryError, Wanted
from siteward.query_window import format_time, parse_width, parse_window
from siteward.records import Column, Kind, Measure, Type
from siteward.records.fields import INT64_MAX, INT64_MIN

MOST_GROUPS: Final = 100_000
"""Largest `top`."""
_WHERE: Final = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)?)(>=|<=|!=|!~|=|~)(.*)", re.ASCII | re.DOTALL)
_INTEGER: Final = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_ESCAPED: Final = re.compile(r"\\(.)|(\|)", re.DOTALL)
_TRUTH: Final = {"true": True, "false": False}

Known = TypeVar("Known")
Value = str | int | bool | None


class QueryText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    r"""A question as it is typed.

    Attributes:
        kind: name of the kind.
        measures: what to compute, such as `sum:wall_time` and `count`.
        by: dimensions to group by.
        where: conditions: `state=completed|failed`, `site!=X`, `site~LCG.*`, `site!~T3*`, `wall_time>=3600`. A
            backslash before `|` or `\` takes it as itself. No value is the empty text, or that a number or truth value
            is not known: `user=`, `exit_status=`.
        start: first instant: RFC 3339, a date, `now`, or relative to now, such as `-24h`.
        end: first instant after the window, in the same forms.
        width: of a bucket: seconds, `15m`, `1h`, `1d`, `auto`, or `0` for one bucket.
        top: number of groups kept; 0 keeps all.
    """

    kind: str
    measures: tuple[str, ...] = ("count",)
    by: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    start: str = "-24h"
    end: str = "now"
    width: str = "0"
    top: int = 0


def split_list(text: str) -> tuple[str, ...]:
    """`a,b` as its parts; "" has none."""
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ()


def parse_query(text: QueryText, kinds: Mapping[str, Kind], now: datetime) -> Query:
    """The question that a text asks.

    Args:
        text: as it was typed.
        kinds: every known kind by name.
        now: what `now` and relative times mean; aware.

    Raises:
        QueryError: naming the part at fault and what is possible.
    """
    kind = find_kind(text.kind, kinds)
    if not text.measures:
        message = f"measures: ask for at least one, such as count or sum:{_example(kind)}"
        raise QueryError(message)
    start, end = parse_window(text.start, text.end, now)
    return Query(
        kind=kind.name,
        wanted=each_once("measure", [parse_wanted(measure, kind) for measure in text.measures]),
        start=start,
        end=end,
        by=each_once("dimension", [find_dimension(name, kind).name for name in text.by]),
        filters=parse_filters(text.where, kind),
        width=parse_width(text.width, start, end),
        top=check_top(text.top),
    )


def format_query(query: Query) -> QueryText:
    """The inverse of parse_query.

    Raises:
        QueryError: a filter has no condition, and so no text.
    """
    return QueryText(
        kind=query.kind,
        measures=tuple(wanted.name for wanted in query.wanted),
        by=query.by,
        where=format_filters(query.filters),
        start=format_time(query.start),
        end=format_time(query.end),
        width=str(query.width),
        top=query.top,
    )


def find_kind(name: str, kinds: Mapping[str, Kind]) -> Kind:
    """The kind of a name.

    Raises:
        QueryError: there is none; the nearest or all names are given.
    """
    return find_named(name, kinds, "kind")


def find_dimension(name: str, kind: Kind) -> Column:
    """The dimension of a kind.

    Raises:
        QueryError: there is none of that name.
    """
    return find_named(name, {column.name: column for column in kind.dimensions}, f"dimension of {kind.name}")


def find_named(name: str, known: Mapping[str, Known], what: str) -> Known:
    """What is known by a name.

    Raises:
        QueryError: there is nothing of that name; the nearest or all names are given.
    """
    if name not in known:
        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none'}"
        message = f"{name[:80]!r} is not a {what}; {hint}"
        raise QueryError(message)
    return known[name]


def each_once(what: str, parts: Sequence[Known]) -> tuple[Known, ...]:
    """The parts, none of which is there twice.

    Raises:
        QueryError: one is.
    """
    if len(set(parts)) != len(parts):
        message = f"a {what} is asked for twice"
        raise QueryError(message)
    return tuple(parts)


def check_top(top: int) -> int:
    """A number of groups that may be kept.

    Raises:
        QueryError: it is not one.
    """
    if not 0 <= top <= MOST_GROUPS:
        message = f"top: expected 0 (all groups) to {MOST_GROUPS}, got {top}"
        raise QueryError(message)
    return top


def parse_wanted(text: str, kind: Kind) -> Wanted:
    """One column: `sum:wall_time`, or `count`.

    Raises:
        QueryError: unknown function or measure, a measure for `count`, none for another.
    """
    name, colon, measure = text.partition(":")
    function = find_named(name, {str(each): each for each in Function}, "function")
    if function is Function.COUNT:
        if colon:
            message = f"{text!r}: count takes no measure; write count"
            raise QueryError(message)
        return Wanted(function)
    if not measure:
        message = f"{text!r}: of which measure? Write {name}:MEASURE, such as {name}:{_example(kind)}"
        raise QueryError(message)
    # `revision` and `cycle_size` describe the record, but may be asked for like any measure.
    columns = [column.name for column in kind.columns if isinstance(column.role, Measure)]
    measures = dict.fromkeys([*columns, *kind.products])
    find_named(measure, {each: each for each in measures}, f"measure of {kind.name}")
    return Wanted(function, measure)


def _example(kind: Kind) -> str:
    return next((column.name for column in kind.measures), "revision")


def parse_filters(texts: Iterable[str], kind: Kind, fields: Mapping[str, Column] | None = None) -> tuple[Filter, ...]:
    """Conditions; a lower and an upper bound of one field become one filter.

    Args:
        texts: as they were typed.
        kind: of the records.
        fields: what conditions may be on; all dimensions and measures by default.

    Raises:
        QueryError: naming the condition at fault.
    """
    filters: list[Filter] = []
    ranges: dict[str, int] = {}
    for text in texts:
        found = parse_filter(text, kind, fields)
        if found.values:
            filters.append(found)
        elif found.field in ranges:
            position = ranges[found.field]
            filters[position] = _narrower(filters[position], found)
        else:
            ranges[found.field] = len(filters)
            filters.append(found)
    return tuple(filters)


def _narrower(one: Filter, other: Filter) -> Filter:
    def of_both(choose: Callable[..., float], first: float | None, second: float | None) -> float | None:
        given = [bound for bound in (first, second) if bound is not None]
        return choose(given) if given else None

    return Filter(
        one.field,
        minimum=of_both(max, one.minimum, other.minimum),
        maximum=of_both(min, one.maximum, other.maximum),
    )


def parse_filter(text: str, kind: Kind, fields: Mapping[str, Column] | None = None) -> Filter:
    """One condition; see parse_filters.

    Raises:
        QueryError: naming the condition, and what is possible.
    """
    match = _WHERE.fullmatch(text)
    if match is None:
        message = f"condition {text[:80]!r}: write FIELD=VALUE, with one of = != ~ !~ >= <="
        raise QueryError(message)
    name, operator, rest = match.groups()
    if fields is None:
        fields = {column.name: column for column in kind.columns if column.role is not None}
    column = find_named(name, fields, f"field of {kind.name}")
    if operator in {">=", "<="}:
        bound = _number(rest, column)
        return Filter(name, minimum=bound) if operator == ">=" else Filter(name, maximum=bound)
    negated, wildcard = operator[0] == "!", operator[-1] == "~"
    if wildcard and column.type is not Type.STRING:
        message = f"condition {text[:80]!r}: {name} is {_called(column)}; patterns are for texts"
        raise QueryError(message)
    values = tuple(part if wildcard else _value(part, column) for part in _alternatives(rest))
    return Filter(name, values, negated, wildcard)


def format_filters(conditions: Iterable[Filter]) -> tuple[str, ...]:
    """Conditions as texts.

    Raises:
        QueryError: one of them has no condition at all.
    """
    return tuple(text for condition in conditions for text in format_filter(condition))


def format_filter(condition: Filter) -> list[str]:
    """A condition as one text, or two where it has both bounds.

    Raises:
        QueryError: it has no condition at all.
    """
    texts = []
    if condition.values:
        operator = ("!" if condition.negated else "") + ("~" if condition.wildcard else "=")
        texts.append(f"{condition.field}{operator}{'|'.join(map(escaped, condition.values))}")
    if condition.minimum is not None:
        texts.append(f"{condition.field}>={condition.minimum!r}")
    if condition.maximum is not None:
        texts.append(f"{condition.field}<={condition.maximum!r}")
    if not texts:
        message = f"the filter on {condition.field!r} has neither values nor bounds"
        raise QueryError(message)
    return texts


def escaped(value: Value) -> str:
    r"""A value as it stands in a condition: with a backslash before `|` and `\`."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _alternatives(text: str) -> list[str]:
    """`a|b` as its parts; a backslash before `|` or a backslash takes it as itself."""
    parts, last = [""], 0
    for match in _ESCAPED.finditer(text):
        parts[-1] += text[last : match.start()]
        if match[2]:
            parts.append("")
        else:
            parts[-1] += match[1] if match[1] in "\\|" else match[0]
        last = match.end()
    parts[-1] += text[last:]
    return parts


def _value(text: str, column: Column) -> Value:
    match column.type:
        case Type.STRING if column.values and text not in column.values and text:
            return find_named(text, {value: value for value in column.values}, f"value of {column.name}")
        case Type.STRING:
            return text
        case Type.INTEGER | Type.BOOLEAN if column.optional and not text:
            return None
        case Type.INTEGER if _INTEGER.fullmatch(text) and INT64_MIN <= int(text) <= INT64_MAX:
            return int(text)
        case Type.BOOLEAN if text in _TRUTH:
            return _TRUTH[text]
        case Type.NUMBER:
            message = f"{column.name} is a number: ask for a range with {column.name}>=… and {column.name}<=…"
            raise QueryError(message)
    expected = "true or false" if column.type is Type.BOOLEAN else "an integer of 64 bits"
    message = f"{column.name}: expected {expected}, got {text[:80]!r}"
    raise QueryError(message)


def _called(column: Column) -> str:
    article = "an" if column.type is Type.INTEGER else "a"
    return f"{article} {column.type}"


def _number(text: str, column: Column) -> int | float:
    if column.type not in {Type.INTEGER, Type.NUMBER}:
        message = f"{column.name} is {_called(column)}; >= and <= are for integers and numbers"
        raise QueryError(message)
    if _INTEGER.fullmatch(text) and INT64_MIN <= int(text) <= INT64_MAX:
        return int(text)
    try:
        bound = float(text)
    except ValueError:
        bound = float("nan")
    if not isfinite(bound) or "_" in text:
        message = f"{column.name}: expected a number, got {text[:80]!r}"
        raise QueryError(message)
    return bound
