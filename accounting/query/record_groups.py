"""Groups of records by number: told by their series, which are looked up once, and by what only the records say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from accounting.booking.arithmetic import Integers
from accounting.query.conditions import Group, conditions_of, groups_of
from accounting.snapshot_tables import Tables
from accounting.tables import SERIES
from siteward.records import Type
from siteward.usage import UsageQuery


class RecordGroups:
    """The groups of one question within one state of the database.

    Attributes:
        names: each group by its number; more come as records do, where these say what is grouped by.
        said: the dimensions asked for that are not in the series, but in the records.
    """

    def __init__(self, connection: Connection, tables: Tables, query: UsageQuery) -> None:
        """Take the question."""
        self._connection = connection
        self._tables = tables
        self._query = query
        self._in_series = [name for name in query.by if name in tables.series.c]
        self.said = [name for name in query.by if name not in self._in_series]
        self._known: dict[tuple[Any, ...], int] = {}
        self._numbers: dict[Group, int] = {}
        self._parts: list[Group] = [()]
        self.names: list[Group] = []

    def of(self, series: Integers, said: Mapping[str, Sequence[Any]]) -> Integers:
        """The number of the group of each record of the database.

        Args:
            series: number of each one's series, which meets the conditions.
            said: values of the dimensions that are in the records, by name.
        """
        numbers, places = self._of_series
        of_series = places[np.searchsorted(numbers, series)] if len(numbers) else np.zeros_like(series)
        if not self.said:
            return self._first[of_series]
        columns = (self._typed(name, said[name]) for name in self.said)
        return np.array([self._number(key) for key in zip(of_series.tolist(), *columns, strict=True)], np.int64)

    def of_values(self, columns: Mapping[str, Sequence[Any]], count: int) -> Integers:
        """The same of so many records of which every dimension that is grouped by is given, by name."""
        if not self._query.by:
            return np.full(count, self._numbered(()), np.int64)
        rows = zip(*(columns[name] for name in self._query.by), strict=True)
        return np.array([self._numbered(row) for row in rows], np.int64)

    def _number(self, key: tuple[Any, ...]) -> int:
        number = self._known.get(key)
        if number is None:
            values = dict(zip(self._in_series, self._parts[key[0]], strict=True))
            values |= dict(zip(self.said, key[1:], strict=True))
            number = self._known[key] = self._numbered(tuple(values[name] for name in self._query.by))
        return number

    def _numbered(self, group: Group) -> int:
        number = self._numbers.setdefault(group, len(self.names))
        if number == len(self.names):
            self.names.append(group)
        return number

    def _typed(self, name: str, values: Sequence[Any]) -> Sequence[Any]:
        if self._tables.kind.column[name].type is not Type.BOOLEAN:
            return values
        return [None if value is None else bool(value) for value in values]

    @cached_property
    def _of_series(self) -> tuple[Integers, Integers]:
        """Numbers of the series that the question is about, ascending, and the place in `_parts` of each."""
        if not self._in_series:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        series = self._tables.series
        filters = [each for each in self._query.filters if each.field in series.c]
        chosen = select(*(series.c[name] for name in self._in_series), series.c[SERIES])
        rows = self._connection.execute(chosen.where(*conditions_of(series, filters))).all()
        groups = groups_of(self._tables.kind, self._in_series, rows)
        places: dict[Group, int] = {}
        of_series = np.array([places.setdefault(group, len(places)) for group in groups], np.int64)
        numbers = np.array([row[-1] for row in rows], np.int64)
        order = np.argsort(numbers)
        self._parts = list(places)
        return numbers[order], of_series[order]

    @cached_property
    def _first(self) -> Integers:
        """The number of the group of each of `_parts`, where nothing else is grouped by."""
        return np.array([self._numbered(part) for part in self._parts], np.int64)
