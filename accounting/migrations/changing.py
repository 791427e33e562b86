"""Changes the tables of a kind until they are what its declaration wants."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, Final

import numpy as np
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, Table, bindparam, delete, inspect, or_, select, update

from accounting import LedgerError
from accounting.booking.buckets import tiers_at
from accounting.booking.counters import booked_columns
from accounting.booking.limits import every_excess
from accounting.booking.postings import account_of, by_end, prorated
from accounting.booking.snapshot_booking import seen
from accounting.booking.snapshots import as_rows
from accounting.migrations.differences import FROM, Change
from accounting.migrations.filling import enter_series, take_over
from accounting.migrations.meaning import Place, Spot
from accounting.migrations.refusing import refuse_missing
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import COUNTER, ID, PREVIOUS, SERIES, field_columns, is_bucketed, sum_column
from siteward.records import Kind
from siteward.records.identity import HASH_BYTES, ID_BYTES
from siteward.server.database import Dialect
from siteward.server.database.columns import integer_column, text_column

AT_ONCE: Final = 10_000
"""Records in memory while sums are computed anew."""


def change_tables(connection: Connection, dialect: Dialect, tables: Tables, changes: Collection[Change]) -> None:
    """Make missing tables and columns, and room for longer texts.

    What is there already is left as it is: a process that died may have come half way.
    """
    tables.records.metadata.create_all(connection, tables.all)
    for table in tables.all:
        for index in table.indexes:
            # MariaDB makes it by a statement of its own.
            index.create(connection, checkfirst=True)
    operations = Operations(MigrationContext.configure(connection))
    for table in tables.all:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                operations.add_column(table.name, _fresh(tables, table, str(column.name)))
    for change in changes:
        if change.spot:
            _change_column(connection, operations, tables, change, change.spot)
    # After all columns are there: a series is made of all of its dimensions.
    for change in filter(is_moved, changes):
        assert change.spot is not None
        enter_series(connection, dialect, tables, change.spot[1])


def _change_column(connection: Connection, operations: Operations, tables: Tables, change: Change, spot: Spot) -> None:
    if change.what.startswith("length"):
        for table in _tables(tables, spot[0]):
            _widen(operations, connection, table, change)
    elif spot[0] is Place.RECORDS and change.present.startswith(FROM):
        take_over(connection, tables, spot[1])
    elif spot[1] == PREVIOUS:
        _link(connection, tables)
    elif change.present == "left" and spot[0] is not Place.SUMS:
        _fill(connection, tables, *spot)


def is_moved(change: Change) -> bool:
    """Whether a dimension of records enters their series, so that all of them are booked anew."""
    return change.spot is not None and change.spot[0] is Place.SERIES and change.present.startswith(FROM)


def _fresh(tables: Tables, table: Table, name: str) -> Column[Any]:
    """A column like that of a table, which belongs to it already."""
    if table in (tables.series, *tables.of_records) and name in tables.kind.column:
        beside = [each for each in tables.kind.columns if is_bucketed(each) is (table is tables.series)]
        return next(column for column in field_columns(beside) if column.name == name)
    return integer_column(name, optional=True) if table.c[name].nullable else sum_column(name)


def _tables(tables: Tables, place: Place) -> list[Table]:
    return [tables.series] if place is Place.SERIES else tables.of_records


def _widen(operations: Operations, connection: Connection, table: Table, change: Change) -> None:
    assert change.spot is not None
    wanted = table.c[change.spot[1]]
    old = text_column(str(wanted.name), int(change.present)).type
    # Where texts have no length there is nothing to do.
    if old.compile(connection.dialect) != wanted.type.compile(connection.dialect):
        operations.alter_column(
            table.name,
            str(wanted.name),
            type_=wanted.type,
            existing_type=old,
            existing_nullable=False,
            existing_server_default=wanted.server_default,
        )


def _fill(connection: Connection, tables: Tables, place: Place, name: str) -> None:
    """Rows of the time without the column have its default from now on, unless it may be unknown."""
    column = tables.kind.column[name]
    if not column.optional and column.default is not None:
        default = int(column.default) if isinstance(column.default, bool) else column.default
        for table in _tables(tables, place):
            connection.execute(update(table).where(table.c[name].is_(None)).values({name: default}))


def _link(connection: Connection, tables: Tables) -> None:
    """Every record of a counter says from now on when the one before it was."""
    refuse_missing(connection, tables)
    records = tables.records
    identifier, number, time = records.c[ID], records.c[COUNTER], records.c[tables.kind.time]
    question = select(identifier, number, time).order_by(number, time).limit(AT_ONCE)
    statement = update(records).where(identifier == bindparam("the_id")).values({PREVIOUS: bindparam("the_previous")})
    reached: tuple[int, int] | None = None
    while True:
        # In a form that every database reads by its index.
        beyond = [] if reached is None else [number >= reached[0], or_(number > reached[0], time > reached[1])]
        links = []
        for the_id, *spot in connection.execute(question.where(*beyond)).all():
            previous = reached[1] if reached is not None and reached[0] == spot[0] else None
            links.append({"the_id": the_id, "the_previous": previous})
            reached = spot[0], spot[1]
        if not links:
            return
        connection.execute(statement, links)


def recompute(
    connection: Connection, dialect: Dialect, tables: Tables, summed: Table, names: Collection[str] | None, now: int
) -> int:
    """Set some sums anew from the records, all in the caller's transaction; how many records there were.

    Of snapshots all buckets: what was last, least and most goes with the sums.

    Args:
        connection: of the transaction.
        dialect: of the database.
        tables: of the kind.
        summed: the table of months whose sums are kept.
        names: of the sums; None for all buckets, where records have got other series.
        now: microseconds since 1970 UTC; buckets are as wide as they are then.

    Raises:
        LedgerError: a record would exceed what a bucket holds, or records are no longer there.
    """
    kind = tables.kind
    refuse_missing(connection, tables)
    if isinstance(tables, SnapshotTables):
        return _remake(connection, dialect, tables, names or (), now)
    for table in (tables.prorated, tables.by_end):
        mine = [name for name in names or () if name in table.c]
        if mine:
            connection.execute(update(table).values(dict.fromkeys(mine, 0)))
        if names is None:
            connection.execute(delete(table))
        if mine or names is None:
            connection.execute(delete(summed).where(summed.c.bucket_table == table.name))
    every = {str(column.name) for table in tables.bucket_tables for column in table.columns}
    wanted = every if names is None else names
    tiers, count = tiers_at(now, kind.tiers), 0
    for rows in _portions(connection, tables.records):
        count += len(rows)
        _refuse_large(kind, rows, wanted)
        columns = booked_columns(kind, rows)
        account = account_of(kind, columns, np.array([row[SERIES] for row in rows], np.int64))
        account.amounts = {name: values for name, values in account.amounts.items() if name in wanted}
        account.whole = {name: values for name, values in account.whole.items() if name in wanted}
        for table, posted in ((tables.prorated, prorated(account, tiers)), (tables.by_end, by_end(account, tiers))):
            sums = {name: values for name, values in posted.sums.items() if name in wanted}
            if sums:
                dialect.accumulate(connection, table, posted.keys, sums)
    return count


def _remake(connection: Connection, dialect: Dialect, tables: SnapshotTables, names: Collection[str], now: int) -> int:
    connection.execute(delete(tables.buckets))
    tiers, count = tiers_at(now, tables.kind.tiers), 0
    rest: list[Any] = []
    for portion in chain(_portions(connection, tables.records), [[]]):
        rows = rest + portion
        # All records of an instant have to be together; ids begin with its millisecond.
        last = bytes(portion[-1][ID])[: ID_BYTES - HASH_BYTES] if portion else None
        rest = [row for row in rows if bytes(row[ID])[: ID_BYTES - HASH_BYTES] == last]
        rows = rows[: len(rows) - len(rest)]
        if rows:
            count += len(rows)
            _refuse_large(tables.kind, rows, names)
            found = as_rows(rows, tables)
            posted = seen(tables.kind, found.columns, found.series, tiers)
            dialect.accumulate(connection, tables.buckets, posted.keys, posted.sums)
    return count


def _portions(connection: Connection, records: Table) -> Iterator[list[Any]]:
    last = b""
    while True:
        following = select(records).where(records.c[ID] > last).order_by(records.c[ID]).limit(AT_ONCE)
        rows = list(connection.execute(following).mappings())
        if not rows:
            return
        yield rows
        last = bytes(rows[-1][ID])


def _refuse_large(kind: Kind, rows: list[Any], names: Collection[str]) -> None:
    columns = {name: [row[name] for row in rows] for name in kind.names if name in rows[0]}
    for position, refused in chain.from_iterable(every_excess(kind, columns).values()):
        if refused.field in kind.products and refused.field in names:
            message = f"record {bytes(rows[position][ID]).hex()}: {refused}; nothing was changed"
            raise LedgerError(message)
