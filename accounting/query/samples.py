"""Single values of records by group and instant, for what sums do not tell: smallest, largest, percentiles; pure."""

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
from accounting.query.amounts import Sample
from accounting.query.conditions import Group
from accounting.query.cuts import Stretch
from siteward.records import Kind, Type


class GroupSample(msgspec.Struct, frozen=True):
    """One group's records.

    Attributes:
        count: how many there are.
        values: of those that know it, by measure.
    """

    count: int
    values: dict[str, Sample]


class Samples:
    """Values of records, taken some records at a time, and then asked for."""

    def __init__(self, kind: Kind, measures: Sequence[str], groups: Sequence[Group]) -> None:
        """Begin without any.

        Args:
            kind: of the records.
            measures: measures and products of theirs.
            groups: by number.
        """
        self._kind = kind
        self._groups = groups
        self._parts: list[tuple[npt.NDArray[np.int32], Integers]] = []
        self._values: dict[str, list[tuple[Sample, Known]]] = {measure: [] for measure in measures}

    def add(self, numbers: Integers, ends: Integers, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take some more.

        Args:
            numbers: of each record's group.
            ends: microseconds since 1970 UTC.
            columns: values by field; None where unknown.
        """
        self._parts.append((numbers.astype(np.int32), ends))
        for measure, parts in self._values.items():
            fields = [_filled(columns[name], self._kind.column[name].type) for name in factors(self._kind, measure)]
            values = reduce(np.multiply, (filled for filled, _ in fields))
            parts.append((values, reduce(np.logical_and, (known for _, known in fields))))

    def groups(self, stretch: Stretch) -> dict[Group, GroupSample]:
        """What each group's records that end in a stretch have."""
        numbers, ends, values = self._by_end
        first, last = np.searchsorted(ends, stretch)
        order = np.argsort(numbers[first:last], kind="stable") + first
        if not len(order):
            return {}
        firsts = np.flatnonzero(np.r_[True, np.diff(numbers[order]) > 0])
        counts = np.diff(np.r_[firsts, len(order)]).tolist()
        found = [np.split(order, firsts[1:]), numbers[order][firsts].tolist(), counts]
        return {
            self._groups[number]: GroupSample(
                count, {name: column[members][known[members]] for name, (column, known) in values.items()}
            )
            for members, number, count in zip(*found, strict=True)
        }

    @cached_property
    def _by_end(self) -> tuple[npt.NDArray[np.int32], Integers, dict[str, tuple[Sample, Known]]]:
        """Number of the group, end, and values with whether they are known, of each record, ascending by end."""
        if not self._parts:
            return np.empty(0, np.int32), np.empty(0, np.int64), {}
        numbers, ends = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        # Of several million records all is held once only.
        self._parts.clear()
        order = np.argsort(ends, kind="stable")
        ordered = {}
        for measure, parts in self._values.items():
            values, known = (np.concatenate(columns)[order] for columns in zip(*parts, strict=True))
            ordered[measure] = values, known
            parts.clear()
        return numbers[order], ends[order], ordered


def _filled(values: Sequence[Any], type_: Type) -> tuple[Sample, Known]:
    """Values, zero where unknown, and whether they are known."""
    dtype = np.float64 if type_ is Type.NUMBER else np.int64
    if None not in values:
        return np.array(values, dtype), np.ones(len(values), np.bool_)
    known = np.array([value is not None for value in values], np.bool_)
    return np.array([value or 0 for value in values], dtype), known
