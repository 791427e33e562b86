"""Snapshots and counters under fire: who books them or puts their buckets together dies at random, and all is right."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import counter_model
import pytest
import snapshot_model
from counter_model import MACHINE, machine_batch
from ledger_databases import Place, in_brief
from snapshot_model import LEVEL, Fields, level_batch
from usage_model import newest
from viewers import answered

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.query.calendar import periods_of
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Batch
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage

FIRST: Final = datetime(2026, 1, 30, tzinfo=UTC)
KINDS: Final = {"level": LEVEL, "machine": MACHINE}
WRITER: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from end_to_end.test_snapshot_kills import write_for_ever
write_for_ever(sys.argv[2], sys.stdin.readline().strip())
"""


def ledger_at(url: str, password: str, now: datetime) -> Ledger:
    database = Database(url, password)
    return Ledger(database, KINDS, lambda: microseconds(now), prepare(database, KINDS))


def levels() -> list[Fields]:
    """Cycles of three producers over two days; one record in five is revised later."""
    chance = random.Random(1)
    made = []
    for number in range(600):
        moment = microseconds(FIRST) + number % 40 * 4_000_000_000
        fields: Fields = {
            "vo": "one",
            "time": moment,
            "producer": f"p{number % 3}",
            "cycle_size": 5,
            "site": f"S{number % 4}",
            "user": "",
            "name": str(number),
            "used": chance.randrange(10**6),
            "files": chance.choice([None, chance.randrange(100)]),
            "copies": 1 + number % 3,
            "simulated": False,
            "revision": 0,
            "_id": (moment // 1000).to_bytes(6, "big") + number.to_bytes(10, "big"),
        }
        made += [fields, fields | {"used": 7, "revision": 1}] if number % 5 == 0 else [fields]
    return made


def machines() -> list[Fields]:
    """Ten machines, sixty records of each; one record in five is revised later."""
    made = []
    for number in range(600):
        moment = microseconds(FIRST) + (1 + number // 10) * 3_000_000_000
        fields: Fields = {
            "vo": "one",
            "time": moment,
            "started": microseconds(FIRST),
            "producer": "p",
            "cycle_size": 10,
            "site": f"S{number // 100 % 3}",
            "name": str(number % 10),
            "wall_time": (moment - microseconds(FIRST)) // 1_000_000,
            "cpu_time": None if number % 7 == 0 else number * 10,
            "processors": 1 + number % 3,
            "simulated": False,
            "revision": 0,
            "_id": (moment // 1000).to_bytes(6, "big") + (number % 10).to_bytes(10, "big"),
        }
        made += [fields, fields | {"wall_time": number, "revision": 1}] if number % 5 == 0 else [fields]
    return made


def batches(chance: random.Random) -> Iterator[Batch]:
    """Everything once, in an order of its own, some records at a time."""
    parts = [(make, records) for make, records in ((level_batch, levels()), (machine_batch, machines()))]
    for _, records in parts:
        chance.shuffle(records)
    for first in range(0, 800, 40):
        for make, records in parts:
            if chosen := records[first : first + 40]:
                yield make(chosen)


def write_for_ever(url: str, password: str) -> None:
    """What a process does until it is killed: books everything again and again, and puts buckets together."""
    from accounting.upkeep.tiers import compact  # noqa: PLC0415  # in the process itself.

    chance = random.Random(time.time_ns())
    with (
        closing(ledger_at(url, password, FIRST)) as ledger,
        closing(ledger_at(url, password, FIRST + timedelta(days=300))) as later,
    ):
        while True:
            for number, batch in enumerate(batches(chance)):
                ledger.write(batch)
                if number % 5 == 0:
                    compact(later)


def started(place: Place) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent.parent)
    # A password is on no command line.
    process = subprocess.Popen([sys.executable, "-c", WRITER, tests, place.url], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(place.password + "\n")
    process.stdin.flush()
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def survives(place: Place, kills: int, tell: Callable[[str], None]) -> None:
    """Kill writers, book what is missing, and compare with a plain computation."""
    chance = random.Random(kills)
    with closing(ledger_at(place.url, place.password, FIRST)) as ledger:
        running = [started(place) for _ in range(2)]
        try:
            for _ in range(kills):
                time.sleep(chance.uniform(0.5, 3))
                number = chance.randrange(2)
                assert running[number].poll() is None, "it ended by itself"
                ended(running[number])
                running[number] = started(place)
        finally:
            for process in running:
                ended(process)
        for batch in batches(chance):
            ledger.write(batch)
        tell(f"snapshots and counters on {place.sort}: {kills} kills of writers")
        of_levels = ("sum:used", "min:used", "max:stored", "last:used", "last-known:files", "mean:used", "incomplete")
        assert found(ledger, "level", of_levels, Attribution.AT_INSTANT) == due(
            snapshot_model, levels(), "level", of_levels, Attribution.AT_INSTANT
        )
        of_machines = ("sum:wall_time", "sum:cpu_time", "sum:core_time", "records")
        for attribution in (Attribution.PRORATED, Attribution.BY_END):
            assert found(ledger, "machine", of_machines, attribution) == due(
                counter_model, machines(), "machine", of_machines, attribution
            )


def asked(kind: str, texts: tuple[str, ...], attribution: Attribution) -> UsageQuery:
    parts = [text.partition(":") for text in texts]
    return UsageQuery(
        kind=kind,
        wanted=tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in parts),
        start=FIRST - timedelta(days=1),
        end=FIRST + timedelta(days=5),
        attribution=attribution,
        by=("site",),
        period=Period.DAY,
    )


def found(ledger: Ledger, kind: str, texts: tuple[str, ...], attribution: Attribution) -> dict[Any, Any]:
    rows = answered(ledger, asked(kind, texts, attribution)).rows
    return {(row.start, row.group): row.values for row in rows if any(row.values)}


def due(model: Any, records: list[Fields], kind: str, texts: tuple[str, ...], attribution: Attribution) -> Any:
    query = asked(kind, texts, attribution)
    cells = model.cells(newest(records), query, periods_of(query.start, query.end, query.period))
    return {
        cell: tuple(pytest.approx(each, rel=1e-12) if isinstance(each, float) else each for each in values)
        for cell, values in cells.items()
        if any(values)
    }


@in_brief
def test_killed_writers_leave_snapshots_and_counters_right(
    ledger_place: Place, tell_counts: Callable[[str], None]
) -> None:
    """Two of them die six times between them, in the middle of bookings, revisions and compaction."""
    survives(ledger_place, 6, tell_counts)


@pytest.mark.soak
def test_writers_killed_sixty_times_leave_snapshots_and_counters_right(
    ledger_place: Place, tell_counts: Callable[[str], None]
) -> None:
    """The same sixty times."""
    survives(ledger_place, 60, tell_counts)
