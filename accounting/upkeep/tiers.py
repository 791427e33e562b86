"""Compaction: buckets of a day become fewer and wider when their tier's age has passed, and no total changes.

Buckets of a width that does not divide the tier's, from before the tiers were others, stay until they are as old as one
whose width they do divide; a day's, all do. A slice is one UTC day of one table, and one transaction. A record that
comes late is booked into wide buckets at once. A writer that was slow may still add narrow ones to a day that was
compacted: they count like all others, and the next rounds look at the last days again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import FromClause, Integer, Select, Table, case, func, literal_column, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.buckets import DAY, SECOND, tiers_at
from accounting.booking.snapshots import lock_buckets
from accounting.ledger import Ledger
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import CARRIED, START, WIDTH
from siteward.log import get_logger
from siteward.server.database import Conflict, Grouped
from siteward.server.database.merging import merged_rows, with_latest

AGAIN_DAYS: Final = 2
"""Compacted days that are looked at once more in every round."""
MARK_DAYS: Final = 30
"""Days after which it is noted how far a round has come."""
TRIES: Final = 10
log = get_logger(__name__)


def compact(ledger: Ledger) -> int:
    """Put together whatever is older than its tier; the number of buckets that went into wider ones.

    It may be killed at any moment, goes on where it was, and may run in several processes at once.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer; what was done is done.
    """
    count = 0
    for tables in ledger.all_tables:
        tiers = tiers_at(ledger.clock(), tables.kind.tiers)
        # From narrow to wide: what is older than several tiers goes through all of them.
        for tier in tiers[1:]:
            for table in tables.bucket_tables:
                days = _days(ledger, table, tier.end, tier.width)
                count += sum(_compacted(ledger, tables, table, day, tier.width) for day in days)
    return count


def _days(ledger: Ledger, table: Table, end: int, width: int) -> Iterator[int]:
    """First seconds of the days before `end` that hold anything and are to be looked at, the oldest first.

    Days count as done when the one after them is asked for.
    """
    marks = ledger.common.compacted
    with ledger.database.read() as connection:
        mine = (marks.c.bucket_table == table.name) & (marks.c.width == width)
        done = connection.execute(select(marks.c.until).where(mine)).scalar()
    last = end // SECOND
    begin = min(last, (done or 0) - AGAIN_DAYS * DAY)
    looked_at = 0
    while (day := _next_day(ledger, table, begin, last)) is not None:
        yield day
        begin = day + DAY
        looked_at += 1
        if looked_at % MARK_DAYS == 0:
            _mark(ledger, table, width, begin)
    if done is None or last > done:
        _mark(ledger, table, width, last)


def _next_day(ledger: Ledger, table: Table, begin: int, end: int) -> int | None:
    start = table.c[START]
    with ledger.database.read() as connection:
        found = connection.execute(select(func.min(start)).where(start >= begin, start < end)).scalar()
    return None if found is None else int(found) // DAY * DAY


def _mark(ledger: Ledger, table: Table, width: int, until: int) -> None:
    marks = ledger.common.compacted
    row: dict[str, Any] = {"bucket_table": [table.name], "width": [width], "until": [until]}
    with ledger.database.write() as connection:
        ledger.database.dialect.insert_new(connection, marks, row)
        mine = (marks.c.bucket_table == table.name) & (marks.c.width == width) & (marks.c.until < until)
        connection.execute(marks.update().where(mine).values(until=until))


def _compacted(ledger: Ledger, tables: Tables, table: Table, day: int, width: int) -> int:
    """One day's buckets put together; how many went."""
    columns = table.c
    chosen = (columns[START] >= day) & (columns[START] < day + DAY) & _go_into(columns[WIDTH], width)
    for _ in range(TRIES):
        try:
            with ledger.database.write(repeatable=True) as connection:
                # A process that knows fewer columns than the table would leave their sums behind.
                ledger.check(connection, tables.kind.name)
                if isinstance(tables, SnapshotTables):
                    lock_buckets(connection, ledger.database.dialect, ledger.common, tables)
                return ledger.database.dialect.move(connection, table, chosen, _widening(table, width))
        except Conflict as conflict:
            log.debug("compacting again", reason=str(conflict))
            time.sleep(0.05)
    message = f"other writers were in the way {TRIES} times"
    raise Conflict(message)


def _widening(table: Table, width: int) -> Grouped:
    """What narrow buckets of a table come to in those of a width."""
    of = next(column.name for column in table.primary_key if column.name not in {START, WIDTH})

    def grouped(source: FromClause) -> Select[Any]:
        source = with_latest(table, source, [_first(source, width), source.c[of]])
        first = _first(source, width)
        sums = list(merged_rows(table, source))
        if CARRIED in table.c:
            # Who was running when the wide bucket began is in the first narrow one; later ones tell of the same again.
            carried = func.sum(case((source.c[START] == first, source.c[CARRIED]), else_=literal_column("0")))
            sums = [carried.label(CARRIED) if each.name == CARRIED else each for each in sums]
        return select(
            first.label(START),
            source.c[of].label(of),
            literal_column(str(width)).label(WIDTH),
            *sums,
        ).group_by(first, source.c[of])

    return grouped


def _go_into(narrow: ColumnElement[int], width: int) -> ColumnElement[bool]:
    """Whether buckets are narrower than others, and none lies across the ends of one of those."""
    return (narrow < width) & (literal_column(str(width), Integer) % narrow == 0)


def _first(source: FromClause, width: int) -> ColumnElement[int]:
    # A literal, so that what is grouped by is what is selected.
    start = source.c[START]
    return start - start % literal_column(str(width))
