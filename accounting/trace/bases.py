"""From what was asked to the sums that it is computed from, and how it is: for whoever follows a figure; pure."""

from __future__ import annotations

from typing import Final

import msgspec

from accounting.booking.buckets import SECOND
from accounting.booking.measures import combine_of, is_knowable, known_of, ratio_parts
from accounting.query.quantities import columns_of, is_sampled
from accounting.query.snapshot_quantities import is_added, needed_of
from accounting.tables import CARRIED, RECORDS, STARTED
from siteward.records import Combine, Kind, microseconds
from siteward.usage import Quantity, UsageQuery, WantedUsage

_SINGLE: Final = {
    Quantity.MIN: "the smallest",
    Quantity.MAX: "the largest",
    Quantity.MEAN: "the mean of",
}
"""What single records tell, beside percentiles."""
_OF_INSTANTS: Final = {
    Quantity.MEAN: "of each series {0} / the times at which its producer looked and it was not unknown; added up",
    Quantity.MEAN_PRESENT: "of each series {0} / the instants at which it was there and known; added up",
    Quantity.LAST: "of each series {0} when its producer looked last, 0 where it was absent then; added up",
    Quantity.LAST_KNOWN: "of each series {0} when it was last there; added up",
    Quantity.INSTANTS: "of each series the different instants of its records; added up",
    Quantity.CYCLES: "the times at which the producers of the records looked; added up",
    Quantity.INCOMPLETE: "those of them of which not all records are there, or too many; added up",
}
"""How snapshots are told, by what is wanted."""
_NOT_ADDED: Final = {
    Quantity.MEAN: "the mean of {0} over the records that know it",
    Quantity.MEAN_PRESENT: "the mean of {0} over the records that know it",
    Quantity.LAST: "of each series {0} when its producer looked last; {1}",
    Quantity.LAST_KNOWN: "of each series {0} when it was last there; {1}",
}
"""The same of what does not add up."""
_TOGETHER: Final = {
    Combine.MEAN: "the mean over those records",
    Combine.MAX: "the largest",
    Combine.LAST: "the latest, and of several the largest",
}


class Basis(msgspec.Struct, frozen=True):
    """A sum over records from which a figure is computed.

    Attributes:
        name: for people.
        columns: of buckets, whose sums are added up.
    """

    name: str
    columns: tuple[str, ...]


def bases_of(kind: Kind, query: UsageQuery) -> list[Basis]:
    """The different sums from which the columns of a checked question are computed, in their order."""
    found: dict[str, Basis] = {}
    for wanted in query.wanted:
        for basis in _of_wanted(kind, query, wanted):
            found.setdefault(basis.name, basis)
    return list(found.values())


def formula_of(kind: Kind, query: UsageQuery, wanted: WantedUsage) -> str:
    """How a column is computed from its sums, or from single records."""
    first, *others = (basis.name for basis in _of_wanted(kind, query, wanted))
    measure = wanted.measure
    if kind.of_instants and wanted.quantity in _OF_INSTANTS:
        told = _OF_INSTANTS if is_added(kind, measure) else _NOT_ADDED
        return told[wanted.quantity].format(measure, _TOGETHER.get(combine_of(kind, measure)))
    if kind.of_instants and wanted.quantity in _SINGLE:
        return f"{_SINGLE[wanted.quantity]} {measure} of a record"
    if is_sampled(kind, wanted):
        what = _SINGLE.get(wanted.quantity) or f"the {_ordinal(wanted.quantity.hundredths or 0)} percentile of"
        return f"{what} {measure} over the records that know it"
    match wanted.quantity:
        case Quantity.RATE:
            return f"{first} / {_seconds(query)} s"
        case Quantity.MEAN | Quantity.RATIO:
            times = kind.ratios[measure].times if wanted.quantity is Quantity.RATIO else 1
            return f"{first} / {others[0]}" if times == 1 else f"{times} * {first} / {others[0]}"
        case _:
            return first


def _ordinal(number: int) -> str:
    """Such as 1st, 2nd, 50th; of what has at most two digits."""
    ending = "th" if number // 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _of_wanted(kind: Kind, query: UsageQuery, wanted: WantedUsage) -> list[Basis]:
    alone = msgspec.structs.replace(query, wanted=(wanted,))
    if kind.of_instants:
        columns = [*needed_of(kind, alone).sums] or [wanted.measure or RECORDS]
    else:
        columns = columns_of(kind, alone)
    if columns == [STARTED, CARRIED]:
        return [Basis(str(Quantity.RECORDS), (STARTED, CARRIED))]
    names = _names(kind)
    return [Basis(names.get(column, column), (column,)) for column in columns]


def _names(kind: Kind) -> dict[str, str]:
    """Of those columns of buckets that are no measure."""
    measures = [*(column.name for column in kind.measures), *kind.products]
    known = {known_of(name): f"records ({name} known)" for name in measures if is_knowable(kind, name)}
    sides = {part.name: f"{part.measure} ({part.condition} known)" for part in ratio_parts(kind)}
    return known | sides | {RECORDS: str(Quantity.RECORDS), STARTED: str(Quantity.STARTED)}


def _seconds(query: UsageQuery) -> str:
    whole, rest = divmod(microseconds(query.end) - microseconds(query.start), SECOND)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
