"""Columns that are read as texts say what their rows do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, MetaData, Table, create_engine, select, text, true

from accounting.archive.archive_file import ArchiveError, plain
from accounting.archive.archiving import AT_ONCE
from accounting.archive.column_texts import LONGEST, are_told_by_texts, read_by_texts
from accounting.archive.record_columns import read_columns
from accounting.tables import ID
from siteward.server.database.columns import bytes_column, float_column, integer_column, text_column

whole = st.integers(-(2**63), 2**63 - 1)
rows = st.fixed_dictionaries(
    {
        ID: st.binary(max_size=20),
        "number": whole,
        "perhaps": st.none() | whole,
        "text": st.text(st.characters(exclude_categories=["Cs"])),
    }
)
table = Table(
    "rows",
    MetaData(),
    integer_column("place", key=True),
    bytes_column(ID, 20),
    integer_column("number"),
    integer_column("perhaps", optional=True),
    text_column("text", LONGEST),
    float_column("half", optional=True),
    text_column("long", LONGEST + 1, default=""),
)
NAMES = [ID, "number", "perhaps", "text"]
COLUMNS = [table.c[name] for name in NAMES]


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        table.create(opened)
        yield opened
    engine.dispose()


def fill(connection: Connection, given_: list[dict[str, Any]]) -> None:
    connection.execute(table.delete())
    if given_:
        connection.execute(table.insert(), [{"place": place} | row for place, row in enumerate(given_)])


@given(given_=st.lists(rows, max_size=8))
def test_texts_say_what_rows_do(connection: Connection, given_: list[dict[str, Any]]) -> None:
    """Whatever the rows hold: any character, the widest numbers, nothing."""
    fill(connection, given_)
    found = read_by_texts(connection, COLUMNS, true())
    told = list(zip(*(plain(values) for values in found), strict=True))
    assert told == [tuple(row) for row in connection.execute(select(*COLUMNS).order_by(table.c.place))]


def test_numbers_all_known_are_an_array(connection: Connection) -> None:
    """No object is made for each of them."""
    fill(connection, [{ID: b"", "number": each, "perhaps": each or None, "text": ""} for each in range(3)])
    _, numbers, perhaps, _ = read_by_texts(connection, COLUMNS, true())
    assert isinstance(numbers, np.ndarray)
    assert perhaps == [None, 1, 2]


def test_a_files_longest_texts_fit() -> None:
    """However their characters are written; SQLite takes no text of more bytes."""
    assert 6 * LONGEST * AT_ONCE < 10**9


@pytest.mark.parametrize("name", ["half", "long"])
def test_other_columns_are_read_by_rows(connection: Connection, name: str) -> None:
    """A text would round numbers with a binary point, and not hold very long ones."""
    assert are_told_by_texts(connection, COLUMNS)
    assert not are_told_by_texts(connection, [*COLUMNS, table.c[name]])


def test_columns_come_in_order_of_their_ids(connection: Connection) -> None:
    """Whatever order the table is in."""
    fill(connection, [{ID: bytes([each]), "number": each, "perhaps": None, "text": str(each)} for each in (2, 3, 1)])
    found = read_columns(connection, table, NAMES, true())
    assert [plain(found[name]) for name in ("number", "text")] == [[1, 2, 3], ["1", "2", "3"]]


@pytest.mark.parametrize("broken", ["'many'", "1.5", "'null'"])
def test_what_is_no_number_is_an_error(broken: str) -> None:
    """Such as in a damaged file: nothing is read past it."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE TABLE rows ({ID} BLOB, "number" ANY) STRICT'))
        connection.execute(text(f"INSERT INTO rows VALUES (x'00', 1), (x'01', {broken}), (x'02', 3)"))
        with pytest.raises(ArchiveError, match="number holds what is not of its type"):
            read_by_texts(connection, [table.c.number], true())
    engine.dispose()


def test_bytes_that_are_no_number_are_an_error() -> None:
    """As above; SQLite says so itself."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE rows (number ANY) STRICT"))
        connection.execute(text("INSERT INTO rows VALUES (x'00')"))
        with pytest.raises(Exception, match="JSON cannot hold BLOB values") as caught:
            read_by_texts(connection, [table.c.number], true())
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    engine.dispose()
