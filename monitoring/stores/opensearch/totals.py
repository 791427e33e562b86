"""Exact figures from a cluster that computes in doubles: a value is used where it is certainly exact, else refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from monitoring.stores.opensearch.templates import LOW_BITS
from monitoring.stores.questions import PERCENTILES
from siteward.query import Function, Value

Stats = Mapping[str, Any]
"""What the aggregation `stats` gives: count, min, max and sum; all but count and sum are None where count is 0."""
EXACT: Final = 2**53
"""Integers below it are exact in a double, and so are sums whose every part stays below it."""


class Inexact(Exception):  # noqa: N818  # reads as the state it is.
    """A figure that a double may have rounded.

    Attributes:
        measure: whose figure; "" where no other way of asking helps.
        remedy: how to ask the cluster instead.
    """

    def __init__(self, measure: str = "", remedy: str = "") -> None:
        """Keep the parts."""
        super().__init__(f"{remedy or 'records one by one'}: {measure}")
        self.measure = measure
        self.remedy = remedy


def whole_sum(stats: Stats) -> int | None:
    """The sum of integers if it is certainly exact, else None.

    A double adds integers exactly while no partial sum reaches 2^53, in whatever order the shards add them up. That
    holds where count times the largest size stays below, and where nothing is negative and the result stays below.
    """
    if stats["count"] == 0:
        return 0
    low, high, total = stats["min"], stats["max"], stats["sum"]
    if stats["count"] * max(abs(int(low)), abs(int(high))) < EXACT or (low >= 0 and total < EXACT):
        return int(total)
    return None


def split_sum(low: Stats, high: Stats) -> int | None:
    """The sum of integers that are stored in two parts, if both sums are certainly exact, else None."""
    below, above = whole_sum(low), whole_sum(high)
    return None if below is None or above is None else (above << LOW_BITS) + below


def whole_extreme(value: float | None) -> int | None:
    """A smallest or largest integer if it is certainly exact.

    Raises:
        Inexact: it reaches 2^53.
    """
    if value is not None and abs(value) >= EXACT:
        raise Inexact
    return None if value is None else int(value)


class Part(NamedTuple):
    """What the value of a column is made of, in some records.

    Attributes:
        known: number of the records that know it.
        value: their number, sum, smallest or largest value, or percentile; the sum where a mean is wanted. None where
            none knows it.
    """

    known: int
    value: Value


def added(function: Function, some: Part, others: Part) -> Part:
    """What the value of some records and others together is made of.

    Raises:
        Inexact: percentiles of parts say nothing of the whole.
    """
    if some.value is None or others.value is None:
        return others if some.value is None else some
    if function in PERCENTILES:
        raise Inexact
    known = some.known + others.known
    match function:
        case Function.MIN:
            return Part(known, min(some.value, others.value))
        case Function.MAX:
            return Part(known, max(some.value, others.value))
        case _:
            return Part(known, some.value + others.value)


def mean(total: Value, count: int) -> Value:
    """Sum divided by number; None of nothing."""
    return None if total is None or count == 0 else total / count
