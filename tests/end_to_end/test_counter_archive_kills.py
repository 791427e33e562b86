"""Counters leave for the archive and come back while processes die at any moment: no difference is lost or doubled."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from counter_model import MACHINE, Fields, cells, machine, machine_batch
from killing import held, killed
from ledger_databases import Place, in_brief, prepared
from usage_model import FIRST, LATER, newest
from viewers import answered

from accounting.archive.archiving import archive, files
from accounting.archive.restoring import restore
from accounting.checks.verifying import Counts, Scope, verify
from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.usage import OF_USAGE, Period, Quantity, UsageQuery, WantedUsage

HORIZON: Final = FIRST + timedelta(days=8)
KEEPER: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from end_to_end.test_counter_archive_kills import keep_for_ever
keep_for_ever(sys.argv[2], sys.stdin.readline().strip(), sys.argv[3])
"""


def ledger_at(url: str, password: str) -> Ledger:
    return prepared(Database(url, password), MACHINE, microseconds(LATER))


def machines() -> list[Fields]:
    """Five machines over ten days; one is started again, some records lack a counter, some are revised."""
    made = []
    for place in range(120):
        number, step = place % 5, place // 5
        again = microseconds(FIRST + timedelta(days=5)) if number == 3 and step > 13 else microseconds(FIRST)
        fields = machine(number, day=0.1 + step / 2.4, started=again, site=f"S{number % 3}", processors=1 + step % 3)
        fields |= {"wall_time": step * 100 + number, "cpu_time": None if place % 7 == 0 else place * 10}
        made += [fields, fields | {"wall_time": place, "revision": 1}] if place % 9 == 0 else [fields]
    return made


def keep_for_ever(url: str, password: str, folder: str) -> None:
    """What a process does until it is killed: archives, and brings half of the files back."""
    chance = random.Random(time.time_ns())
    with closing(ledger_at(url, password)) as ledger:
        print("ready", flush=True)  # noqa: T201  # to the test.
        while True:
            list(archive(ledger, Path(folder), HORIZON))
            for file in files(ledger):
                if chance.random() < 0.5:
                    restore(ledger, Path(folder), file.file)


def check(ledger: Ledger, folder: Path, records: Sequence[Fields]) -> None:
    """Every record is in one place, figures are those of the records, buckets are what the records come to."""
    assert held(ledger, "machine") == Counter({each["_id"] for each in records})
    for attribution in OF_USAGE:
        query = UsageQuery(
            kind="machine",
            wanted=tuple(WantedUsage(Quantity.SUM, name) for name in ("wall_time", "cpu_time", "core_time")),
            start=FIRST - timedelta(days=1),
            end=FIRST + timedelta(days=15),
            attribution=attribution,
            by=("site",),
            period=Period.DAY,
        )
        rows = {(row.start, row.group): row.values for row in answered(ledger, query).rows if any(row.values)}
        due = cells(newest(records), query, periods_of(query.start, query.end, query.period))
        assert rows == {cell: values for cell, values in due.items() if any(values)}
    assert list(verify(ledger, Scope(folder), Counts())) == []


def survives(folder: Path, place: Place, kills: int) -> int:
    """Kill what keeps the archive while records come in any order; how many of them had to wait for a file."""
    chance = random.Random(kills)
    arriving = machines()
    chance.shuffle(arriving)
    booked: list[Fields] = []
    refused: list[Fields] = []
    with closing(ledger_at(place.url, place.password)) as ledger:
        for number in range(kills):
            mine = arriving[number::kills]

            def write(mine: Sequence[Fields] = mine) -> None:
                for record in mine:
                    reasons = ledger.write(machine_batch([record])).reasons
                    (refused if reasons else booked).append(record)

            killed(KEEPER, place, (str(folder),), write, chance.uniform(0, 0.3))
        check(ledger, folder, booked)
        list(archive(ledger, folder, HORIZON))
        check(ledger, folder, booked)
        for file in files(ledger):
            restore(ledger, folder, file.file)
        if refused:
            assert ledger.write(machine_batch(refused)).reasons == {}
        check(ledger, folder, arriving)
    return len(refused)


@in_brief
def test_killed_archives_of_counters_lose_nothing(
    ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]
) -> None:
    """Killed four times while it archives and restores, and records come late: each difference counts once."""
    waiting = survives(tmp_path, ledger_place, 4)
    tell_counts(f"counters archived and restored on {ledger_place.sort}: 4 kills, {waiting} records waited")


@pytest.mark.soak
def test_archives_of_counters_killed_again_and_again_lose_nothing(
    ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]
) -> None:
    """The same fifty times."""
    waiting = survives(tmp_path, ledger_place, 50)
    tell_counts(f"counters archived and restored on {ledger_place.sort}: 50 kills, {waiting} records waited")
