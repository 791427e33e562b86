"""The ledger's tables, derived from the kinds: series, records, and what they add up to in buckets.

Columns of our own begin with an underscore, which no field of a kind does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Column as SqlColumn
from sqlalchemy import Index, MetaData, Table

from accounting.booking.measures import additive, averaged, knowable, known_of, ratio_parts
from siteward.records import Column, Dimension, Kind, Shape, Type
from siteward.records.identity import ID_BYTES
from siteward.server.database.columns import (
    blob_column,
    bytes_column,
    fit_into_row,
    float_column,
    integer_column,
    number_column,
    text_column,
)

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
REPLACED: Final = "_replaced"
"""The entry with which a newer revision came."""
CORRECTION: Final = "_correction"
CLOSING: Final = "_closing"
"""The entry with which a period was closed."""
CAUSE: Final = "_cause"
COUNTER: Final = "_counter"
"""Number of a record's counter."""
SINCE: Final = "_since"
"""Instant of the counter's record before, or when it began to count; microseconds since 1970 UTC."""
PREVIOUS: Final = "_previous"
"""Instant of the counter's record before, wherever that one is; None of its first record."""
DIGEST_BYTES: Final = 16
STRICT: Final[dict[str, Any]] = {"sqlite_strict": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
BY_KEY: Final[dict[str, Any]] = {**STRICT, "sqlite_with_rowid": False}
_LONGEST_NAME: Final = 1000


class CommonTables:
    """The tables that all kinds share.

    Attributes:
        entries: everything that ever changed a total: what came in, and what was corrected, when, by whom and why.
        producers: who sent records, numbered.
        topology: what values of dimensions belong to, and since when.
        compacted: until which day buckets of a table were put together into those of a width.
        summed: months of a table of buckets whose sums are kept, and hold.
        archived: files of records that are no longer in their table, a UTC day of one kind each, with the ids in it.
        corrections: of records: what they select and say, who wanted and who approved them, how far they are.
        periods: months of a kind that were closed at some time, by the first second of the month, for a VO or for all.
        rebuilds: of each kind whose buckets are being computed anew: which days, and how far it has come.
        arrivals: how many records of a kind came from a producer for each hour of their partition times, and when.
    """

    def __init__(self, metadata: MetaData) -> None:
        """Derive them."""
        self.entries = Table(
            f"{PREFIX}entries",
            metadata,
            integer_column(ENTRY, key=True),
            text_column("kind", 255),
            text_column("action", 40),
            integer_column("at"),
            text_column("author", 255),
            text_column("reason", 4000),
            text_column("vo", 255, default=""),
            **BY_KEY,
        )
        self.compacted = Table(
            f"{PREFIX}compacted",
            metadata,
            text_column("bucket_table", 255, key=True),
            integer_column("width", key=True),
            integer_column("until"),
            **BY_KEY,
        )
        self.summed = Table(
            f"{PREFIX}summed",
            metadata,
            text_column("bucket_table", 255, key=True),
            integer_column("month", key=True),
            **BY_KEY,
        )
        self.archived = Table(
            f"{PREFIX}archived",
            metadata,
            text_column("kind", 255, key=True),
            integer_column("day", key=True),
            text_column("file", 255, key=True),
            text_column("digest", 64),
            integer_column("records"),
            integer_column("at"),
            blob_column("ids"),
            **BY_KEY,
        )
        self.rebuilds = Table(
            f"{PREFIX}rebuilds",
            metadata,
            text_column("kind", 255, key=True),
            *(integer_column(name) for name in ("number", "first", "last", "until")),
            **BY_KEY,
        )
        self.arrivals = Table(
            f"{PREFIX}arrivals",
            metadata,
            text_column("kind", 255, key=True),
            integer_column("hour", key=True),
            integer_column(PRODUCER, key=True),
            *(integer_column(name) for name in ("records", "first", "last")),
            **BY_KEY,
        )
        self.topology = Table(
            f"{PREFIX}topology",
            metadata,
            bytes_column(DIGEST, DIGEST_BYTES, key=True),
            *(text_column(name, 255) for name in ("dimension", "value", "attribute", "attribute_value")),
            *(integer_column(name, optional=True) for name in ("valid_from", "valid_to")),
            **BY_KEY,
        )
        self.corrections = Table(
            f"{PREFIX}corrections",
            metadata,
            number_column("number"),
            *(text_column(name, length) for name, length in (("kind", 255), ("action", 40), ("state", 40))),
            blob_column("selection"),
            blob_column("given"),
            *(text_column(name, 255) for name in ("author", "decided_by", "reversed_by")),
            *(text_column(name, 4000) for name in ("reason", "decided_reason", "reversed_reason")),
            integer_column("proposed_at"),
            *(integer_column(name, optional=True) for name in ("decided_at", "reversed_at", "turn")),
            integer_column("entry"),
            bytes_column("reached", ID_BYTES),
            blob_column("figures"),
            blob_column("undone"),
            **STRICT,
        )
        self.periods = Table(
            f"{PREFIX}periods",
            metadata,
            text_column("kind", 255, key=True),
            integer_column("month", key=True),
            text_column("vo", 255, key=True, default="*"),
            text_column("state", 40),
            integer_column("closing"),
            integer_column("closed_at"),
            text_column("closed_by", 255),
            integer_column("signed_at", optional=True),
            text_column("signed_by", 255),
            text_column("digest", 64),
            blob_column("meaning"),
            **BY_KEY,
        )
        self.producers = Table(
            f"{PREFIX}producers",
            metadata,
            number_column(PRODUCER),
            bytes_column(DIGEST, DIGEST_BYTES, unique=True),
            text_column("name", _LONGEST_NAME),
            **STRICT,
        )


class KindTables:
    """The tables of one kind of events, of intervals, or of counters.

    Attributes:
        kind: whose.
        series: every combination of bucketed dimensions that there is, numbered.
        records: every record as it counts, its bucketed dimensions as the number of its series; `_entry` says when and
            by what it came in, or was corrected. One that is void is not here.
        originals: the newest revision, as it came, of each record that is corrected.
        corrected: which corrections lie over which records.
        superseded: older revisions, as they came, with the entry of the one that replaced them.
        adjustments: what changed the by-end sums of closed periods, by UTC day, with the entry and the cause.
        counters: what has counters, such as a virtual machine, numbered; None where the kind has none.
        prorated: measures spread over the time in which they arose.
        by_end: measures whole, in the bucket of the record's end.
        months: both tables of buckets, each with the table of what whole months of it come to.
    """

    def __init__(self, kind: Kind, metadata: MetaData) -> None:
        """Derive them."""
        self.kind = kind
        name = table_name(kind, "")[:-1]
        sums = sums_of(kind)
        self.series = series_table(kind, metadata)
        self.records = record_table(kind, metadata)
        self.originals = originals_table(kind, metadata)
        self.superseded = superseded_table(kind, metadata)
        self.counters = _counter_table(kind, metadata) if kind.since else None
        self.corrected = corrected_table(kind, metadata)
        self.prorated = _buckets(f"{name}_prorated", metadata, [STARTED, CARRIED, *sums])
        whole = [RECORDS, *sums, *averaged(kind), *map(known_of, knowable(kind))]
        self.by_end = _buckets(f"{name}_by_end", metadata, whole)
        self.months = (
            (self.prorated, _months(f"{name}_prorated_months", metadata, [STARTED, CARRIED, *sums])),
            (self.by_end, _months(f"{name}_by_end_months", metadata, whole)),
        )
        self.adjustments = Table(
            f"{name}_adjustments",
            metadata,
            integer_column(CLOSING, key=True),
            integer_column(ENTRY, key=True),
            text_column(CAUSE, 40, key=True),
            integer_column(START, key=True),
            integer_column(SERIES, key=True),
            *map(sum_column, whole),
            **BY_KEY,
        )

    @property
    def bucket_tables(self) -> tuple[Table, ...]:
        """Those whose rows become fewer as they age."""
        return self.prorated, self.by_end

    @property
    def all(self) -> tuple[Table, ...]:
        """All of them."""
        counters = () if self.counters is None else (self.counters,)
        return self.series, *self.of_records, self.corrected, *self.of_sums, *counters

    @property
    def of_records(self) -> list[Table]:
        """Those that hold records, or did."""
        return [self.records, self.originals, self.superseded]

    @property
    def of_sums(self) -> list[Table]:
        """Those that hold sums."""
        return [self.prorated, self.by_end, self.adjustments, *(sums for _, sums in self.months)]


def table_name(kind: Kind, which: str) -> str:
    """The name of one of a kind's tables."""
    return f"{PREFIX}{kind.name.replace('-', '_')}_{which}"


def series_table(kind: Kind, metadata: MetaData) -> Table:
    """Every combination of a kind's bucketed dimensions, numbered."""
    return Table(
        table_name(kind, "series"),
        metadata,
        number_column(SERIES),
        bytes_column(DIGEST, DIGEST_BYTES, unique=True),
        *field_columns(column for column in kind.columns if is_bucketed(column)),
        **STRICT,
    )


def record_table(kind: Kind, metadata: MetaData) -> Table:
    """A kind's records. Those of counters also say what the record before had counted."""
    table = Table(table_name(kind, "records"), metadata, _identifier(), *_record_columns(kind), **BY_KEY)
    if kind.since:
        Index(table_name(kind, "by_counter"), table.c[COUNTER], table.c[kind.time])
    return table


def originals_table(kind: Kind, metadata: MetaData) -> Table:
    """The newest revision, as it came, of each of a kind's records that is corrected."""
    return Table(table_name(kind, "originals"), metadata, _identifier(), *_record_columns(kind), **BY_KEY)


def corrected_table(kind: Kind, metadata: MetaData) -> Table:
    """Which corrections lie over which of a kind's records."""
    name = table_name(kind, "corrected")
    number = integer_column(CORRECTION, key=True)
    return Table(name, metadata, number, _identifier(), Index(f"{name}_ids", ID), **BY_KEY)


def superseded_table(kind: Kind, metadata: MetaData) -> Table:
    """Older revisions of a kind's records, as they came, with the entry of the one that replaced them."""
    replaced = integer_column(REPLACED, key=True)
    name = table_name(kind, "superseded")
    return Table(name, metadata, _identifier(), replaced, *_record_columns(kind), **BY_KEY)


def _counter_table(kind: Kind, metadata: MetaData) -> Table:
    columns = [kind.column[name] for name in ("vo", *kind.counted_by)]
    return Table(
        table_name(kind, "counters"),
        metadata,
        number_column(COUNTER),
        bytes_column(DIGEST, DIGEST_BYTES, unique=True),
        *field_columns(columns),
        **STRICT,
    )


def before_of(counter: str) -> str:
    """The column of what a counter had counted before its record."""
    return f"_before_{counter}"


def step_columns(kind: Kind) -> tuple[str, ...]:
    """What a table of records holds of the record before; of counters only."""
    return (SINCE, PREVIOUS, *map(before_of, kind.counters)) if kind.since else ()


def times_of(kind: Kind) -> tuple[str, str]:
    """The columns of a table of records between which, in time, lies what a record says; one and the same of events."""
    if kind.shape is Shape.INTERVAL:
        return "start", "end"
    return (SINCE, kind.time) if kind.since else (kind.time, kind.time)


def is_bucketed(column: Column) -> bool:
    """Whether a column is a dimension that enters buckets."""
    return isinstance(column.role, Dimension) and column.role.bucketed


def _identifier() -> SqlColumn[bytes]:
    return bytes_column(ID, ID_BYTES, key=True)


def _record_columns(kind: Kind) -> list[SqlColumn[Any]]:
    """All of a record but its id and its bucketed dimensions."""
    return [
        integer_column(SERIES),
        integer_column(ENTRY),
        integer_column(PRODUCER),
        bytes_column(MESSAGE, ID_BYTES),
        *field_columns(column for column in kind.columns if not is_bucketed(column)),
        *((integer_column(COUNTER), integer_column(SINCE)) if kind.since else ()),
        *([integer_column(PREVIOUS, optional=True)] if kind.since else ()),
        *(sum_column(before_of(name)) for name in kind.counters),
    ]


def _buckets(name: str, metadata: MetaData, sums: list[str]) -> Table:
    # Time first: what comes in touches few pages. Series next: a window is read in the order in which it is grouped.
    keys = [integer_column(key, key=True) for key in (START, SERIES, WIDTH)]
    return Table(name, metadata, *keys, *map(sum_column, sums), **BY_KEY)


def _months(name: str, metadata: MetaData, sums: list[str]) -> Table:
    keys = [integer_column(key, key=True) for key in (START, SERIES)]
    return Table(name, metadata, *keys, *map(sum_column, sums), **BY_KEY)


def sums_of(kind: Kind) -> list[str]:
    """What both tables of buckets add up."""
    return [*additive(kind), *(part.name for part in ratio_parts(kind))]


def sum_column(name: str) -> SqlColumn[int]:
    """A column of a table of buckets."""
    return integer_column(name, default=0)


def field_columns(columns: Iterable[Column]) -> list[SqlColumn[Any]]:
    """The columns of all fields that one table has, that of series or of records."""
    columns = list(columns)
    apart = not fit_into_row(length_of(column) for column in columns if column.type is Type.STRING)
    return [_field_column(column, apart=apart) for column in columns]


def _field_column(column: Column, *, apart: bool) -> SqlColumn[Any]:
    """A field's column.

    One that its kind loses stays, and rows that do not give it are to be possible: texts have a default, everything
    else may be null. What a kind does not allow is refused long before a record comes here.
    """
    match column.type:
        case Type.STRING:
            return text_column(column.name, length_of(column), default=str(column.default or ""), apart=apart)
        case Type.NUMBER:
            default_float = column.default if isinstance(column.default, int | float) else None
            return float_column(column.name, optional=True, default=default_float)
        case _:
            default_int = int(column.default) if isinstance(column.default, int) else None
            return integer_column(column.name, optional=True, default=default_int)


def length_of(column: Column) -> int:
    """Characters of the longest text that a field may hold."""
    return column.role.max_length if isinstance(column.role, Dimension) else _LONGEST_NAME
