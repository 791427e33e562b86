"""Which groups are the top ones, also where the cluster knows only about how large their values are."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from math import inf
from typing import Any, Final, NamedTuple, NoReturn

from msgspec import structs

from monitoring.stores.opensearch.aggregations import ERROR, Aggregations, Plan
from monitoring.stores.opensearch.conditions import (
    KEPT_CLAUSES,
    MOST_CLAUSES,
    Clause,
    Group,
    all_of,
    any_of,
    count_clauses,
    in_groups,
)
from monitoring.stores.opensearch.paging import Cell, Cells, gathered, order_of
from monitoring.stores.opensearch.streaming import ask_streamed, may_stream
from monitoring.stores.opensearch.totals import Inexact
from monitoring.stores.opensearch.view import Bucket, View
from monitoring.stores.questions import PERCENTILES
from siteward.query import Query, Value

STEP: Final = 1.0
"""Hundredths by which a percentile's neighbours are asked apart from it."""
ENOUGH: Final = 250
"""Records from which on one hundredth of them is more than two, which is what histograms may be off by."""
_MOST: Final = 100.0


def rank(group: Group, value: Value) -> tuple[Any, ...]:
    """What groups are ranked by: the largest first value first, then the group."""
    return value is None, -(value or 0), order_of(group)


class Contender(NamedTuple):
    """One group, its percentile by the cluster's histogram, and what the exact one lies between."""

    group: Group
    value: Value
    low: float
    high: float


class Contest:
    """The groups of a question that ranks them by a percentile.

    The cluster tells for most groups whether they are among the top ones. For the others, near the cut, their records
    are asked; where those are too many, it is the cluster's own figure that ranks.

    Attributes:
        top: the top groups.
        groups: number of all groups.
    """

    def __init__(self, view: View, query: Query, chosen: Sequence[Clause], plan: Plan) -> None:
        """Ask.

        Args:
            view: of the kind's records.
            query: the checked question.
            chosen: which records.
            plan: how measures are asked.

        Raises:
            Inexact: the records have to be looked at, all of them, and are few enough.
            ClusterError: the cluster does not answer.
        """
        self._view = view
        self._query = query
        self._chosen = chosen
        contenders = self._contenders(plan)
        self.groups = len(contenders)
        self.top = self._top(contenders) if len(contenders) > query.top else [each.group for each in contenders]

    def _contenders(self, plan: Plan) -> list[Contender]:
        column = self._query.wanted[0]
        percent = PERCENTILES[column.function] * 100
        around = round(percent - STEP, 1), round(min(percent + STEP, _MOST), 1)
        asked = Aggregations(self._view.kind, [column], plan)
        for each in around:
            asked.add_share(column.measure, each)

        def contender(cell: Cell, bucket: Bucket) -> Contender:
            (part,) = asked.parts(bucket)
            stats = bucket[f"stats_{column.measure}"]
            if part.value is None:
                return Contender(cell[1], None, -inf, -inf)
            low, high = float(stats["min"]), float(stats["max"])
            if stats["count"] >= ENOUGH:
                least, most = (asked.share(bucket, column.measure, str(each)) for each in around)
                low, high = max(low, least * (1 - ERROR)), min(high, most * (1 + ERROR))
            return Contender(cell[1], part.value, low, high)

        cells = Cells(self._view.kind, self._query.by, 0)
        buckets = self._view.buckets(all_of(self._chosen), cells.sources(), asked.body, asked.size)
        placed = ((*cells.placed(bucket), bucket) for bucket in buckets)
        found = ((cell, is_last, contender(cell, bucket)) for cell, is_last, bucket in placed)
        return [each for _, each in gathered(found, _refuse)]

    def _top(self, contenders: Sequence[Contender]) -> list[Group]:
        """The top groups of more than are wanted."""
        count = self._query.top
        least = nlargest(count, (each.low for each in contenders))[-1]
        most = nlargest(count + 1, (each.high for each in contenders))[-1]
        sure = [each.group for each in contenders if each.low > most]
        near = [each for each in contenders if each.low <= most and each.high >= least]
        places = count - len(sure)
        return sure + (self._nearest(near, places) if len(near) > places else [each.group for each in near])

    def _nearest(self, near: Sequence[Contender], count: int) -> list[Group]:
        """The top ones among groups near the cut."""
        query = self._query
        clauses = in_groups(self._view.kind, query.by, [each.group for each in near])
        chosen = [*self._chosen, any_of(clauses)]
        is_short = count_clauses(chosen) <= MOST_CLAUSES - KEPT_CLAUSES
        if not may_stream(self._view, chosen if is_short else self._chosen):
            ranked = sorted(near, key=lambda each: rank(each.group, each.value))
            return [each.group for each in ranked[:count]]
        if not is_short:
            raise Inexact
        asked = structs.replace(query, wanted=query.wanted[:1], width=0, top=count)
        return [row.group for row in ask_streamed(self._view, asked, chosen).rows if not row.other]


def _refuse(_some: Contender, _others: Contender) -> NoReturn:
    """Percentiles of parts say nothing of the whole."""
    raise Inexact
