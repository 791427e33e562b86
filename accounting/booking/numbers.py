"""The numbers by which one process books: of series, producers and counters, as long as its database has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, select

from accounting.booking.dictionary import AT_ONCE, Dictionary, Row
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import ENTRY, SERIES, CommonTables, is_bucketed
from siteward.log import get_logger
from siteward.records import Kind
from siteward.records.declaration import Column
from siteward.server.database import Conflict, Database

LATEST: Final = 8
"""Transactions of this process that are looked for: the one that was committed last may not be the last to say so."""
LOST: Final = "the database has lost what this process had written: it was put back, or another server took over"
log = get_logger(__name__)


class Lost(Conflict):
    """The database has lost what this process wrote or read: all numbers were forgotten; do it again."""


class Numbers:
    """Numbers that are kept in memory, for all threads of a process.

    A database that is put back from a backup, or a standby that takes over a moment behind, has lost the latest rows,
    and gives their numbers to others. So each transaction that books looks first whether the last ones of this process
    are there still, and the rows that were numbered since.
    """

    def __init__(self, database: Database, common: CommonTables, tables: Mapping[str, Tables]) -> None:
        """Name the tables.

        Args:
            database: where they are.
            common: those that all kinds share.
            tables: of each kind, by its name.
        """
        self._entries = common.entries
        self._latest: deque[int] = deque(maxlen=LATEST)
        self._life = 0
        self._producers = Dictionary(database, common.producers, [None])
        self._series = {
            name: Dictionary(database, each.series, [column.default for column in bucketed(each.kind)])
            for name, each in tables.items()
        }
        self._counters = {
            name: Dictionary(database, each.counters, [None] * (1 + len(each.kind.counted_by)))
            for name, each in tables.items()
            if not isinstance(each, SnapshotTables) and each.counters is not None
        }

    def series_of(self, kind: Kind, columns: Mapping[str, Sequence[Any]]) -> list[int]:
        """The number of each record's series."""
        rows = list(zip(*(columns[column.name] for column in bucketed(kind)), strict=True))
        return self._series[kind.name].numbers(rows)

    def known_series(self, kind: Kind, rows: Sequence[Row]) -> list[int]:
        """The same for rows of bucketed dimensions, within a transaction.

        Raises:
            accounting.booking.dictionary.Unnumbered: give its rows to `number_series`, and do the transaction again.
        """
        return self._series[kind.name].known(rows)

    def number_series(self, kind: Kind, rows: Sequence[Row]) -> None:
        """Number series, in a transaction of its own."""
        self._series[kind.name].numbers(rows)

    def counters_of(self, kind: Kind, columns: Mapping[str, Sequence[Any]]) -> list[int]:
        """The number of each record's counter."""
        rows = list(zip(*(columns[name] for name in ("vo", *kind.counted_by)), strict=True))
        return self._counters[kind.name].numbers(rows)

    def producers_of(self, names: Sequence[str]) -> list[int]:
        """The number of each producer."""
        return self._producers.numbers([(name,) for name in names])

    @property
    def life(self) -> int:
        """How often all numbers were forgotten: to be read before numbers are, for `refuse_lost`."""
        return self._life

    def refuse_lost(self, connection: Connection, life: int | None = None) -> None:
        """Look whether the database of a transaction has all that these numbers were read from.

        Args:
            connection: of the transaction.
            life: `life` before the numbers were read that are used in it; None where none were.

        Raises:
            Lost: it has not, or another thread has noticed so meanwhile; from now on they are read again.
        """
        if not (self._are_there(connection) and all(each.holds(connection) for each in self._dictionaries())):
            # Before anything is forgotten: who looks at what is half forgotten sees that it is another life.
            self._life += 1
            self._latest.clear()
            for each in self._dictionaries():
                each.forget()
            log.warning(LOST)
            raise Lost(LOST)
        if life is not None and life != self._life:
            raise Lost(LOST)

    def settle(self, entry: int) -> None:
        """Know that a transaction of this process was committed in which nothing was lost.

        Args:
            entry: that it has left.
        """
        self._latest.append(entry)
        for each in self._dictionaries():
            each.settle()

    def _are_there(self, connection: Connection) -> bool:
        latest = tuple(self._latest)
        if not latest:
            return True
        mine = select(func.count()).where(self._entries.c[ENTRY].in_(latest))
        return int(connection.execute(mine).scalar_one()) == len(set(latest))

    def _dictionaries(self) -> Iterator[Dictionary]:
        yield self._producers
        yield from self._series.values()
        yield from self._counters.values()


def bucketed(kind: Kind) -> list[Column]:
    """The dimensions of a kind that enter buckets: what a series is made of."""
    return [column for column in kind.columns if is_bucketed(column)]


def series_in(connection: Connection, tables: Tables, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The dimensions of some series, by number."""
    found: dict[int, dict[str, Any]] = {}
    wanted = sorted(set(numbers))
    table = tables.series
    _, _, *dimensions = table.columns
    for first in range(0, len(wanted), AT_ONCE):
        chosen = select(table.c[SERIES], *dimensions).where(table.c[SERIES].in_(wanted[first : first + AT_ONCE]))
        names = [str(column.name) for column in dimensions]
        for number, *values in connection.execute(chosen):
            found[number] = dict(zip(names, values, strict=True))
    return found
