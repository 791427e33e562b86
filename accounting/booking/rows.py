"""Records as rows of their tables: read with their dimensions, written in the order of their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, Table, bindparam, delete, select, update

from accounting.booking.counters import booked_columns
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.postings import Account, account_of
from accounting.snapshot_tables import Tables
from accounting.tables import ID, SERIES, is_bucketed
from siteward.records import Kind
from siteward.server.database import Columns, Dialect

Row = dict[str, Any]
"""A record: every field of its kind by name, and the columns of our own."""


def whole_rows(tables: Tables, table: Table) -> Select[Any]:
    """The records of a table with all their fields, in order of their ids; to be narrowed by conditions."""
    bucketed = [tables.series.c[column.name] for column in tables.kind.columns if is_bucketed(column)]
    return (
        select(*table.columns, *bucketed)
        .select_from(table.join(tables.series, table.c[SERIES] == tables.series.c[SERIES]))
        .order_by(table.c[ID])
    )


def rows_of(connection: Connection, tables: Tables, table: Table, ids: Sequence[bytes]) -> dict[bytes, Row]:
    """The records with these ids that a table has."""
    found: dict[bytes, Row] = {}
    for first in range(0, len(ids), AT_ONCE):
        chosen = whole_rows(tables, table).where(table.c[ID].in_(ids[first : first + AT_ONCE]))
        found |= {bytes(row[ID]): dict(row) for row in connection.execute(chosen).mappings()}
    return found


def put_rows(connection: Connection, dialect: Dialect, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert records that the table does not have; how many they were."""
    if not rows:
        return 0
    ordered = sorted(rows, key=lambda row: bytes(row[ID]))
    columns: Columns = {column.name: [row[column.name] for row in ordered] for column in table.columns}
    return dialect.insert_new(connection, table, columns)


def replace_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write other values into records that the table has."""
    if not rows:
        return
    names = [column.name for column in table.columns if column.name != ID]
    statement = (
        update(table)
        .where(table.c[ID] == bindparam("the_id"))
        .values({name: bindparam(f"new{name}") for name in names})
    )
    ordered = sorted(rows, key=lambda row: bytes(row[ID]))
    connection.execute(
        statement, [{"the_id": row[ID]} | {f"new{name}": row[name] for name in names} for row in ordered]
    )


def remove_rows(connection: Connection, table: Table, ids: Sequence[bytes]) -> None:
    """Take records out of a table."""
    for first in range(0, len(ids), AT_ONCE):
        connection.execute(delete(table).where(table.c[ID].in_(ids[first : first + AT_ONCE])))


def account_of_rows(kind: Kind, rows: Sequence[Mapping[str, Any]], sign: int) -> Account:
    """Records as an account; see `accounting.booking.postings.account_of`."""
    columns = booked_columns(kind, rows)
    return account_of(kind, columns, np.array([row[SERIES] for row in rows], np.int64), sign)


def plain(value: Any) -> Any:  # noqa: ANN401  # of any column.
    """A value as drivers take it."""
    return value.item() if isinstance(value, np.generic) else value
