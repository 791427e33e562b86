"""One question put to a cluster: totals, groups, the top ones and Other, each computed from its records."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from heapq import nsmallest
from itertools import chain, count, islice
from typing import Any, Final

from monitoring.stores.answers import answer_of
from monitoring.stores.opensearch.aggregations import Aggregations, Plan, errors_of
from monitoring.stores.opensearch.conditions import (
    KEPT_CLAUSES,
    MOST_CLAUSES,
    Clause,
    Group,
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
from monitoring.stores.opensearch.paging import EVERYTHING, OTHER, Cell, Cells, gathered, order_of
from monitoring.stores.opensearch.ranking import Contest, rank
from monitoring.stores.opensearch.snapshots import Found, Snapshots
from monitoring.stores.opensearch.streaming import ask_streamed
from monitoring.stores.opensearch.totals import Inexact
from monitoring.stores.opensearch.view import View
from monitoring.stores.questions import MOST_ROWS, PERCENTILES, is_by_cycle
from siteward.query import Answer, Function, Query, Value, Wanted
from siteward.records import microseconds

_OUT_OF_RANGE: Final = ("out of bounds for histogram", "outside of histogram covered range")
"""What the cluster says to a percentile of values that lie too far apart for one histogram."""
Values = tuple[Value, ...]
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
            if not any(words in str(error) for words in _OUT_OF_RANGE):
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
            rows = _rows(cells)
        else:
            rows = _rows(iter(everything.items()))
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
        kept: Container[Group] | None = None,
        totals: bool = False,
    ) -> Iterator[tuple[Cell, Values]]:
        """Each cell that holds records, with its wanted values; see Cells for `by`, `width` and `kept`.

        Raises:
            Inexact: one of them may be rounded.
        """
        chosen = [*self._chosen, *more]
        cells = Cells(self._kind, by, width, kept)
        direct = [column for column in wanted if not is_by_cycle(self._kind, column)]
        asked = Aggregations(self._kind, direct, self._plan)
        if totals:
            asked.watch(column.measure for column in wanted)
        columns: list[Found | None] = [None] * len(wanted)
        if cycles is not None and len(direct) < len(wanted):
            snapshots = Snapshots(self._view, cycles, chosen, cells)
            for place, column in enumerate(wanted):
                if is_by_cycle(self._kind, column):
                    columns[place] = snapshots.column(column, self._plan)
        buckets = self._view.buckets(all_of(chosen), cells.sources(), asked.body, asked.size)
        found = ((*cells.placed(bucket), asked.parts(bucket)) for bucket in buckets)
        for cell, parts in gathered(found, asked.add_parts):
            values = iter(asked.values(parts))
            yield cell, tuple(next(values) if column is None else column.get(cell) for column in columns)

    def _top_rows(self, cycles: Cycles | None) -> list[Row]:
        """Rank all groups over the whole window, then ask for the top ones, and for all others as one."""
        query = self._query
        top, groups = self._ranked(cycles)
        rows: list[tuple[tuple[Any, ...], Row]] = []
        nobody = (None,) * len(query.by)
        # One row too many is enough for the answer to be refused.
        for (number, group), values in islice(self._divided(cycles, top, groups), MOST_ROWS + 1):
            is_other = group == OTHER
            row = (*_time(number), None if is_other else 0, groups, *(group or nobody), *values)
            rows.append(((*_time(number), is_other, order_of(group)), row))
        return [row for _, row in sorted(rows, key=lambda pair: pair[0])]

    def _ranked(self, cycles: Cycles | None) -> tuple[list[Group], int]:
        """The top groups and the number of all.

        Raises:
            Inexact: only the records tell which are the top ones, and they are few enough to be asked.
        """
        query = self._query
        first = query.wanted[0]
        if first.function in PERCENTILES:
            contest = Contest(self._view, query, self._chosen, self._plan)
            return contest.top, contest.groups
        numbers = count()
        ranked = zip(self._cells(cycles, [first], by=query.by), numbers, strict=False)
        top = nsmallest(query.top, ranked, key=lambda ranked: rank(ranked[0][0][1], ranked[0][1][0]))
        return [group for ((_, group), _), _ in top], next(numbers)

    def _divided(self, cycles: Cycles | None, top: Sequence[Group], groups: int) -> Iterator[tuple[Cell, Values]]:
        """The cells of the top groups and of Other.

        Where the top groups fit into a request, they and the others are asked apart. Else all cells are walked, and
        those of the others put together.
        """
        query = self._query
        clauses = in_groups(self._kind, query.by, top)
        if count_clauses([*self._chosen, *clauses]) > MOST_CLAUSES - KEPT_CLAUSES:
            return self._cells(cycles, query.wanted, by=query.by, width=query.width, kept=frozenset(top))
        kept = self._cells(cycles, query.wanted, [any_of(clauses)], by=query.by, width=query.width) if top else ()
        rest = self._cells(cycles, query.wanted, [none_of(clauses)], width=query.width) if len(top) < groups else ()
        return chain(kept, rest)


def _time(number: int | None) -> tuple[int, ...]:
    """The bucket of time as rows begin with it, if they do."""
    return () if number is None else (number,)


def _rows(cells: Iterator[tuple[Cell, Values]]) -> list[Row]:
    # One row too many is enough for the answer to be refused.
    found = sorted(islice(cells, MOST_ROWS + 1), key=lambda pair: (*_time(pair[0][0]), order_of(pair[0][1])))
    return [(*_time(number), *group, *values) for (number, group), values in found]


def _of_nothing(wanted: Sequence[Wanted]) -> Values:
    return tuple(0 if column.function is Function.COUNT else None for column in wanted)
