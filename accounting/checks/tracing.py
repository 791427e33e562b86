"""From a figure to what it is made of: buckets, the records in them, and who sent these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
from sqlalchemy import Connection, Select, Table, and_, or_, select

from accounting.archive.archiving import files_in
from accounting.booking.arithmetic import Integers
from accounting.booking.buckets import SECOND
from accounting.booking.counters import booked_columns
from accounting.booking.postings import account_of
from accounting.checks.traced import MOST_LISTED, Page, Trace, TracedBucket, TracedRecord
from accounting.checks.verifying import series_in
from accounting.ledger import Ledger
from accounting.query.conditions import conditions_of
from accounting.query.cuts import Stretch
from accounting.query.derivation import Derivation
from accounting.query.record_sums import Part, RecordSums, id_from, id_times
from accounting.query.usage import Usage
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
from siteward.query import Filter, QueryError
from siteward.records import Kind, id_text, microseconds, moment
from siteward.sight import Sight
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer

MOST: Final = {10: 2**63, 16: 2**128}
"""Numbers of buckets and of records, by the base in which they are told."""
MOST_FILES: Final = 5
"""Files of the archive that an answer names."""
TRACED: Final = frozenset({Quantity.SUM, Quantity.RECORDS, Quantity.STARTED})


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
        QueryError: the question is at fault, or asks for what no sum of parts is.
    """
    ledger = usage.ledger
    query = msgspec.structs.replace(query, by=(), period=Period.WHOLE, top=0)
    for wanted in query.wanted:
        _check_traced(ledger, query.kind, wanted)
    if not 1 <= page.limit <= MOST_LISTED:
        _refuse(f"limit: expected 1 to {MOST_LISTED}, got {page.limit}")
    with ledger.database.read() as connection:
        answer = usage.ask_in(connection, query, viewer)
        tracing = _Tracing(connection, ledger, answer.query, *usage.derivation(connection, answer.query, viewer))
        figure = tuple(int(value or 0) for value in answer.totals)
        parts, why = tracing.parts()
        if parts is not None and parts != figure:
            why = tracing.what_is_missing()
        buckets, more_buckets = tracing.buckets(page)
        records, more_records = tracing.records(page)
    return Trace(
        kind=query.kind,
        attribution=str(query.attribution),
        start=query.start,
        end=query.end,
        measures=tuple(wanted.measure or str(wanted.quantity) for wanted in query.wanted),
        figure=figure,
        parts=parts,
        complete=parts == figure,
        why=why,
        buckets=tuple(buckets),
        more_buckets=more_buckets,
        records=tuple(records),
        more_records=more_records,
    )


class _Tracing:
    """One question within one state of the database."""

    def __init__(
        self, connection: Connection, ledger: Ledger, query: UsageQuery, derivation: Derivation, sight: Sight
    ) -> None:
        self._sight = sight
        self._connection = connection
        self._ledger = ledger
        self._query = query
        self._tables = ledger.tables_of(query.kind)
        self._kind = self._tables.kind
        self._is_prorated = query.attribution is Attribution.PRORATED
        self._names = list(dict.fromkeys(name for wanted in query.wanted for name in self._of(wanted)))
        self._names += [name for name in self._counts if name not in self._names]
        self._window = microseconds(query.start), microseconds(query.end)
        self._pieces = list(self._found_pieces(derivation))

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

    def parts(self) -> tuple[tuple[int, ...] | None, str]:
        """What the records that are there come to; or why that is not known."""
        sums = dict.fromkeys(self._names, 0)
        try:
            for piece in self._pieces:
                query = msgspec.structs.replace(self._query, filters=piece.filters)
                found = RecordSums(self._connection, self._tables, query, self._names, self._sight.conditions).part_of(
                    piece.stretch
                )
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
        first, last = piece.stretch
        start, end = (records.c[name] for name in times_of(self._kind))
        within = [start < last, or_(end > first, start >= first)] if self._is_prorated else [end >= first, end < last]
        earliest, latest = id_times(self._kind, piece.stretch, is_prorated=self._is_prorated)
        if latest is not None:
            within.append(records.c[ID] < id_from(latest + 999))
        if after is not None:
            within.append(records.c[ID] > after.to_bytes(16, "big"))
        elif earliest is not None:
            within.append(records.c[ID] >= id_from(earliest))
        origin = {"name": producers.c.name, "at": entries.c.at}
        return (
            select(records, *(column.label(f"_from_{name}") for name, column in origin.items()))
            .select_from(
                records.join(series, records.c[SERIES] == series.c[SERIES])
                .join(producers, records.c[PRODUCER] == producers.c[PRODUCER])
                .join(entries, records.c[ENTRY] == entries.c[ENTRY])
            )
            .where(*within, *conditions_of(series, piece.filters))
            .order_by(records.c[ID])
        )

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
        """What was asked for, from sums of bucket columns."""
        return tuple(sum(sums[name] for name in self._of(wanted)) for wanted in self._query.wanted)

    def _of(self, wanted: WantedUsage) -> tuple[str, ...]:
        if wanted.quantity is Quantity.SUM:
            return (wanted.measure,)
        return (STARTED,) if wanted.quantity is Quantity.STARTED else self._counts


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


def _check_traced(ledger: Ledger, name: str, wanted: WantedUsage) -> None:
    kind: Kind | None = ledger.kinds.get(name)
    if kind is None or wanted.quantity in TRACED:
        return
    if wanted.quantity is Quantity.RATIO and wanted.measure in kind.ratios:
        ratio = kind.ratios[wanted.measure]
        _refuse(
            f"{wanted.name} is no sum of parts; trace what it is computed from: {ratio.numerator}, {ratio.denominator}"
        )
    itself = f"sum:{wanted.measure}" if kind.of_instants and wanted.measure else wanted.measure or Quantity.RECORDS
    _refuse(f"{wanted.name} is no sum of parts; trace the measure itself: {itself}")


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
