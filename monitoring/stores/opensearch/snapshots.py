"""Columns that are computed from complete cycles of snapshots: means over cycles, and what was last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from math import fsum
from typing import Any, Final

from monitoring.stores.opensearch.aggregations import Aggregations, Plan
from monitoring.stores.opensearch.conditions import MOST_CLAUSES, Clause, Group, all_of, count_clauses
from monitoring.stores.opensearch.cycles import Cycles
from monitoring.stores.opensearch.defaults import value_of
from monitoring.stores.opensearch.paging import Cell, Cells, more_of
from monitoring.stores.opensearch.templates import TIME
from monitoring.stores.opensearch.totals import Part, added, mean
from monitoring.stores.opensearch.view import Bucket, View
from monitoring.stores.questions import combine_of, is_whole, may_be_unknown
from siteward.query import Function, Value, Wanted
from siteward.records import Combine

Found = dict[Cell, Value]
"""One column: values by cell; a cell without one is unknown."""
_NOTHING: Final = Part(0, None)


class Snapshots:
    """Some records of complete cycles, in some groups and buckets."""

    def __init__(self, view: View, cycles: Cycles, chosen: Sequence[Clause], cells: Cells) -> None:
        """Prepare.

        Args:
            view: of the kind's records.
            cycles: of the window.
            chosen: which records.
            cells: in which they are put together.
        """
        self._view = view
        self._kind = view.kind
        self._cycles = cycles
        self._chosen = chosen
        self._cells = cells
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
        sources = self._cells.sources(more)
        for clause in clauses:
            query = all_of([*self._chosen, clause])
            for bucket in self._view.buckets(query, sources, asked.body, asked.size):
                yield self._cells.cell(bucket), bucket

    def _means(self, measure: str, plan: Plan) -> Found:
        """Per producer the sum over its complete cycles by their number, producers added up.

        Where a value may be unknown, each series is averaged over the cycles that know it: an unknown value is not
        zero, an absent series is.
        """
        series = [column.name for column in self._kind.dimensions] if may_be_unknown(self._kind, measure) else []
        more = ["producer", *series]
        asked = Aggregations(self._kind, [Wanted(Function.SUM, measure)], plan)
        counts = self._cycles.counts(self._cells.width)
        sums: dict[tuple[Cell, Group], tuple[int, Part]] = {}
        for cell, bucket in self._buckets(self._cycles.seen(self._room), asked, more):
            key = cell, self._cells.values(more, [more_of(bucket, place) for place in range(len(more))])
            (part,) = asked.parts(bucket)
            records, whole = sums.get(key, (0, _NOTHING))
            sums[key] = records + bucket["doc_count"], added(Function.SUM, whole, part)
        shares: defaultdict[Cell, list[float]] = defaultdict(list)
        for (cell, (producer, *_)), (records, part) in sums.items():
            cycles = counts[producer, cell[0]] - (records - part.known)
            if part.value is not None and cycles:
                shares[cell].append(part.value / cycles)
        return {cell: fsum(parts) for cell, parts in shares.items()}

    def _lasts(self, measure: str, combine: Combine, plan: Plan) -> Found:
        """What a measure was in the last complete cycles; a group absent from them has a sum of zero."""
        function = Function.MAX if combine is Combine.MAX else Function.SUM
        asked = Aggregations(self._kind, [Wanted(function, measure)], plan)
        parts: defaultdict[Cell, list[Any]] = defaultdict(list)
        counts: defaultdict[Cell, int] = defaultdict(int)
        found: Found = {}
        for cell, bucket in self._buckets(self._cycles.last(self._cells.width, self._room), asked):
            found[cell] = None
            (part,) = asked.parts(bucket)
            counts[cell] += part.known
            if part.value is not None:
                parts[cell].append(part.value)
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
        fields = [TIME, measure, *self._cells.by]
        for clause in self._cycles.last(self._cells.width, self._room):
            with closing(self._view.hits(all_of([*self._chosen, clause]), fields)) as hits:
                for hit in hits:
                    value = value_of(self._kind, measure, hit["_source"])
                    cell = self._cells.cell_of_record(hit["_source"])
                    if value is not None and (cell not in newest or hit["_id"] > newest[cell][0]):
                        newest[cell] = hit["_id"], value
        return {cell: value for cell, (_, value) in newest.items()}
