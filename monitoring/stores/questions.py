"""What a question may ask of a kind: every name, value and width checked once, for all stores alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isnan
from typing import Final, NoReturn

import msgspec

from siteward.query import Filter, Function, Query, QueryError, Wanted
from siteward.records import Column, Combine, Kind, Measure, Shape, Type
from siteward.records.doors import nearest
from siteward.records.fields import PER_SECOND
from siteward.records.identity import ID_BYTES

MOST_ROWS: Final = 1_000_000
"""Rows of an answer beyond which it is refused: nobody reads them, and building them would fill the memory."""
MOST_VALUES: Final = 10_000
"""Values of one filter."""
WIDEST: Final = 366 * 86_400 * 100
"""Largest bucket width in seconds: a century."""
PERCENTILES: Final[dict[Function, float]] = {
    Function.P50: 0.5,
    Function.P90: 0.9,
    Function.P95: 0.95,
    Function.P99: 0.99,
}


def known_kind(kinds: Mapping[str, Kind], name: str) -> Kind:
    """The kind of a name.

    Raises:
        QueryError: with the nearest known name.
    """
    kind = kinds.get(name)
    if kind is None:
        _refuse(f"kind {name!r} is unknown{nearest(name, tuple(kinds))}")
    return kind


def known_dimension(kind: Kind, name: str) -> Column:
    """The dimension of a name.

    Raises:
        QueryError: with the nearest dimension.
    """
    column = kind.column.get(name)
    if column is None or column not in kind.dimensions:
        known = tuple(dimension.name for dimension in kind.dimensions)
        _refuse(f"{name!r} is not a dimension of {kind.name}{nearest(name, known)}")
    return column


def check_query(kinds: Mapping[str, Kind], query: Query) -> tuple[Kind, Query]:
    """The kind asked and the question as understood: its window in UTC.

    Raises:
        QueryError: the question names what the kind does not have, or asks what has no meaning for it.
    """
    kind = known_kind(kinds, query.kind)
    start, end = utc(query.start, "start"), utc(query.end, "end")
    if end <= start:
        _refuse(f"the window ends at {end.isoformat()}, not after its start at {start.isoformat()}")
    if not 0 <= query.width <= WIDEST:
        _refuse(f"width {query.width} is not a number of seconds from 1 to {WIDEST}, nor 0 for one bucket")
    if query.top < 0:
        _refuse(f"top {query.top} is negative; 0 keeps all groups")
    if not query.wanted:
        _refuse("nothing is wanted; ask for count or for a function of a measure, such as sum:wall_time")
    for wanted in query.wanted:
        check_wanted(kind, wanted)
    for name in query.by:
        known_dimension(kind, name)
        if query.by.count(name) > 1:
            _refuse(f"{name!r} is grouped by twice")
    check_filters(kind, query.filters)
    return kind, msgspec.structs.replace(query, start=start, end=end)


def utc(moment: datetime, name: str) -> datetime:
    """An aware instant in UTC.

    Raises:
        QueryError: it has no time zone.
    """
    if moment.tzinfo is None:
        _refuse(f"{name} {moment.isoformat()} has no time zone")
    return moment.astimezone(UTC)


def check_wanted(kind: Kind, wanted: Wanted) -> None:
    """Refuse a function of a measure that does not exist or would mean nothing.

    Raises:
        QueryError: naming what to ask instead.
    """
    if wanted.function is Function.COUNT:
        if wanted.measure:
            _refuse(f"count takes no measure; write count instead of {wanted.name}")
        return
    known = (*(measure.name for measure in kind.measures), *kind.products)
    if wanted.measure not in known:
        hint = nearest(wanted.measure, known) or f"; it has {', '.join(known) or 'none'}"
        _refuse(f"{wanted.measure!r} is not a measure of {kind.name}{hint}")
    snapshot = kind.shape is Shape.SNAPSHOT
    if snapshot and wanted.function in {Function.SUM, Function.RATE}:
        _refuse(
            f"{wanted.name}: a {kind.name} record is a snapshot, and adding up the same thing seen again and again "
            "means nothing; ask for mean, last, min or max"
        )
    if not snapshot and wanted.function is Function.LAST:
        _refuse(f"{wanted.name}: last is for snapshots, and {kind.name} has none; ask for sum, mean, min or max")


def combine_of(kind: Kind, measure: str) -> Combine:
    """How a measure's values combine over series; products add up."""
    column = kind.column.get(measure)
    return column.role.combine if column and isinstance(column.role, Measure) else Combine.SUM


def may_be_unknown(kind: Kind, measure: str) -> bool:
    """Whether records may lack the measure, or a factor of the product."""
    return any(kind.column[name].optional for name in factors_of(kind, measure))


def factors_of(kind: Kind, measure: str) -> tuple[str, ...]:
    """The fields that a measure or product is computed from."""
    return kind.products[measure].factors if measure in kind.products else (measure,)


def is_whole(kind: Kind, measure: str) -> bool:
    """Whether a measure's values are integers."""
    return all(kind.column[name].type is Type.INTEGER for name in factors_of(kind, measure))


def is_by_cycle(kind: Kind, wanted: Wanted) -> bool:
    """Whether a column is computed from complete cycles rather than from single records."""
    return wanted.function is Function.LAST or is_cycle_mean(kind, wanted)


def is_cycle_mean(kind: Kind, wanted: Wanted) -> bool:
    """Whether a column is the mean over cycles of a sum over series."""
    return (
        wanted.function is Function.MEAN
        and kind.shape is Shape.SNAPSHOT
        and combine_of(kind, wanted.measure) is Combine.SUM
    )


def unit_of(kind: Kind, wanted: Wanted) -> str:
    """The unit of a wanted column."""
    if not wanted.measure:
        return "1"
    product = kind.products.get(wanted.measure)
    unit = product.unit if product else kind.column[wanted.measure].unit
    return PER_SECOND.get(unit, f"{unit}/s") if wanted.function is Function.RATE else unit


def check_filters(kind: Kind, filters: Sequence[Filter]) -> None:
    """Refuse conditions on unknown fields or with values that the field cannot have.

    Raises:
        QueryError: naming the field, the value and what is possible.
    """
    for condition in filters:
        column = kind.column.get(condition.field)
        if column is None or column.role is None:
            known = tuple(column.name for column in kind.columns if column.role is not None)
            _refuse(f"filter on {condition.field!r}: not a field of {kind.name}{nearest(condition.field, known)}")
        _check_values(column, condition)
        _check_range(column, condition)


_ACCEPTED: Final[dict[Type, tuple[type, ...]]] = {
    Type.STRING: (str,),
    Type.INTEGER: (int,),
    Type.NUMBER: (int, float),
    Type.BOOLEAN: (bool,),
}


def _check_values(column: Column, condition: Filter) -> None:
    where = f"filter on {column.name!r}"
    if not condition.values and condition.minimum is None and condition.maximum is None:
        _refuse(f"{where}: gives neither values nor a range")
    if len(condition.values) > MOST_VALUES:
        _refuse(f"{where}: has more than {MOST_VALUES} values; use a wildcard or another dimension")
    if condition.wildcard and column.type is not Type.STRING:
        _refuse(f"{where}: wildcards are for texts, and its type is {column.type}")
    for value in condition.values:
        if value is None and column.optional and not condition.wildcard:
            continue
        if not isinstance(value, _ACCEPTED[column.type]) or (
            isinstance(value, bool) and column.type is not Type.BOOLEAN
        ):
            _refuse(f"{where}: {value!r} is not a {column.type}")


def _check_range(column: Column, condition: Filter) -> None:
    where = f"filter on {column.name!r}"
    bounds = [bound for bound in (condition.minimum, condition.maximum) if bound is not None]
    if not bounds:
        return
    if column.type not in {Type.INTEGER, Type.NUMBER}:
        _refuse(f"{where}: ranges are for numbers, and it is a {column.type}")
    if condition.negated:
        _refuse(f"{where}: a range cannot be negated; give the opposite range")
    if not all(_is_number(bound) for bound in bounds):
        _refuse(f"{where}: a bound is not a number, or too large for one")


def _is_number(bound: float) -> bool:
    try:
        return not isinstance(bound, bool) and not isnan(bound)
    except OverflowError:
        return False  # An integer of hundreds of digits.


def check_limit(limit: int) -> int:
    """A limit that an answer may have.

    Raises:
        QueryError: it is not from 1 to MOST_ROWS.
    """
    if not 1 <= limit <= MOST_ROWS:
        _refuse(f"limit {limit} is not from 1 to {MOST_ROWS}")
    return limit


def check_ids(ids: Sequence[bytes]) -> Sequence[bytes]:
    """Record ids of the right length, not too many.

    Raises:
        QueryError: an id is not 16 bytes, or there are more than MOST_VALUES.
    """
    wrong = next((identifier for identifier in ids if len(identifier) != ID_BYTES), None)
    if wrong is not None:
        _refuse(f"{wrong!r} is not a record id of {ID_BYTES} bytes")
    if len(ids) > MOST_VALUES:
        _refuse(f"more than {MOST_VALUES} ids at once; ask in parts")
    return ids


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
