"""Buckets of snapshots made anew where they are not what their records come to, while writing goes on.

Each day is one transaction. It holds up those who write about the producers whose buckets are wrong, looks again, and
replaces what is still wrong. Whoever dies has changed whole days or nothing; called again, a rebuild leaves alone what
is right.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, delete

from accounting.archive.archive_reading import ArchiveReading, Unreadable
from accounting.booking.buckets import DAY
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.snapshots import Snapshots, lock_buckets
from accounting.checks.snapshot_recount import (
    Buckets,
    DayRecount,
    Number,
    TableRecount,
    files_of,
    recount_day,
    snapshot_extent,
)
from accounting.checks.verifying import Scope, untold
from accounting.ledger import Ledger
from accounting.snapshot_tables import SnapshotTables
from accounting.tables import START, WIDTH
from accounting.upkeep.rebuilt import Rebuilt
from siteward.log import get_logger
from siteward.server.database import Conflict

DAYS: Final = 31
"""Of one portion."""
TRIES: Final = 10
log = get_logger(__name__)


def rebuild_snapshots(ledger: Ledger, tables: SnapshotTables, scope: Scope) -> Iterator[Rebuilt]:
    """Make buckets of one kind what their records come to; see `accounting.upkeep.rebuild.rebuild`."""
    reading = ArchiveReading(ledger, scope.folder)
    with ledger.database.read() as connection:
        whole = scope.whole(partial(snapshot_extent, connection, ledger, tables))
    days = list(whole.days) if whole else []
    for first in range(0, len(days), DAYS):
        some = days[first : first + DAYS]
        records = changed = 0
        left_out: list[int] = []
        unreadable: list[Unreadable] = []
        for day in some:
            found, count = _made_right(ledger, tables, reading, day)
            records += found.records
            changed += count
            unreadable += found.unreadable
            left_out += [day] if found.unreadable else []
        missing = tuple(untold(tables.kind.name, left_out, unreadable))
        yield Rebuilt(tables.kind.name, some[0], some[-1] + DAY, records, changed, missing)


def _made_right(ledger: Ledger, tables: SnapshotTables, reading: ArchiveReading, day: int) -> tuple[DayRecount, int]:
    """What was found on a day, and how many buckets were wrong."""
    for _ in range(TRIES):
        with ledger.database.read() as connection:
            found = recount_day(connection, ledger, tables, reading, day)
        wrong = [each.differing for each in found.tables]
        if not any(wrong):
            return found, 0
        try:
            with ledger.database.write() as connection:
                return found, _replaced(connection, ledger, tables, reading, day, found)
        except Conflict as conflict:
            log.debug("rebuilding again", reason=str(conflict))
            time.sleep(0.05)
    message = f"other writers were in the way {TRIES} times"
    raise Conflict(message)


def _replaced(
    connection: Connection,
    ledger: Ledger,
    tables: SnapshotTables,
    reading: ArchiveReading,
    day: int,
    found: DayRecount,
) -> int:
    """Replace what was found wrong and still is; how many buckets that were."""
    ledger.check(connection, tables.kind.name)
    dialect, common = ledger.database.dialect, ledger.common
    of_series, of_producers = found.tables
    # Buckets of a series that is not numbered are nobody's.
    known = (number for number in of_series.differing if number in found.producers)
    producers = {found.producers[number] for number in known} | set(of_producers.differing)
    Snapshots(connection, dialect, tables, common).lock(producers)
    lock_buckets(connection, dialect, common, tables)
    again = recount_day(connection, ledger, tables, reading, day)
    if again.files != files_of(connection, ledger, tables.kind, day) or again.unreadable:
        message = "the day was archived or restored meanwhile"
        raise Conflict(message)
    changed = 0
    for before, each in zip(found.tables, again.tables, strict=True):
        # What others write meanwhile of other producers may have been seen in part.
        wrong = sorted(set(before.differing) & set(each.differing))
        changed += sum(len({cell for cell, *_ in each.differences(number)}) for number in wrong)
        _replace(connection, ledger, each, day, wrong)
    return changed


def _replace(
    connection: Connection, ledger: Ledger, recount: TableRecount, day: int, numbers: Sequence[Number]
) -> None:
    table = recount.table
    within = (table.c[START] >= day) & (table.c[START] < day + DAY)
    for first in range(0, len(numbers), AT_ONCE):
        some = numbers[first : first + AT_ONCE]
        connection.execute(delete(table).where(within, table.c[recount.of].in_(some)))
    rows = sorted(_rows(recount.computed, numbers), key=lambda row: row[:3])
    if rows:
        keys = {name: [row[place] for row in rows] for place, name in enumerate((START, recount.of, WIDTH))}
        values = [values for *_, values in rows]
        sums = {name: [each[name] for each in values] for name in values[0]}
        ledger.database.dialect.accumulate(connection, table, keys, sums)


def _rows(buckets: Buckets, numbers: Sequence[Number]) -> list[tuple[int, Number, int, Mapping[str, Any]]]:
    return [
        (start, number, width, values)
        for number in numbers
        for (start, width), values in buckets.get(number, {}).items()
    ]
