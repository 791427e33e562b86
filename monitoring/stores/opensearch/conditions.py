"""Windows, filters and groups as OpenSearch queries: pure, and exact where JSON or OpenSearch would round or refuse."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil, floor, inf
from typing import Any, Final

from monitoring.stores.opensearch.defaults import default_of
from monitoring.stores.opensearch.templates import TIME
from siteward.query import Filter
from siteward.records import Kind, Type
from siteward.records.fields import INT64_MAX, INT64_MIN

Clause = dict[str, Any]
"""One query of OpenSearch's language."""
Group = tuple[Any, ...]
"""Values of the dimensions grouped by; None is unknown."""
NOTHING: Final[Clause] = {"match_none": {}}
MOST_CLAUSES: Final = 500
"""Leaves that one request may have; clusters take 1,024 by default, and count many of them twice."""
KEPT_CLAUSES: Final = 100
"""Those of them that are left for cycles of snapshots."""
MOST_TERMS: Final = 50_000
"""Values of one `terms` query; clusters take 65,536 by default."""
_ESCAPED: Final = str.maketrans({"\\": "\\\\"})
"""What the wildcard query would take for an escape."""
_WILD: Final = {"*": ".*", "?": "."}


def all_of(clauses: Iterable[Clause]) -> Clause:
    """What meets every clause."""
    return {"bool": {"filter": list(clauses)}}


def any_of(clauses: Sequence[Clause]) -> Clause:
    """What meets at least one clause."""
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": list(clauses), "minimum_should_match": 1}}


def none_of(clauses: Iterable[Clause]) -> Clause:
    """What meets no clause."""
    return {"bool": {"must_not": list(clauses)}}


def among(field: str, values: Sequence[Any]) -> Clause:
    """A field is one of some values, however many: in parts as large as a cluster takes them."""
    parts = [list(values[first : first + MOST_TERMS]) for first in range(0, len(values), MOST_TERMS)]
    return any_of([{"terms": {field: part}} for part in parts or [[]]])


def lacking(field: str) -> Clause:
    """A field is not in the document: it is unknown, or the record is older than the field."""
    return none_of([{"exists": {"field": field}}])


def within(start: int | None, end: int | None) -> list[Clause]:
    """A half-open window of the partition time, microseconds since 1970 UTC."""
    bounds = {name: bound for name, bound in (("gte", start), ("lt", end)) if bound is not None}
    return [{"range": {TIME: bounds}}] if bounds else []


def meeting(kind: Kind, filters: Sequence[Filter]) -> list[Clause]:
    """Checked filters."""
    return [clause for condition in filters for clause in _filter(kind, condition)]


def _filter(kind: Kind, condition: Filter) -> list[Clause]:
    whole = kind.column[condition.field].type is Type.INTEGER
    absent = default_of(kind, condition.field)
    clauses = []
    if condition.values:
        accepted = _accepted(condition, whole=whole)
        if absent is not None and _is_accepted(condition, absent):
            accepted = any_of([accepted, lacking(condition.field)])
        clauses.append(none_of([accepted]) if condition.negated else accepted)
    bounds: dict[str, float | int] = {}
    if condition.minimum is not None and condition.minimum != -inf:
        bounds["gte"] = condition.minimum
    if condition.maximum is not None and condition.maximum != inf:
        bounds["lte"] = condition.maximum
    if condition.minimum is None and condition.maximum is None:
        return clauses
    # Bounds without an end take every value that is known.
    found = _range(condition.field, bounds, whole=whole) if bounds else {"exists": {"field": condition.field}}
    if absent is not None and bounds.get("gte", -inf) <= absent <= bounds.get("lte", inf):
        found = any_of([found, lacking(condition.field)])
    return [*clauses, found]


def _is_accepted(condition: Filter, value: object) -> bool:
    if not condition.wildcard:
        return value in condition.values
    patterns = ("".join(_WILD.get(sign, re.escape(sign)) for sign in str(each)) for each in condition.values)
    return any(re.fullmatch(pattern, str(value), re.DOTALL) for pattern in patterns)


def _accepted(condition: Filter, *, whole: bool) -> Clause:
    if condition.wildcard:
        patterns = [str(value).translate(_ESCAPED) for value in condition.values]
        return any_of([{"wildcard": {condition.field: {"value": pattern}}} for pattern in patterns])
    # An integer beyond 64 bits is no record's, but would be an error.
    known = [value for value in condition.values if value is not None]
    values = [value for value in known if not whole or INT64_MIN <= int(value) <= INT64_MAX]
    clauses = [among(condition.field, values)] if values else []
    clauses += [lacking(condition.field)] if None in condition.values else []
    return any_of(clauses) if clauses else NOTHING


def _range(field: str, bounds: dict[str, float | int], *, whole: bool) -> Clause:
    """Bounds of a whole number are whole: compared with a float, large integers would lose their last digits."""
    if bounds.get("gte") == inf or bounds.get("lte") == -inf:
        return NOTHING
    if whole:
        low, high = ceil(bounds.get("gte", INT64_MIN)), floor(bounds.get("lte", INT64_MAX))
        if low > INT64_MAX or high < INT64_MIN:
            return NOTHING
        bounds = {"gte": max(low, INT64_MIN), "lte": min(high, INT64_MAX)}
    return {"range": {field: bounds}}


def in_groups(kind: Kind, names: Sequence[str], groups: Sequence[Group]) -> list[Clause]:
    """One of some groups, as clauses of which one holds: groups that differ only in the last value are one clause."""
    together: defaultdict[Group, list[Any]] = defaultdict(list)
    for group in groups:
        together[group[:-1]].append(group[-1])
    clauses = []
    for first, values in together.items():
        parts = [_is_one_of(kind, name, [value]) for name, value in zip(names, first, strict=False)]
        clauses.append(all_of([*parts, _is_one_of(kind, names[-1], values)]))
    return clauses


def _is_one_of(kind: Kind, name: str, values: Sequence[Any]) -> Clause:
    known = [value for value in values if value is not None]
    clauses = [among(name, known)] if known else []
    if None in values or default_of(kind, name) in values:
        clauses.append(lacking(name))
    return any_of(clauses)


def count_clauses(clauses: Iterable[Clause]) -> int:
    """The leaves of some clauses, which is what clusters limit."""
    total = 0
    for clause in clauses:
        inner = clause.get("bool")
        total += (
            count_clauses(part for parts in inner.values() if isinstance(parts, list) for part in parts) if inner else 1
        )
    return total
