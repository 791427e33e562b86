"""From sums of bucket columns to what was asked for, and back: which sums a quantity needs; pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NoReturn

from accounting.booking.buckets import SECOND
from accounting.booking.measures import additive, held, is_knowable, known_of, ratio_columns
from accounting.query.amounts import Amounts, mean, percentile
from accounting.query.observed import Observed
from accounting.query.snapshot_quantities import check_known, check_snapshots, snapshot_type, snapshot_value
from accounting.tables import CARRIED, RECORDS, STARTED
from siteward.query import QueryError, Value
from siteward.records import Kind, Type
from siteward.records.fields import PER_SECOND
from siteward.usage import OF_RECORDS, Attribution, Quantity, UsageQuery, ValueType, WantedUsage

Sums = Mapping[str, int]
"""Exact sums by bucket column."""
_ALONE: Final = frozenset({Quantity.RECORDS, Quantity.STARTED})
_OF_MEASURES: Final = frozenset({Quantity.SUM, Quantity.RATE, Quantity.CUMULATIVE})


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
        if not _is_of_records(kind, wanted):
            _check_measure(kind, wanted)
        if query.attribution is Attribution.PRORATED:
            _check_prorated(kind, wanted)
        elif wanted.quantity is Quantity.STARTED:
            _refuse("started is known with attribution prorated only; by-end books a record where it ends")


def _check_measure(kind: Kind, wanted: WantedUsage) -> None:
    if is_sampled(kind, wanted):
        of_records = () if wanted.quantity.hundredths is None else kind.ratios
        check_known(kind, wanted, (*(column.name for column in kind.measures), *kind.products, *of_records), "measure")
    elif wanted.quantity is Quantity.MEAN:
        check_known(kind, wanted, held(kind), "measure")
    elif wanted.quantity in _OF_MEASURES:
        check_known(kind, wanted, additive(kind), "measure that adds up")
    elif wanted.quantity is Quantity.RATIO:
        check_known(kind, wanted, kind.ratios, "ratio")
    elif wanted.quantity not in _ALONE:
        _refuse(f"{wanted.name}: only snapshots have {wanted.quantity}")
    elif wanted.measure:
        _refuse(f"{wanted.quantity} takes no measure; write it alone")


def _check_prorated(kind: Kind, wanted: WantedUsage) -> None:
    if wanted.quantity is Quantity.MEAN or wanted.quantity.hundredths is not None:
        _refuse(f"{wanted.name}: a part of a record has no {wanted.quantity}; ask with attribution by-end")
    if _is_of_records(kind, wanted):
        _refuse(f"{wanted.name}: a record runs in many periods; ask with attribution by-end: it ends in one")


def columns_of(kind: Kind, query: UsageQuery) -> list[str]:
    """The bucket columns whose sums the query needs; of snapshots none, which are read by series."""
    if kind.of_instants:
        return []
    needed = [name for wanted in query.wanted for name in _columns(kind, wanted, query.attribution)]
    return list(dict.fromkeys(needed))


def sampled_of(kind: Kind, query: UsageQuery) -> list[str]:
    """The measures whose single values the query needs."""
    if kind.of_instants:
        return []
    return list(dict.fromkeys(wanted.measure for wanted in query.wanted if is_sampled(kind, wanted)))


def is_sampled(kind: Kind, wanted: WantedUsage) -> bool:
    """Whether only single records tell it: all percentiles, and the mean of what buckets hold no sum of."""
    if wanted.quantity is not Quantity.MEAN:
        return wanted.quantity.hundredths is not None
    return wanted.measure in kind.column and wanted.measure not in held(kind)


def _is_of_records(kind: Kind, wanted: WantedUsage) -> bool:
    """Whether it is about the number of records, as if that were a measure."""
    return wanted.quantity in OF_RECORDS and wanted.measure == Quantity.RECORDS and wanted.measure not in kind.column


@lru_cache(maxsize=1024)
def _columns(kind: Kind, wanted: WantedUsage, attribution: Attribution) -> tuple[str, ...]:
    match wanted.quantity:
        case _ if is_sampled(kind, wanted) or _is_of_records(kind, wanted):
            # By their number it is known whether all records are there.
            return (RECORDS,)
        case Quantity.MEAN:
            return wanted.measure, known_of(wanted.measure) if is_knowable(kind, wanted.measure) else RECORDS
        case Quantity.RATIO:
            return ratio_columns(kind, wanted.measure)
        case Quantity.RECORDS:
            return (STARTED, CARRIED) if attribution is Attribution.PRORATED else (RECORDS,)
        case Quantity.STARTED:
            return (STARTED,)
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
    if is_sampled(kind, wanted):
        sample = amounts.samples[wanted.measure]
        hundredths = wanted.quantity.hundredths
        return mean(sample) if hundredths is None else percentile(sample, hundredths)
    first, *others = (amounts.sums[name] for name in _columns(kind, wanted, query.attribution))
    match wanted.quantity:
        case Quantity.RATE:
            return first * SECOND / lasting
        case Quantity.MEAN | Quantity.RATIO:
            times = kind.ratios[wanted.measure].times if wanted.quantity is Quantity.RATIO else 1
            return times * first / others[0] if others[0] else None
        case Quantity.RECORDS:
            return first + sum(others)
        case _:
            return first


def unit_of(kind: Kind, wanted: WantedUsage) -> str:
    """The unit of a column."""
    if wanted.measure in kind.ratios:
        return kind.ratios[wanted.measure].unit
    if not wanted.measure:
        return "1"
    product = kind.products.get(wanted.measure)
    column = kind.column.get(wanted.measure)
    unit = product.unit if product else column.unit if column else "1"
    return PER_SECOND.get(unit, f"{unit}/s") if wanted.quantity is Quantity.RATE else unit


def type_of(kind: Kind, wanted: WantedUsage) -> ValueType:
    """What the values of a column are."""
    if kind.of_instants:
        return snapshot_type(kind, wanted)
    match wanted.quantity:
        case Quantity.MIN | Quantity.MAX:
            column = kind.column.get(wanted.measure)
            is_whole = wanted.measure in kind.products or (column is not None and column.type is Type.INTEGER)
        case _:
            is_whole = wanted.quantity in {Quantity.SUM, Quantity.CUMULATIVE, Quantity.RECORDS, Quantity.STARTED}
    return ValueType.INTEGER if is_whole else ValueType.NUMBER


def added(one: Sums, other: Sums) -> dict[str, int]:
    """Sums over two disjoint sets of records."""
    return {name: value + other[name] for name, value in one.items()}


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
