"""Whether the ledger is what its records say: files of the archive by their digest, buckets by their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from accounting.archive.archive_file import ArchiveError, File, checked_columns
from accounting.archive.archive_reading import ArchiveReading, Unreadable
from accounting.archive.archived_ids import id_range, unpacked
from accounting.archive.archiving import files_in
from accounting.booking.buckets import DAY, SECOND
from accounting.booking.numbers import series_in
from accounting.checks.numbered import BadNumber, wrong_numbers
from accounting.checks.recount import Differences, Slice, extent, recount, slices
from accounting.checks.snapshot_recount import TableRecount, recount_day, snapshot_extent
from accounting.checks.verify_sums import BadMonth, wrong_signatures, wrong_sums
from accounting.ledger import Ledger
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import ID, PRODUCER, SERIES, START, WIDTH, KindTables
from siteward.records import moment
from siteward.usage import Attribution

ASKED_AT_ONCE: Final = 366 * DAY * SECOND
"""Of a window that is looked at whatever there is in it."""


class Difference(msgspec.Struct, frozen=True):
    """A sum that is not what the records come to.

    Attributes:
        kind: of the records.
        attribution: of the buckets.
        start: of the bucket, or of several that lie over each other.
        width: seconds.
        series: its dimensions; of how often a producer looked, that producer.
        measure: what is summed, or counted: `started`, `carried`, `records`; of snapshots also what was least, most
            and last.
        booked: what there is; None where it is not known.
        computed: what there should be.
    """

    kind: str
    attribution: str
    start: datetime
    width: int
    series: dict[str, Any]
    measure: str
    booked: int | None
    computed: int | None


class BadFile(msgspec.Struct, frozen=True):
    """A file of the archive that is not what was written, or holds what is elsewhere too."""

    kind: str
    file: str
    why: str


class Untold(msgspec.Struct, frozen=True):
    """Days whose records are not all there.

    Attributes:
        kind: of the records.
        first: the first day.
        last: the last day.
        why: in one sentence.
    """

    kind: str
    first: datetime
    last: datetime
    why: str

    @property
    def days(self) -> int:
        """How many they are."""
        return (self.last - self.first).days + 1


Finding = Difference | BadFile | BadMonth | BadNumber | Untold


class Counts(msgspec.Struct):
    """How much was looked at."""

    files: int = 0
    archived: int = 0
    """Records in the files."""
    days: int = 0
    records: int = 0
    """As often as a portion of days has a part of them."""
    buckets: int = 0
    differences: int = 0
    """Sums that differ."""
    bad_files: int = 0
    bad_months: int = 0
    bad_numbers: int = 0
    untold: int = 0
    """Days that could not be compared."""


class Scope(msgspec.Struct, frozen=True):
    """What is to be looked at.

    Attributes:
        folder: of the archive; need not be there.
        kinds: names; () for all.
        start: first instant, microseconds since 1970 UTC, None from the first record on. Days are whole.
        end: first instant after it; None to the last record.
    """

    folder: Path
    kinds: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None

    def tables(self, ledger: Ledger) -> list[KindTables]:
        """Those of the kinds."""
        return [tables for name, tables in ledger.tables.items() if not self.kinds or name in self.kinds]

    def snapshots(self, ledger: Ledger) -> list[SnapshotTables]:
        """Those of the kinds of snapshots."""
        return [tables for name, tables in ledger.snapshots.items() if not self.kinds or name in self.kinds]

    def whole(self, extent: Callable[[], Slice | None]) -> Slice | None:
        """The days, of those that there are.

        Args:
            extent: tells these; it looks at all records, and is not asked for what one question of a year tells.
        """
        if self.start is None or self.end is None or self.end - self.start > ASKED_AT_ONCE:
            return self.days(extent())
        return self.days(Slice(self.start // SECOND // DAY * DAY, -(-self.end // (DAY * SECOND)) * DAY))

    def days(self, found: Slice | None) -> Slice | None:
        """Of the days that there are, those within."""
        if found is None:
            return None
        first = found.first if self.start is None else max(found.first, self.start // SECOND // DAY * DAY)
        last = found.last if self.end is None else min(found.last, -(-self.end // (DAY * SECOND)) * DAY)
        return Slice(first, last) if first < last else None


def verify(ledger: Ledger, scope: Scope, counts: Counts) -> Iterator[Finding]:
    """Look at everything, and yield what is not as it should be; writing goes on meanwhile.

    Args:
        ledger: whose.
        scope: what is to be looked at.
        counts: told meanwhile how much was looked at.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.
    """
    for check in CHECKS:
        for finding in check(ledger, scope, counts):
            match finding:
                case Untold():
                    counts.untold += finding.days
                case BadFile():
                    counts.bad_files += 1
                case BadMonth():
                    counts.bad_months += 1
                case BadNumber():
                    counts.bad_numbers += 1
                case _:
                    counts.differences += 1
            yield finding


def checked_files(ledger: Ledger, scope: Scope, counts: Counts) -> Iterator[BadFile]:
    """Each file against its digest, its ids against those that the ledger keeps, and no record in both places."""
    wanted = set(scope.kinds or ledger.kinds)
    with ledger.database.read() as connection:
        listed = [file for file in files_in(connection, ledger) if file.kind in wanted]
    for file in listed:
        counts.files += 1
        counts.archived += file.records
        why = _fault_of(ledger, scope.folder, file)
        if why:
            yield BadFile(file.kind, file.file, why)


def _fault_of(ledger: Ledger, folder: Path, file: File) -> str:
    try:
        columns = checked_columns(folder, file, {ID, "revision"})
    except ArchiveError as error:
        return str(error)
    found = dict(zip(columns[ID], columns["revision"], strict=True))
    archived, records = ledger.common.archived, ledger.tables_of(file.kind).records
    first, last = id_range(file.day)
    with ledger.database.read() as connection:
        mine = (archived.c.kind == file.kind) & (archived.c.day == file.day) & (archived.c.file == file.file)
        ids = connection.execute(select(archived.c.ids).where(mine)).scalar()
        if ids is None:
            return ""  # Restored since it was listed.
        if unpacked(bytes(ids)) != found:
            return "the ids that the ledger keeps of it are not those of its records"
        of_day = select(records.c[ID]).where(records.c[ID] >= first, records.c[ID] < last)
        twice = sum(bytes(row[0]) in found for row in connection.execute(of_day))
    return f"{twice} of its records are in the database too" if twice else ""


def checked_buckets(ledger: Ledger, scope: Scope, counts: Counts) -> Iterator[Difference | Untold]:
    """The buckets of every day against its records, those in the archive too, some days at a time."""
    for tables in scope.tables(ledger):
        reading = ArchiveReading(ledger, scope.folder)
        with ledger.database.read() as connection:
            whole = scope.whole(partial(extent, connection, tables, reading))
            portions = list(slices(connection, tables, whole)) if whole else []
        for days in portions:
            with ledger.database.read() as connection:
                found = recount(connection, ledger, tables, reading, days)
                counts.days += len(days.days) - len(found.left_out)
                counts.records += found.records
                counts.buckets += found.buckets
                differences = [each for one in found.tables for each in told(connection, tables, one)]
            yield from differences
            yield from untold(tables.kind.name, found.left_out, found.unreadable)


def checked_snapshots(ledger: Ledger, scope: Scope, counts: Counts) -> Iterator[Difference | Untold]:
    """The same of snapshots, a day at a time."""
    for tables in scope.snapshots(ledger):
        reading = ArchiveReading(ledger, scope.folder)
        with ledger.database.read() as connection:
            whole = scope.whole(partial(snapshot_extent, connection, ledger, tables))
        left_out: list[int] = []
        unreadable: list[Unreadable] = []
        for day in whole.days if whole else ():
            with ledger.database.read() as connection:
                found = recount_day(connection, ledger, tables, reading, day)
                counts.days += not found.unreadable
                counts.records += found.records
                counts.buckets += found.buckets
                differences = [
                    each for one in found.tables for each in _snapshots_told(connection, ledger, tables, one)
                ]
            yield from differences
            unreadable += found.unreadable
            left_out += [day] if found.unreadable else []
        yield from untold(tables.kind.name, left_out, unreadable)


def checked_months(ledger: Ledger, scope: Scope, _counts: Counts) -> Iterator[BadMonth]:
    """The kept sums of months against their buckets, and signed months against what was signed."""
    yield from wrong_sums(ledger, scope.kinds, scope.start, scope.end)
    yield from wrong_signatures(ledger, scope.kinds)


def checked_numbers(ledger: Ledger, scope: Scope, _counts: Counts) -> Iterator[BadNumber]:
    """Series, producers and counters under whose numbers anything is counted: each is what was numbered so."""
    every: list[Tables] = [*scope.tables(ledger), *scope.snapshots(ledger)]
    for tables in every:
        with ledger.database.read() as connection:
            found = list(wrong_numbers(connection, ledger, tables, (scope.start, scope.end)))
        yield from found


CHECKS: Final[tuple[Callable[[Ledger, Scope, Counts], Iterator[Finding]], ...]] = (
    checked_files,
    checked_numbers,
    checked_buckets,
    checked_snapshots,
    checked_months,
)
"""All that is looked at, in this order; each yields what is not as it should be."""


def told(connection: Connection, tables: KindTables, differences: Differences) -> Iterator[Difference]:
    """Differences for people: one for each sum that differs, with the dimensions of its series."""
    if not len(differences):
        return
    series = series_in(connection, tables, differences.keys[SERIES].tolist())
    attribution = Attribution.PRORATED if differences.table is tables.prorated else Attribution.BY_END
    keys = zip(*(differences.keys[name].tolist() for name in (START, SERIES, WIDTH)), strict=True)
    for place, (start, number, width) in enumerate(keys):
        for name, computed in differences.computed.items():
            booked = differences.booked[name][place]
            if booked != computed[place]:
                yield Difference(
                    kind=tables.kind.name,
                    attribution=str(attribution),
                    start=moment(start * SECOND),
                    width=width,
                    series=series.get(number, {SERIES: number}),
                    measure=name.removeprefix("_"),
                    booked=int(booked),
                    computed=int(computed[place]),
                )


def _snapshots_told(
    connection: Connection, ledger: Ledger, tables: SnapshotTables, recount: TableRecount
) -> Iterator[Difference]:
    differing = recount.differing
    if not differing:
        return
    if recount.of == SERIES:
        names = series_in(connection, tables, differing)
    else:
        producers = ledger.common.producers
        chosen = select(producers.c[PRODUCER], producers.c.name).where(producers.c[PRODUCER].in_(differing))
        names = {row[0]: {"producer": row[1]} for row in connection.execute(chosen)}
    for number in differing:
        for (start, width), name, booked, computed in recount.differences(number):
            yield Difference(
                kind=tables.kind.name,
                attribution=str(Attribution.AT_INSTANT),
                start=moment(start * SECOND),
                width=width,
                series=names.get(number, {recount.of: number}),
                measure=name.removeprefix("_"),
                booked=booked,
                computed=computed,
            )


def untold(kind: str, days: Sequence[int], unreadable: Sequence[Unreadable]) -> Iterator[Untold]:
    """Days that cannot be told, those that follow each other together, with the first file that is missing."""
    why = f"records are missing: {unreadable[0].why}" if unreadable else ""
    begin = last = None
    for day in days:
        if last is not None and begin is not None and day != last + DAY:
            yield Untold(kind, moment(begin * SECOND), moment(last * SECOND), why)
            begin = day
        begin, last = day if begin is None else begin, day
    if begin is not None and last is not None:
        yield Untold(kind, moment(begin * SECOND), moment(last * SECOND), why)
