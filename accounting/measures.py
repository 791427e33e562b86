"""Which of a kind's measures the ledger adds up, and what it keeps beside them."""

from __future__ import annotations

from siteward.records import Combine, Kind, Measure, Type


def additive(kind: Kind) -> list[str]:
    """Measures and products that buckets hold: whole numbers that add up over records.

    Peaks, scores and fractions mean nothing as a sum; they are asked of the records.
    """
    measures = [
        column.name
        for column in kind.measures
        if column.type is Type.INTEGER and isinstance(column.role, Measure) and column.role.combine is Combine.SUM
    ]
    return [*measures, *kind.products]


def factors(kind: Kind, measure: str) -> tuple[str, ...]:
    """The fields that a measure or product is computed from."""
    return kind.products[measure].factors if measure in kind.products else (measure,)


def is_knowable(kind: Kind, measure: str) -> bool:
    """Whether records may lack a measure, or a factor of the product."""
    return any(kind.column[name].optional for name in factors(kind, measure))


def knowable(kind: Kind) -> list[str]:
    """Additive measures that records may lack: for a mean, those that know them are counted."""
    return [measure for measure in additive(kind) if is_knowable(kind, measure)]


def known_of(measure: str) -> str:
    """The column that counts the records that know a measure."""
    return f"_known_{measure}"


def ratio_parts(kind: Kind) -> list[str]:
    """Ratios whose parts are summed apart: a record enters the denominator only if it knows the numerator too."""
    return [name for name, ratio in kind.ratios.items() if is_knowable(kind, ratio.numerator)]


def part_of(ratio: str) -> str:
    """The column of a ratio's denominator over the records that know its numerator."""
    return f"_of_{ratio}"
