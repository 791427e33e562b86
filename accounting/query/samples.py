"""Single values of records by group and piece of time, for what sums do not tell: smallest, largest, percentiles; pure.

Of millions of records each value is held once, beside the number of its cell: a group in a piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, reduce
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from accounting.booking.arithmetic import Integers
from accounting.booking.measures import factors
from accounting.booking.postings import Known
from accounting.query.amounts import NO_SAMPLE, Sample
from accounting.query.conditions import Group
from accounting.query.cuts import Stretch, edges_of
from siteward.records import Kind, Type

Cells = npt.NDArray[np.int32]


class GroupSample(msgspec.Struct, frozen=True):
    """One group's records.

    Attributes:
        count: how many there are.
        values: of those that know it, by measure, in any order.
    """

    count: int
    values: dict[str, Sample]


class Samples:
    """Values of records, taken some records at a time, and then asked for."""

    def __init__(self, kind: Kind, measures: Sequence[str], groups: Sequence[Group], pieces: Sequence[Stretch]) -> None:
        """Begin without any.

        Args:
            kind: of the records.
            measures: measures, products and ratios of theirs.
            groups: by number; more may come.
            pieces: stretches of time of which is asked; none lies over another.
        """
        self._kind = kind
        self._groups = groups
        self._edges = np.array(edges_of(pieces), np.int64)
        starts = {edge: place for place, edge in enumerate(self._edges.tolist())}
        self._place_of = {piece: starts[piece[0]] for piece in pieces}
        self._cells: dict[tuple[int, int], int] = {}
        self._counts: Integers = np.zeros(0, np.int64)
        self._values: dict[str, list[tuple[Cells, Sample]]] = {measure: [] for measure in measures}

    def add(self, numbers: Integers, ends: Integers, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take some more.

        Args:
            numbers: of each record's group.
            ends: microseconds since 1970 UTC.
            columns: values by field; None where unknown.
        """
        cells = self._numbered(np.searchsorted(self._edges, ends, side="right") - 1, numbers)
        found = np.bincount(cells, minlength=len(self._cells))
        found[: len(self._counts)] += self._counts
        self._counts = found
        for measure, parts in self._values.items():
            values, known = values_of(self._kind, measure, columns)
            parts.append((cells, values) if known.all() else (cells[known], values[known]))

    def _numbered(self, places: Integers, numbers: Integers) -> Cells:
        """The number of each record's cell."""
        keys = places * (len(self._groups) + 1) + numbers
        _, firsts, which = np.unique(keys, return_index=True, return_inverse=True)
        spots = zip(places[firsts].tolist(), numbers[firsts].tolist(), strict=True)
        cells = np.array([self._cells.setdefault(spot, len(self._cells)) for spot in spots], np.int32)
        found: Cells = cells[which]
        return found

    def groups(self, stretch: Stretch) -> dict[Group, GroupSample]:
        """What each group's records that end in one of the pieces have."""
        place = self._place_of[stretch]
        ordered = self._ordered
        return {
            self._groups[number]: GroupSample(
                int(self._counts[cell]),
                {name: values[bounds[cell] : bounds[cell + 1]] for name, (bounds, values) in ordered.items()},
            )
            for number, cell in self._cells_of.get(place, ())
        }

    @cached_property
    def _cells_of(self) -> dict[int, list[tuple[int, int]]]:
        """The groups and cells of each piece."""
        found: dict[int, list[tuple[int, int]]] = {}
        for (place, number), cell in self._cells.items():
            found.setdefault(place, []).append((number, cell))
        return found

    @cached_property
    def _ordered(self) -> dict[str, tuple[list[int], Sample]]:
        """Each measure's values with those of a cell side by side, and where each cell's begin."""
        return {measure: _put_together(parts, len(self._cells)) for measure, parts in self._values.items()}


def fields_of(kind: Kind, measure: str) -> tuple[str, ...]:
    """The fields from which a measure, product or ratio of a record is computed."""
    if measure not in kind.ratios:
        return factors(kind, measure)
    ratio = kind.ratios[measure]
    return *factors(kind, ratio.numerator), *factors(kind, ratio.denominator)


def values_of(kind: Kind, measure: str, columns: Mapping[str, Sequence[Any]]) -> tuple[Sample, Known]:
    """A measure, product or ratio of each record, anything where it is unknown, and whether it is known.

    A ratio whose denominator is zero is not.
    """
    if measure in kind.ratios:
        ratio = kind.ratios[measure]
        above, above_known = values_of(kind, ratio.numerator, columns)
        below, below_known = values_of(kind, ratio.denominator, columns)
        known = above_known & below_known & (below != 0)
        # Multiplied first, as the database does it, so that both are the same to the last bit.
        return np.divide(above * float(ratio.times), below, out=np.zeros(len(above)), where=known), known
    fields = [_filled(columns[name], kind.column[name].type) for name in factors(kind, measure)]
    values = reduce(np.multiply, (filled for filled, _ in fields))
    return values, reduce(np.logical_and, (known for _, known in fields))


def _put_together(parts: list[tuple[Cells, Sample]], count: int) -> tuple[list[int], Sample]:
    """Values by cell, and where each cell's begin; parts are let go as they are taken."""
    if not parts:
        return [0] * (count + 1), NO_SAMPLE
    counts = np.zeros(count, np.int64)
    for cells, _ in parts:
        counts += np.bincount(cells, minlength=count)
    bounds = np.r_[0, np.cumsum(counts)]
    values = np.empty(bounds[-1], parts[0][1].dtype)
    following = bounds[:-1].copy()
    while parts:
        cells, some = parts.pop()
        order = np.argsort(cells, kind="stable")
        ordered = cells[order]
        mine = np.bincount(ordered, minlength=count)
        within = np.arange(len(ordered)) - np.repeat(np.cumsum(mine) - mine, mine)
        values[following[ordered] + within] = some[order]
        following += mine
    return bounds.tolist(), values


def _filled(values: Sequence[Any], type_: Type) -> tuple[Sample, Known]:
    """Values, zero where unknown, and whether they are known."""
    dtype = np.float64 if type_ is Type.NUMBER else np.int64
    if None not in values:
        return np.array(values, dtype), np.ones(len(values), np.bool_)
    known = np.array([value is not None for value in values], np.bool_)
    return np.array([value or 0 for value in values], dtype), known
