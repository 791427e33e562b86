"""From sums of bucket columns to what was asked for, and back: which sums a quantity needs; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

from accounting.amounts import SAMPLED, Amounts, percentile
from accounting.buckets import SECOND
from accounting.measures import additive, is_knowable, known_of, ratio_columns
from accounting.observed import Observed
from accounting.snapshot_quantities import check_snapshots, snapshot_type, snapshot_value
from accounting.tables import CARRIED, RECORDS, STARTED
from siteward.query import QueryError, Value
from siteward.records import Kind, Type
from siteward.records.doors import nearest
from siteward.usage import Attribution, Quantity, UsageQuery, ValueType, WantedUsage

Sums = Mapping[str, int]
"""Exact sums by bucket column."""
_PER_SECOND: Final = {"s": "1", "ms": "m1", "1": "1/s", "J": "W", "B": "B/s"}
_ALONE: Final = frozenset({Quantity.RECORDS, Quantity.STARTED})
_OF_MEASURES: Final = frozenset({Quantity.SUM, Quantity.RATE, Quantity.MEAN, Quantity.CUMULATIVE})


def check_wanted(kind: Kind, query: UsageQuery) -> None:
    """Refuse what the kind does not have, or what means nothing with the query's attribution.

    Raises:
        QueryError: naming what to ask instead.
    """
    if not query.wanted:
        _refuse("nothing is asked for; ask for records, or for a quantity of a measure, such as sum:wall_time")
    if kind.of_instants:
        check_snapshots(kind, query)
        return
    if query.attribution is Attribution.AT_INSTANT:
        _refuse(f"{kind.name} is no snapshot; ask with attribution prorated or by-end")
    for wanted in query.wanted:
        _check_one(kind, wanted, is_prorated=query.attribution is Attribution.PRORATED)


def _check_one(kind: Kind, wanted: WantedUsage, *, is_prorated: bool) -> None:
    if wanted.quantity in _OF_MEASURES:
        _check_known(kind, wanted, additive(kind), "measure that adds up")
    elif wanted.quantity is Quantity.RATIO:
        _check_known(kind, wanted, kind.ratios, "ratio")
    elif wanted.quantity in SAMPLED:
        _check_known(kind, wanted, (*(column.name for column in kind.measures), *kind.products), "measure")
    elif wanted.quantity not in _ALONE:
        _refuse(f"{wanted.name}: only snapshots have {wanted.quantity}")
    elif wanted.measure:
        _refuse(f"{wanted.quantity} takes no measure; write it alone")
    if wanted.quantity in {Quantity.MEAN, *SAMPLED} and is_prorated:
        _refuse(f"{wanted.name}: a part of a record has no {wanted.quantity}; ask with attribution by-end")
    if wanted.quantity is Quantity.STARTED and not is_prorated:
        _refuse("started is known with attribution prorated only; by-end books a record where it ends")


def _check_known(kind: Kind, wanted: WantedUsage, known: Iterable[str], what: str) -> None:
    names = tuple(known)
    if wanted.measure not in names:
        hint = nearest(wanted.measure, names) or f"; there are {', '.join(names) or 'none'}"
        _refuse(f"{wanted.measure!r} is not a {what} of {kind.name}{hint}")


def columns_of(kind: Kind, query: UsageQuery) -> list[str]:
    """The bucket columns whose sums the query needs; of snapshots none, which are read by series."""
    if kind.of_instants:
        return []
    needed = [name for wanted in query.wanted for name in _columns(kind, wanted, query.attribution)]
    return list(dict.fromkeys(needed))


def sampled_of(query: UsageQuery) -> list[str]:
    """The measures whose single values the query needs."""
    if query.attribution is Attribution.AT_INSTANT:
        return []
    return list(dict.fromkeys(wanted.measure for wanted in query.wanted if wanted.quantity in SAMPLED))


def _columns(kind: Kind, wanted: WantedUsage, attribution: Attribution) -> tuple[str, ...]:
    match wanted.quantity:
        case Quantity.MEAN:
            return wanted.measure, known_of(wanted.measure) if is_knowable(kind, wanted.measure) else RECORDS
        case Quantity.RATIO:
            return ratio_columns(kind, wanted.measure)
        case Quantity.RECORDS:
            return (STARTED, CARRIED) if attribution is Attribution.PRORATED else (RECORDS,)
        case Quantity.STARTED:
            return (STARTED,)
        case _ if wanted.quantity in SAMPLED:
            # By it is known whether all records are there.
            return (RECORDS,)
        case _:
            return (wanted.measure,)


def value_of(kind: Kind, wanted: WantedUsage, query: UsageQuery, amounts: Amounts, lasting: int) -> Value:
    """What was asked for, from the amounts of one group and period.

    Args:
        kind: the kind asked.
        wanted: the column.
        query: the question.
        amounts: sums of every column of `columns_of`, values of every measure of `sampled_of`.
        lasting: microseconds of the period.
    """
    if kind.of_instants:
        return snapshot_value(kind, wanted, amounts.observed or Observed({}, {}))
    if wanted.quantity in SAMPLED:
        return percentile(amounts.samples[wanted.measure], SAMPLED[wanted.quantity])
    first, *others = (amounts.sums[name] for name in _columns(kind, wanted, query.attribution))
    match wanted.quantity:
        case Quantity.RATE:
            return first * SECOND / lasting
        case Quantity.MEAN | Quantity.RATIO:
            return first / others[0] if others[0] else None
        case Quantity.RECORDS:
            return first + sum(others)
        case _:
            return first


def unit_of(kind: Kind, wanted: WantedUsage) -> str:
    """The unit of a column."""
    if wanted.quantity is Quantity.RATIO:
        return kind.ratios[wanted.measure].unit
    if not wanted.measure:
        return "1"
    product = kind.products.get(wanted.measure)
    unit = product.unit if product else kind.column[wanted.measure].unit
    return _PER_SECOND.get(unit, f"{unit}/s") if wanted.quantity is Quantity.RATE else unit


def type_of(kind: Kind, wanted: WantedUsage) -> ValueType:
    """What the values of a column are."""
    if kind.of_instants:
        return snapshot_type(wanted)
    match wanted.quantity:
        case Quantity.MIN | Quantity.MAX:
            is_whole = wanted.measure in kind.products or kind.column[wanted.measure].type is Type.INTEGER
        case _:
            is_whole = wanted.quantity in {Quantity.SUM, Quantity.CUMULATIVE, Quantity.RECORDS, Quantity.STARTED}
    return ValueType.INTEGER if is_whole else ValueType.NUMBER


def added(one: Sums, other: Sums) -> dict[str, int]:
    """Sums over two disjoint sets of records."""
    return {name: value + other[name] for name, value in one.items()}


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
