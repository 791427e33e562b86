"""The ledger's tables of a kind of snapshots: series, records, and how much there was, in buckets of time."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, MetaData, Table

from accounting.booking.measures import averaged, combine_of, held, knowable, known_of
from accounting.tables import (
    BY_KEY,
    PRODUCER,
    RECORDS,
    SERIES,
    START,
    WIDTH,
    KindTables,
    corrected_table,
    originals_table,
    record_table,
    series_table,
    sum_column,
    sums_of,
    superseded_table,
    table_name,
)
from siteward.records import Combine, Kind
from siteward.server.database.columns import integer_column
from siteward.server.database.merging import Merge, Rule, merged_by

INSTANTS: Final = "_instants"
"""Different instants at which records of the series are."""
LAST: Final = "_last"
"""The latest of them, microseconds since 1970 UTC."""
CYCLES: Final = "_cycles"
"""Different instants at which a producer looked."""
COMPLETE: Final = "_complete"
"""Those of them of which all records are there."""


def least_of(measure: str) -> str:
    """The column of the smallest value of a record."""
    return f"_least_{measure}"


def most_of(measure: str) -> str:
    """The column of the largest value of a record."""
    return f"_most_{measure}"


def last_of(measure: str) -> str:
    """The column of what records of the latest instant come to: their sum, of a peak or the latest value the largest.

    Unknown where no record of then knows it.
    """
    return f"_last_{measure}"


def lasts_of(measure: str) -> str:
    """The column of how many records of the latest instant know a measure; only of one that combines by its mean."""
    return f"_lasts_{measure}"


def last_columns(kind: Kind, measure: str) -> tuple[str, ...]:
    """The columns from which it is told what a measure was at the latest instant."""
    is_mean = combine_of(kind, measure) is Combine.MEAN
    return (last_of(measure), lasts_of(measure)) if is_mean else (last_of(measure),)


class SnapshotTables:
    """The tables of one kind of snapshots.

    Attributes:
        kind: whose.
        series: every combination of bucketed dimensions that there is, numbered; the producer is one of them.
        records: every record as it counts. One that is void is not here.
        originals: the newest revision, as it came, of each record that is corrected.
        corrected: which corrections lie over which records.
        superseded: older revisions, as they came, with the entry of the one that replaced them.
        buckets: what records of a series add up to, and what they were least, most and last.
        cycles: how often each producer looked.
    """

    def __init__(self, kind: Kind, metadata: MetaData) -> None:
        """Derive them."""
        self.kind = kind
        self.series = series_table(kind, metadata)
        self.records = record_table(kind, metadata)
        self.originals = originals_table(kind, metadata)
        self.corrected = corrected_table(kind, metadata)
        self.superseded = superseded_table(kind, metadata)
        self.buckets = Table(
            table_name(kind, "seen"),
            metadata,
            # Time first, as in all buckets.
            *(integer_column(name, key=True) for name in (START, SERIES, WIDTH)),
            *map(sum_column, (RECORDS, INSTANTS, *sums_of(kind), *averaged(kind), *map(known_of, knowable(kind)))),
            *(column for measure in held(kind) for column in _extremes(kind, measure)),
            _greatest(LAST),
            **BY_KEY,
        )
        self.cycles = Table(
            table_name(kind, "cycles"),
            metadata,
            *(integer_column(name, key=True) for name in (START, PRODUCER, WIDTH)),
            *map(sum_column, (CYCLES, COMPLETE)),
            _greatest(LAST),
            **BY_KEY,
        )

    @property
    def bucket_tables(self) -> tuple[Table, ...]:
        """Those whose rows become fewer as they age."""
        return self.buckets, self.cycles

    @property
    def all(self) -> tuple[Table, ...]:
        """All of them."""
        return self.series, *self.of_records, self.corrected, self.buckets, self.cycles

    @property
    def of_records(self) -> list[Table]:
        """Those that hold records, or did."""
        return [self.records, self.originals, self.superseded]


Tables = KindTables | SnapshotTables


def tables_for(kind: Kind, metadata: MetaData) -> Tables:
    """The tables of a kind, whatever it is of."""
    return SnapshotTables(kind, metadata) if kind.of_instants else KindTables(kind, metadata)


def _extremes(kind: Kind, measure: str) -> tuple[Column[int], ...]:
    rules = {least_of(measure): Rule(Merge.LEAST), most_of(measure): Rule(Merge.GREATEST)}
    rules |= dict.fromkeys(last_columns(kind, measure), Rule(Merge.LATEST, LAST))
    return tuple(merged_by(integer_column(name, optional=True), rule) for name, rule in rules.items())


def _greatest(name: str) -> Column[int]:
    return merged_by(integer_column(name, optional=True), Rule(Merge.GREATEST))
