"""From a figure to what it is made of: buckets, the records in them, and who sent these."""

from __future__ import annotations

from collections.abc import Iterator
from operator import sub
from typing import Final, NoReturn

import msgspec
from sqlalchemy import Connection, select

from accounting.archive.archive_reading import ArchiveReading
from accounting.booking.measures import additive, held
from accounting.ledger import Ledger
from accounting.query.answers import answer_of
from accounting.query.as_of_closing import ClosedMonths
from accounting.query.cuts import Stretch
from accounting.query.derivation import Derivation
from accounting.query.observed import Observed
from accounting.query.record_sums import RecordSums
from accounting.query.snapshot_quantities import is_of_cycles
from accounting.query.usage import Held, Usage, said_by_records
from accounting.tables import CARRIED, RECORDS, STARTED
from accounting.trace.archived_records import ArchivedRecords
from accounting.trace.bases import bases_of, formula_of
from accounting.trace.followed import Followed, Piece
from accounting.trace.listed_adjustments import ListedAdjustments
from accounting.trace.listed_buckets import list_buckets
from accounting.trace.listed_records import list_records
from accounting.trace.named_records import NamedRecords, Single, is_single
from accounting.trace.traced import (
    MOST_LISTED,
    Figure,
    Page,
    Trace,
    TracedAdjustment,
    TracedBucket,
    TracedCycles,
    TracedRecord,
)
from siteward.query import QueryError
from siteward.records import microseconds, moment
from siteward.usage import AsOf, Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer

MOST_FILES: Final = 5
"""Files of the archive that an answer names."""
_UNLIKE: Final = "what has changed since closing is not the difference: see `siteward ledger verify`"


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
    if not 1 <= page.limit <= MOST_LISTED:
        _refuse(f"limit: expected 1 to {MOST_LISTED}, got {page.limit}")
    asked = _with_sums(ledger, query)
    with ledger.database.read() as connection:
        answering = usage.held_in(connection, asked, viewer)
        present = answering
        if query.as_of is AsOf.CLOSING:
            # Buckets and records are those of now; what has changed since is listed beside them.
            present = usage.held_in(connection, msgspec.structs.replace(asked, as_of=AsOf.PRESENT), viewer)
        tracing = _Tracing(connection, usage, present, query.wanted)
        parts, why = tracing.parts()
        figure = now = tracing.figure(present)
        changes: tuple[int, ...] = ()
        adjustments: list[TracedAdjustment] = []
        more_adjustments = ""
        if query.as_of is AsOf.CLOSING:
            figure = tracing.figure(answering)
            listed = tracing.adjustments(answering)
            changes = listed.sums()
            adjustments, more_adjustments = listed.page(page)
        is_made = figure == tuple(map(sub, now, changes)) if changes else True
        if parts is not None and not (parts == now and is_made):
            why = tracing.what_is_missing() if is_made else _UNLIKE
        buckets, more_buckets = tracing.buckets(page)
        records, more_records = tracing.records(page)
        figures = tracing.figures(answering, is_counted=parts is not None)
    return Trace(
        kind=query.kind,
        attribution=str(query.attribution),
        start=query.start,
        end=query.end,
        as_of=str(query.as_of),
        of_records=tracing.of_records,
        figures=figures,
        measures=tracing.measures,
        figure=figure,
        present=now,
        changes=changes,
        parts=parts,
        complete=parts == now and is_made,
        why=why,
        buckets=tuple(buckets),
        more_buckets=more_buckets,
        records=tuple(records),
        more_records=more_records,
        adjustments=tuple(adjustments),
        more_adjustments=more_adjustments,
        cycles=tracing.cycles(),
    )


class _Tracing:
    """One question within one state of the database."""

    def __init__(self, connection: Connection, usage: Usage, held: Held, wanted: tuple[WantedUsage, ...]) -> None:
        query = held.query
        ledger = usage.ledger
        self._wanted = wanted
        self._connection = connection
        self._ledger = ledger
        self._held = held
        self._query = query
        self._tables = ledger.tables_of(query.kind)
        self._kind = self._tables.kind
        self.of_records = said_by_records(self._kind, query)
        self._bases = bases_of(self._kind, query)
        is_prorated = query.attribution is Attribution.PRORATED
        names = [name for basis in self._bases for name in basis.columns]
        counts = (STARTED, CARRIED) if is_prorated else (RECORDS,)
        window = microseconds(query.start), microseconds(query.end)
        self._followed = Followed(
            connection=connection,
            ledger=ledger,
            tables=self._tables,
            sight=held.sight,
            bases=self._bases,
            names=list(dict.fromkeys([*names, *counts])),
            window=window,
            pieces=list(self._found_pieces(held.derivation, window)),
            is_prorated=is_prorated,
        )
        reading = ArchiveReading(ledger, usage.archive) if usage.archive is not None else None
        self._archived = ArchivedRecords(self._followed, reading)
        self._singles: dict[str, list[Single]] = {}

    def _found_pieces(self, derivation: Derivation, window: Stretch) -> Iterator[Piece]:
        series = self._tables.series
        values = {
            name: self._connection.execute(select(series.c[name]).distinct()).scalars().all()
            for name in derivation.filtered
        }
        for number, stretch in enumerate(derivation.pieces(window)):
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

    def figure(self, held: Held) -> tuple[int, ...]:
        """The sums that are followed, as an answer has them."""
        if self._kind.of_instants:
            series = self._observed.series.values()
            return tuple(
                sum(seen.records if name == RECORDS else seen.sums[name] for seen in series for name in basis.columns)
                for basis in self._bases
            )
        amounts = held.whole.get(())
        return self._followed.values(amounts.sums if amounts else dict.fromkeys(self._followed.names, 0))

    def figures(self, held: Held, *, is_counted: bool) -> tuple[Figure, ...]:
        """What was asked for, and how it comes about.

        Args:
            held: of which the answer is made.
            is_counted: the records of the window are few enough to be looked at one by one.
        """
        answer = answer_of(self._kind, held.query, held.periods, held.whole, held.parts)
        within = [self._followed.of_piece(piece) for piece in self._followed.pieces]
        named = NamedRecords(self._connection, self._tables, within, self._singles)
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
        followed = self._followed
        measures = dict.fromkeys(wanted.measure for wanted in self._wanted if is_single(wanted.quantity))
        try:
            sums = dict.fromkeys(followed.names, 0)
            for piece in followed.pieces:
                query = msgspec.structs.replace(self._query, filters=piece.filters)
                visible = followed.sight.conditions
                records = RecordSums(self._connection, self._ledger, self._tables, query, followed.names, visible)
                found = records.part_of(piece.stretch)
                here = found.groups(piece.stretch, followed.window[0]).get((), {})
                sums = {name: value + here.get(name, 0) for name, value in sums.items()}
            # Last: the database says at once that there are too many.
            archived, self._singles = self._archived.sums(list(measures))
            sums = {name: value + archived[name] for name, value in sums.items()}
        except QueryError as error:
            return None, f"the records were not added up: {error}"
        return followed.values(sums), ""

    def what_is_missing(self) -> str:
        """Why the records do not add up to the figure."""
        names = self._archived.unreadable()
        if not names:
            return "buckets and records differ: see `siteward ledger verify`"
        more = f" and {len(names) - MOST_FILES} more" if len(names) > MOST_FILES else ""
        return (
            f"the other records are archived, in {', '.join(names[:MOST_FILES])}{more}, which cannot be read; bring "
            "back into the archive's folder what was written there"
        )

    def buckets(self, page: Page) -> tuple[list[TracedBucket], str]:
        """Some of the buckets, and where the next ones begin; none where the figure is computed from the records."""
        return ([], "") if self.of_records else list_buckets(self._followed, page)

    def records(self, page: Page) -> tuple[list[TracedRecord], str]:
        """Some of the records, and where the next ones begin."""
        return list_records(self._followed, self._archived, page)

    def adjustments(self, held: Held) -> ListedAdjustments:
        """What has changed a figure as of closing since then."""
        tables = self._ledger.tables[self._kind.name]
        closed = ClosedMonths(self._connection, self._ledger, tables, held.derivation.base)
        return ListedAdjustments(self._followed, tables, closed.closings)


def _with_sums(ledger: Ledger, query: UsageQuery) -> UsageQuery:
    """A question with what holds the sums of the measures of which it wants single values, to be followed."""
    kind = ledger.kinds.get(query.kind)
    singles = [wanted.measure for wanted in query.wanted if kind and is_single(wanted.quantity)]
    sums = [WantedUsage(Quantity.SUM, measure) for measure in singles if kind and measure in additive(kind)]
    if kind and kind.of_instants:
        averaged = (measure for measure in singles if measure in held(kind) and measure not in additive(kind))
        sums += [WantedUsage(Quantity.MEAN_PRESENT, measure) for measure in averaged]
    return msgspec.structs.replace(query, wanted=(*query.wanted, *sums))


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
