"""What the records themselves say where buckets cannot: exact parts of buckets, and single values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, Select, func, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archive_file import ArchiveError, File
from accounting.archive.archive_reading import ArchiveReading, meet, possible
from accounting.archive.archiving import files_in
from accounting.booking.arithmetic import Integers, shares, sums
from accounting.booking.buckets import DAY, SECOND
from accounting.booking.counters import counted
from accounting.booking.measures import factors, held
from accounting.booking.postings import Account, account_of, joined
from accounting.ledger import Ledger
from accounting.query.bucket_sums import GroupSums
from accounting.query.conditions import Group, conditions_in, conditions_of, meets
from accounting.query.cuts import Stretch
from accounting.query.record_groups import RecordGroups
from accounting.query.samples import Samples, fields_of
from accounting.snapshot_tables import Tables
from accounting.tables import CARRIED, ID, RECORDS, SERIES, STARTED, times_of
from siteward.log import get_logger
from siteward.query import Filter, QueryError
from siteward.records import Kind, Shape
from siteward.records.identity import HASH_BYTES, ID_BYTES
from siteward.usage import Attribution, UsageQuery

MOST_LOOKED_AT: Final = 12_000_000
"""Records of the stretch of ids within which a question looks; beyond it a person would wait for minutes."""
MOST_READ: Final = 500_000
"""Records whose parts one question takes into memory, some hundred bytes each."""
MOST_VALUES: Final = 10_000_000
"""Single values that one question takes into memory, some thirty bytes each while they are put in order."""
_AT_ONCE: Final = 20_000
_MILLISECOND: Final = 1_000
log = get_logger(__name__)


class RecordSums:
    """The records that one question looks at, within one state of the database."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        tables: Tables,
        query: UsageQuery,
        names: Sequence[str],
        visible: Sequence[Filter],
        archive: Path | None = None,
    ) -> None:
        """Choose them.

        Args:
            connection: a transaction that sees one state.
            ledger: whose.
            tables: of the kind asked.
            query: the question, with the conditions of what is visible.
            names: the bucket columns to sum.
            visible: those conditions alone: the number of other records is nobody's to know.
            archive: folder of the archive's files, whose records are looked at, too; None for those of the database.
        """
        self._ledger = ledger
        self._archive = archive
        self._connection = connection
        self._tables = tables
        self._kind = tables.kind
        self._query = query
        self._names = names
        self._visible = visible
        self._is_prorated = query.attribution is Attribution.PRORATED
        self._looked_at = 0
        self._taken = 0

    def part_of(self, stretch: Stretch) -> Part:
        """The records that have a part in a stretch.

        Raises:
            QueryError: they are too many.
        """
        names = dict.fromkeys(name for measure in held(self._kind) for name in factors(self._kind, measure))
        accounts = [
            account_of(self._kind, columns, of_record)
            for of_record, columns in self._columns(stretch, [*times_of(self._kind), *names], MOST_READ)
        ]
        account = joined(accounts) if accounts else None
        return Part(self._groups.names, account, self._names, is_prorated=self._is_prorated)

    def samples(self, pieces: Sequence[Stretch], measures: Sequence[str]) -> Samples:
        """The values of the records that end in some stretches.

        Args:
            pieces: stretches that follow each other.
            measures: measures, products and ratios.

        Raises:
            QueryError: they are too many.
        """
        end = times_of(self._kind)[1]
        needed = dict.fromkeys([end, *(name for measure in measures for name in fields_of(self._kind, measure))])
        found = Samples(self._kind, measures, self._groups.names, pieces)
        whole = pieces[0][0], pieces[-1][1]
        for of_record, columns in self._columns(whole, list(needed), MOST_VALUES // len(measures)):
            found.add(of_record, np.array(columns[end], np.int64), columns)
        return found

    def archived(self, stretch: Stretch) -> list[File]:
        """The files of the archive that may hold a part of it."""
        return archived_within(self._connection, self._ledger, self._kind, stretch, is_prorated=self._is_prorated)

    @cached_property
    def _groups(self) -> RecordGroups:
        return RecordGroups(self._connection, self._tables, self._query)

    def _columns(
        self, stretch: Stretch, names: Sequence[str], most: int
    ) -> Iterator[tuple[Integers, dict[str, Sequence[Any]]]]:
        """Numbers of groups, and columns of the records, some at a time."""
        records, series = self._tables.records, self._tables.series
        said = self._groups.said
        fields = (*(counted(self._tables, name) for name in names), *(records.c[name] for name in said))
        question = select(records.c[SERIES], *fields)
        if self._query.filters:
            question = question.select_from(records.join(series, records.c[SERIES] == series.c[SERIES]))
        question = question.where(*self._within(stretch), *conditions_in(self._tables, self._query.filters))
        self._check_number(stretch)
        for rows in self._partitions(question, most):
            values = list(zip(*rows, strict=True))
            columns: dict[str, Sequence[Any]] = dict(zip(names, values[1:], strict=False))
            told = dict(zip(said, values[1 + len(names) :], strict=True))
            yield self._groups.of(np.array(values[0], np.int64), told), columns
        if self._archive is not None:
            yield from self._from_archive(self._archive, stretch, names, most)

    def _from_archive(
        self, archive: Path, stretch: Stretch, names: Sequence[str], most: int
    ) -> Iterator[tuple[Integers, dict[str, Sequence[Any]]]]:
        """The same of records in files."""
        reading = ArchiveReading(self._ledger, archive)
        needed = {*names, *times_of(self._kind), *self._query.by, *(each.field for each in self._query.filters)}
        for file in self.archived(stretch):
            try:
                columns = reading.booked(self._kind, file, needed)
            except ArchiveError as error:
                log.warning("a file of the archive cannot be read", reason=str(error))
                message = f"{file.file} of the archive holds records that are asked for, and cannot be read; restore it"
                raise QueryError(message) from error
            self._looked_at += int(np.count_nonzero(meeting(self._visible, columns, len(columns[ID]))))
            if self._looked_at > MOST_LOOKED_AT:
                refuse_more(MOST_LOOKED_AT)
            here = self._chosen(stretch, columns)
            self._taken += len(here)
            if self._taken > most:
                refuse_more(most)
            if here:
                wanted = dict.fromkeys([*names, *self._query.by])
                told: dict[str, Sequence[Any]] = {name: [columns[name][place] for place in here] for name in wanted}
                yield self._groups.of_values(told, len(here)), told

    def _chosen(self, stretch: Stretch, columns: Mapping[str, Sequence[Any]]) -> list[int]:
        """The places of the records that meet the conditions."""
        filters = self._query.filters
        return chosen_from(self._kind, columns, stretch, filters, is_prorated=self._is_prorated)

    def _partitions(self, question: Select[Any], most: int) -> Iterator[Sequence[Row[Any]]]:
        left = max(most - self._taken, 0)
        # Some at a time from the server, too: a driver would else take all of them at once.
        options = {"yield_per": _AT_ONCE}
        with self._connection.execute(question.limit(left + 1), execution_options=options) as found:
            for rows in found.partitions():
                self._taken += len(rows)
                if self._taken > most:
                    refuse_more(most)
                yield rows

    def _within(self, stretch: Stretch) -> list[ColumnElement[bool]]:
        first, last = stretch
        records = self._tables.records
        start, end = (records.c[name] for name in times_of(self._kind))
        bounds = self._ids(stretch)
        if self._is_prorated:
            # A record without duration lies where it starts.
            return [*bounds, start < last, or_(end > first, start >= first)]
        return [*bounds, end >= first, end < last]

    def _ids(self, stretch: Stretch) -> list[ColumnElement[bool]]:
        identifier = self._tables.records.c[ID]
        first, last = id_times(self._kind, stretch, is_prorated=self._is_prorated)
        bounds = []
        if first is not None:
            bounds.append(identifier >= id_from(first))
        if last is not None:
            bounds.append(identifier < id_from(last + _MILLISECOND - 1))
        return bounds

    def _check_number(self, stretch: Stretch) -> None:
        """Refuse before the database reads for minutes: keys lead with the time, but not with every time."""
        left = MOST_LOOKED_AT - self._looked_at
        records, series = self._tables.records, self._tables.series
        within = select(records.c[ID]).where(*self._ids(stretch))
        if self._visible:
            joined_series = records.join(series, records.c[SERIES] == series.c[SERIES])
            within = within.select_from(joined_series).where(*conditions_of(series, self._visible))
        some = within.limit(left + 1).subquery()
        self._looked_at += self._connection.execute(select(func.count()).select_from(some)).scalar_one()
        if self._looked_at > MOST_LOOKED_AT:
            refuse_more(MOST_LOOKED_AT)


class Part:
    """Records that have a part in a stretch, as columns: what any piece of it holds."""

    def __init__(
        self, groups: Sequence[Group], account: Account | None, names: Sequence[str], *, is_prorated: bool
    ) -> None:
        """Take the records.

        Args:
            groups: by number.
            account: the records, with the number of their group as series; None where there are none.
            names: the bucket columns to sum.
            is_prorated: else whole at their end.
        """
        self._groups = groups
        self._account = account
        self._names = names
        self._is_prorated = is_prorated

    def groups(self, stretch: Stretch, since: int) -> GroupSums:
        """The sums of each group over a piece of the stretch, as buckets of just that piece would give.

        Args:
            stretch: half-open.
            since: where the period starts.
        """
        account = self._account
        if account is None:
            return {}
        first, last = stretch
        stop = np.maximum(account.end, account.start + 1)
        if self._is_prorated:
            here = np.flatnonzero((account.start < last) & (stop > first))
        else:
            here = np.flatnonzero((account.end >= first) & (account.end < last))
        if not len(here):
            return {}
        columns = self._prorated(account, here, stretch, since) if self._is_prorated else self._by_end(account, here)
        order = np.argsort(account.series[here], kind="stable")
        number = account.series[here][order]
        firsts = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
        totals = {name: sums(columns[name][order], firsts).tolist() for name in self._names}
        return {
            self._groups[group]: {name: int(totals[name][position]) for name in self._names}
            for position, group in enumerate(number[firsts].tolist())
        }

    def _prorated(self, account: Account, here: Integers, stretch: Stretch, since: int) -> Mapping[str, Integers]:
        first, last = stretch
        start = account.start[here]
        lasting = np.maximum(account.end[here] - start, 1)
        before, after = (np.clip(instant - start, 0, lasting) for instant in (first, last))
        started = ((start >= first) & (start < last)).astype(np.int64)
        carried = 1 - started if first == since else np.zeros_like(started)
        found: dict[str, Integers] = {STARTED: started, CARRIED: carried}
        for name in self._names:
            if name not in found:
                values = _values(account.amounts, name, here)
                found[name] = shares(values, after, lasting) - shares(values, before, lasting)
        return found

    def _by_end(self, account: Account, here: Integers) -> Mapping[str, Integers]:
        values = account.amounts | account.whole
        return {
            name: np.ones(len(here), np.int64) if name == RECORDS else _values(values, name, here)
            for name in self._names
        }


def id_times(kind: Kind, stretch: Stretch, *, is_prorated: bool) -> tuple[int | None, int | None]:
    """Between which partition times the records lie that have a part in a stretch; None is unbounded.

    Args:
        kind: whose.
        stretch: half-open.
        is_prorated: they have a part in it while they run, else when they end.
    """
    first, last = stretch
    if kind.since and is_prorated:
        return first, None
    if kind.shape is not Shape.INTERVAL or (kind.time == "end" and not is_prorated):
        return first, last
    assert kind.longest is not None
    if kind.time == "end":
        return first, last + kind.longest + 1
    return (first - kind.longest, last) if kind.time == "start" else (None, None)


def id_from(time: int) -> bytes:
    """The smallest record id of a partition time, microseconds since 1970 UTC; of a negative one, that of 1970."""
    return max(time // _MILLISECOND, 0).to_bytes(ID_BYTES - HASH_BYTES, "big") + bytes(HASH_BYTES)


def archived_within(
    connection: Connection, ledger: Ledger, kind: Kind, stretch: Stretch, *, is_prorated: bool
) -> list[File]:
    """The files of the archive whose records may have a part in a stretch, by day.

    Args:
        connection: a transaction that sees one state.
        ledger: whose.
        kind: of the records.
        stretch: half-open.
        is_prorated: they have a part in it while they run, else when they end.
    """
    found = (file for file in files_in(connection, ledger) if file.kind == kind.name)
    if kind.time == times_of(kind)[1] and not is_prorated:
        return [file for file in found if file.day * SECOND < stretch[1] and (file.day + DAY) * SECOND > stretch[0]]
    return [file for file in found if meet(possible(kind, file), stretch)]


def chosen_from(
    kind: Kind,
    columns: Mapping[str, Sequence[Any]],
    stretch: Stretch,
    filters: Sequence[Filter],
    *,
    is_prorated: bool,
) -> list[int]:
    """The places of the records, given as columns, that have a part in a stretch and meet all conditions."""
    start, end = (np.array(columns[name], np.int64) for name in times_of(kind))
    first, last = stretch
    within = (start < last) & ((end > first) | (start >= first)) if is_prorated else (end >= first) & (end < last)
    found: list[int] = np.flatnonzero(within & meeting(filters, columns, len(start))).tolist()
    return found


def meeting(filters: Sequence[Filter], columns: Mapping[str, Sequence[Any]], count: int) -> npt.NDArray[np.bool_]:
    """Which of so many records meet all conditions."""
    here = np.ones(count, np.bool_)
    for each in filters:
        here &= np.array([meets(each, value) for value in columns[each.field]], np.bool_)
    return here


def _values(amounts: Mapping[str, Integers], name: str, here: Integers) -> Integers:
    """A column; those that are zero throughout are left out of accounts."""
    return amounts[name][here] if name in amounts else np.zeros(len(here), np.int64)


def refuse_more(most: int) -> NoReturn:
    """Say that there are too many.

    Raises:
        QueryError: always.
    """
    message = (
        f"more than {most} records would have to be looked at; ask for whole buckets, a shorter window, "
        "or filter by a dimension"
    )
    raise QueryError(message)
