"""How fast the ledger books jobs, beside bare prepared SQL with the same rows."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

import msgspec

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from bench.bare import Bare, InSets, Recorded
from bench.jobs import BATCH, DAY, JOB, batches
from siteward.server.database import Database, Dialect
from siteward.sinks import Batch, Outcome

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

FIRST: Final = 10
"""Batches that are booked into an empty ledger beside each step of a growing one."""
DAYS: Final = 7
"""Over which the jobs end; all of it lies in the tier of hours."""


class Place(msgspec.Struct, frozen=True):
    """An empty database.

    Attributes:
        url: as in the settings.
        password: of its user.
    """

    url: str
    password: str = ""


class Point(msgspec.Struct):
    """A step of the way.

    Attributes:
        records: booked so far.
        seconds: that a record took since the point before, of the clock.
        processor: that the last of them took of this process' processor time.
        empty: that the first records took, booked into an empty ledger by turns with these.
        clock: how many times as long the last of them took by the clock as those first ones.
    """

    records: int
    seconds: float
    processor: float
    empty: float
    clock: float


class Booked(msgspec.Struct):
    """Rates in records/s.

    Attributes:
        rate: of the ledger.
        bare: of the same rows, inserted and added by prepared statements, in the same transactions.
        sets: of the same rows by the ledger's own statements, whole columns each, in the same transactions.
        rows: rows of buckets that a record touches, those of both attributions together.
    """

    rate: float
    bare: float
    sets: float
    rows: float


def opened(place: Place) -> Ledger:
    """A ledger of jobs, its tables made."""
    database = Database(place.url, place.password)
    return Ledger(database, {"job": JOB}, digests=prepare(database, {"job": JOB}))


def booked(place: Place, by_rows: Place, by_columns: Place, records: int) -> Booked:
    """Book batches of different jobs into a new ledger, and their rows again with nothing but SQL.

    Args:
        place: of the ledger.
        by_rows: where bare SQL writes, in turns with the ledger.
        by_columns: where the ledger's own statements write, as well.
        records: to book.
    """
    for other in (by_rows, by_columns):
        opened(other).close()
    seconds = []
    with (
        closing(opened(place)) as ledger,
        closing(Bare(by_rows.url, by_rows.password)) as bare,
        closing(InSets(by_columns.url, by_columns.password)) as sets,
    ):
        recorded = Recorded(ledger.database.dialect)
        for batch in _recent(records // BATCH):
            _learn(ledger, batch)
            ledger.database.dialect = cast("Dialect", recorded)
            recorded.seconds = 0.0
            seconds.append(_seconds(ledger, batch) - recorded.seconds)
            ledger.database.dialect = recorded.real
            bare.write(recorded.written)
            sets.write(recorded.written)
            recorded.written.clear()
    return Booked(
        rate=BATCH * len(seconds) / sum(seconds),
        bare=BATCH * len(seconds) / bare.seconds,
        sets=BATCH * len(seconds) / sets.seconds,
        rows=recorded.rows / (BATCH * len(seconds)),
    )


def curve(place: Place, others: Sequence[Place], records: int, step: int) -> list[Point]:
    """What a record costs while a ledger grows, beside what the first ones cost in an empty ledger at that time.

    A machine is not always as fast: half an hour apart, only the ratio tells anything.

    Args:
        place: of the ledger that grows.
        others: an empty database for each step.
        records: to book.
        step: records between two points.
    """
    points: list[Point] = []
    with closing(opened(place)) as ledger:
        first = min(FIRST, step // BATCH)
        made = _recent(records // BATCH)
        for place_of_first in others:
            used, last, beside = _Used(), _Used(), _Used()
            for batch in islice(made, step // BATCH - first):
                used.add(ledger, batch)
            # By turns, so that a machine that is slow for a moment is slow for both.
            with closing(opened(place_of_first)) as empty:
                for batch, same in zip(islice(made, first), _recent(records // BATCH), strict=False):
                    last.add(ledger, batch)
                    beside.add(empty, same)
            seconds = (used.seconds + last.seconds) / step
            points.append(
                Point((len(points) + 1) * step, seconds, last.each, beside.each, last.seconds / beside.seconds)
            )
    return points


class _Used:
    """What records have cost, in seconds."""

    def __init__(self) -> None:
        self.seconds = self.processor = 0.0
        self._records = 0

    def add(self, ledger: Ledger, batch: Batch) -> None:
        """Book a batch."""
        _learn(ledger, batch)
        began = time.process_time()
        self.seconds += _seconds(ledger, batch)
        self.processor += time.process_time() - began
        self._records += len(batch)

    @property
    def each(self) -> float:
        """Of the processor, for a record."""
        return self.processor / self._records


def together(place: Place, records: int, writers: int) -> float:
    """Records/s that several processes book into one ledger, all of the same series."""
    opened(place).close()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(writers + 1)
    processes = [
        context.Process(target=_write, args=(place, records // BATCH // writers, number, barrier))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    barrier.wait(600)
    began = time.perf_counter()
    for process in processes:
        process.join()
    taken = time.perf_counter() - began
    assert not any(process.exitcode for process in processes)
    return records // BATCH // writers * writers * BATCH / taken


def _write(place: Place, count: int, seed: int, barrier: Barrier) -> None:
    with closing(opened(place)) as ledger:
        made = list(_recent(count, seed))
        for batch in made:
            _learn(ledger, batch)
        barrier.wait(600)
        for batch in made:
            _seconds(ledger, batch)


def _recent(count: int, seed: int = 1) -> Iterator[Batch]:
    now = time.time_ns() // 1000
    return batches(count, now - DAYS * DAY, now - DAY // 24, seed)


def _learn(ledger: Ledger, batch: Batch) -> None:
    """Series and producers are looked up once for the life of a collector."""
    ledger.numbers.series_of(JOB, batch.columns)
    ledger.numbers.producers_of(batch.producers)


def _seconds(ledger: Ledger, batch: Batch) -> float:
    began = time.perf_counter()
    outcomes: Sequence[Outcome] = ledger.write(batch).outcomes
    seconds = time.perf_counter() - began
    assert all(outcome is Outcome.STORED for outcome in outcomes)
    return seconds
