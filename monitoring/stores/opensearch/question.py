"""One question put to a cluster: totals, groups, the top ones and Other, each asked by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import nsmallest
from itertools import count, islice
from typing import Any, Final

from monitoring.stores.answers import answer_of
from monitoring.stores.opensearch.aggregations import Aggregations, Plan, errors_of
from monitoring.stores.opensearch.conditions import (
    KEPT_CLAUSES,
    MOST_CLAUSES,
    Clause,
    all_of,
    any_of,
    count_clauses,
    in_groups,
    meeting,
    none_of,
    within,
)
from monitoring.stores.opensearch.cycles import Cycles
from monitoring.stores.opensearch.errors import ClusterError
from monitoring.stores.opensearch.paging import EVERYTHING, Cell, cell_of, order_of, sources_of
from monitoring.stores.opensearch.snapshots import Found, Snapshots
from monitoring.stores.opensearch.streaming import ask_streamed
from monitoring.stores.opensearch.totals import Inexact
from monitoring.stores.opensearch.view import View
from monitoring.stores.questions import MOST_ROWS, is_by_cycle
from siteward.query import Answer, Function, Query, Value, Wanted
from siteward.records import microseconds

_OUT_OF_RANGE: Final = "out of bounds for histogram"
"""What the cluster says to a percentile of values that lie too far apart for one histogram."""
Cells = dict[Cell, tuple[Value, ...]]
"""Wanted values by cell."""
Row = tuple[Any, ...]


class Question:
    """A checked question about the records that a view shows."""

    def __init__(self, view: View, query: Query) -> None:
        """Prepare."""
        self._view = view
        self._kind = view.kind
        self._query = query
        self._window = within(microseconds(query.start), microseconds(query.end))
        self._chosen = [*self._window, *meeting(view.kind, query.filters)]
        self._by_cycle = any(is_by_cycle(view.kind, wanted) for wanted in query.wanted)
        self._plan = Plan()

    def answer(self) -> Answer:
        """The answer: as the cluster computes it where that is exact, else from the records one by one.

        Raises:
            QueryError: it needs too many records, rows or cycles.
            StoreError: the cluster does not answer.
        """
        try:
            cycles = Cycles(self._view, self._window) if self._by_cycle else None
            while True:
                try:
                    return self._computed(cycles)
                except Inexact as problem:
                    self._plan = self._plan.mended(self._kind, problem)
        except Inexact:
            pass
        except ClusterError as error:
            if _OUT_OF_RANGE not in str(error):
                raise
        return ask_streamed(self._view, self._query, self._window if self._by_cycle else self._chosen)

    def _computed(self, cycles: Cycles | None) -> Answer:
        query = self._query
        everything = dict(self._cells(cycles, query.wanted, totals=True))
        totals = everything.get(EVERYTHING) or _of_nothing(query.wanted)
        if query.top and query.by:
            rows = self._top_rows(cycles)
        elif query.by or query.width:
            cells = self._cells(cycles, query.wanted, by=query.by, width=query.width)
            # One row too many is enough for the answer to be refused.
            rows = _rows(dict(islice(cells, MOST_ROWS + 1)))
        else:
            rows = _rows(everything)
        incomplete = cycles.incomplete if cycles else 0
        return answer_of(self._kind, query, rows, totals, incomplete, errors_of(query.wanted))

    def _cells(
        self,
        cycles: Cycles | None,
        wanted: Sequence[Wanted],
        more: Sequence[Clause] = (),
        *,
        by: Sequence[str] = (),
        width: int = 0,
        totals: bool = False,
    ) -> Iterator[tuple[Cell, tuple[Value, ...]]]:
        """Each cell that holds records, with its wanted values.

        Raises:
            Inexact: one of them may be rounded.
        """
        chosen = [*self._chosen, *more]
        direct = [column for column in wanted if not is_by_cycle(self._kind, column)]
        asked = Aggregations(self._kind, direct, self._plan)
        if totals:
            asked.watch(column.measure for column in wanted)
        columns: list[Found | None] = [None] * len(wanted)
        if cycles is not None and len(direct) < len(wanted):
            snapshots = Snapshots(self._view, cycles, chosen, by, width)
            for place, column in enumerate(wanted):
                if is_by_cycle(self._kind, column):
                    columns[place] = snapshots.column(column, self._plan)
        for bucket in self._view.buckets(all_of(chosen), sources_of(by, width), asked.body, asked.size):
            cell, values = cell_of(bucket, by, width), iter(asked.values(bucket))
            yield cell, tuple(next(values) if found is None else found.get(cell) for found in columns)

    def _top_rows(self, cycles: Cycles | None) -> list[Row]:
        """Rank all groups over the whole window, then ask for the top ones, and for all others as one."""
        query = self._query
        numbers = count()
        ranked = zip(self._cells(cycles, query.wanted[:1], by=query.by), numbers, strict=False)
        top = [group for ((_, group), _), _ in nsmallest(query.top, ranked, key=_rank)]
        groups = next(numbers)
        clauses = in_groups(query.by, top)
        if count_clauses([*self._chosen, *clauses]) > MOST_CLAUSES - KEPT_CLAUSES:
            raise Inexact
        places = {group: place for place, group in enumerate(top)}
        rows: list[tuple[tuple[Any, ...], Row]] = []
        if top:
            for (number, group), values in self._cells(
                cycles, query.wanted, [any_of(clauses)], by=query.by, width=query.width
            ):
                row = (*_time(number), places[group], groups, *group, *values)
                rows.append(((*_time(number), False, order_of(group)), row))
        if len(top) < groups:
            nobody = (None,) * len(query.by)
            for (number, _), values in self._cells(cycles, query.wanted, [none_of(clauses)], width=query.width):
                rows.append(((*_time(number), True, ()), (*_time(number), None, groups, *nobody, *values)))
        return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _rank(ranked: tuple[tuple[Cell, tuple[Value, ...]], int]) -> tuple[Any, ...]:
    """What groups are ranked by: the largest first value first, then the group."""
    ((_, group), (value, *_)), _ = ranked
    return value is None, -(value or 0), order_of(group)


def _time(number: int | None) -> tuple[int, ...]:
    """The bucket of time as rows begin with it, if they do."""
    return () if number is None else (number,)


def _rows(cells: Cells) -> list[Row]:
    ordered = sorted(cells, key=lambda cell: (*_time(cell[0]), order_of(cell[1])))
    return [(*_time(number), *group, *cells[number, group]) for number, group in ordered]


def _of_nothing(wanted: Sequence[Wanted]) -> tuple[Value, ...]:
    return tuple(0 if column.function is Function.COUNT else None for column in wanted)
