"""What was expected from each producer against what came: by its own counts, or where it has none by its cadence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final, NoReturn

import msgspec
from sqlalchemy import Connection, or_, select

from accounting.archive.archive_reading import meet, possible
from accounting.archive.archived_files import listed
from accounting.archive.archiving import files_in
from accounting.booking.buckets import DAY, SECOND
from accounting.completeness.cadence import HOUR, MOST_WEEKS, SILENT_WEEKS, SPREADS, WEEK, Arrival, Cadence, Silence
from accounting.ledger import Ledger
from accounting.query.record_sums import id_from
from accounting.query.usage import Usage
from accounting.tables import ID, PRODUCER, SERIES, is_bucketed
from siteward.kinds.record_count import RecordCount
from siteward.people import Nobody
from siteward.query import Filter, QueryError
from siteward.records import Kind, kind_of, moment
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer, Visible

OPERATOR: Final = Viewer(visible=Visible.ALL, names=True)
"""Counts are of producers, whatever their records are; no name is told."""
MOST_ROWS: Final = 50_000
"""Rows of one answer; nobody reads more."""
COUNTS: Final = kind_of(RecordCount).name
HISTORY: Final = (MOST_WEEKS + 1) * WEEK
"""Seconds before the window that have to be known for what is usual in it."""


class Model(StrEnum):
    """What said how many records were expected."""

    COUNT = "count"
    """The source itself, with a record of the kind `record-count`."""
    CADENCE = "cadence"
    """The median of the same hours in the last four weeks before that lie in no outage."""
    UNKNOWN = "unknown"
    """Nobody: fewer than two weeks before are known, or a count cannot be compared, or is in the archive."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What was expected of a producer for some time, and what came.

    Attributes:
        kind: of the records.
        producer: who sends them; "" in a count by VO, site or host.
        scope: of a count by these: `vo=one, site=A`; "" otherwise.
        start: seconds since 1970 UTC.
        end: the same; of a day that is not over, or whose last hours are usually not there yet, where it is judged to.
        model: what said how many were expected.
        expected: how many; None where nobody knows.
        spread: how far weeks usually are from that; 0 for a count.
        came: new records.
        missing: how many of the expected are missing, beyond what is usual.
        why: a count cannot be compared, or where there may be some that nobody has read.
    """

    kind: str
    producer: str
    scope: str = ""
    start: int
    end: int
    model: Model
    expected: int | None = None
    spread: int = 0
    came: int = 0
    missing: int = 0
    why: str = ""


class Producer(msgspec.Struct, frozen=True, kw_only=True):
    """One that sent records of a kind lately.

    Attributes:
        kind: of the records.
        producer: its name.
        last: first second of the last hour of which there are records.
        silence: why it counts as silent; None where it does not.
    """

    kind: str
    producer: str
    last: int
    silence: Silence | None


class Completeness(msgspec.Struct, frozen=True):
    """The answer: what was expected, by kind, producer and day, and which producers are silent."""

    rows: tuple[Expected, ...]
    producers: tuple[Producer, ...]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question for completeness.

    Attributes:
        start: first second; days are whole.
        end: first second after it.
        kinds: names; () for all.
        producers: names; () for all.
        spreads: beyond what is usual, at which something is missing.
    """

    start: int
    end: int
    kinds: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    spreads: int = SPREADS

    def has(self, kind: str, producer: str) -> bool:
        """Whether these are asked for."""
        return (not self.kinds or kind in self.kinds) and (not self.producers or producer in self.producers)


def completeness(ledger: Ledger, asked: Asked) -> Completeness:
    """What was expected and what came, from one state of what came.

    Raises:
        QueryError: the answer would have too many rows.
    """
    now = ledger.clock() // SECOND
    with ledger.database.read() as connection:
        cadences = dict(_cadences(connection, ledger, asked, now))
        rows = [_compared(connection, ledger, count) for count in list(_counts(connection, ledger, asked))]
        rows += _archived_counts(connection, ledger, asked)
    counted = {(row.kind, row.producer, day) for row in rows if row.producer for day in _days(row.start, row.end)}
    producers = []
    for (kind, producer), cadence in cadences.items():
        rows += _by_cadence(kind, producer, cadence, asked, now, counted)
        if len(rows) > MOST_ROWS:
            _refuse(f"the answer has more than {MOST_ROWS} rows; ask for fewer days, or one kind or producer")
        last = cadence.last
        if last is not None and last >= now - SILENT_WEEKS * WEEK:
            producers.append(
                Producer(kind=kind, producer=producer, last=last, silence=cadence.silence(now, asked.spreads))
            )
    rows.sort(key=lambda row: (row.kind, row.producer, row.scope, row.start))
    return Completeness(tuple(rows), tuple(producers))


def _cadences(
    connection: Connection, ledger: Ledger, asked: Asked, now: int
) -> Iterator[tuple[tuple[str, str], Cadence]]:
    """Of each kind and producer, in order, what came in the window, in the weeks before, and since."""
    arrivals, producers = ledger.common.arrivals, ledger.common.producers
    hour = arrivals.c.hour
    # The window with the weeks before it, and what tells how late records usually are now, and who is silent.
    known = or_((hour >= asked.start - HISTORY) & (hour < asked.end + WEEK), hour >= now - HISTORY)
    names = [*asked.kinds] or [*ledger.kinds]
    for kind in sorted(names):
        question = (
            select(producers.c.name, *(arrivals.c[name] for name in Arrival.__struct_fields__))
            .select_from(arrivals.join(producers, arrivals.c[PRODUCER] == producers.c[PRODUCER]))
            .where(arrivals.c.kind == kind, known)
        )
        found: dict[str, list[Arrival]] = {}
        for producer, *values in connection.execute(question):
            if asked.has(kind, producer):
                found.setdefault(producer, []).append(Arrival(*values))
        yield from (((kind, producer), Cadence(found[producer])) for producer in sorted(found))


def _by_cadence(
    kind: str,
    producer: str,
    cadence: Cadence,
    asked: Asked,
    now: int,
    counted: set[tuple[str, str, int]],
) -> Iterator[Expected]:
    due = cadence.due(now, asked.spreads)
    for day in range(asked.start // DAY * DAY, asked.end, DAY):
        end = min(day + DAY, due)
        if end <= day or (kind, producer, day) in counted:
            continue
        usual, came = cadence.expected(day, end), cadence.came(day, end)
        if usual is None and not came:
            continue
        yield Expected(
            kind=kind,
            producer=producer,
            start=day,
            end=end,
            model=Model.CADENCE if usual else Model.UNKNOWN,
            expected=usual.records if usual else None,
            spread=usual.spread if usual else 0,
            came=came,
            missing=cadence.missing(day, end, now, asked.spreads),
        )


class _Count(msgspec.Struct, frozen=True):
    """One record of the kind `record-count`."""

    vo: str
    counted: str
    producer: str
    site: str
    submit_host: str
    start: int
    end: int
    number: int

    @property
    def scope(self) -> str:
        """What of the kind it counts; "" where it counts what a producer sent."""
        if self.producer:
            return ""
        named = {"vo": "" if self.vo == "all" else self.vo, "site": self.site, "submit_host": self.submit_host}
        return ", ".join(f"{name}={value}" for name, value in named.items() if value) or "all"


def _counts(connection: Connection, ledger: Ledger, asked: Asked) -> Iterator[_Count]:
    """The counts for any time within the window; a producer is asked for by name, or with all."""
    tables = ledger.tables.get(COUNTS)
    if tables is None:
        return
    records, series = tables.records, tables.series
    columns = [(series if name in series.c else records).c[name] for name in _Count.__struct_fields__]
    question = (
        select(*columns)
        .select_from(records.join(series, records.c[SERIES] == series.c[SERIES]))
        .where(records.c[ID] >= id_from(asked.start * SECOND), records.c.start < asked.end * SECOND)
        .order_by(records.c[ID])
    )
    for row in connection.execute(question):
        count = _Count(*row)
        if asked.has(count.counted, count.producer) and count.end > asked.start * SECOND:
            yield count


def _archived_counts(connection: Connection, ledger: Ledger, asked: Asked) -> Iterator[Expected]:
    """That files of the archive may have counts for the window, in one row; earlier versions archived these, too."""
    tables = ledger.tables.get(COUNTS)
    if tables is None:
        return
    window = asked.start * SECOND, asked.end * SECOND
    found = (file for file in files_in(connection, ledger) if file.kind == COUNTS)
    names = [file.file for file in found if meet(possible(tables.kind, file), window)]
    if names:
        why = f"counts of this time may be archived in {listed(names)}; `siteward ledger restore` brings them back"
        yield Expected(kind=COUNTS, producer="", start=asked.start, end=asked.end, model=Model.UNKNOWN, why=why)


def _compared(connection: Connection, ledger: Ledger, count: _Count) -> Expected:
    row = Expected(
        kind=count.counted,
        producer=count.producer,
        scope=count.scope,
        start=count.start // SECOND,
        end=count.end // SECOND,
        model=Model.COUNT,
        expected=count.number,
    )
    try:
        came = _from_producer(connection, ledger, count) if count.producer else _ended(ledger, count)
    except QueryError as error:
        return msgspec.structs.replace(row, model=Model.UNKNOWN, expected=None, why=str(error))
    return msgspec.structs.replace(row, came=came, missing=max(count.number - came, 0))


def _from_producer(connection: Connection, ledger: Ledger, count: _Count) -> int:
    """What came from a producer for the hours of a count's time."""
    if count.start % (HOUR * SECOND) or count.end % (HOUR * SECOND):
        _refuse("what a producer sent is known by the hour; count from one full hour to another")
    arrivals, producers = ledger.common.arrivals, ledger.common.producers
    question = (
        select(arrivals.c.records)
        .select_from(arrivals.join(producers, arrivals.c[PRODUCER] == producers.c[PRODUCER]))
        .where(arrivals.c.kind == count.counted, producers.c.name == count.producer)
        .where(arrivals.c.hour >= count.start // SECOND, arrivals.c.hour < count.end // SECOND)
    )
    return sum(connection.execute(question).scalars())


def _ended(ledger: Ledger, count: _Count) -> int:
    """The records that ended within a count's time, by what it says of them."""
    tables = ledger.tables.get(count.counted)
    if tables is None:
        _refuse(f"kind {count.counted!r} is not in the ledger; there are {', '.join(ledger.tables)}")
    named = {"vo": "" if count.vo == "all" else count.vo, "site": count.site, "submit_host": count.submit_host}
    wanted = {name: value for name, value in named.items() if value}
    _refuse_unknown(tables.kind, wanted)
    query = UsageQuery(
        kind=count.counted,
        wanted=(WantedUsage(Quantity.RECORDS),),
        start=moment(count.start),
        end=moment(count.end),
        attribution=Attribution.BY_END,
        filters=tuple(Filter(name, (value,)) for name, value in wanted.items()),
    )
    return int(Usage(ledger, Nobody()).ask(query, OPERATOR).totals[0] or 0)


def _refuse_unknown(kind: Kind, wanted: Iterable[str]) -> None:
    bucketed = [column.name for column in kind.columns if is_bucketed(column)]
    for name in wanted:
        if name not in bucketed:
            _refuse(f"{name!r} is not in the buckets of {kind.name}; there are {', '.join(bucketed)}")


def _days(start: int, end: int) -> range:
    """The days that lie within a time, whole."""
    return range(-(-start // DAY) * DAY, end // DAY * DAY, DAY)


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
