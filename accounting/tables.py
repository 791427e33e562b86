"""The ledger's tables, derived from the kinds: series, records, and what they add up to in buckets.

Columns of our own begin with an underscore, which no field of a kind does.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from sqlalchemy import Index, MetaData, PrimaryKeyConstraint, Table
from sqlalchemy.sql.schema import Column as SqlColumn
from sqlalchemy.types import Boolean, Double

from accounting.measures import additive, known_of, knowable, part_of, ratio_parts
from siteward.records import Column, Kind, Measure, Type
from siteward.records.identity import ID_BYTES
from siteward.server.database.columns import bytes_column, integer_column, number_column, sum_column, text_column

PREFIX: Final = "accounting_"
ID: Final = "_id"
SERIES: Final = "_series"
DIGEST: Final = "_digest"
ENTRY: Final = "_entry"
PRODUCER: Final = "_producer"
MESSAGE: Final = "_message"
START: Final = "_start"
WIDTH: Final = "_width"
STARTED: Final = "_started"
"""Records that start in the bucket."""
CARRIED: Final = "_carried"
"""Records that were running when the bucket began."""
RECORDS: Final = "_records"
"""Records that end in the bucket."""
DIGEST_BYTES: Final = 16
MESSAGE_BYTES: Final = 16


class KindTables:
    """The tables of one kind of events or intervals.

    Attributes:
        kind: whose.
        series: every combination of bucketed dimensions that there is, numbered.
        records: every record as it came, its bucketed dimensions as the number of its series; `_entry` says when and by
            what it came in.
        prorated: measures spread over the time in which they arose.
        by_end: measures whole, in the bucket of the record's end.
    """

    def __init__(self, kind: Kind, metadata: MetaData) -> None:
        """Derive them."""
        self.kind = kind
        name = PREFIX + kind.name.replace("-", "_")
        self.series = Table(
            f"{name}_series",
            metadata,
            number_column(SERIES),
            bytes_column(DIGEST, DIGEST_BYTES, unique=True),
            *(_column(column) for column in kind.dimensions if is_bucketed(column)),
        )
        self.records = Table(
            f"{name}_records",
            metadata,
            bytes_column(ID, ID_BYTES, key=True),
            integer_column(SERIES),
            integer_column(ENTRY),
            integer_column(PRODUCER),
            bytes_column(MESSAGE, MESSAGE_BYTES),
            *(_column(column) for column in kind.columns if not is_bucketed(column)),
            sqlite_with_rowid=False,
        )
        self.prorated = _buckets(f"{name}_prorated", metadata, [STARTED, CARRIED, *_summed(kind)])
        self.by_end = _buckets(
            f"{name}_by_end", metadata, [RECORDS, *_summed(kind), *(known_of(each) for each in knowable(kind))]
        )


def is_bucketed(column: Column) -> bool:
    """Whether a column is a dimension that enters buckets."""
    return not isinstance(column.role, Measure) and column.role is not None and column.role.bucketed


def _summed(kind: Kind) -> list[str]:
    return [*additive(kind), *(part_of(ratio) for ratio in ratio_parts(kind))]


def _buckets(name: str, metadata: MetaData, sums: list[str]) -> Table:
    # Time first: what comes in touches few pages. Series next: a group is read without sorting.
    keys = [START, SERIES, WIDTH]
    return Table(
        name,
        metadata,
        *(integer_column(key, key=True) for key in keys),
        *map(sum_column, sums),
        sqlite_with_rowid=False,
    )


def _column(column: Column) -> SqlColumn[object]:
    made: SqlColumn[object]
    match column.type:
        case Type.STRING:
            longest = column.role.max_length if hasattr(column.role, "max_length") else 255
            return text_column(column.name, longest)
        case Type.NUMBER:
            return SqlColumn(column.name, Double, nullable=column.optional)
        case Type.BOOLEAN:
            return SqlColumn(column.name, Boolean, nullable=column.optional)
        case _:
            return integer_column(column.name, optional=column.optional)
