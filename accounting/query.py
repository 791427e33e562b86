"""Answers of the ledger: exact sums by any dimensions and calendar periods, from buckets and, at need, records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Final, NoReturn, Protocol

import msgspec
from sqlalchemy import Connection

from accounting.amounts import Amounts, together
from accounting.answers import Groups, Periods, answer_of
from accounting.bucket_sums import BucketSums, GroupSums
from accounting.buckets import SECOND
from accounting.calendar import periods_of
from accounting.conditions import Group
from accounting.cuts import Stretch, cut_blocks, edges_of, joined_blocks, plan_of
from accounting.derivation import Derivation, is_derived
from accounting.ledger import Ledger
from accounting.quantities import added, check_wanted, columns_of, sampled_of
from accounting.record_sums import Part, RecordSums
from accounting.samples import Samples
from accounting.snapshot_query import SnapshotReading
from accounting.tables import CARRIED, RECORDS, STARTED, KindTables, is_bucketed
from accounting.topology import Topology, derived_names
from accounting.topology_table import read_topology
from siteward.query import QueryError
from siteward.records import Kind, microseconds, moment
from siteward.usage import Attribution, UsageAnswer, UsageQuery

MOST_PERIODS: Final = 10_000
MOST_ROWS: Final = 500_000
"""Groups in periods of one answer; nobody reads more, and the process has to hold them."""


class Usage:
    """Asks one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the ledger."""
        self._ledger = ledger

    def ask(self, query: UsageQuery) -> UsageAnswer:
        """The answer to a question, from one state of the ledger.

        Raises:
            QueryError: it names what the kind does not have; or only the records could tell, and they are too many
                or not there any more.
        """
        kind = self._ledger.kinds.get(query.kind)
        if kind is None:
            _refuse(f"kind {query.kind!r} is not in the ledger; there are {', '.join(self._ledger.kinds)}")
        with self._ledger.database.read() as connection:
            topology = self._topology(connection, query)
            query = _checked(kind, query, topology)
            periods = list(periods_of(query.start, query.end, query.period))
            if len(periods) > MOST_PERIODS:
                _refuse(f"the window has {len(periods)} periods, more than {MOST_PERIODS}; ask for longer ones")
            whole, parts = _groups(self._reading(connection, kind, Derivation(query, topology)), query, periods)
        return answer_of(kind, query, periods, whole, parts)

    def _reading(self, connection: Connection, kind: Kind, derivation: Derivation) -> Reading:
        ledger = self._ledger
        if kind.of_instants:
            tables = ledger.snapshots[kind.name]
            return SnapshotReading(connection, ledger.database.dialect, tables, ledger.common, derivation)
        return _UsageReading(connection, ledger, ledger.tables[kind.name], derivation)

    def _topology(self, connection: Connection, query: UsageQuery) -> Topology:
        """The topology where the question needs one, else none."""
        if any(map(is_derived, (*query.by, *(condition.field for condition in query.filters)))):
            return read_topology(connection, self._ledger.common.topology)
        return Topology(())

    def attributes(self) -> dict[str, tuple[str, ...]]:
        """What may be grouped and filtered by beside dimensions: the attributes that the topology gives each."""
        with self._ledger.database.read() as connection:
            return read_topology(connection, self._ledger.common.topology).attributes


class Reading(Protocol):
    """One question within one state of the database."""

    def prepare(self, edges: Sequence[int]) -> None:
        """Read what is needed where instants lie within buckets; once, before any period.

        Raises:
            QueryError: the records are too many, or not all there any more.
        """

    def period(self, period: Stretch) -> Groups:
        """What each group holds in a period."""


def _groups(reading: Reading, query: UsageQuery, periods: Periods) -> tuple[Groups, list[Groups]]:
    """What each group holds in the whole window, and in each period."""
    window = microseconds(query.start), microseconds(query.end)
    stretches = [(microseconds(start), microseconds(end)) for start, end in periods]
    reading.prepare(edges_of(stretches))
    whole = reading.period(window)
    if stretches == [window]:
        return whole, [whole]
    parts: list[Groups] = []
    rows = 0
    for stretch in stretches:
        parts.append(reading.period(stretch))
        rows += len(parts[-1])
        if rows > MOST_ROWS:
            _refuse(f"the answer has more than {MOST_ROWS} rows; ask for longer periods, or fewer dimensions")
    return whole, parts


class _UsageReading:
    """A question about what was used."""

    def __init__(self, connection: Connection, ledger: Ledger, tables: KindTables, derivation: Derivation) -> None:
        self._derivation = derivation
        query = self._query = derivation.base
        self._window = microseconds(query.start), microseconds(query.end)
        counts = (STARTED, CARRIED) if query.attribution is Attribution.PRORATED else (RECORDS,)
        # By the counts it shows whether all records are there.
        names = list(dict.fromkeys([*columns_of(tables.kind, query), *counts]))
        self._buckets = BucketSums(connection, ledger.database.dialect, tables, query, names)
        self._records = RecordSums(connection, tables, query, names)
        self._cut: list[Stretch] = []
        self._parts: list[tuple[Stretch, Part]] = []
        self._samples: Samples | None = None

    def prepare(self, edges: Sequence[int]) -> None:
        """See Reading."""
        self._cut = cut_blocks(edges, self._buckets.blocks_around(edges))
        for stretch in joined_blocks(self._cut):
            part = self._records.part_of(stretch)
            booked = self._buckets.groups(stretch, stretch[0])
            if _held(part.groups(stretch, stretch[0])) != _held(booked):
                edge = next(edge for edge in edges if stretch[0] < edge < stretch[1])
                self._refuse_cut(edge)
            self._parts.append((stretch, part))
        measures = sampled_of(self._query)
        if measures:
            self._samples = self._records.samples(self._window, measures)

    def _refuse_cut(self, edge: int) -> NoReturn:
        first, last = next(block for block in self._cut if block[0] < edge < block[1])
        _refuse(
            f"{_text(edge)} lies within a bucket of {(last - first) // SECOND} s, from {_text(first)} on, and not all "
            "of its records are there any more; ask for whole ones"
        )

    def period(self, period: Stretch) -> Groups:
        """See Reading."""
        found: dict[Group, list[Amounts]] = {}
        for piece in self._derivation.pieces(period):
            for base, amounts in self._piece(piece, period[0]).items():
                group = self._derivation.group(base, piece[0])
                if group is not None:
                    found.setdefault(group, []).append(amounts)
        return {group: together(parts) for group, parts in found.items()}

    def _piece(self, piece: Stretch, since: int) -> Groups:
        """What each group of the base question holds in a part of a period that starts then."""
        plan = plan_of(piece, self._cut)
        found: list[GroupSums] = [] if plan.whole is None else [self._buckets.groups(plan.whole, since)]
        for stretch in plan.cut:
            part = next(part for around, part in self._parts if around[0] <= stretch[0] and stretch[1] <= around[1])
            found.append(part.groups(stretch, since))
        sums: GroupSums = {}
        for groups in found:
            sums |= {group: added(sums[group], here) if group in sums else here for group, here in groups.items()}
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


def _held(groups: GroupSums) -> GroupSums:
    """Groups that hold anything: what was taken away again leaves some that do not."""
    return {group: sums for group, sums in groups.items() if any(sums.values())}


def _text(instant: int) -> str:
    return moment(instant).isoformat()


def _checked(kind: Kind, query: UsageQuery, topology: Topology) -> UsageQuery:
    for name, instant in (("start", query.start), ("end", query.end)):
        if instant.tzinfo is None:
            _refuse(f"{name} {instant.isoformat()} has no time zone")
    if query.end <= query.start:
        _refuse(f"the window ends at {query.end.isoformat()}, not after its start at {query.start.isoformat()}")
    bucketed = [column.name for column in kind.columns if is_bucketed(column)]
    derived = [name for name in derived_names(topology.attributes) if name.partition(".")[0] in bucketed]
    for name in (*query.by, *(condition.field for condition in query.filters)):
        if is_derived(name) and name not in derived:
            _refuse(f"{name!r} is not in the topology of {kind.name}; there are {', '.join(derived) or 'none'}")
        if not is_derived(name) and name not in bucketed:
            _refuse(f"{name!r} is not in the buckets of {kind.name}; there are {', '.join(bucketed)}")
    if query.top < 0:
        _refuse(f"top {query.top} is negative; 0 keeps all groups")
    check_wanted(kind, query)
    return msgspec.structs.replace(query, start=query.start.astimezone(UTC), end=query.end.astimezone(UTC))


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
