"""Counters and histograms of live events and intervals: rows of numbers that only grow; pure, `now` is a parameter."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from math import prod
from typing import Any, Final

import msgspec

from monitoring.prometheus.budget import Budget, Labels
from monitoring.prometheus.families import BOUNDS, Family, KindFamilies
from monitoring.prometheus.points import Buckets, Counted, Limits, Point, label_values
from monitoring.prometheus.window import Window
from siteward.envelope import Columns
from siteward.records import Kind
from siteward.sinks import Batch

BUCKET_SERIES: Final = len(BOUNDS) + 3
"""Series of one histogram: its buckets, the one without a bound, sum and count."""
SETTLE: Final = 15_000_000
"""Microseconds for which a new series is shown as zero at least: one scrape interval of several Prometheus servers."""


class Row(msgspec.Struct, gc=False):
    """Numbers with the same labels.

    Attributes:
        values: they only grow.
        born: when it was made, microseconds since 1970.
        grown: when it last grew.
        shown: somebody has seen that it was zero.
    """

    values: list[Any]
    born: int
    grown: int
    shown: bool = False


Measure = Callable[[Columns, Sequence[int], list[Any], int], None]
"""Adds the records at these positions to a row's values, from this place in them on."""


class Rows:
    """Rows by label values, within a budget.

    `rate()` and `increase()` do not see the first value of a series, because they cannot know that it was zero before.
    So every row is shown as zero first, to at least one scrape and for SETTLE microseconds.
    """

    def __init__(self, most: int, width: int) -> None:
        """Allow so many rows, of so many values."""
        self._budget = Budget(most)
        self._width = width
        self._rows: dict[Labels, Row] = {}

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def row(self, labels: Labels, now: int) -> tuple[Labels, Row]:
        """The row that grows for these labels, and the labels that it has."""
        admitted = self._budget.admit(labels)
        row = self._rows.get(admitted)
        if row is None:
            row = self._rows[admitted] = Row([0] * self._width, now, now)
        else:
            self._budget.release(admitted)
        row.grown = now
        return admitted, row

    def drop(self, before: int) -> None:
        """Forget the rows that did not grow since; if they come again, they come from zero."""
        for labels in [labels for labels, row in self._rows.items() if row.grown < before]:
            del self._rows[labels]
            self._budget.release(labels)

    def shown(self, now: int) -> Iterator[tuple[Labels, Sequence[Any]]]:
        """What a scrape sees."""
        zeros = (0,) * self._width
        for labels, row in self._rows.items():
            if row.shown and now - row.born >= SETTLE:
                yield labels, tuple(row.values)
            else:
                row.shown = True
                yield labels, zeros


class Counters:
    """The counters and histograms of one kind of events or intervals, since this object was made."""

    def __init__(self, families: KindFamilies, limits: Limits) -> None:
        """Take what to count, and the limits; half of the series are for histograms, where there are any."""
        self._families = families
        self._window = Window(limits.late)
        self._stale = limits.stale
        width, histograms = len(families.values), families.histograms
        share = limits.series // 2 if histograms else limits.series
        self._rows = Rows(share // width, width)
        cost = len(histograms) * BUCKET_SERIES
        self._coarse = Rows(share // cost, len(histograms) * (len(BOUNDS) + 2)) if histograms else None
        self._add = [_summing(family, families.kind) for family in families.values[1:]]
        self._observe = [_observing(family) for family in histograms]

    def write(self, batch: Batch, now: int) -> Counted:
        """Count a batch; a record that was counted once is never counted again."""
        found = self._window.sort(batch, now)
        over: Counter[str] = Counter()
        coarse: defaultdict[Labels, list[int]] = defaultdict(list)
        for labels, positions in _grouped(self._families, batch, found.live).items():
            admitted, row = self._rows.row(labels, now)
            over["counters"] += len(positions) if admitted != labels else 0
            row.values[0] += len(positions)
            for place, add in enumerate(self._add, 1):
                add(batch.columns, positions, row.values, place)
            if self._coarse is not None:
                coarse[tuple(labels[label] for label in self._families.coarse)] += positions
        for labels, positions in coarse.items():
            assert self._coarse is not None
            admitted, row = self._coarse.row(labels, now)
            over["histograms"] += len(positions) if admitted != labels else 0
            for number, observe in enumerate(self._observe):
                observe(batch.columns, positions, row.values, number * (len(BOUNDS) + 2))
        return Counted(found.left_out, over, found.replayed)

    def expire(self, now: int) -> Counted:
        """Drop what has not grown for long."""
        self._window.advance(now)
        for rows in (self._rows, self._coarse):
            if rows is not None:
                rows.drop(now - self._stale)
        return Counted()

    def points(self, now: int) -> Iterator[Point]:
        """Every value of every family, as a scrape sees it."""
        for labels, values in self._rows.shown(now):
            for family, value in zip(self._families.values, values, strict=True):
                yield Point(family, labels, family.exposed(value))
        for labels, values in self._coarse.shown(now) if self._coarse is not None else ():
            for number, family in enumerate(self._families.histograms):
                first = number * (len(BOUNDS) + 2)
                counts = values[first : first + len(BOUNDS) + 1]
                yield Point(family, labels, Buckets(tuple(accumulate(counts)), values[first + len(BOUNDS) + 1]))

    @property
    def series(self) -> int:
        """How many series there are, buckets included."""
        coarse = self._coarse.count if self._coarse is not None else 0
        histograms = len(self._families.histograms) * BUCKET_SERIES
        return self._rows.count * len(self._families.values) + coarse * histograms


def _grouped(families: KindFamilies, batch: Batch, live: Sequence[int]) -> dict[Labels, list[int]]:
    """Positions of the live records by their labels' values."""
    columns = [batch.columns[name] for name in families.dimensions]
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    for position, key in enumerate(zip(*columns, strict=True)) if len(live) == len(batch) else _picked(columns, live):
        groups[key].append(position)
    return {label_values(key): positions for key, positions in groups.items()}


def _picked(columns: Sequence[Sequence[Any]], live: Sequence[int]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    for position in live:
        yield position, tuple(column[position] for column in columns)


def _summing(family: Family, kind: Kind) -> Measure:
    names = family.factors
    optional = any(kind.column[name].optional for name in names)

    def add_plain(columns: Columns, positions: Sequence[int], values: list[Any], place: int) -> None:
        values[place] += sum(map(columns[names[0]].__getitem__, positions))

    def add_known(columns: Columns, positions: Sequence[int], values: list[Any], place: int) -> None:
        factors = [columns[name] for name in names]
        for position in positions:
            of_record = [factor[position] for factor in factors]
            if None not in of_record:
                values[place] += prod(of_record)

    return add_known if optional or len(names) > 1 else add_plain


def _observing(family: Family) -> Measure:
    (name,) = family.factors

    def observe(columns: Columns, positions: Sequence[int], values: list[Any], first: int) -> None:
        known = [value for value in map(columns[name].__getitem__, positions) if value is not None]
        for bucket, count in Counter(map(partial(bisect_left, BOUNDS), known)).items():
            values[first + bucket] += count
        values[first + len(BOUNDS) + 1] += sum(known)

    return observe
