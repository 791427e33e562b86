"""From what snapshots add up to, to what was asked of them: means, what was last, least and most; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from operator import itemgetter
from typing import Final, NoReturn

import msgspec

from accounting.booking.measures import additive, combine_of, held, is_knowable, known_of, ratio_columns
from accounting.query.observed import Observed, Seen
from accounting.snapshot_tables import INSTANTS, last_columns
from accounting.tables import RECORDS
from siteward.query import QueryError, Value
from siteward.records import Combine, Kind, Type
from siteward.records.doors import nearest
from siteward.usage import Attribution, Quantity, UsageQuery, ValueType, WantedUsage

OF_MEASURES: Final = frozenset(
    {
        Quantity.SUM,
        Quantity.MEAN,
        Quantity.MEAN_PRESENT,
        Quantity.LAST,
        Quantity.LAST_KNOWN,
        Quantity.MIN,
        Quantity.MAX,
    }
)
OF_CYCLES: Final = frozenset({Quantity.LAST, Quantity.RATIO, Quantity.CYCLES, Quantity.INCOMPLETE})
ALONE: Final = frozenset({Quantity.RECORDS, Quantity.INSTANTS, Quantity.CYCLES, Quantity.INCOMPLETE})
_LASTS: Final = frozenset({Quantity.LAST, Quantity.LAST_KNOWN})
_NUMBERS: Final = frozenset({Quantity.MEAN, Quantity.MEAN_PRESENT, Quantity.RATIO})


def check_snapshots(kind: Kind, query: UsageQuery) -> None:
    """Refuse what snapshots do not have.

    Raises:
        QueryError: naming what to ask instead.
    """
    if query.attribution is not Attribution.AT_INSTANT:
        _refuse(
            f"{kind.name} says how much there was at instants, nothing that could be {query.attribution}; ask with "
            f"attribution {Attribution.AT_INSTANT}"
        )
    for wanted in query.wanted:
        if wanted.quantity is Quantity.SUM:
            check_known(kind, wanted, additive(kind), "whole-number measure that adds up")
        elif wanted.quantity in OF_MEASURES:
            check_known(kind, wanted, held(kind), "whole-number measure")
        elif wanted.quantity is Quantity.RATIO:
            check_known(kind, wanted, kind.ratios, "ratio")
        elif wanted.quantity not in ALONE:
            names = ", ".join(sorted(map(str, (*OF_MEASURES, *ALONE, Quantity.RATIO))))
            _refuse(f"{wanted.name}: snapshots have no {wanted.quantity} in the ledger; there are {names}")
        elif wanted.measure:
            _refuse(f"{wanted.quantity} takes no measure; write it alone")


def check_known(kind: Kind, wanted: WantedUsage, known: Iterable[str], what: str) -> None:
    """Refuse what is none of those of which the quantity is told.

    Raises:
        QueryError: with the nearest one, or what to declare.
    """
    names = tuple(known)
    if wanted.measure in names:
        return
    hint = nearest(wanted.measure, names) or f"; there are {', '.join(names) or 'none'}"
    if wanted.measure in kind.column and kind.column[wanted.measure].type is Type.NUMBER:
        hint = (
            ": only whole numbers have exact sums; declare it as an integer in a finer unit, such as ms in place of s"
        )
    _refuse(f"{wanted.measure!r} is not a {what} of {kind.name}{hint}")


class Needed(msgspec.Struct, frozen=True):
    """What a question needs of buckets, beside instants and cycles.

    Attributes:
        sums: columns to add up.
        extremes: measures of which least and most are wanted.
        lasts: columns of what was last.
    """

    sums: tuple[str, ...]
    extremes: tuple[str, ...]
    lasts: tuple[str, ...]

    @property
    def added(self) -> tuple[str, ...]:
        """All columns that add up; by the counts it shows whether all records are there."""
        return (RECORDS, INSTANTS, *self.sums)


def needed_of(kind: Kind, query: UsageQuery) -> Needed:
    """What a question needs."""
    sums: dict[str, None] = {}
    for wanted in query.wanted:
        if wanted.quantity is Quantity.RATIO:
            sums |= dict.fromkeys(ratio_columns(kind, wanted.measure))
        elif wanted.quantity in {Quantity.SUM, Quantity.MEAN, Quantity.MEAN_PRESENT}:
            known = (known_of(wanted.measure),) if is_knowable(kind, wanted.measure) else ()
            sums |= dict.fromkeys((wanted.measure, *known))
    return Needed(
        tuple(sums),
        _measures(query, {Quantity.MIN, Quantity.MAX}),
        tuple(name for measure in _measures(query, _LASTS) for name in last_columns(kind, measure)),
    )


def is_of_cycles(kind: Kind, wanted: WantedUsage) -> bool:
    """Whether it depends on the cycles that a producer looked in."""
    return wanted.quantity in OF_CYCLES or (wanted.quantity is Quantity.MEAN and is_added(kind, wanted.measure))


def is_added(kind: Kind, measure: str) -> bool:
    """Whether series add up; else what they are is put together as the measure is declared to combine."""
    return combine_of(kind, measure) is Combine.SUM


def _measures(query: UsageQuery, quantities: Collection[Quantity]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(wanted.measure for wanted in query.wanted if wanted.quantity in quantities))


def snapshot_type(kind: Kind, wanted: WantedUsage) -> ValueType:
    """What the values of a column are."""
    is_mean = wanted.quantity in _LASTS and combine_of(kind, wanted.measure) is Combine.MEAN
    return ValueType.NUMBER if wanted.quantity in _NUMBERS or is_mean else ValueType.INTEGER


def snapshot_value(kind: Kind, wanted: WantedUsage, observed: Observed) -> Value:
    """What was asked for, of one group and period."""
    series = observed.series.values()
    measure = wanted.measure
    found: Value
    match wanted.quantity:
        case Quantity.SUM:
            found = sum(seen.sums[measure] for seen in series)
        case Quantity.MEAN | Quantity.MEAN_PRESENT if not is_added(kind, measure):
            found = _quotient((seen.sums[measure], _knowing(kind, measure, seen)) for seen in series)
        case Quantity.MEAN:
            found = _mean(_over_cycles(kind, measure, observed))
        case Quantity.MEAN_PRESENT:
            found = _mean((seen.sums[measure], _knowing(kind, measure, seen)) for seen in series)
        case Quantity.LAST | Quantity.LAST_KNOWN:
            found = _last(kind, wanted, observed)
        case Quantity.MIN:
            found = min((each for seen in series if (each := seen.least[measure]) is not None), default=None)
        case Quantity.MAX:
            found = max((each for seen in series if (each := seen.most[measure]) is not None), default=None)
        case Quantity.RATIO:
            (above, below), times = ratio_columns(kind, measure), kind.ratios[measure].times
            found = _quotient((seen.sums[above] * times, seen.sums[below]) for seen in series)
        case _:
            found = _count(wanted.quantity, observed)
    return found


def _count(quantity: Quantity, observed: Observed) -> int:
    if quantity is Quantity.RECORDS:
        return sum(seen.records for seen in observed.series.values())
    if quantity is Quantity.INSTANTS:
        return sum(seen.instants for seen in observed.series.values())
    producers = {seen.producer for seen in observed.series.values()}
    cycles = [observed.cycles[producer] for producer in producers]
    return sum(each.count if quantity is Quantity.CYCLES else each.count - each.complete for each in cycles)


def _knowing(kind: Kind, measure: str, seen: Seen) -> int:
    """The instants at which a series was there and its value known; of what does not add up, the records."""
    if is_knowable(kind, measure):
        return seen.sums[known_of(measure)]
    return seen.instants if is_added(kind, measure) else seen.records


def _over_cycles(kind: Kind, measure: str, observed: Observed) -> Iterator[tuple[int, int]]:
    """Of each series its sum, and the cycles of its producer: where it was absent it is zero, unless unknown."""
    for seen in observed.series.values():
        knowing = _knowing(kind, measure, seen)
        if knowing:
            yield seen.sums[measure], observed.cycles[seen.producer].count - (seen.instants - knowing)


def _mean(shares: Iterable[tuple[int, int]]) -> Value:
    """Quotients added up: exact sums of those with one divisor, each divided once; None without any."""
    sums: dict[int, int] = {}
    for total, count in shares:
        if count:
            sums[count] = sums.get(count, 0) + total
    return math.fsum(total / count for count, total in sums.items()) if sums else None


def _quotient(shares: Iterable[tuple[int, int]]) -> Value:
    """The sum of all dividends by that of all divisors, divided once; None where that is zero."""
    above = below = 0
    for total, count in shares:
        above += total
        below += count
    return above / below if below else None


def _last(kind: Kind, wanted: WantedUsage, observed: Observed) -> Value:
    series = list(observed.series.values())
    there = series
    if wanted.quantity is Quantity.LAST:
        there = [seen for seen in series if seen.last == observed.cycles[seen.producer].last]
    last, *counts = last_columns(kind, wanted.measure)
    known = [(seen.last, value, seen) for seen in there if (value := seen.lasts[last]) is not None]
    values = [value for _, value, _ in known]
    match combine_of(kind, wanted.measure):
        case Combine.MEAN:
            return _quotient((value, seen.lasts[counts[0]] or 0) for _, value, seen in known)
        case Combine.MAX:
            return max(values, default=None)
        case Combine.LAST:
            # Of several of one instant the largest: that depends on no order.
            return max(known, key=itemgetter(0, 1))[1] if known else None
        case _:
            # What was there before, and at the last look was not, is zero by now.
            return sum(values) if known or (series and not there) else None


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
