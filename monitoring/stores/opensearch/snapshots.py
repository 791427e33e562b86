"""Columns that are computed from complete cycles of snapshots: means over cycles, and what was last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from math import fsum
from typing import Any

from monitoring.stores.opensearch.aggregations import Aggregations, Plan
from monitoring.stores.opensearch.conditions import MOST_CLAUSES, Clause, all_of, count_clauses
from monitoring.stores.opensearch.cycles import Cycles
from monitoring.stores.opensearch.paging import Cell, cell_of, cell_of_record, more_of, sources_of
from monitoring.stores.opensearch.templates import TIME
from monitoring.stores.opensearch.totals import mean
from monitoring.stores.opensearch.view import Bucket, View
from monitoring.stores.questions import combine_of, is_whole, may_be_unknown
from siteward.query import Function, Value, Wanted
from siteward.records import Combine

Found = dict[Cell, Value]
"""One column: values by cell; a cell without one is unknown."""


class Snapshots:
    """Some records of complete cycles, in some groups and buckets."""

    def __init__(self, view: View, cycles: Cycles, chosen: Sequence[Clause], by: Sequence[str], width: int) -> None:
        """Prepare.

        Args:
            view: of the kind's records.
            cycles: of the window.
            chosen: which records.
            by: dimensions to group by.
            width: of the buckets of time in seconds; 0 is one bucket for all.
        """
        self._view = view
        self._kind = view.kind
        self._cycles = cycles
        self._chosen = chosen
        self._by = by
        self._width = width
        self._room = MOST_CLAUSES - count_clauses(chosen)

    def column(self, wanted: Wanted, plan: Plan) -> Found:
        """The values of a column.

        Raises:
            Inexact: a sum may be rounded.
        """
        if wanted.function is Function.MEAN:
            return self._means(wanted.measure, plan)
        combine = combine_of(self._kind, wanted.measure)
        return self._latest(wanted.measure) if combine is Combine.LAST else self._lasts(wanted.measure, combine, plan)

    def _buckets(
        self, clauses: Sequence[Clause], asked: Aggregations, more: Sequence[str] = ()
    ) -> Iterator[tuple[Cell, Bucket]]:
        sources = sources_of(self._by, self._width, more)
        for clause in clauses:
            query = all_of([*self._chosen, clause])
            for bucket in self._view.buckets(query, sources, asked.body, asked.size):
                yield cell_of(bucket, self._by, self._width), bucket

    def _means(self, measure: str, plan: Plan) -> Found:
        """Per producer the sum over its complete cycles by their number, producers added up.

        Where a value may be unknown, each series is averaged over the cycles that know it: an unknown value is not
        zero, an absent series is.
        """
        series = [column.name for column in self._kind.dimensions] if may_be_unknown(self._kind, measure) else []
        asked = Aggregations(self._kind, [Wanted(Function.SUM, measure)], plan)
        counts = self._cycles.counts(self._width)
        shares: defaultdict[Cell, list[float]] = defaultdict(list)
        # Each share is whole: all records of a producer meet the same clause.
        for cell, bucket in self._buckets(self._cycles.seen(self._room), asked, ["producer", *series]):
            known = bucket[f"stats_{measure}"]["count"]
            cycles = counts[more_of(bucket, 0), cell[0]] - (bucket["doc_count"] - known)
            total = asked.total(bucket, measure)
            if total is not None and cycles:
                shares[cell].append(total / cycles)
        return {cell: fsum(parts) for cell, parts in shares.items()}

    def _lasts(self, measure: str, combine: Combine, plan: Plan) -> Found:
        """What a measure was in the last complete cycles; a group absent from them has a sum of zero."""
        function = Function.MAX if combine is Combine.MAX else Function.SUM
        asked = Aggregations(self._kind, [Wanted(function, measure)], plan)
        parts: defaultdict[Cell, list[Any]] = defaultdict(list)
        counts: defaultdict[Cell, int] = defaultdict(int)
        found: Found = {}
        for cell, bucket in self._buckets(self._cycles.last(self._width, self._room), asked):
            found[cell] = None
            (value,) = asked.values(bucket)
            counts[cell] += bucket[f"stats_{measure}"]["count"]
            if value is not None:
                parts[cell].append(value)
        for cell, values in parts.items():
            found[cell] = max(values) if combine is Combine.MAX else self._added(measure, values)
        if combine is Combine.MEAN:
            return {cell: mean(value, counts[cell]) for cell, value in found.items()}
        if combine is Combine.SUM:
            nothing = Aggregations(self._kind, [], plan)
            for cell, _ in self._buckets(self._cycles.seen(self._room), nothing):
                found.setdefault(cell, 0)
        return found

    def _added(self, measure: str, values: Sequence[Any]) -> Value:
        return sum(values) if is_whole(self._kind, measure) else fsum(values)

    def _latest(self, measure: str) -> Found:
        """The value that the record with the largest id knows, of those in the last complete cycles."""
        newest: dict[Cell, tuple[str, Value]] = {}
        fields = [TIME, measure, *self._by]
        for clause in self._cycles.last(self._width, self._room):
            with closing(self._view.hits(all_of([*self._chosen, clause]), fields)) as hits:
                for hit in hits:
                    value = hit["_source"].get(measure)
                    cell = cell_of_record(hit["_source"], self._by, self._width)
                    if value is not None and (cell not in newest or hit["_id"] > newest[cell][0]):
                        newest[cell] = hit["_id"], value
        return {cell: value for cell, (_, value) in newest.items()}
