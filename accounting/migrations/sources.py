"""Fills columns that a kind has gained from what its records have said elsewhere all the time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnClause, Connection, cast, column, func, select, table, update

from accounting.archive.archive_file import former_of
from accounting.booking.dictionary import digest_of
from accounting.snapshot_tables import Tables
from accounting.tables import DIGEST, SERIES, is_bucketed
from siteward.records import Type
from siteward.server.database import Dialect


def take_over(connection: Connection, tables: Tables, name: str) -> None:
    """Records of before say in a measure what they said in the field whose place it has taken.

    All of them: no writer knows the measure yet, and where it is there already it is the default, or of an attempt that
    was killed.
    """
    former = former_of(tables.kind.column[name])
    assert former is not None
    for each in tables.of_records:
        said: ColumnClause[Any] = column(former.name)
        value = cast(func.round(said * former.times), BigInteger)
        records = table(each.name, said, column(name))
        connection.execute(update(records).where(said.is_not(None)).values({name: value}))


def enter_series(connection: Connection, dialect: Dialect, tables: Tables, name: str) -> None:
    """A dimension of records is one of their series from now on: each gets the number of the one that it belongs to."""
    default = tables.kind.column[name].default
    for each in tables.of_records:
        records = table(each.name, column(SERIES), column(name))
        number, said = records.columns
        spots = [tuple(row) for row in connection.execute(select(number, said).distinct()) if row[1] != default]
        for old, value in spots:
            new = _series_with(connection, dialect, tables, old, name, value)
            connection.execute(update(records).where(number == old, said == value).values({SERIES: new}))


def _series_with(connection: Connection, dialect: Dialect, tables: Tables, number: int, name: str, value: Any) -> int:  # noqa: ANN401  # of any dimension.
    """The number of the series that is like another one, but for one dimension; it is made where there is none."""
    series = tables.series
    columns = [each for each in tables.kind.columns if is_bucketed(each)]
    row: dict[str, Any] = dict(connection.execute(select(series).where(series.c[SERIES] == number)).mappings().one())
    row = {each.name: row[each.name] for each in columns} | {name: value}
    for each in columns:
        if each.type is Type.BOOLEAN and row[each.name] is not None:
            row[each.name] = bool(row[each.name])
    digest = digest_of(list(row), tuple(row.values()), [each.default for each in columns])
    dialect.insert_new(connection, series, {DIGEST: [digest], **{key: [each] for key, each in row.items()}})
    return int(connection.execute(select(series.c[SERIES]).where(series.c[DIGEST] == digest)).scalar_one())
