"""Columns that are computed from single records: what to ask of each bucket, and how to read it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from monitoring.stores.opensearch.conditions import Clause, all_of, any_of, lacking
from monitoring.stores.opensearch.defaults import default_of
from monitoring.stores.opensearch.templates import HIGH, LOW, split_names
from monitoring.stores.opensearch.totals import Inexact, Part, added, mean, split_sum, whole_extreme, whole_sum
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
_NOT_HELD: Final = "not_held"
_PERCENT: Final = {function: f"{share * 100:.1f}" for function, share in PERCENTILES.items()}


Parts = tuple[Part, ...]
"""One part for each wanted column."""


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
        """Also look for records that have a product among some measures which their documents do not hold.

        It passes 64 bits there, or a factor was gained later, or the product was.
        """
        products = sorted({measure for measure in measures if measure in self.kind.products})
        if products:
            self.body[_NOT_HELD] = {"filter": any_of([self._is_not_held(product) for product in products])}

    def _is_not_held(self, product: str) -> Clause:
        factors = [name for name in factors_of(self.kind, product) if default_of(self.kind, name) is None]
        return all_of([lacking(product), *({"exists": {"field": name}} for name in factors)])

    def _add(self, column: Wanted) -> None:
        measure, function = column.measure, column.function
        if function is Function.COUNT:
            return
        self.body[f"stats_{measure}"] = {"stats": self._field(measure)}
        if measure in self.plan.in_parts and function not in {Function.MIN, Function.MAX, *PERCENTILES}:
            self.body[f"held_{measure}"] = {"value_count": {"field": measure}}
            self.body[f"low_{measure}"] = {"stats": {"field": f"{LOW}.{measure}"}}
            self.body[f"high_{measure}"] = {"stats": {"field": f"{HIGH}.{measure}"}}
        if measure in self.plan.by_order and function is Function.MIN:
            self.body[f"least_{measure}"] = self._by_order(measure, "asc")
        if measure in self.plan.by_order and function is Function.MAX:
            self.body[f"most_{measure}"] = self._by_order(measure, "desc")
        if function in PERCENTILES:
            self.add_share(measure, float(_PERCENT[function]))

    def add_share(self, measure: str, percent: float) -> None:
        """Also ask for a percentile of a measure; see share.

        Raises:
            Inexact: the measure may be negative.
        """
        if may_be_negative(self.kind, measure):
            raise Inexact
        digits = {"number_of_significant_value_digits": DIGITS}
        sketch = {**self._field(measure), "hdr": digits, "percents": []}
        shares = self.body.setdefault(f"shares_{measure}", {"percentiles": sketch})["percentiles"]
        shares["percents"] = sorted({*shares["percents"], percent})

    def _field(self, measure: str) -> Clause:
        """The measure of all records, also of those that are older than it."""
        default = default_of(self.kind, measure)
        return {"field": measure} if default is None else {"field": measure, "missing": default}

    def _by_order(self, measure: str, order: str) -> Clause:
        default = default_of(self.kind, measure)
        sort = [{measure: {"order": order, "missing": "_last" if default is None else default}}]
        return {"top_hits": {"size": 1, "_source": False, "track_scores": False, "sort": sort}}

    def parts(self, bucket: Bucket) -> Parts:
        """What the wanted values of a bucket are made of; see add_parts.

        Raises:
            Inexact: one of them may be rounded; says how to ask instead.
        """
        if bucket.get(_NOT_HELD, {}).get("doc_count"):
            raise Inexact
        return tuple(self._part(bucket, column) for column in self.wanted)

    def _part(self, bucket: Bucket, column: Wanted) -> Part:
        if column.function is Function.COUNT:
            return Part(bucket["doc_count"], int(bucket["doc_count"]))
        known = bucket[f"stats_{column.measure}"]["count"]
        if not known:
            return Part(0, None)
        match column.function:
            case Function.SUM | Function.RATE | Function.MEAN:
                return Part(known, self._total(bucket, column.measure))
            case Function.MIN | Function.MAX:
                return Part(known, self._extreme(bucket, column))
            case _:
                return Part(known, self._share(bucket, column))

    def add_parts(self, some: Parts, others: Parts) -> Parts:
        """What the values of two buckets' records together are made of: of integers exactly.

        Raises:
            Inexact: percentiles of parts say nothing of the whole.
        """
        return tuple(map(added, (column.function for column in self.wanted), some, others))

    def values(self, parts: Parts) -> tuple[Value, ...]:
        """The wanted values; sums where rates are wanted."""
        return tuple(
            mean(part.value, part.known) if column.function is Function.MEAN else part.value
            for column, part in zip(self.wanted, parts, strict=True)
        )

    def _total(self, bucket: Bucket, measure: str) -> Value:
        """The sum of a measure in a bucket that knows it.

        Raises:
            Inexact: it may be rounded.
        """
        stats = bucket[f"stats_{measure}"]
        if not is_whole(self.kind, measure):
            return float(stats["sum"])
        found = whole_sum(stats)
        if found is None and measure in self.plan.in_parts:
            found = self._in_parts(bucket, measure)
        if found is None:
            raise Inexact(measure, IN_PARTS)
        return found

    def _in_parts(self, bucket: Bucket, measure: str) -> int | None:
        """The sum from the two parts; records that are older than the measure have neither it nor parts."""
        low, high, held = (bucket[f"{name}_{measure}"] for name in ("low", "high", "held"))
        found = split_sum(low, high)
        older = int(bucket[f"stats_{measure}"]["count"] - held["value"])
        if found is None or held["value"] != low["count"]:
            return None
        return found + older * int(default_of(self.kind, measure) or 0)

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
        found = self.share(bucket, column.measure, _PERCENT[column.function])
        stats = bucket[f"stats_{column.measure}"]
        if found <= _EXACTLY_ROUNDED and is_whole(self.kind, column.measure):
            found = float(round(found))
        return float(min(max(found, stats["min"]), stats["max"]))

    def share(self, bucket: Bucket, measure: str, percent: str) -> float:
        """A percentile of a bucket that knows the measure, as the cluster's histogram gives it."""
        return float(bucket[f"shares_{measure}"]["values"][percent])


def errors_of(wanted: Sequence[Wanted]) -> tuple[float, ...]:
    """See Answer.errors: the cluster computes percentiles from histograms."""
    errors = tuple(ERROR if column.function in PERCENTILES else 0.0 for column in wanted)
    return errors if any(errors) else ()


def may_be_negative(kind: Kind, measure: str) -> bool:
    """Whether the declaration lets a measure, or a factor of the product, be below zero."""
    roles = [kind.column[name].role for name in factors_of(kind, measure)]
    return any(isinstance(role, Measure) and role.minimum < 0 for role in roles)
