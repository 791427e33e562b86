"""Gauges of snapshots: each producer's last complete cycle, as long as the producer speaks; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, Final

import msgspec

from monitoring.prometheus.budget import Budget, Labels
from monitoring.prometheus.families import Family, KindFamilies
from monitoring.prometheus.points import Counted, Limits, Point, label_values
from monitoring.prometheus.window import Why, Window
from siteward.records import Combine
from siteward.sinks import Batch

MISSED: Final = 3
"""A producer is silent when so many of its cycles would have come, and did not."""
FIRST_PATIENCE: Final = 3_600_000_000
"""Microseconds for which a producer's only cycle is shown: how often it sends one is not known yet."""

Cells = dict[Labels, list[Any]]
"""By label values: for every family what is combined so far; None while no record knows the measure."""


class Cycle(msgspec.Struct):
    """The records of one producer at one instant, as far as they are here."""

    size: int = 0
    count: int = 0
    cells: Cells = {}


class Shown(msgspec.Struct):
    """A producer's last complete cycle.

    Attributes:
        time: the cycle's instant.
        until: when the producer counts as silent.
        cells: its values by the labels that the budget admitted.
    """

    time: int
    until: int
    cells: Cells


class Cycles:
    """The gauges of one kind of snapshots."""

    def __init__(self, families: KindFamilies, limits: Limits) -> None:
        """Take what to show, and the limits."""
        self._families = families
        self._limits = limits
        self._window = Window(limits.late)
        self._budget = Budget(limits.series // len(families.values))
        self._pending: dict[tuple[str, int], Cycle] = {}
        self._shown: dict[str, Shown] = {}

    def write(self, batch: Batch, now: int) -> Counted:
        """Take records into their cycles, and show each that is complete."""
        found = self._window.sort(batch, now)
        counted = Counted(found.left_out, replayed=found.replayed)
        columns = batch.columns
        dimensions = [columns[name] for name in self._families.dimensions]
        producers, times, sizes = columns["producer"], columns[batch.kind.time], columns["cycle_size"]
        touched: dict[tuple[str, int], Cycle] = {}
        for position in found.live:
            place = producers[position], times[position]
            if place[0] in self._shown and place[1] <= self._shown[place[0]].time:
                counted.left_out[Why.LATE] += 1
                continue
            cycle = touched[place] = self._pending.setdefault(place, Cycle())
            cycle.count += 1
            cycle.size = max(cycle.size, sizes[position])
            labels = label_values([column[position] for column in dimensions])
            cell = cycle.cells.setdefault(labels, [None] * len(self._families.values))
            stamp = times[position], batch.ids[position]
            for number, family in enumerate(self._families.values):
                known = [columns[name][position] for name in family.factors]
                if None not in known:
                    cell[number] = _combined(family, cell[number], _SEEDS[family.combine](prod(known), stamp))
        for place in sorted(touched, key=lambda place: place[1]):
            if touched[place].count == touched[place].size:
                self._show(*place, now, counted)
        return counted

    def expire(self, now: int) -> Counted:
        """Let go of cycles whose rest is late by now, and of producers that fell silent."""
        self._window.advance(now)
        counted = Counted()
        for place in [place for place in self._pending if place[1] < self._window.floor]:
            counted.left_out[Why.INCOMPLETE] += self._pending.pop(place).count
        for producer in [producer for producer, shown in self._shown.items() if shown.until < now]:
            self._release(self._shown.pop(producer))
        return counted

    def points(self, now: int) -> Iterator[Point]:
        """Every value of every family; cycles of producers that are no label are combined."""
        del now
        cells: Cells = {}
        for shown in self._shown.values():
            _merge(self._families.values, cells, shown.cells)
        for labels, cell in cells.items():
            for family, state in zip(self._families.values, cell, strict=True):
                if state is not None:
                    yield Point(family, labels, family.exposed(_FINALS[family.combine](state)))

    @property
    def series(self) -> int:
        """How many series there are."""
        return self._budget.count * len(self._families.values)

    def _show(self, producer: str, time: int, now: int, counted: Counted) -> None:
        """Put a complete cycle in the place of the one before it, whose missing series so go."""
        cycle = self._pending.pop((producer, time))
        for place in [place for place in self._pending if place[0] == producer and place[1] < time]:
            counted.left_out[Why.INCOMPLETE] += self._pending.pop(place).count
        before = self._shown.pop(producer, None)
        if before:
            self._release(before)
        patience = max(MISSED * (time - before.time), self._limits.late) if before else FIRST_PATIENCE
        cells: Cells = {}
        admitted: Counter[Labels] = Counter()
        for labels, cell in cycle.cells.items():
            kept = self._budget.admit(labels)
            admitted[kept] += 1
            if kept != labels:
                counted.over_budget["gauges"] += cell[0]
            _merge(self._families.values, cells, {kept: cell})
        for labels, often in admitted.items():
            for _ in range(often - 1):
                self._budget.release(labels)
        self._shown[producer] = Shown(time, now + min(patience, max(self._limits.stale, self._limits.late)), cells)

    def _release(self, shown: Shown) -> None:
        for labels in shown.cells:
            self._budget.release(labels)


def _merge(families: tuple[Family, ...], into: Cells, cells: Mapping[Labels, list[Any]]) -> None:
    for labels, cell in cells.items():
        mine = into.setdefault(labels, [None] * len(families))
        for number, family in enumerate(families):
            if cell[number] is not None:
                mine[number] = _combined(family, mine[number], cell[number])


def _combined(family: Family, one: Any, other: Any) -> Any:  # noqa: ANN401  # a state, see _SEEDS.
    return other if one is None else _MERGES[family.combine](one, other)


Stamp = tuple[int, bytes]
"""A record's time and id: what comes last."""
_SEEDS: Final[dict[Combine, Callable[[Any, Stamp], Any]]] = {
    Combine.SUM: lambda value, _: value,
    Combine.MEAN: lambda value, _: (value, 1),
    Combine.MAX: lambda value, _: value,
    Combine.LAST: lambda value, stamp: (stamp, value),
}
_MERGES: Final[dict[Combine, Callable[[Any, Any], Any]]] = {
    Combine.SUM: lambda one, other: one + other,
    Combine.MEAN: lambda one, other: (one[0] + other[0], one[1] + other[1]),
    Combine.MAX: max,
    Combine.LAST: max,
}
_FINALS: Final[dict[Combine, Callable[[Any], Any]]] = {
    Combine.SUM: lambda state: state,
    Combine.MEAN: lambda state: state[0] / state[1],
    Combine.MAX: lambda state: state,
    Combine.LAST: lambda state: state[1],
}
