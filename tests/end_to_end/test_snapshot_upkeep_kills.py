"""The upkeep of snapshots under fire: archive, restoring, compaction and rebuild die at any moment; all is right."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from killing import held, killed
from ledger_databases import Place, in_brief, prepared
from snapshot_model import LEVEL, Fields, after, cells, level, level_batch, wanted
from sqlalchemy import func, select
from usage_model import FIRST
from viewers import answered

from accounting.archive.archiving import archive, files
from accounting.archive.restoring import restore
from accounting.checks.verifying import Counts, Scope, verify
from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from accounting.tables import WIDTH
from accounting.upkeep.rebuild import rebuild
from accounting.upkeep.tiers import compact
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import Attribution, Period, UsageQuery

DAYS: Final = 8
DAY: Final = 86_400
OVER: Final = FIRST + timedelta(days=DAYS)
HORIZON: Final = FIRST + timedelta(days=6)
LATER: Final = FIRST + timedelta(days=300)
WHAT: Final = ("archive", "compact", "rebuild")
WORKER: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from end_to_end.test_snapshot_upkeep_kills import keep_up_for_ever
keep_up_for_ever(sys.argv[2], sys.stdin.readline().strip(), sys.argv[3], sys.argv[4])
"""


def ledger_at(url: str, password: str, now: datetime) -> Ledger:
    return prepared(Database(url, password), LEVEL, microseconds(now))


def levels() -> list[Fields]:
    """Cycles of two producers over some days, in any order: some are not whole, some values are not known."""
    chance = random.Random(1)
    made = [
        level(
            number,
            time=after(hours=3 * (number // 4)),
            producer=f"p{number % 2}",
            site=f"S{number % 3}",
            cycle_size=2 + number % 5 // 4,
            used=chance.randrange(10**6),
            files=chance.choice([None, chance.randrange(100)]),
        )
        for number in range(DAYS * 24 // 3 * 4)
    ]
    chance.shuffle(made)
    return made


def keep_up_for_ever(url: str, password: str, folder: str, what: str) -> None:
    """What a process does until it is killed; of the archive it brings half of the files back."""
    chance = random.Random(time.time_ns())
    with closing(ledger_at(url, password, LATER)) as ledger:
        print("ready", flush=True)  # noqa: T201  # to the test.
        while True:
            if what == "archive":
                list(archive(ledger, Path(folder), HORIZON))
                for file in files(ledger):
                    if chance.random() < 0.5:
                        restore(ledger, Path(folder), file.file)
            elif what == "compact":
                compact(ledger)
            else:
                list(rebuild(ledger, Scope(Path(folder))))


def check(ledger: Ledger, folder: Path, records: Sequence[Fields]) -> None:
    """Every record is in one place, all again are duplicates, figures and buckets are what the records come to."""
    assert held(ledger, "level") == Counter(each["_id"] for each in records)
    assert set(ledger.write(level_batch(records)).outcomes) == {Outcome.DUPLICATE}
    texts = ("sum:used", "sum:files", "min:used", "max:stored", "mean:used", "last:used", "last-known:files", "cycles")
    query = UsageQuery(
        kind="level",
        wanted=wanted(*texts, "incomplete", "instants", "records"),
        start=FIRST,
        end=OVER,
        attribution=Attribution.AT_INSTANT,
        by=("site",),
        period=Period.DAY,
    )
    due = cells(records, query, periods_of(query.start, query.end, query.period))
    assert {(row.start, row.group): row.values for row in answered(ledger, query).rows} == {
        cell: tuple(pytest.approx(each, rel=1e-12) if isinstance(each, float) else each for each in values)
        for cell, values in due.items()
    }
    assert list(verify(ledger, Scope(folder), Counts())) == []


def damage(ledger: Ledger) -> None:
    """Every sum is one too large, as if somebody had changed it."""
    buckets = ledger.snapshots["level"].buckets
    with ledger.database.write() as connection:
        connection.execute(buckets.update().values(used=buckets.c.used + 1))


def survives(folder: Path, place: Place, what: str, kills: int) -> int:
    """Kill what keeps snapshots up while others come; how many of them had to wait for a file of the archive."""
    chance = random.Random(kills)
    arriving = levels()
    booked: list[Fields] = []
    refused: list[Fields] = []
    with (
        closing(ledger_at(place.url, place.password, OVER)) as ledger,
        closing(ledger_at(place.url, place.password, LATER)) as later,
    ):

        def write(records: Sequence[Fields]) -> None:
            for record in records:
                # What comes late lies in narrow buckets.
                reasons = ledger.write(level_batch([record])).reasons
                (refused if reasons else booked).append(record)

        write(arriving[:: kills + 1])
        for number in range(1, kills + 1):
            if what == "rebuild":
                damage(ledger)
            meanwhile = partial(write, arriving[number :: kills + 1])
            killed(WORKER, place, (str(folder), what), meanwhile, chance.uniform(0, 0.3))
        if what == "rebuild":
            list(rebuild(later, Scope(folder)))
        elif what == "compact":
            compact(later)
            buckets = later.snapshots["level"].buckets
            with later.database.read() as connection:
                # What came late stays narrow where its day was put together before.
                assert connection.execute(select(func.max(buckets.c[WIDTH]))).scalar_one() == DAY
        check(later, folder, booked)
        for file in files(later):
            assert restore(later, folder, file.file) == file.records
        if refused:
            assert later.write(level_batch(refused)).reasons == {}
        check(later, folder, arriving)
    return len(refused)


@in_brief
@pytest.mark.parametrize("what", WHAT)
def test_killed_upkeep_of_snapshots_loses_nothing(
    ledger_place: Place, tmp_path: Path, what: str, tell_counts: Callable[[str], None]
) -> None:
    """Killed three times while records come late, then done: each is in one place, and every figure is theirs."""
    waiting = survives(tmp_path, ledger_place, what, 3)
    tell_counts(f"{what} of snapshots on {ledger_place.sort}: 3 kills, {waiting} records waited")


@pytest.mark.soak
@pytest.mark.parametrize("what", WHAT)
def test_upkeep_of_snapshots_killed_again_and_again_loses_nothing(
    ledger_place: Place, tmp_path: Path, what: str, tell_counts: Callable[[str], None]
) -> None:
    """The same thirty times."""
    waiting = survives(tmp_path, ledger_place, what, 30)
    tell_counts(f"{what} of snapshots on {ledger_place.sort}: 30 kills, {waiting} records waited")
