"""What the records themselves say where buckets cannot: exact parts of buckets, and single values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Row, Select, func, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.arithmetic import Integers, shares, sums
from accounting.booking.counters import counted
from accounting.booking.measures import factors, held
from accounting.booking.postings import Account, account_of, joined
from accounting.query.bucket_sums import GroupSums
from accounting.query.conditions import Group, conditions_of, groups_of
from accounting.query.cuts import Stretch
from accounting.query.samples import Samples
from accounting.snapshot_tables import Tables
from accounting.tables import CARRIED, ID, RECORDS, SERIES, STARTED, times_of
from siteward.query import Filter, QueryError
from siteward.records import Kind, Shape
from siteward.records.identity import HASH_BYTES, ID_BYTES
from siteward.usage import Attribution, UsageQuery

MOST_LOOKED_AT: Final = 8_000_000
"""Records of the stretch of ids within which a question looks; beyond it a person would wait for minutes."""
MOST_READ: Final = 500_000
"""Records whose parts one question takes into memory, some hundred bytes each."""
MOST_VALUES: Final = 4_000_000
"""Single values that one question takes into memory, some eighty bytes each while they are put in order."""
_AT_ONCE: Final = 20_000
_MILLISECOND: Final = 1_000


class RecordSums:
    """The records that one question looks at, within one state of the database."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        query: UsageQuery,
        names: Sequence[str],
        visible: Sequence[Filter],
    ) -> None:
        """Choose them.

        Args:
            connection: a transaction that sees one state.
            tables: of the kind asked.
            query: the question, with the conditions of what is visible.
            names: the bucket columns to sum.
            visible: those conditions alone: the number of other records is nobody's to know.
        """
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

    def samples(self, stretch: Stretch, measures: Sequence[str]) -> Samples:
        """The values of the records that end in a stretch.

        Raises:
            QueryError: they are too many.
        """
        end = times_of(self._kind)[1]
        needed = dict.fromkeys([end, *(name for measure in measures for name in factors(self._kind, measure))])
        found = Samples(self._kind, measures, self._groups.names)
        for of_record, columns in self._columns(stretch, list(needed), MOST_VALUES // len(measures)):
            found.add(of_record, np.array(columns[end], np.int64), columns)
        return found

    @cached_property
    def _groups(self) -> _Numbered:
        """The groups of the series that the question is about."""
        series, by = self._tables.series, self._query.by
        chosen = select(*(series.c[name] for name in by), series.c[SERIES])
        rows = self._connection.execute(chosen.where(*conditions_of(series, self._query.filters))).all() if by else []
        return _Numbered(groups_of(self._kind, by, rows), [row[-1] for row in rows])

    def _columns(
        self, stretch: Stretch, names: Sequence[str], most: int
    ) -> Iterator[tuple[Integers, dict[str, Sequence[Any]]]]:
        """Numbers of groups, and columns of the records, some at a time."""
        records, series = self._tables.records, self._tables.series
        question = select(records.c[SERIES], *(counted(self._tables, name) for name in names))
        if self._query.filters:
            question = question.select_from(records.join(series, records.c[SERIES] == series.c[SERIES]))
        question = question.where(*self._within(stretch), *conditions_of(series, self._query.filters))
        self._check_number(stretch)
        groups = self._groups
        for rows in self._partitions(question, most):
            values = list(zip(*rows, strict=True))
            yield groups.of(np.array(values[0], np.int64)), dict(zip(names, values[1:], strict=True))

    def _partitions(self, question: Select[Any], most: int) -> Iterator[Sequence[Row[Any]]]:
        left = max(most - self._taken, 0)
        # Some at a time from the server, too: a driver would else take all of them at once.
        options = {"yield_per": _AT_ONCE}
        with self._connection.execute(question.limit(left + 1), execution_options=options) as found:
            for rows in found.partitions():
                self._taken += len(rows)
                if self._taken > most:
                    _refuse(most)
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
            _refuse(MOST_LOOKED_AT)


class _Numbered:
    """Groups by number, and the number of each series' group."""

    def __init__(self, groups: Sequence[Group], series: Sequence[int]) -> None:
        """Number them.

        Args:
            groups: of each series; none where nothing is grouped by, and every series is of the one group.
            series: their numbers.
        """
        numbers: dict[Group, int] = {} if groups else {(): 0}
        of_series = np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)
        order = np.argsort(np.array(series, np.int64))
        self._series, self._of_series = np.array(series, np.int64)[order], of_series[order]
        self.names = list(numbers)

    def of(self, series: Integers) -> Integers:
        """The number of the group of each series."""
        if not len(self._series):
            return np.zeros_like(series)
        return self._of_series[np.searchsorted(self._series, series)]


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


def _values(amounts: Mapping[str, Integers], name: str, here: Integers) -> Integers:
    """A column; those that are zero throughout are left out of accounts."""
    return amounts[name][here] if name in amounts else np.zeros(len(here), np.int64)


def _refuse(most: int) -> None:
    message = (
        f"more than {most} records would have to be looked at; ask for whole buckets, a shorter window, "
        "or filter by a dimension"
    )
    raise QueryError(message)
