"""The ledger under fire: collectors that book the same queue die at random, and every record counts once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from engine_grid import EMITTER, IMPORTS, JOBS, eventually
from examples import job
from ledger_databases import Place
from sqlalchemy import func, select
from viewers import answered

from accounting.sink import LedgerSink, open_sink
from accounting.tables import ID
from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from siteward.broker.opening import open_declared
from siteward.kinds import load_kinds
from siteward.kinds.job import Job
from siteward.records import microseconds
from siteward.settings import Settings, load_settings
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage

RATE: Final = 500
"""Records emitted per second."""
MOST: Final = 10**9
"""Nobody waits for so many."""
COLLECT: Final = "from siteward.cli import main; main()"
MEASURES: Final = ("wall_time", "cpu_time", "core_time")
DAY: Final = 86_400_000_000
FIRST: Final = datetime(2026, 3, 1, tzinfo=UTC)
Cells = dict[tuple[int, str], tuple[int, ...]]
"""Sums of the measures, and records, by first microsecond of the day and site; nothing is left out."""


class Installation:
    """One that emits, a queue in a file, and two collectors that book what is in it."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.environ = {
            "SITEWARD_DATA": str(folder / "data"),
            "SITEWARD_ACCOUNTING__URL": place.url,
            "SITEWARD_ACCOUNTING__PASSWORD": place.password,
            "SITEWARD_COLLECTOR__LEAVE_OUT": "monitoring,prometheus",
            # Small batches, so that a kill finds them at any point.
            "SITEWARD_COLLECTOR__BATCH_RECORDS": "500",
            "SITEWARD_LOG_LEVEL": "error",
        }
        self._report = folder / "report.json"
        self._collectors = [self._collector(number) for number in range(2)]
        tests = str(Path(__file__).parent.parent)
        arguments = (tests, str(self._report), str(RATE), str(MOST))
        self._emitter = self._started("-c", IMPORTS + JOBS + EMITTER, *arguments)

    @property
    def settings(self) -> Settings:
        """Of all of them."""
        return load_settings(environ=self.environ)

    def kill(self, number: int) -> None:
        """Kill a collector in the middle of whatever it does, and start it again; the other one goes on."""
        process = self._collectors[number]
        process.kill()
        process.communicate()
        self._collectors[number] = self._collector(number)

    def waiting(self) -> int:
        """Records in the queue."""
        with closing(open_declared(self.settings)) as broker:
            return sum(queue.records or 0 for queue in broker.status())

    def finish(self) -> int:
        """Stop emitting and wait until everything is booked; how many records were emitted."""
        self._report.with_suffix(".stop").touch()
        self._report.with_suffix(".leave").touch()
        assert self._emitter.wait(90) == 0
        eventually(lambda: self.waiting() == 0, "an empty queue")
        emitted: int = json.loads(self._report.read_text())["emitted"]
        return emitted

    def end(self) -> None:
        """End every process that is left."""
        for process in (*self._collectors, self._emitter):
            process.send_signal(signal.SIGTERM)
        for process in (*self._collectors, self._emitter):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()

    def _collector(self, number: int) -> subprocess.Popen[bytes]:
        return self._started("-c", COLLECT, "collect", "ledger", "--name", f"collector-{number}")

    def _started(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *arguments], env=os.environ | self.environ, stdin=subprocess.PIPE)


@contextmanager
def installation(folder: Path, place: Place) -> Iterator[Installation]:
    """One, ended at the end."""
    opened = Installation(folder, place)
    try:
        yield opened
    finally:
        opened.end()


def survives(folder: Path, place: Place, kills: int, tell: Callable[[str], None]) -> None:
    """Kill collectors, and compare what is booked with a plain computation over what was emitted."""
    chance = random.Random(kills)
    with installation(folder, place) as running, closing(open_sink(running.settings, load_kinds())) as sink:
        assert isinstance(sink, LedgerSink)
        eventually(lambda: booked(sink) > 0, "the first records")
        for _ in range(kills):
            # Longer than it takes to start, so that there is always one that books, and often two.
            time.sleep(chance.uniform(0.2, 3.5))
            running.kill(chance.randrange(2))
        reached = booked(sink)
        eventually(lambda: booked(sink) > reached, "further records")
        emitted = running.finish()
        tell(f"ledger on {place.sort}: {kills} kills of collectors, {emitted:,} emitted, {booked(sink):,} booked")
        assert booked(sink) == emitted
        due = computed(emitted)
        for attribution in Attribution:
            assert found(sink, attribution) == due[attribution]
        with DeadLetters(database_path(running.settings)) as letters:
            assert letters.count() == 0


def booked(sink: LedgerSink) -> int:
    """Records in the table; each id is there once."""
    records = sink.ledger.tables["job"].records
    with sink.ledger.database.read() as connection:
        count: int = connection.execute(select(func.count(records.c[ID]))).scalar_one()
        return count


def found(sink: LedgerSink, attribution: Attribution) -> Cells:
    """What the ledger answers."""
    counted = Quantity.STARTED if attribution is Attribution.PRORATED else Quantity.RECORDS
    query = UsageQuery(
        kind="job",
        wanted=(*(WantedUsage(Quantity.SUM, name) for name in MEASURES), WantedUsage(counted)),
        start=FIRST,
        end=FIRST + timedelta(days=10),
        attribution=attribution,
        by=("site",),
        period=Period.DAY,
    )
    cells: Cells = {}
    for row in answered(sink.ledger, query).rows:
        values = tuple(int(value or 0) for value in row.values)
        cells[microseconds(row.start), str(row.group[0])] = values
    return cells


def computed(emitted: int) -> dict[Attribution, Cells]:
    """The same from the records themselves, one by one, in Python's integers."""
    sums: dict[Attribution, Counter[tuple[int, str, int]]] = {each: Counter() for each in Attribution}
    jobs = [job(number) for number in range(1000)]
    for number in range(emitted):
        record = jobs[number % 1000]
        start, end = microseconds(record.start), microseconds(jobs[0].end + timedelta(seconds=number))
        values = measured(record)
        last = end // DAY * DAY
        for place, value in enumerate((*values, 1)):
            sums[Attribution.BY_END][last, record.site, place] += value
        for day in range(start // DAY * DAY, end, DAY):
            before, after = (min(max(instant - start, 0), end - start) for instant in (day, day + DAY))
            for place, value in enumerate(values):
                part = value * after // (end - start) - value * before // (end - start)
                sums[Attribution.PRORATED][day, record.site, place] += part
            sums[Attribution.PRORATED][day, record.site, len(values)] += before == 0
    return {each: _cells(counter) for each, counter in sums.items()}


def measured(record: Job) -> tuple[int, ...]:
    """The measures of a record, in their order."""
    return record.wall_time, record.cpu_time or 0, record.wall_time * record.processors


def _cells(counter: Counter[tuple[int, str, int]]) -> Cells:
    places = range(len(MEASURES) + 1)
    return {(day, site): tuple(counter[day, site, place] for place in places) for day, site, _ in counter}


def test_killed_collectors_book_each_record_once(
    ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]
) -> None:
    """Two collectors of one queue die ten times between them; both attributions are those of the records."""
    survives(tmp_path, ledger_place, 10, tell_counts)


@pytest.mark.soak
def test_collectors_killed_a_hundred_times_book_each_record_once(
    ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]
) -> None:
    """The same a hundred times."""
    survives(tmp_path, ledger_place, 100, tell_counts)
