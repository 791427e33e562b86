"""Rows of one key become one in the same way on every database, upserted or put together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import searched
from sqlalchemy import FromClause, MetaData, Select, Table, literal_column, select

from siteward.server.database import Database
from siteward.server.database.columns import integer_column
from siteward.server.database.merging import Merge, Rule, merged_by, merged_rows, with_latest

Open = Callable[[], Database]
Row = tuple[int, int | None, int]
"""Key, value and instant."""
KEYS: Final = 10


def table_of(metadata: MetaData) -> Table:
    """One column of each sort; `last` is what was said at the greatest `at`."""
    return Table(
        "merging_rows",
        metadata,
        integer_column("key", key=True),
        integer_column("count", default=0),
        merged_by(integer_column("least", optional=True), Rule(Merge.LEAST)),
        merged_by(integer_column("most", optional=True), Rule(Merge.GREATEST)),
        # Before what it decides: MariaDB assigns in order, and would see the new instant already.
        merged_by(integer_column("at", optional=True), Rule(Merge.GREATEST)),
        merged_by(integer_column("last", optional=True), Rule(Merge.LATEST, "at")),
    )


@pytest.fixture
def place(open_database: Open) -> tuple[Database, Table]:
    """A database with the table, empty."""
    metadata = MetaData()
    table = table_of(metadata)
    database = open_database()
    metadata.create_all(database.engine)
    return database, table


def add(database: Database, table: Table, rows: list[Row]) -> None:
    """Upsert rows of a key, a value and an instant, one after the other."""
    for key, value, at in rows:
        values = np.array([value]) if value is not None else [None]
        sums: dict[str, Any] = {"count": np.array([1]), "least": values, "most": values, "at": np.array([at])}
        with database.write() as connection:
            database.dialect.accumulate(connection, table, {"key": np.array([key])}, {**sums, "last": values})


def found(database: Database, table: Table) -> dict[int, tuple[Any, ...]]:
    with database.read() as connection:
        return {row.key: tuple(row)[1:] for row in connection.execute(select(table))}


def due(rows: list[Row], of: Callable[[int], int]) -> dict[int, tuple[Any, ...]]:
    """The same, by hand."""
    merged: dict[int, list[tuple[int | None, int]]] = {}
    for key, value, at in rows:
        merged.setdefault(of(key), []).append((value, at))
    result = {}
    for key, members in merged.items():
        known = [value for value, _ in members if value is not None]
        last, at = max(members, key=lambda member: member[1])
        result[key] = len(members), min(known, default=None), max(known, default=None), at, last
    return result


rows_of: Final = st.lists(
    st.tuples(st.integers(0, 2 * KEYS - 1), st.none() | st.integers(-5, 5), st.integers(0, 1000)),
    unique_by=lambda row: row[2],
    max_size=12,
)


@searched(8)
@given(rows=rows_of)
def test_columns_merge_as_they_say(place: tuple[Database, Table], rows: list[Row]) -> None:
    """Upserted one by one, then put together by tens: sums, least, most and last are those of all the rows."""
    database, table = place
    with database.write() as connection:
        connection.execute(table.delete())
    add(database, table, rows)
    assert found(database, table) == due(rows, lambda key: key)

    def tens(source: FromClause) -> Select[Any]:
        source = with_latest(table, source, [source.c.key % literal_column("10")])
        key = source.c.key % literal_column("10")
        return select(key.label("key"), *merged_rows(table, source)).group_by(key)

    with database.write(repeatable=True) as connection:
        went = database.dialect.move(connection, table, table.c.key >= KEYS, tens)
    assert went == len({key for key, _, _ in rows if key >= KEYS})
    assert found(database, table) == due(rows, lambda key: key % KEYS)


def test_many_merge_at_once(place: tuple[Database, Table]) -> None:
    """Four writers of one row, the latest instants first: what is there at the end is that of all of them."""
    database, table = place
    rows: list[Row] = [(0, (at * 37) % 101, at) for at in range(80)]
    errors: list[BaseException] = []

    def write(place: int) -> None:
        try:
            add(database, table, rows[place::4][::-1])
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found(database, table) == due(rows, lambda key: key)
