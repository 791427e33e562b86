"""Columns that are computed from single records: what to ask of each bucket, and how to read it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from monitoring.stores.opensearch.conditions import Clause, among
from monitoring.stores.opensearch.templates import HIGH, LOW, WIDE, split_names
from monitoring.stores.opensearch.totals import Inexact, mean, split_sum, whole_extreme, whole_sum
from monitoring.stores.opensearch.view import MOST_BUCKETS, Bucket
from monitoring.stores.questions import PERCENTILES, factors_of, is_whole
from siteward.query import Function, Value, Wanted
from siteward.records import Kind, Measure

DIGITS: Final = 3
ERROR: Final = 10.0**-DIGITS
"""Largest relative error of a percentile: what a histogram of so many significant digits promises."""
IN_PARTS: Final = "in parts"
"""Sum the two parts in which the measure is stored."""
BY_ORDER: Final = "by order"
"""Take smallest and largest values from the records themselves, sorted."""
MOST_SKETCHES: Final = 100
"""Buckets of a page where each holds a histogram, of up to half a megabyte."""
_EXACTLY_ROUNDED: Final = 499
"""Below it, the error is less than a half, so that whole values are found by rounding."""
_WIDE: Final = "wide"
_PERCENT: Final = {function: f"{share * 100:.1f}" for function, share in PERCENTILES.items()}


class Plan(msgspec.Struct, frozen=True):
    """How measures are asked; the plain way, until a figure turns out to be too large for it.

    Attributes:
        in_parts: measures whose sums are asked in two parts.
        by_order: measures whose smallest and largest values are asked by order.
    """

    in_parts: frozenset[str] = frozenset()
    by_order: frozenset[str] = frozenset()

    def mended(self, kind: Kind, problem: Inexact) -> Plan:
        """The plan that avoids a problem.

        Raises:
            Inexact: there is none; the records have to be looked at one by one.
        """
        measure = frozenset({problem.measure})
        if problem.remedy == IN_PARTS and not measure & self.in_parts and problem.measure in split_names(kind):
            return msgspec.structs.replace(self, in_parts=self.in_parts | measure)
        if problem.remedy == BY_ORDER and not measure & self.by_order:
            return msgspec.structs.replace(self, by_order=self.by_order | measure)
        raise Inexact


class Aggregations:
    """What some wanted columns ask of each bucket.

    Attributes:
        body: the aggregations, by name.
        size: buckets that a page may have.
    """

    def __init__(self, kind: Kind, wanted: Sequence[Wanted], plan: Plan) -> None:
        """Derive them.

        Raises:
            Inexact: a percentile of what may be negative, which the cluster's histograms cannot hold.
        """
        self.kind = kind
        self.wanted = wanted
        self.plan = plan
        self.body: dict[str, Clause] = {}
        for column in wanted:
            self._add(column)

    @property
    def size(self) -> int:
        """Fewer where much is kept per bucket."""
        return (
            MOST_SKETCHES
            if any(name.startswith(("shares_", "least_", "most_")) for name in self.body)
            else MOST_BUCKETS
        )

    def watch(self, measures: Iterable[str]) -> None:
        """Also look for products among some measures that no document holds, because they pass 64 bits."""
        products = sorted({measure for measure in measures if measure in self.kind.products})
        if products:
            self.body[_WIDE] = {"filter": among(WIDE, products)}

    def _add(self, column: Wanted) -> None:
        measure, function = column.measure, column.function
        if function is Function.COUNT:
            return
        self.body[f"stats_{measure}"] = {"stats": {"field": measure}}
        if measure in self.plan.in_parts and function not in {Function.MIN, Function.MAX, *PERCENTILES}:
            self.body[f"low_{measure}"] = {"stats": {"field": f"{LOW}.{measure}"}}
            self.body[f"high_{measure}"] = {"stats": {"field": f"{HIGH}.{measure}"}}
        if measure in self.plan.by_order and function is Function.MIN:
            self.body[f"least_{measure}"] = _by_order(measure, "asc")
        if measure in self.plan.by_order and function is Function.MAX:
            self.body[f"most_{measure}"] = _by_order(measure, "desc")
        if function in PERCENTILES:
            self._add_share(measure, _PERCENT[function])

    def _add_share(self, measure: str, percent: str) -> None:
        if may_be_negative(self.kind, measure):
            raise Inexact
        sketch = {"field": measure, "hdr": {"number_of_significant_value_digits": DIGITS}, "percents": []}
        shares = self.body.setdefault(f"shares_{measure}", {"percentiles": sketch})["percentiles"]
        shares["percents"] = sorted({*shares["percents"], float(percent)})

    def values(self, bucket: Bucket) -> tuple[Value, ...]:
        """The wanted values of a bucket; sums where rates are wanted.

        Raises:
            Inexact: one of them may be rounded; says how to ask instead.
        """
        if bucket.get(_WIDE, {}).get("doc_count"):
            raise Inexact
        return tuple(self._value(bucket, column) for column in self.wanted)

    def _value(self, bucket: Bucket, column: Wanted) -> Value:
        if column.function is Function.COUNT:
            return int(bucket["doc_count"])
        stats = bucket[f"stats_{column.measure}"]
        if not stats["count"]:
            return None
        match column.function:
            case Function.SUM | Function.RATE:
                return self.total(bucket, column.measure)
            case Function.MEAN:
                return mean(self.total(bucket, column.measure), stats["count"])
            case Function.MIN | Function.MAX:
                return self._extreme(bucket, column)
            case _:
                return self._share(bucket, column)

    def total(self, bucket: Bucket, measure: str) -> Value:
        """The sum of a measure in a bucket; None of nothing.

        Raises:
            Inexact: it may be rounded.
        """
        stats = bucket[f"stats_{measure}"]
        if not stats["count"]:
            return None
        if not is_whole(self.kind, measure):
            return float(stats["sum"])
        found = whole_sum(stats)
        if found is None and measure in self.plan.in_parts:
            found = split_sum(bucket[f"low_{measure}"], bucket[f"high_{measure}"])
        if found is None:
            raise Inexact(measure, IN_PARTS)
        return found

    def _extreme(self, bucket: Bucket, column: Wanted) -> Value:
        least = column.function is Function.MIN
        name = f"{'least' if least else 'most'}_{column.measure}"
        if name in bucket:
            value: Value = bucket[name]["hits"]["hits"][0]["sort"][0]
            return value
        found: float = bucket[f"stats_{column.measure}"]["min" if least else "max"]
        if not is_whole(self.kind, column.measure):
            return found
        try:
            return whole_extreme(found)
        except Inexact:
            raise Inexact(column.measure, BY_ORDER) from None

    def _share(self, bucket: Bucket, column: Wanted) -> float:
        found = float(bucket[f"shares_{column.measure}"]["values"][_PERCENT[column.function]])
        stats = bucket[f"stats_{column.measure}"]
        if found <= _EXACTLY_ROUNDED and is_whole(self.kind, column.measure):
            found = float(round(found))
        return float(min(max(found, stats["min"]), stats["max"]))


def errors_of(wanted: Sequence[Wanted]) -> tuple[float, ...]:
    """See Answer.errors: the cluster computes percentiles from histograms."""
    errors = tuple(ERROR if column.function in PERCENTILES else 0.0 for column in wanted)
    return errors if any(errors) else ()


def may_be_negative(kind: Kind, measure: str) -> bool:
    """Whether the declaration lets a measure, or a factor of the product, be below zero."""
    roles = [kind.column[name].role for name in factors_of(kind, measure)]
    return any(isinstance(role, Measure) and role.minimum < 0 for role in roles)


def _by_order(measure: str, order: str) -> dict[str, Any]:
    sort = [{measure: {"order": order, "missing": "_last"}}]
    return {"top_hits": {"size": 1, "_source": False, "track_scores": False, "sort": sort}}
