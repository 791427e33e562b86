"""Records of a ledger as columns: whole, and with where they came from, as they go into the archive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Table, case, false, func, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archive_file import RECEIVED, Listed, Repeated, Stored, Values, own_columns, plain
from accounting.archive.column_texts import are_told_by_texts, read_by_texts
from accounting.booking.arithmetic import Integers
from accounting.ledger import Ledger
from accounting.snapshot_tables import Tables
from accounting.tables import ENTRY, ID, MESSAGE, PRODUCER, SERIES, step_columns

REMEMBERED: Final = 100_000
"""Rows of another table."""
LOOKED_UP: Final = 1_000
"""Keys of one question."""
SAMPLE: Final = 50
"""Rows of either end by which it is guessed which columns say the same throughout."""


def read_records(
    connection: Connection,
    ledger: Ledger,
    tables: Tables,
    series: Lookup,
    ids_between: tuple[bytes, bytes],
    leaving: ColumnElement[bool],
    most: int,
) -> Stored:
    """Records in order of their ids, so many at most, whole and with where they came from.

    Args:
        connection: to read from.
        ledger: whose.
        tables: of their kind.
        series: the columns of series.
        ids_between: the smallest id, and the smallest after them.
        leaving: which of these.
        most: records.
    """
    records, names = tables.records, own_columns(tables.kind)
    key, (begin, end) = records.c[ID], ids_between
    later = select(key).where(key >= begin, key < end, leaving).order_by(key).offset(most).limit(1)
    chosen = (key >= begin) & (key < (connection.execute(later).scalar() or end)) & leaving
    values = _columns(connection, records, [ID, SERIES, PRODUCER, ENTRY, MESSAGE, *names], chosen)
    ids = list(map(bytes, plain(values[ID])))
    if not ids:
        return {ID: []}
    common = ledger.common
    stored: dict[str, Any] = {ID: ids, ENTRY: values[ENTRY], MESSAGE: _repeated(values[MESSAGE])}
    stored[PRODUCER] = Lookup(common.producers, ["name"]).columns(connection, PRODUCER, values[PRODUCER])["name"]
    stored[RECEIVED] = Lookup(common.entries, ["at"]).columns(connection, ENTRY, values[ENTRY])["at"]
    stored |= series.columns(connection, SERIES, values[SERIES])
    # In the order of the declaration, so that people find their way in the file.
    order = (*tables.kind.names, *step_columns(tables.kind))
    return stored | {name: stored.get(name, values.get(name, ())) for name in order}


def _columns(connection: Connection, table: Table, names: Sequence[str], chosen: ColumnElement[bool]) -> Stored:
    """Columns of rows in order of their ids. Those that say the same throughout, most of a wide kind, cost little."""
    question, key = select(*(table.c[name] for name in names)).where(chosen), table.c[ID]
    # From both ends: what changes with time is seen.
    sample = [row for order in (key, key.desc()) for row in connection.execute(question.order_by(order).limit(SAMPLE))]
    likely = {
        name: values[0] for name, values in zip(names, zip(*sample, strict=True), strict=False) if _is_one(values)
    }
    for name in _differing(connection, table, likely, chosen):
        del likely[name]
    found = read_columns(connection, table, [name for name in names if name == ID or name not in likely], chosen)
    places = np.zeros(len(found[ID]), np.int64)
    return {**found, **{name: Repeated([value], places) for name, value in likely.items() if name != ID}}


def _differing(
    connection: Connection, table: Table, likely: Mapping[str, Any], chosen: ColumnElement[bool]
) -> list[str]:
    """Which columns do not have these values throughout."""
    others = {name: table.c[name].is_distinct_from(value) for name, value in likely.items()}
    # Mostly none: to ask for any costs half as much as to ask which.
    some = select(table.c[ID]).where(chosen, or_(false(), *others.values())).limit(1)
    if connection.execute(some).first() is None:
        return []
    counts = connection.execute(select(*(func.sum(case((each, 1), else_=0)) for each in others.values())).where(chosen))
    return [name for name, count in zip(others, counts.one(), strict=True) if count]


def _is_one(values: Sequence[Any]) -> bool:
    return values.count(values[0]) == len(values)


def read_columns(
    connection: Connection, table: Table, names: Sequence[str], chosen: ColumnElement[bool]
) -> Mapping[str, Listed]:
    """Columns of rows in order of their ids, in the way that takes less time."""
    columns = [table.c[name] for name in names]
    if are_told_by_texts(connection, columns):
        found = dict(zip(names, read_by_texts(connection, columns, chosen), strict=True))
        # It is that of the table's key, but nobody promises it; to ask for it makes SQLite copy the rows.
        if found[ID] == sorted(found[ID]):
            return found
    return listed(connection, table, names, chosen)


def listed(
    connection: Connection, table: Table, names: Sequence[str], chosen: ColumnElement[bool], *, locked: bool = False
) -> dict[str, list[Any]]:
    """Columns of rows in order of their ids, to be kept from others until the transaction's end if they are locked.

    Rows come some at a time, so that they are never all in memory.
    """
    columns: dict[str, list[Any]] = {name: [] for name in names}
    question = select(*(table.c[name] for name in names)).where(chosen).order_by(table.c[ID])
    for rows in connection.execute(question.with_for_update() if locked else question).partitions(LOOKED_UP):
        for column, values in zip(columns.values(), zip(*rows, strict=True), strict=True):
            column.extend(values)
    return columns


def _repeated(values: Values) -> Repeated:
    """A column of bytes that come again."""
    if isinstance(values, Repeated):
        return Repeated(list(map(bytes, values.values)), values.places)
    places: dict[bytes, int] = {}
    found = [places.setdefault(bytes(value), len(places)) for value in values]
    return Repeated(list(places), np.array(found, np.int64))


def _distinct(numbers: Values) -> tuple[list[int], Integers]:
    """Each number once, and the place of each record's."""
    if isinstance(numbers, Repeated):
        return list(numbers.values), numbers.places
    distinct, places = np.unique(np.asarray(numbers, np.int64), return_inverse=True)
    return distinct.tolist(), places


class Lookup:
    """Columns of another table by its key; what was read is remembered."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        """Nothing is read yet."""
        self._table = table
        self._names = names
        self._forget()

    def _forget(self) -> None:
        self._row_of: dict[int, int] = {}
        self._values: list[dict[Any, int]] = [{} for _ in self._names]
        self._places = np.zeros((0, len(self._names)), np.int32)

    def columns(self, connection: Connection, key: str, numbers: Values) -> dict[str, Repeated]:
        """The columns of the row of each number."""
        distinct, records = _distinct(numbers)
        self._learn(connection, key, distinct)
        rows = np.array([self._row_of[number] for number in distinct], np.int64)
        places = self._places[rows].T
        return {
            name: Repeated(list(values), places[column][records])
            for column, (name, values) in enumerate(zip(self._names, self._values, strict=True))
        }

    def _learn(self, connection: Connection, key: str, numbers: list[int]) -> None:
        missing = [number for number in numbers if number not in self._row_of]
        if len(self._row_of) + len(missing) > REMEMBERED:
            self._forget()
            missing = numbers
        column = self._table.c[key]
        question = select(column, *(self._table.c[name] for name in self._names))
        for first in range(0, len(missing), LOOKED_UP):
            rows = connection.execute(question.where(column.in_(missing[first : first + LOOKED_UP]))).all()
            found, *columns = zip(*rows, strict=True)
            self._row_of.update(zip(found, itertools.count(len(self._row_of))))
            places = [
                [values.setdefault(value, len(values)) for value in column]
                for values, column in zip(self._values, columns, strict=True)
            ]
            self._places = np.concatenate((self._places, np.array(places, np.int32).T))
