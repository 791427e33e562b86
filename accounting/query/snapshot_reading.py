"""What snapshots were within periods: whole buckets asked by series, and records where a bucket is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
from sqlalchemy import Connection, Select, func, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.buckets import DAY, SECOND, Tier
from accounting.booking.snapshot_booking import seen
from accounting.booking.snapshots import of_stretch
from accounting.query.amounts import Amounts, together
from accounting.query.answers import Groups, Periods, bounded
from accounting.query.bucket_sums import buckets_around
from accounting.query.conditions import Group, conditions_of, groups_of
from accounting.query.cuts import Stretch, blocks_of, cut_blocks, edges_of, joined_blocks, plan_of
from accounting.query.derivation import Derivation
from accounting.query.observed import Cycles, Observed, Seen, add_cycles, add_series
from accounting.query.record_sums import MOST_READ
from accounting.query.snapshot_quantities import Needed, is_of_cycles, needed_of
from accounting.snapshot_tables import COMPLETE, CYCLES, INSTANTS, LAST, SnapshotTables, least_of, most_of
from accounting.tables import PRODUCER, RECORDS, SERIES, START, CommonTables
from siteward.query import Filter, QueryError
from siteward.records import Kind, microseconds, moment
from siteward.server.database import Dialect

MOST_SERIES: Final = 2_000_000
"""Series in periods that one question takes into memory, one after the other."""


class Part(msgspec.Struct, frozen=True):
    """What there was within a stretch.

    Attributes:
        series: those that meet the question's conditions, by number.
        cycles: of every producer.
    """

    series: Mapping[int, Seen]
    cycles: Mapping[str, Cycles]


class SnapshotReading:
    """One question about snapshots within one state of the database."""

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        tables: SnapshotTables,
        common: CommonTables,
        derivation: Derivation,
        visible: Sequence[Filter],
    ) -> None:
        """Take the question, whose conditions hold what is visible already."""
        self._visible = visible
        of_all = [wanted.name for wanted in derivation.base.wanted if is_of_cycles(tables.kind, wanted)]
        if visible and of_all:
            _refuse(
                f"{of_all[0]}: how often a producer looked is told by all records, and you see some; ask for "
                "mean-present, last-known, min, max, sum, instants or records"
            )
        self._connection = connection
        self._dialect = dialect
        self._tables = tables
        self._common = common
        self._derivation = derivation
        self._kind = tables.kind
        self._needed = needed_of(self._kind, derivation.base)
        self._conditions = conditions_of(tables.series, derivation.base.filters)
        self._groups, self._producers = self._chosen()
        self._cut: list[Stretch] = []
        self._parts: list[tuple[Stretch, _Records]] = []
        self._taken = 0

    def _chosen(self) -> tuple[dict[int, Group], dict[int, str]]:
        """The series that the question is about: their group of the base question, and their producer."""
        table, by = self._tables.series, self._derivation.base.by
        chosen = select(*(table.c[name] for name in by), table.c[SERIES], table.c.producer).where(*self._conditions)
        rows = self._connection.execute(chosen).all()
        numbers = [row[-2] for row in rows]
        return (
            dict(zip(numbers, groups_of(self._kind, by, rows), strict=True)),
            {row[-2]: row[-1] for row in rows},
        )

    def groups(self, periods: Periods) -> tuple[Groups, list[Groups]]:
        """What each group was in the whole window, and in each period."""
        stretches = [(microseconds(start), microseconds(end)) for start, end in periods]
        window = stretches[0][0], stretches[-1][1]
        self.prepare(edges_of(stretches))
        if len(stretches) == 1:
            whole = self.period(window)
            return whole, [whole]
        return self.period(window), bounded(map(self.period, stretches))

    def prepare(self, edges: Sequence[int]) -> None:
        """Read the records of the buckets within which instants lie.

        Raises:
            QueryError: they are too many, or not all there any more.
        """
        around = [
            bucket
            for table in self._tables.bucket_tables
            for bucket in buckets_around(self._connection, table, edges, self._tables.series, self._visible)
        ]
        self._cut = cut_blocks(edges, blocks_of(around))
        for stretch in joined_blocks(self._cut):
            records = self._records_of(stretch)
            if records.part(stretch) != self._booked(stretch):
                edge = next(edge for edge in edges if stretch[0] < edge < stretch[1])
                first, last = next(block for block in self._cut if block[0] < edge < block[1])
                _refuse(
                    f"{moment(edge).isoformat()} lies within a bucket of {(last - first) // SECOND} s, from "
                    f"{moment(first).isoformat()} on, and not all of its records are there any more; ask for whole ones"
                )
            self._parts.append((stretch, records))

    def period(self, period: Stretch) -> Groups:
        """What each group was within a period."""
        found: dict[Group, list[Amounts]] = {}
        cycles: dict[str, Cycles] = {}
        for piece in self._derivation.pieces(period):
            part = self._piece(piece)
            add_cycles(cycles, part.cycles)
            members: dict[Group, dict[int, Seen]] = {}
            for number, each in part.series.items():
                group = self._derivation.group(self._groups[number], piece[0])
                if group is not None:
                    members.setdefault(group, {})[number] = each
            for group, series in members.items():
                found.setdefault(group, []).append(Amounts({}, {}, Observed(series, cycles)))
        return {group: together(parts) for group, parts in found.items()}

    def _piece(self, piece: Stretch) -> Part:
        plan = plan_of(piece, self._cut)
        series: dict[int, Seen] = {}
        cycles: dict[str, Cycles] = {}
        parts = [] if plan.whole is None else [self._booked(plan.whole)]
        for stretch in plan.cut:
            records = next(each for around, each in self._parts if around[0] <= stretch[0] and stretch[1] <= around[1])
            parts.append(records.part(stretch))
        for part in parts:
            add_series(series, part.series)
            add_cycles(cycles, part.cycles)
        self._taken += len(series)
        if self._taken > MOST_SERIES:
            _refuse(
                f"more than {MOST_SERIES} series in periods would have to be read; ask for longer periods, or filter"
            )
        return Part(series, cycles)

    def _booked(self, stretch: Stretch) -> Part:
        """What whole buckets say; none lies across the ends of the stretch."""
        lasts = self._lasts(stretch)
        # Some databases need several expressions for one exact sum.
        parts = {name: len(self._exact(name)) for name in self._needed.added}
        found = {}
        for row in self._connection.execute(self._sums_in(stretch)):
            number, last, *values = row
            each = iter(values)
            sums = {name: self._dialect.whole([next(each) for _ in range(count)]) for name, count in parts.items()}
            found[number] = Seen(
                producer=self._producers[number],
                records=sums[RECORDS],
                instants=sums[INSTANTS],
                last=last,
                sums={name: sums[name] for name in self._needed.sums},
                least={measure: next(each) for measure in self._needed.extremes},
                most={measure: next(each) for measure in self._needed.extremes},
                lasts=lasts.get(number, {}),
            )
        return Part(found, self._cycles(stretch))

    def _exact(self, name: str) -> list[ColumnElement[Any]]:
        return self._dialect.exact_sum(self._tables.buckets.c[name])

    def _within(self, stretch: Stretch) -> list[ColumnElement[bool]]:
        first, last = (-(-instant // SECOND) for instant in stretch)
        buckets, series = self._tables.buckets, self._tables.series
        chosen = select(series.c[SERIES]).where(*self._conditions)
        of_series = [buckets.c[SERIES].in_(chosen)] if self._conditions else []
        return [buckets.c[START] >= first, buckets.c[START] < last, *of_series]

    def _sums_in(self, stretch: Stretch) -> Select[Any]:
        buckets = self._tables.buckets
        return (
            select(
                buckets.c[SERIES],
                func.max(buckets.c[LAST]),
                *(part for name in self._needed.added for part in self._exact(name)),
                *(func.min(buckets.c[least_of(measure)]) for measure in self._needed.extremes),
                *(func.max(buckets.c[most_of(measure)]) for measure in self._needed.extremes),
            )
            .where(*self._within(stretch))
            .group_by(buckets.c[SERIES])
        )

    def _lasts(self, stretch: Stretch) -> dict[int, dict[str, int | None]]:
        """What each series was in its latest bucket."""
        buckets, names = self._tables.buckets, self._needed.lasts
        if not names:
            return {}
        latest = func.max(buckets.c[LAST]).over(partition_by=buckets.c[SERIES]).label("_latest")
        columns = [buckets.c[name] for name in (SERIES, LAST, *names)]
        ranked = select(*columns, latest).where(*self._within(stretch)).subquery()
        question = select(ranked).where(ranked.c[LAST] == ranked.c["_latest"])
        return {row[0]: dict(zip(names, row[2:-1], strict=True)) for row in self._connection.execute(question)}

    def _cycles(self, stretch: Stretch) -> dict[str, Cycles]:
        if self._visible:
            return {}
        first, last = (-(-instant // SECOND) for instant in stretch)
        cycles, producers = self._tables.cycles, self._common.producers
        question = (
            select(
                producers.c.name,
                func.sum(cycles.c[CYCLES]),
                func.sum(cycles.c[COMPLETE]),
                func.max(cycles.c[LAST]),
            )
            .select_from(cycles.join(producers, cycles.c[PRODUCER] == producers.c[PRODUCER]))
            .where(cycles.c[START] >= first, cycles.c[START] < last)
            .group_by(producers.c.name)
        )
        found = ((row[0], Cycles(int(row[1]), int(row[2]), row[3])) for row in self._connection.execute(question))
        return {name: each for name, each in found if each.count}

    def _records_of(self, stretch: Stretch) -> _Records:
        records, series = self._tables.records, self._tables.series
        kind = self._kind
        names = [name for name in kind.names if name in records.c]
        chosen = (
            select(records.c[SERIES], *(records.c[name] for name in names))
            .where(of_stretch(records, *stretch))
            .limit(MOST_READ + 1)
        )
        if self._conditions:
            chosen = chosen.where(records.c[SERIES].in_(select(series.c[SERIES]).where(*self._conditions)))
        rows = self._connection.execute(chosen).all()
        if len(rows) > MOST_READ:
            _refuse(f"more than {MOST_READ} records would have to be read; ask for whole buckets, or filter")
        by = series.c.producer, records.c[kind.time]
        cycles = (
            select(*by, func.count(), func.max(records.c.cycle_size))
            .select_from(records.join(series, records.c[SERIES] == series.c[SERIES]))
            .where(of_stretch(records, *stretch))
            .group_by(*by)
        )
        found = [] if self._visible else [tuple(row) for row in self._connection.execute(cycles)]
        columns = list(zip(*rows, strict=True)) or [()] * (1 + len(names))
        by_name = dict(zip((SERIES, *names), columns, strict=True))
        return _Records(kind, self._needed, by_name, found, self._producers)


class _Records:
    """The records of a stretch, of which any piece can be asked."""

    def __init__(
        self,
        kind: Kind,
        needed: Needed,
        columns: Mapping[str, Sequence[Any]],
        cycles: Iterable[tuple[Any, ...]],
        producers: Mapping[int, str],
    ) -> None:
        self._kind = kind
        self._needed = needed
        self._columns = columns
        self._cycles = list(cycles)
        self._producers = producers

    def part(self, stretch: Stretch) -> Part:
        """What buckets of just that piece would say."""
        first, last = stretch
        times = self._columns[self._kind.time]
        here = [place for place, time in enumerate(times) if first <= time < last]
        columns = {name: [values[place] for place in here] for name, values in self._columns.items()}
        # A piece lies within one day, or is made of whole days.
        postings = seen(self._kind, columns, np.array(columns[SERIES], np.int64), [Tier(first, last, DAY)])
        found: dict[int, Seen] = {}
        for row in _rows({**postings.keys, **postings.sums}):
            add_series(found, {row[SERIES]: self._seen(row)})
        return Part(found, self._looked(stretch))

    def _seen(self, row: Mapping[str, Any]) -> Seen:
        return Seen(
            producer=self._producers[row[SERIES]],
            records=row[RECORDS],
            instants=row[INSTANTS],
            last=row[LAST],
            sums={name: row[name] for name in self._needed.sums},
            least={measure: row[least_of(measure)] for measure in self._needed.extremes},
            most={measure: row[most_of(measure)] for measure in self._needed.extremes},
            lasts={name: row[name] for name in self._needed.lasts},
        )

    def _looked(self, stretch: Stretch) -> dict[str, Cycles]:
        found: dict[str, Cycles] = {}
        for producer, time, count, size in self._cycles:
            if stretch[0] <= time < stretch[1]:
                add_cycles(found, {producer: Cycles(1, int(count == size), time)})
        return found


def _rows(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Columns as rows of Python's own integers."""
    listed = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
    return (dict(zip(columns, row, strict=True)) for row in zip(*listed, strict=True))


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
