"""Fills columns that a kind has gained from what its records have said elsewhere all the time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnClause,
    Connection,
    Integer,
    Table,
    TableClause,
    Update,
    bindparam,
    column,
    func,
    inspect,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.sql import ColumnElement

from accounting import LedgerError
from accounting.booking.dictionary import AT_ONCE as KEYS
from accounting.booking.dictionary import REMEMBERED, digest_of
from accounting.snapshot_tables import Tables
from accounting.tables import DIGEST, SERIES, is_bucketed
from siteward.records import Former, Type
from siteward.records.fields import INT64_MAX, INT64_MIN
from siteward.server.database import Dialect

AT_ONCE: Final = 10_000
"""Records in memory while they get their series."""
Said = tuple[int, Any]
"""The number of a series, and what a record of it says in a dimension."""


def take_over(connection: Connection, tables: Tables, name: str) -> None:
    """Records of before say in a measure what they said in the field whose place it has taken.

    All of them: no writer knows the measure yet, and where it is there already it is the default, or of an attempt that
    was killed.
    """
    former = tables.kind.column[name].former
    assert former is not None
    for each in tables.of_records:
        if (beyond := _beyond(connection, each, former)) is not None:
            message = (
                f"{tables.kind.name}: a record says {beyond} in {former.name}: no whole number holds {former.times} "
                "times as many; correct it with the version before"
            )
            raise LedgerError(message)
        if _is_whole(connection, each, former.name):
            said: ColumnClause[Any] = column(former.name)
            records = table(each.name, said, column(name))
            connection.execute(update(records).where(said.is_not(None)).values({name: said * former.times}))
        else:
            _take_over_rounded(connection, each, name, former)


def _beyond(connection: Connection, records: Table, former: Former) -> float | None:
    """A value of which the new unit has more than a whole number holds."""
    said: ColumnClause[Any] = column(former.name)
    ends = connection.execute(select(func.min(said), func.max(said)).select_from(table(records.name, said))).one()
    known = [each for each in ends if each is not None]
    return next((each for each in known if not INT64_MIN <= each * former.times <= INT64_MAX), None)


def _is_whole(connection: Connection, records: Table, name: str) -> bool:
    (found,) = (each for each in inspect(connection).get_columns(records.name) if each["name"] == name)
    return isinstance(found["type"], Integer)


def _take_over_rounded(connection: Connection, of_records: Table, name: str, former: Former) -> None:
    """Here, and not in SQL: each database rounds a half in its own way, and files of the archive are read as here."""
    keys = _keys(of_records)
    records = table(of_records.name, *keys, column(former.name), column(name))
    statement = _by_keys(update(records), keys).values({name: bindparam("the_value")})
    for rows in _portions(connection, records, keys):
        told = [(key, former.value(said)) for *key, said, _ in rows if said is not None]
        if told:
            connection.execute(statement, [{"the_value": value, **_bound(keys, key)} for key, value in told])


def enter_series(connection: Connection, dialect: Dialect, tables: Tables, name: str) -> None:
    """A dimension of records is one of their series from now on: each gets the number of the one that it belongs to."""
    default = tables.kind.column[name].default
    known: dict[Said, int] = {}
    for each in tables.of_records:
        # By their keys, each once: there is no index on series.
        keys = _keys(each)
        records = table(each.name, *keys, column(SERIES), column(name))
        statement = _by_keys(update(records), keys).values({SERIES: bindparam("the_series")})
        for rows in _portions(connection, records, keys):
            said = [(key, (number, value)) for *key, number, value in rows if value != default]
            if missing := {spot for _, spot in said if spot not in known}:
                if len(known) + len(missing) > REMEMBERED:
                    known.clear()
                    missing = {spot for _, spot in said}
                known |= _numbers(connection, dialect, tables, name, missing)
            changed = [
                {"the_series": known[spot], **_bound(keys, values)} for values, spot in said if known[spot] != spot[0]
            ]
            if changed:
                connection.execute(statement, changed)


def _keys(records: Table) -> list[ColumnClause[Any]]:
    """By which a row is found: an id, or an id and a number."""
    return [column(key.name, key.type) for key in records.primary_key]


def _by_keys(statement: Update, keys: Sequence[ColumnClause[Any]]) -> Update:
    return statement.where(*(key == bindparam(f"the_{key.name}") for key in keys))


def _bound(keys: Sequence[ColumnClause[Any]], values: Sequence[Any]) -> dict[str, Any]:
    return {f"the_{key.name}": value for key, value in zip(keys, values, strict=True)}


def _portions(
    connection: Connection, records: TableClause, keys: Sequence[ColumnClause[Any]]
) -> Iterator[Sequence[Any]]:
    """All rows of a table, AT_ONCE at a time, by its key: an id, or an id and a number."""
    question = select(*records.columns).order_by(*keys).limit(AT_ONCE)
    beyond: list[ColumnElement[bool]] = []
    while rows := connection.execute(question.where(*beyond)).all():
        yield rows
        later = [key > value for key, value in zip(keys, rows[-1][: len(keys)], strict=True)]
        # In a form that every database reads by its index.
        beyond = [keys[0] >= rows[-1][0], or_(*later)] if len(keys) > 1 else later


def _numbers(
    connection: Connection, dialect: Dialect, tables: Tables, name: str, spots: Collection[Said]
) -> dict[Said, int]:
    """The numbers of the series that are like others, but for one dimension; those that are not there are made."""
    series = tables.series
    columns = [each for each in tables.kind.columns if is_bucketed(each)]
    names, defaults = [each.name for each in columns], [each.default for each in columns]
    place = names.index(name)
    wanted = [series.c[SERIES], *(series.c[each] for each in names)]
    before: dict[int, list[Any]] = {}
    for part in _parts({number for number, _ in spots}):
        for number, *values in connection.execute(select(*wanted).where(series.c[SERIES].in_(part))):
            before[number] = values
    digests: dict[Said, bytes] = {}
    rows: dict[bytes, list[Any]] = {}
    for number, value in spots:
        row = [*before[number][:place], value, *before[number][place + 1 :]]
        row = [
            bool(said) if each.type is Type.BOOLEAN and said is not None else said
            for each, said in zip(columns, row, strict=True)
        ]
        digest = digests[number, value] = digest_of(names, tuple(row), defaults)
        rows[digest] = row
    # In one order for all writers, so that no two wait for each other.
    ordered = sorted(rows)
    listed = map(list, zip(*(rows[digest] for digest in ordered), strict=True))
    dialect.insert_new(connection, series, {DIGEST: ordered, **dict(zip(names, listed, strict=True))})
    found: dict[bytes, int] = {}
    for part in _parts(ordered):
        chosen = select(series.c[DIGEST], series.c[SERIES]).where(series.c[DIGEST].in_(part))
        found |= {bytes(digest): int(number) for digest, number in connection.execute(chosen)}
    return {spot: found[digest] for spot, digest in digests.items()}


def _parts(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """Keys, as many as one question takes at a time."""
    listed = sorted(keys)
    for first in range(0, len(listed), KEYS):
        yield listed[first : first + KEYS]
