"""Which of a kind's measures the ledger holds sums of, and what it keeps beside them; pure."""

from __future__ import annotations

from typing import Final

import msgspec

from siteward.records import Combine, Kind, Measure, Type

MOST: Final = 2**53
"""Largest value of a measure that is booked where its kind names no limit: a thousand of them fit into a bucket."""
MOST_OF_PRODUCT: Final = 2**61
"""Largest value of a product that is booked: a bucket holds 2^63."""


class Part(msgspec.Struct, frozen=True):
    """One side of a ratio, summed over the records that know the other side.

    Attributes:
        name: of its column.
        measure: what is summed.
        condition: the measure that must be known.
    """

    name: str
    measure: str
    condition: str


def additive(kind: Kind) -> list[str]:
    """Measures and products of which a sum means something: whole numbers that add up over records.

    Where a kind has counters, nothing else of it adds up over time.
    """
    measures = [
        column.name
        for column in kind.measures
        if column.type is Type.INTEGER and isinstance(column.role, Measure) and column.role.combine is Combine.SUM
    ]
    if kind.since:
        measures = list(kind.counters)
    return [*measures, *kind.products]


def averaged(kind: Kind) -> list[str]:
    """Measures that do not add up and whose sums are held nevertheless, for their mean: peaks, scores, delays.

    Whole numbers only: no sum of others is the same in every order. A counter's records tell of everything since its
    start: a mean over them would mean nothing.
    """
    if kind.since:
        return []
    return [
        column.name
        for column in kind.measures
        if column.type is Type.INTEGER
        and isinstance(column.role, Measure)
        and column.role.combine is not Combine.SUM
        and column.role.averaged
    ]


def held(kind: Kind) -> list[str]:
    """Measures and products of which buckets hold a sum; prorated ones only of those that add up."""
    return [*additive(kind), *averaged(kind)]


def combine_of(kind: Kind, measure: str) -> Combine:
    """How values of a measure combine over series; products add up."""
    role = kind.column[measure].role if measure in kind.column else None
    return role.combine if isinstance(role, Measure) else Combine.SUM


def factors(kind: Kind, measure: str) -> tuple[str, ...]:
    """The fields that a measure or product is computed from."""
    return kind.products[measure].factors if measure in kind.products else (measure,)


def is_knowable(kind: Kind, measure: str) -> bool:
    """Whether records may lack a measure, or a factor of the product."""
    return any(kind.column[name].optional for name in factors(kind, measure))


def knowable(kind: Kind) -> list[str]:
    """Measures of `held` that records may lack: for a mean, those that know them are counted."""
    return [measure for measure in held(kind) if is_knowable(kind, measure)]


def known_of(measure: str) -> str:
    """The column that counts the records that know a measure."""
    return f"_known_{measure}"


def ratio_parts(kind: Kind) -> list[Part]:
    """What is summed for ratios beside the plain measures: unknown values count on neither side."""
    parts = []
    for name, ratio in kind.ratios.items():
        if is_knowable(kind, ratio.numerator):
            parts.append(Part(f"_of_{name}", ratio.denominator, ratio.numerator))
        if is_knowable(kind, ratio.denominator):
            parts.append(Part(f"_in_{name}", ratio.numerator, ratio.denominator))
    return parts


def ratio_columns(kind: Kind, ratio: str) -> tuple[str, str]:
    """The columns whose sums are divided for a ratio."""
    parts = {part.name for part in ratio_parts(kind)}
    declared = kind.ratios[ratio]
    above, below = f"_in_{ratio}", f"_of_{ratio}"
    return above if above in parts else declared.numerator, below if below in parts else declared.denominator
