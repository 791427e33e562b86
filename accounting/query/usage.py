"""Answers of the ledger: exact sums by any dimensions and calendar periods, from buckets and, at need, records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
from sqlalchemy import Connection, Table, select

from accounting.booking.buckets import SECOND
from accounting.corrections.correction_table import unfinished_in
from accounting.ledger import Ledger
from accounting.query.amounts import Amounts, together
from accounting.query.answers import Groups, Periods, answer_of, bounded, order_of
from accounting.query.as_of_closing import ClosedMonths, check_as_of
from accounting.query.bucket_sums import BucketSums, GroupSums, add_groups
from accounting.query.calendar import periods_of
from accounting.query.conditions import Group, conditions_of
from accounting.query.cuts import Stretch, cut_blocks, edges_of, joined_blocks, plan_of
from accounting.query.derivation import Derivation, is_derived
from accounting.query.quantities import check_wanted, columns_of, sampled_of
from accounting.query.record_sums import Part, RecordSums
from accounting.query.samples import Samples
from accounting.query.snapshot_reading import SnapshotReading
from accounting.tables import CARRIED, RECORDS, STARTED, KindTables
from accounting.topology.attributes import Topology
from accounting.topology.topology_table import read_topology
from siteward.cycles import cycles_sought_rarely
from siteward.people import People
from siteward.query import Filter, QueryError
from siteward.query_text import format_filters
from siteward.records import Kind, microseconds, moment
from siteward.sight import Sight
from siteward.usage import AsOf, Attribution, ClosedPeriod, UsageAnswer, UsageQuery, UsageRow
from siteward.usage_text import bucketed, groupable, of_records
from siteward.viewer import Viewer

MOST_PERIODS: Final = 10_000
SHOWN: Final = 5
"""Files that a refusal names."""


class Held(msgspec.Struct, frozen=True):
    """What the groups of a question hold, of which its answer is made.

    Attributes:
        query: the question, in UTC, with pseudonyms in place of names.
        sight: what the viewer sees of it.
        derivation: how its groups and conditions are told from dimensions.
        periods: of the window, in order.
        whole: what each group holds in the whole window.
        parts: what each group holds in each period.
        closed: months of the window that are closed, as answers name them.
    """

    query: UsageQuery
    sight: Sight
    derivation: Derivation
    periods: Periods
    whole: Groups
    parts: list[Groups]
    closed: tuple[ClosedPeriod, ...] = ()


class Usage:
    """Asks one ledger.

    Attributes:
        ledger: that is asked.
        archive: folder of the archive's files; None where it is not at hand.
    """

    def __init__(self, ledger: Ledger, people: People, archive: Path | None = None) -> None:
        """Take the ledger, and people's names, which it does not hold.

        Args:
            ledger: that is asked.
            people: their names.
            archive: folder of the archive's files, from which single records are read that are no longer in the
                database; None where it is not at hand.
        """
        self.ledger = ledger
        self.archive = archive if archive is not None and archive.is_dir() else None
        self._people = people

    def ask(self, query: UsageQuery, viewer: Viewer) -> UsageAnswer:
        """The answer to a question, from one state of the ledger, and from nothing but what the viewer may see.

        Raises:
            QueryError: it names what the kind does not have, or the viewer may not ask; or only the records could
                tell, and they are too many or not there any more.
        """
        with self.ledger.database.read() as connection, cycles_sought_rarely():
            return self.ask_in(connection, query, viewer)

    def ask_in(self, connection: Connection, query: UsageQuery, viewer: Viewer) -> UsageAnswer:
        """The same within a transaction that sees one state."""
        held = self.held_in(connection, query, viewer)
        sight = held.sight
        answer = answer_of(self.ledger.kinds[query.kind], held.query, held.periods, held.whole, held.parts)
        return msgspec.structs.replace(
            answer,
            query=msgspec.structs.replace(held.query, filters=query.filters),
            rows=_named(answer, sight),
            visible=format_filters(sight.told),
            pseudonyms=tuple(name for name in query.by if name in sight.hidden),
            closed=held.closed,
            unfinished=() if sight.conditions else self._unfinished(connection, query.kind),
            of_records=said_by_records(self.ledger.kinds[query.kind], held.query),
        )

    def held_in(self, connection: Connection, query: UsageQuery, viewer: Viewer) -> Held:
        """What the groups of a question hold.

        Raises:
            QueryError: as `ask`.
        """
        kind = self.ledger.kinds.get(query.kind)
        if kind is None:
            _refuse(f"kind {query.kind!r} is not in the ledger; there are {', '.join(self.ledger.kinds)}")
        topology = self.topology(connection, query)
        fields = groupable(kind, topology.attributes) | of_records(kind)
        query = _checked(kind, query, fields)
        sight = Sight(kind, viewer, bucketed(kind), fields, self._people)
        present = partial(_present, connection, self.ledger.tables_of(query.kind).series, sight)
        query = msgspec.structs.replace(query, filters=sight.asked(query.filters, present))
        periods = list(periods_of(query.start, query.end, query.period))
        if len(periods) > MOST_PERIODS:
            _refuse(f"the window has {len(periods)} periods, more than {MOST_PERIODS}; ask for longer ones")
        derivation = Derivation(kind, query, topology, sight)
        if kind.of_instants:
            whole, parts = self._snapshots(connection, derivation, sight).groups(periods)
            return Held(query, sight, derivation, periods, whole, parts)
        tables = self.ledger.tables[query.kind]
        closed = ClosedMonths(connection, self.ledger, tables, derivation.base)
        reading = _Reading(connection, self.ledger, tables, derivation, sight.conditions, closed, self.archive)
        whole, parts = reading.groups(periods)
        return Held(query, sight, derivation, periods, whole, parts, closed.noted())

    def _unfinished(self, connection: Connection, kind: str) -> tuple[int, ...]:
        return tuple(unfinished_in(connection, self.ledger.common.corrections, kind))

    def _snapshots(self, connection: Connection, derivation: Derivation, sight: Sight) -> SnapshotReading:
        ledger = self.ledger
        tables = ledger.snapshots[derivation.base.kind]
        dialect = ledger.database.dialect
        return SnapshotReading(connection, dialect, tables, ledger.common, derivation, sight.conditions)

    def sight(self, kind: Kind, viewer: Viewer) -> Sight:
        """What a viewer sees of single records of a kind.

        Raises:
            QueryError: records of this kind do not say whether they are the viewer's.
        """
        return Sight(kind, viewer, bucketed(kind), kind.column, self._people)

    def topology(self, connection: Connection, query: UsageQuery) -> Topology:
        """The topology where the question needs one, else none."""
        if any(map(is_derived, (*query.by, *(condition.field for condition in query.filters)))):
            return read_topology(connection, self.ledger.common.topology)
        return Topology(())


def attributes_of(ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """What may be grouped and filtered by beside dimensions: the attributes that the topology gives each."""
    with ledger.database.read() as connection:
        return read_topology(connection, ledger.common.topology).attributes


class _Reading:
    """One question within one state of the database."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        tables: KindTables,
        derivation: Derivation,
        visible: Sequence[Filter],
        closed: ClosedMonths,
        archive: Path | None,
    ) -> None:
        self._derivation = derivation
        query = self._query = derivation.base
        self._kind = tables.kind
        self._window = microseconds(query.start), microseconds(query.end)
        counts = (STARTED, CARRIED) if query.attribution is Attribution.PRORATED else (RECORDS,)
        # By the counts it shows whether all records are there.
        names = list(dict.fromkeys([*columns_of(tables.kind, query), *counts]))
        summed = ledger.common.summed
        self._buckets = BucketSums(connection, ledger.database.dialect, tables, query, names, summed)
        self._since_closing = closed.changes(names) if query.as_of is AsOf.CLOSING else None
        self._records = RecordSums(connection, ledger, tables, query, names, visible, archive)
        self._of_records = said_by_records(tables.kind, query)
        self._archive = archive
        self._visible = visible
        self._cut: list[Stretch] = []
        self._parts: list[tuple[Stretch, Part]] = []
        self._samples: Samples | None = None

    def groups(self, periods: Periods) -> tuple[Groups, list[Groups]]:
        """What each group holds in the whole window, and in each period."""
        stretches = [(microseconds(start), microseconds(end)) for start, end in periods]
        if self._of_records:
            self._read_all_records()
        else:
            self._read_records(edges_of(stretches))
        measures = sampled_of(self._kind, self._query)
        if measures:
            pieces = [piece for stretch in stretches for piece in self._derivation.pieces(stretch)]
            self._samples = self._records.samples(pieces, measures)
        parts = bounded(map(self._period, stretches))
        return _whole(parts), parts

    def _read_records(self, edges: Sequence[int]) -> None:
        self._cut = cut_blocks(edges, self._buckets.blocks_around(edges, self._visible))
        if not self._cut:
            self._buckets.names = columns_of(self._kind, self._query)
            if self._since_closing is not None:
                self._since_closing.names = self._buckets.names
        for stretch in joined_blocks(self._cut):
            part = self._records.part_of(stretch)
            booked = self._buckets.groups(stretch, stretch[0])
            if _held(part.groups(stretch, stretch[0])) != _held(booked):
                edge = next(edge for edge in edges if stretch[0] < edge < stretch[1])
                self._refuse_cut(edge)
            self._parts.append((stretch, part))

    def _read_all_records(self) -> None:
        """Only records tell what is asked, so that all have to be there."""
        archived = self._records.archived(self._window)
        if archived and self._archive is None:
            some = ", ".join(file.file for file in archived[:SHOWN]) + (", …" if len(archived) > SHOWN else "")
            names = ", ".join(self._of_records)
            _refuse(
                f"only records say {names}, and those in {len(archived)} files of the archive may be among them: "
                f"{some}; restore these first, ask for a later window, or by what is in buckets"
            )
        self._parts.append((self._window, self._records.part_of(self._window)))

    def _refuse_cut(self, edge: int) -> NoReturn:
        first, last = next(block for block in self._cut if block[0] < edge < block[1])
        _refuse(
            f"{_text(edge)} lies within a bucket of {(last - first) // SECOND} s, from {_text(first)} on, and not all "
            "of its records are there any more; ask for whole ones"
        )

    def _period(self, period: Stretch) -> Groups:
        found: dict[Group, list[Amounts]] = {}
        for piece in self._derivation.pieces(period):
            for base, amounts in self._piece(piece, period[0]).items():
                group = self._derivation.group(base, piece[0])
                if group is not None:
                    found.setdefault(group, []).append(amounts)
        return {group: together(parts) for group, parts in found.items()}

    def _piece(self, piece: Stretch, since: int) -> Groups:
        """What each group of the base question holds in a part of a period that starts then."""
        if self._of_records:
            ((_, part),) = self._parts
            here = part.groups(piece, since)
            return self._sampled(piece, {group: Amounts(sums) for group, sums in here.items()})
        plan = plan_of(piece, self._cut)
        found: list[GroupSums] = [] if plan.whole is None else [self._buckets.groups(plan.whole, since)]
        for stretch in plan.cut:
            part = next(part for around, part in self._parts if around[0] <= stretch[0] and stretch[1] <= around[1])
            found.append(part.groups(stretch, since))
        if self._since_closing is not None:
            found.append(self._since_closing.taken_away(piece))
        sums: GroupSums = {}
        for groups in found:
            add_groups(sums, groups)
        return self._sampled(piece, {group: Amounts(here) for group, here in sums.items()})

    def _sampled(self, period: Stretch, groups: Groups) -> Groups:
        """The same groups with their single values."""
        if self._samples is None:
            return groups
        samples = self._samples.groups(period)
        booked = {group: amounts.sums[RECORDS] for group, amounts in groups.items() if amounts.sums[RECORDS]}
        if {group: sample.count for group, sample in samples.items()} != booked:
            _refuse(
                f"not all records from {_text(period[0])} to {_text(period[1])} are there any more, and only they tell "
                f"{', '.join(wanted.name for wanted in self._query.wanted)}; ask for a later window, or for sums"
            )
        return {group: Amounts(groups[group].sums, sample.values) for group, sample in samples.items()}


def said_by_records(kind: Kind, query: UsageQuery) -> tuple[str, ...]:
    """What a question groups by, or has conditions on, that only records say."""
    known = of_records(kind)
    asked = (*query.by, *(condition.field for condition in query.filters))
    return tuple(dict.fromkeys(name for name in asked if name in known))


def _present(connection: Connection, series: Table, sight: Sight, field: str) -> Iterator[Any]:
    """What a dimension is in the records that the viewer may see."""
    if field not in series.c:
        _refuse(
            f"{field} is in no bucket, and a pattern of names would have to be looked for in all records; name them"
        )
    visible = conditions_of(series, sight.conditions)
    return iter(connection.execute(select(series.c[field]).where(*visible).distinct()).scalars())


def _named(answer: UsageAnswer, sight: Sight) -> tuple[UsageRow, ...]:
    """The rows with people as the viewer may see them, in the order of what is shown."""
    by, rows = answer.query.by, answer.rows
    if not sight.names_people(by):
        return rows
    for place, name in enumerate(by):
        sight.look_up(name, (row.group[place] for row in rows if not row.other))
    named = (
        msgspec.structs.replace(row, group=tuple(map(sight.shown, by, row.group))) if row.group else row for row in rows
    )
    return tuple(sorted(named, key=lambda row: (row.start, order_of(None if row.other else row.group))))


def _whole(parts: Sequence[Groups]) -> Groups:
    """What each group holds in all of the periods, which follow each other."""
    found: dict[Group, list[Amounts]] = {}
    for place, groups in enumerate(parts):
        for group, amounts in groups.items():
            # Who was running when a later period began has been counted in the one before.
            sums = amounts.sums if place == 0 or CARRIED not in amounts.sums else {**amounts.sums, CARRIED: 0}
            found.setdefault(group, []).append(Amounts(sums, amounts.samples))
    return {group: together(each) for group, each in found.items()}


def _held(groups: GroupSums) -> GroupSums:
    """Groups that hold anything: what was taken away again leaves some that do not."""
    return {group: sums for group, sums in groups.items() if any(sums.values())}


def _text(instant: int) -> str:
    return moment(instant).isoformat()


def _checked(kind: Kind, query: UsageQuery, fields: Collection[str]) -> UsageQuery:
    for name, instant in (("start", query.start), ("end", query.end)):
        if instant.tzinfo is None:
            _refuse(f"{name} {instant.isoformat()} has no time zone")
    if query.end <= query.start:
        _refuse(f"the window ends at {query.end.isoformat()}, not after its start at {query.start.isoformat()}")
    for name in (*query.by, *(condition.field for condition in query.filters)):
        if name not in fields:
            known = [each for each in fields if is_derived(each) is is_derived(name)]
            where = "in the topology" if is_derived(name) else "a dimension"
            _refuse(f"{name!r} is not {where} of {kind.name}; there are {', '.join(known) or 'none'}")
    if query.top < 0:
        _refuse(f"top {query.top} is negative; 0 keeps all groups")
    check_wanted(kind, query)
    check_as_of(kind, query)
    said = said_by_records(kind, query)
    if said and query.as_of is AsOf.CLOSING:
        _refuse(
            f"only records say {said[0]}, and what has changed since closing is known by what is in buckets; "
            "ask as of now"
        )
    return msgspec.structs.replace(query, start=query.start.astimezone(UTC), end=query.end.astimezone(UTC))


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
