"""From a figure to what it is made of: buckets, the records in them, and who sent these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
from sqlalchemy import Connection, Select, Table, and_, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archiving import files_in
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import SECOND
from accounting.booking.counters import booked_columns
from accounting.booking.measures import additive, held
from accounting.booking.postings import account_of
from accounting.checks.bases import bases_of, formula_of
from accounting.checks.named_records import SINGLE, NamedRecords
from accounting.checks.traced import MOST_LISTED, Figure, Page, Trace, TracedBucket, TracedCycles, TracedRecord
from accounting.checks.verifying import series_in
from accounting.ledger import Ledger
from accounting.query.answers import answer_of
from accounting.query.conditions import conditions_of
from accounting.query.cuts import Stretch
from accounting.query.derivation import Derivation
from accounting.query.observed import Observed
from accounting.query.record_sums import Part, RecordSums, id_from, id_times
from accounting.query.snapshot_quantities import is_of_cycles
from accounting.query.usage import Held, Usage, said_by_records
from accounting.snapshot_tables import SnapshotTables
from accounting.tables import (
    CARRIED,
    ENTRY,
    ID,
    MESSAGE,
    PRODUCER,
    RECORDS,
    SERIES,
    START,
    STARTED,
    WIDTH,
    times_of,
)
from siteward.people import personal_names
from siteward.query import Filter, QueryError
from siteward.records import id_text, microseconds, moment
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer

MOST: Final = {10: 2**63, 16: 2**128}
"""Numbers of buckets and of records, by the base in which they are told."""
MOST_FILES: Final = 5
"""Files of the archive that an answer names."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the window within which every site belongs to the same, with the filters as they are then."""

    number: int
    stretch: Stretch
    filters: tuple[Filter, ...]


def trace(usage: Usage, query: UsageQuery, page: Page, viewer: Viewer) -> Trace:
    """What the total of a question is made of, from one state of the ledger.

    Args:
        usage: what answers the question.
        query: the question; what it groups by, its periods and its top mean nothing here.
        page: what is to be listed.
        viewer: who asks; nothing else is traced than what is visible, and names are shown as answers show them.

    Raises:
        QueryError: the question is at fault.
    """
    ledger = usage.ledger
    query = msgspec.structs.replace(query, by=(), period=Period.WHOLE, top=0)
    said = said_by_records(ledger.kinds[query.kind], query) if query.kind in ledger.kinds else ()
    if said:
        _refuse(f"{said[0]} is in no bucket, and a figure is followed through buckets; ask without it")
    if not 1 <= page.limit <= MOST_LISTED:
        _refuse(f"limit: expected 1 to {MOST_LISTED}, got {page.limit}")
    with ledger.database.read() as connection:
        tracing = _Tracing(
            connection, ledger, usage.held_in(connection, _with_sums(ledger, query), viewer), query.wanted
        )
        figure = tracing.figure()
        parts, why = tracing.parts()
        if parts is not None and parts != figure:
            why = tracing.what_is_missing()
        buckets, more_buckets = tracing.buckets(page)
        records, more_records = tracing.records(page)
        figures = tracing.figures(is_counted=parts is not None)
    return Trace(
        kind=query.kind,
        attribution=str(query.attribution),
        start=query.start,
        end=query.end,
        figures=figures,
        measures=tracing.measures,
        figure=figure,
        parts=parts,
        complete=parts == figure,
        why=why,
        buckets=tuple(buckets),
        more_buckets=more_buckets,
        records=tuple(records),
        more_records=more_records,
        cycles=tracing.cycles(),
    )


class _Tracing:
    """One question within one state of the database."""

    def __init__(self, connection: Connection, ledger: Ledger, held: Held, wanted: tuple[WantedUsage, ...]) -> None:
        query = held.query
        self._wanted = wanted
        self._sight = held.sight
        self._connection = connection
        self._ledger = ledger
        self._held = held
        self._query = query
        self._tables = ledger.tables_of(query.kind)
        self._kind = self._tables.kind
        self._is_prorated = query.attribution is Attribution.PRORATED
        self._bases = bases_of(self._kind, query)
        self._names = list(dict.fromkeys([name for basis in self._bases for name in basis.columns]))
        self._names += [name for name in self._counts if name not in self._names]
        self._window = microseconds(query.start), microseconds(query.end)
        self._pieces = list(self._found_pieces(held.derivation))

    @property
    def _counts(self) -> tuple[str, ...]:
        return (STARTED, CARRIED) if self._is_prorated else (RECORDS,)

    @property
    def _buckets(self) -> Table:
        if isinstance(self._tables, SnapshotTables):
            return self._tables.buckets
        return self._tables.prorated if self._is_prorated else self._tables.by_end

    def _found_pieces(self, derivation: Derivation) -> Iterator[Piece]:
        series = self._tables.series
        values = {
            name: self._connection.execute(select(series.c[name]).distinct()).scalars().all()
            for name in derivation.filtered
        }
        for number, stretch in enumerate(derivation.pieces(self._window)):
            filters = derivation.filters_at(stretch[0], values)
            if filters is not None:
                yield Piece(number, stretch, filters)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the sums that are followed."""
        return tuple(basis.name for basis in self._bases)

    @property
    def _observed(self) -> Observed:
        """What snapshots were; nothing of other kinds."""
        amounts = self._held.whole.get(())
        return (amounts and amounts.observed) or Observed({}, {})

    def figure(self) -> tuple[int, ...]:
        """The sums that are followed, as the question's answer has them."""
        if self._kind.of_instants:
            series = self._observed.series.values()
            return tuple(
                sum(seen.records if name == RECORDS else seen.sums[name] for seen in series for name in basis.columns)
                for basis in self._bases
            )
        amounts = self._held.whole.get(())
        return self._values(amounts.sums if amounts else dict.fromkeys(self._names, 0))

    def figures(self, *, is_counted: bool) -> tuple[Figure, ...]:
        """What was asked for, and how it comes about.

        Args:
            is_counted: the records of the window are few enough to be looked at one by one.
        """
        held = self._held
        answer = answer_of(self._kind, self._query, held.periods, held.whole, held.parts)
        named = NamedRecords(self._connection, self._tables, [self._of_piece(piece) for piece in self._pieces])
        return tuple(
            Figure(
                name=wanted.name,
                value=value,
                formula=formula_of(self._kind, self._query, wanted),
                records=named.of(wanted, value, self._observed) if is_counted else (),
            )
            for wanted, value in zip(self._wanted, answer.totals, strict=False)
        )

    def cycles(self) -> tuple[TracedCycles, ...]:
        """How often producers of snapshots looked, where the question depends on it."""
        if not self._kind.of_instants or not any(is_of_cycles(self._kind, wanted) for wanted in self._wanted):
            return ()
        producers = sorted({seen.producer for seen in self._observed.series.values()})
        found = [(producer, self._observed.cycles[producer]) for producer in producers]
        return tuple(
            TracedCycles(producer=producer, cycles=each.count, complete=each.complete, last=moment(each.last))
            for producer, each in found
        )

    def parts(self) -> tuple[tuple[int, ...] | None, str]:
        """What the records that are there come to; or why that is not known."""
        sums = dict.fromkeys(self._names, 0)
        try:
            for piece in self._pieces:
                query = msgspec.structs.replace(self._query, filters=piece.filters)
                visible = self._sight.conditions
                records = RecordSums(self._connection, self._ledger, self._tables, query, self._names, visible)
                found = records.part_of(piece.stretch)
                here = found.groups(piece.stretch, self._window[0]).get((), {})
                sums = {name: value + here.get(name, 0) for name, value in sums.items()}
        except QueryError as error:
            return None, f"the records were not added up: {error}"
        return self._values(sums), ""

    def what_is_missing(self) -> str:
        """Why the records do not add up to the figure."""
        earliest, latest = id_times(self._kind, self._window, is_prorated=self._is_prorated)
        names = [
            file.file
            for file in files_in(self._connection, self._ledger)
            if file.kind == self._kind.name
            and (earliest is None or (file.day + 86_400) * SECOND > earliest)
            and (latest is None or file.day * SECOND < latest)
        ]
        if not names:
            return "buckets and records differ: see `siteward ledger verify`"
        more = f" and {len(names) - MOST_FILES} more" if len(names) > MOST_FILES else ""
        return f"the other records are archived, in {', '.join(names[:MOST_FILES])}{more}; restore them to see all"

    def buckets(self, page: Page) -> tuple[list[TracedBucket], str]:
        """Some of the buckets, and where the next ones begin."""
        number, *after = _token(page.after_bucket, 4, "after_bucket")
        rows: list[tuple[Piece, Any]] = []
        for piece in self._pieces:
            if piece.number >= number and len(rows) <= page.limit:
                question = self._buckets_of(piece, after if piece.number == number else [])
                found = self._connection.execute(question.limit(page.limit + 1 - len(rows)))
                rows += [(piece, row) for row in found]
        listed = rows[: page.limit]
        series = series_in(self._connection, self._tables, [row[1] for _, row in listed])
        for name in personal_names([self._kind]):
            self._sight.look_up(name, (each.get(name) for each in series.values()))
        traced = []
        for piece, (start, number_of_series, width, *amounts) in listed:
            first, last = piece.stretch
            sums = dict(zip(self._names, amounts, strict=True))
            if CARRIED in sums and start * SECOND != self._window[0]:
                sums[CARRIED] = 0
            whole = first <= start * SECOND and (start + width) * SECOND <= last
            traced.append(
                TracedBucket(
                    start=moment(start * SECOND),
                    width=width,
                    series={name: self._sight.shown(name, value) for name, value in series[number_of_series].items()},
                    amounts=self._values(sums),
                    whole=whole,
                )
            )
        if len(rows) <= page.limit:
            return traced, ""
        piece, (start, number_of_series, width, *_) = listed[-1]
        return traced, f"{piece.number}-{start}-{number_of_series}-{width}"

    def _buckets_of(self, piece: Piece, after: Sequence[int]) -> Select[Any]:
        buckets, series = self._buckets, self._tables.series
        start, number, width = (buckets.c[name] for name in (START, SERIES, WIDTH))
        first, last = piece.stretch[0] // SECOND, -(-piece.stretch[1] // SECOND)
        conditions = [start + width > first, start > first - 86_400, start < last]
        if after:
            conditions.append(_beyond((start, number, width), after))
        holds = or_(*(buckets.c[name] != 0 for name in self._names))
        return (
            select(start, number, width, *(buckets.c[name] for name in self._names))
            .select_from(buckets.join(series, number == series.c[SERIES]))
            .where(*conditions, holds, *conditions_of(series, piece.filters))
            .order_by(start, number, width)
        )

    def records(self, page: Page) -> tuple[list[TracedRecord], str]:
        """Some of the records, and where the next ones begin."""
        number, *after = _token(page.after_record, 2, "after_record", base=16)
        rows: list[tuple[Piece, Any]] = []
        for piece in self._pieces:
            if piece.number >= number and len(rows) <= page.limit:
                question = self._records_of(piece, after[0] if after and piece.number == number else None)
                found = self._connection.execute(question.limit(page.limit + 1 - len(rows))).mappings()
                rows += [(piece, row) for row in found]
        listed = rows[: page.limit]
        traced = [
            record
            for piece in self._pieces
            for record in self._traced(piece, [row for of, row in listed if of is piece])
        ]
        more = f"{listed[-1][0].number:x}-{id_text(bytes(listed[-1][1][ID]))}" if len(rows) > page.limit else ""
        return traced, more

    def _records_of(self, piece: Piece, after: int | None) -> Select[Any]:
        records, series = self._tables.records, self._tables.series
        producers, entries = self._ledger.common.producers, self._ledger.common.entries
        within = self._of_piece(piece)
        if after is not None:
            within.append(records.c[ID] > after.to_bytes(16, "big"))
        origin = {"name": producers.c.name, "at": entries.c.at}
        return (
            select(records, *(column.label(f"_from_{name}") for name, column in origin.items()))
            .select_from(
                records.join(series, records.c[SERIES] == series.c[SERIES])
                .join(producers, records.c[PRODUCER] == producers.c[PRODUCER])
                .join(entries, records.c[ENTRY] == entries.c[ENTRY])
            )
            .where(*within)
            .order_by(records.c[ID])
        )

    def _of_piece(self, piece: Piece) -> list[ColumnElement[bool]]:
        """What the records of a piece meet."""
        records = self._tables.records
        first, last = piece.stretch
        start, end = (records.c[name] for name in times_of(self._kind))
        within = [start < last, or_(end > first, start >= first)] if self._is_prorated else [end >= first, end < last]
        earliest, latest = id_times(self._kind, piece.stretch, is_prorated=self._is_prorated)
        if latest is not None:
            within.append(records.c[ID] < id_from(latest + 999))
        if earliest is not None:
            within.append(records.c[ID] >= id_from(earliest))
        return [*within, *conditions_of(self._tables.series, piece.filters)]

    def _traced(self, piece: Piece, rows: Sequence[Mapping[str, Any]]) -> Iterator[TracedRecord]:
        if not rows:
            return
        first, last = times_of(self._kind)
        columns = booked_columns(self._kind, rows)
        # Each record as a group of its own.
        places: Integers = np.arange(len(rows))
        groups = [(place,) for place in places.tolist()]
        part = Part(groups, account_of(self._kind, columns, places), self._names, is_prorated=self._is_prorated)
        amounts = part.groups(piece.stretch, self._window[0])
        for place, row in enumerate(rows):
            yield TracedRecord(
                id=id_text(bytes(row[ID])),
                revision=row["revision"],
                start=moment(row[first]),
                end=moment(row[last]),
                parts=self._values(amounts[place,]),
                producer=row["_from_name"],
                message=id_text(bytes(row[MESSAGE])),
                entry=row[ENTRY],
                received=moment(row["_from_at"]),
            )

    def _values(self, sums: Mapping[str, int]) -> tuple[int, ...]:
        """The sums that are followed, from those of bucket columns."""
        return tuple(sum(sums[name] for name in basis.columns) for basis in self._bases)


def _with_sums(ledger: Ledger, query: UsageQuery) -> UsageQuery:
    """A question with what holds the sums of the measures of which it wants single values, to be followed."""
    kind = ledger.kinds.get(query.kind)
    singles = [wanted.measure for wanted in query.wanted if kind and wanted.quantity in SINGLE]
    sums = [WantedUsage(Quantity.SUM, measure) for measure in singles if kind and measure in additive(kind)]
    if kind and kind.of_instants:
        averaged = (measure for measure in singles if measure in held(kind) and measure not in additive(kind))
        sums += [WantedUsage(Quantity.MEAN_PRESENT, measure) for measure in averaged]
    return msgspec.structs.replace(query, wanted=(*query.wanted, *sums))


def _beyond(columns: Sequence[Any], values: Sequence[int]) -> Any:  # noqa: ANN401  # a condition of SQL.
    """Whether a key of several columns comes after another one; in a form that every database reads by its index."""
    first, *rest = columns
    value, *others = values
    return or_(first > value, and_(first == value, _beyond(rest, others))) if rest else first > value


def _token(text: str, parts: int, name: str, base: int = 10) -> list[int]:
    """Where to go on, as an answer told it; from the first piece on where it is empty."""
    if not text:
        return [0]
    try:
        found = [int(part, base) for part in text.split("-")]
    except ValueError:
        found = []
    if len(found) != parts or not all(0 <= each < MOST[base] for each in found):
        _refuse(f"{name} {text[:80]!r}: give what the answer before said, or nothing")
    return found


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
