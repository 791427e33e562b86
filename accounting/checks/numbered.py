"""Whether what is known by its number is still what it was numbered as: series, producers and counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Column, Connection, Table, column, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.buckets import DAY, SECOND
from accounting.booking.dictionary import AT_ONCE, digest_of
from accounting.booking.numbers import bucketed
from accounting.ledger import Ledger
from accounting.migrations.meaning import Meaning, Place
from accounting.migrations.standing import standing_in
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import CLOSING, COUNTER, DIGEST, PRODUCER, SERIES, START, KindTables
from siteward.records import Kind, Type

Window = tuple[int | None, int | None]
"""First instant and first one after it, microseconds since 1970 UTC; None without an end on that side."""
_LONGEST_MONTH: Final = 31 * DAY
PUT_BACK: Final = "somebody changed it, or the database was put back from a backup while an older Siteward wrote"


class BadNumber(msgspec.Struct, frozen=True):
    """A row that is not what it was numbered as, or a number that no row has.

    Attributes:
        kind: whose records are counted under it.
        table: of the rows.
        number: which.
        why: in one sentence.
    """

    kind: str
    table: str
    number: int
    why: str


class _Numbered(msgspec.Struct):
    """Rows of one table that are known by their numbers.

    Attributes:
        table: their number first, their digest second.
        defaults: of the columns that take part in the digest, by name.
        booleans: those of them that are true or false.
        users: columns that hold the numbers, each with the condition of the window.
    """

    table: Table
    defaults: Mapping[str, Any]
    booleans: frozenset[str]
    users: Sequence[tuple[Column[int], Sequence[ColumnElement[bool]]]]


def wrong_numbers(connection: Connection, ledger: Ledger, tables: Tables, window: Window) -> Iterator[BadNumber]:
    """Look at every row under whose number anything of some days is counted.

    Args:
        connection: a transaction that sees one state.
        ledger: whose.
        tables: of the kind.
        window: whose days.
    """
    for numbered in _all_of(connection, ledger, tables, window):
        users: dict[int, str] = {}
        for user, within in numbered.users:
            for number in connection.scalars(select(user).where(*within).distinct()):
                users.setdefault(int(number), str(user.table.name))
        for number, why in _wrong(connection, numbered, users):
            yield BadNumber(tables.kind.name, numbered.table.name, number, why)


def _all_of(connection: Connection, ledger: Ledger, tables: Tables, window: Window) -> Iterator[_Numbered]:
    """What is counted under numbers: sums under series, records under counters, arrivals and looks under producers."""
    kind, common = tables.kind, ledger.common
    producers = [_user(common.arrivals, PRODUCER, "hour", window, common.arrivals.c.kind == kind.name)]
    if isinstance(tables, SnapshotTables):
        yield _series(connection, tables, [_user(tables.buckets, SERIES, START, window)])
        producers.append(_user(tables.cycles, PRODUCER, START, window))
    else:
        users = [_user(table, SERIES, START, window) for table in tables.bucket_tables]
        users.append((tables.adjustments.c[SERIES], _of_closings(connection, tables, common.periods, window)))
        yield _series(connection, tables, users)
        if tables.counters is not None:
            micros = _within(tables.records.c[kind.time], window, 1)
            defaults = dict.fromkeys(("vo", *kind.counted_by))
            counted = [(tables.records.c[COUNTER], micros)]
            yield _Numbered(tables.counters, defaults, _booleans(kind), counted)
    yield _Numbered(common.producers, {"name": None}, frozenset(), producers)


def _series(connection: Connection, tables: Tables, users: Sequence[Any]) -> _Numbered:
    """Series by the dimensions of their kind, and by those that it had once."""
    kind = tables.kind
    lost: dict[str, Meaning] = {
        name: each.meaning
        for (place, name), each in standing_in(connection, kind.name).items()
        if place is Place.SERIES and each.lost
    }
    defaults = {column.name: column.default for column in bucketed(kind)}
    defaults |= {name: meaning.default for name, meaning in lost.items()}
    booleans = _booleans(kind) | {name for name, meaning in lost.items() if meaning.type == str(Type.BOOLEAN)}
    return _Numbered(tables.series, defaults, booleans, users)


def _booleans(kind: Kind) -> frozenset[str]:
    return frozenset(column.name for column in kind.columns if column.type is Type.BOOLEAN)


def _user(
    table: Table, of: str, start: str, window: Window, *conditions: ColumnElement[bool]
) -> tuple[Column[int], Sequence[ColumnElement[bool]]]:
    return table.c[of], [*conditions, *_within(table.c[start], window, SECOND)]


def _of_closings(
    connection: Connection, tables: KindTables, periods: Table, window: Window
) -> list[ColumnElement[bool]]:
    """Adjustments of months that have a part in the window: their key begins with the closing, not with the time."""
    if window == (None, None):
        return []
    first, last = window
    begin = None if first is None else first - _LONGEST_MONTH * SECOND
    months = _within(periods.c.month, (begin, last), SECOND)
    closings = connection.scalars(select(periods.c.closing).where(periods.c.kind == tables.kind.name, *months))
    return [tables.adjustments.c[CLOSING].in_(closings.all())]


def _within(time: Column[int], window: Window, unit: int) -> list[ColumnElement[bool]]:
    first, last = window
    return [
        *([] if first is None else [time >= first // unit]),
        *([] if last is None else [time < -(-last // unit)]),
    ]


def _wrong(connection: Connection, numbered: _Numbered, users: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    """Numbers of which something is not right, and what."""
    number, names, defaults = numbered.table.c[0], list(numbered.defaults), list(numbered.defaults.values())
    # A column that the kind has lost is in the database, and not in the declaration of the table.
    columns: list[Any] = [numbered.table.c.get(name, column(name)) for name in names]
    used = sorted(users)
    for first in range(0, len(used), AT_ONCE):
        portion = used[first : first + AT_ONCE]
        missing = set(portion)
        for found, digest, *values in connection.execute(
            select(number, numbered.table.c[DIGEST], *columns).where(number.in_(portion))
        ):
            missing.discard(int(found))
            row = tuple(
                bool(value) if name in numbered.booleans and value is not None else value
                for name, value in zip(names, values, strict=True)
            )
            if digest_of(names, row, defaults) != bytes(digest):
                said = ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True) if value)
                yield int(found), f"its row is not what it was numbered as: {said}; {PUT_BACK}"
        for each in sorted(missing):
            yield each, f"{users[each]} counts under it, and there is no such row; {PUT_BACK}"
