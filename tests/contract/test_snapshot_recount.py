"""Buckets of snapshots are compared with their records, and made anew from them, on every database."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from at_once import all_at_once
from ledger_databases import emptied, retiered
from snapshot_model import LEVEL, Fields, after, ask, level, level_batch
from usage_model import FIRST, LATER, SOON

from accounting.archive.archiving import archive
from accounting.checks.verifying import BadFile, Counts, Finding, Scope, Untold, verify
from accounting.ledger import Ledger
from accounting.upkeep.rebuild import rebuild
from accounting.upkeep.tiers import compact
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.usage import Period

ASKED = ("sum:used", "mean:stored", "last:used", "min:used", "max:files", "instants", "cycles", "incomplete")


def levels(count: int, seed: int = 1, **changes: Any) -> list[Fields]:
    """Snapshots of a month, several of a series at one instant, cycles that are not whole, unknown values."""
    chance = random.Random(seed)
    return [
        level(
            1000 * seed + number,
            time=after(hours=chance.randrange(30 * 8) * 3, minutes=chance.choice([0, 0, 30])),
            producer=changes.get("producer", chance.choice("pq")),
            site=chance.choice("STU"),
            cycle_size=chance.choice([1, 1, 2]),
            used=chance.randrange(10**6),
            files=chance.choice([None, 0, 7]),
            copies=chance.randrange(3),
        )
        for number in range(count)
    ]


def found(ledger: Ledger, folder: Path) -> list[Finding]:
    return list(verify(ledger, Scope(folder), Counts()))


def figures(ledger: Ledger) -> list[Any]:
    """Everything that the ledger answers, day by day."""
    answer = ask(ledger, *ASKED, by=("site",), period=Period.DAY)
    return [(row.start, row.group, row.values) for row in answer.rows]


def damage(ledger: Ledger, seed: int) -> None:
    """Buckets that lack something, have too much, are gone, or should not be."""
    chance = random.Random(seed)
    tables = ledger.snapshots["level"]
    with ledger.database.write() as connection:
        for table, names in (
            (tables.buckets, ("used", "_records", "_instants", "_least_used", "_most_used", "_last_stored", "_last")),
            (tables.cycles, ("_cycles", "_complete", "_last")),
        ):
            keys = list(table.primary_key.columns)
            for row in chance.sample(sorted(map(tuple, connection.execute(table.select()).all()), key=str), 6):
                mine = [column == value for column, value in zip(keys, row, strict=False)]
                if chance.random() < 0.3:
                    connection.execute(table.delete().where(*mine))
                else:
                    column = table.c[chance.choice(names)]
                    connection.execute(table.update().where(*mine).values({column.name: column + 3}))


def check_mended(ledger: Ledger, folder: Path) -> None:
    """What is damaged is found, and a rebuild gives it back."""
    before = figures(ledger)
    damage(ledger, 1)
    assert found(ledger, folder) != []
    assert sum(each.changed for each in rebuild(ledger, Scope(folder))) > 0
    assert found(ledger, folder) == []
    assert figures(ledger) == before


def test_what_is_booked_is_what_the_snapshots_say(database: Database, tmp_path: Path) -> None:
    """In narrow buckets, wide ones, days that have both, after revisions, and where days are archived."""
    ledger = emptied(database, LEVEL, SOON)
    records = levels(200)
    ledger.write(level_batch(records[:120]))
    assert found(ledger, tmp_path) == []
    ledger.clock = lambda: microseconds(FIRST + timedelta(days=20))
    ledger.write(level_batch(records[100:] + [record | {"revision": 1, "used": 5} for record in records[:30]]))
    assert found(ledger, tmp_path) == []
    compact(ledger)
    assert found(ledger, tmp_path) == []
    ledger.clock = partial(microseconds, LATER)
    compact(ledger)
    list(archive(ledger, tmp_path, FIRST + timedelta(days=10)))
    counts = Counts()
    assert list(verify(ledger, Scope(tmp_path), counts)) == []
    assert (counts.records, counts.differences) == (len(records), 0)
    assert counts.archived > 0
    assert counts.buckets > 0
    elsewhere = [each for each in found(ledger, tmp_path / "elsewhere") if not isinstance(each, BadFile)]
    days = {record["time"] // 86_400_000_000 for record in records if record["time"] < after(days=10)}
    assert sum(each.days for each in elsewhere if isinstance(each, Untold)) == len(days)


def test_buckets_of_other_tiers_are_compared(database: Database, tmp_path: Path) -> None:
    """Also where some lie across the ends of others; and what was wrong in them is made right."""
    ledger = retiered(emptied(database, LEVEL, LATER), LEVEL, (1, 6))
    records = levels(200)
    ledger.write(level_batch(records[:100]))
    ledger = retiered(ledger, LEVEL, (1, 8))
    ledger.write(level_batch(records[100:]))
    compact(ledger)
    assert found(ledger, tmp_path) == []
    check_mended(ledger, tmp_path)


def test_each_wrong_value_is_told(database: Database, tmp_path: Path) -> None:
    """With its series, or with the producer that looked, what there is and what there should be."""
    ledger = emptied(database, LEVEL, SOON)
    ledger.write(level_batch([level(0, used=7), level(1, used=9, time=after(hours=1))]))
    tables = ledger.snapshots["level"]
    with ledger.database.write() as connection:
        first = microseconds(FIRST) // 1_000_000
        here = tables.buckets.c["_start"] == first
        connection.execute(tables.buckets.update().where(here).values(_least_used=3))
        connection.execute(tables.cycles.delete().where(tables.cycles.c["_start"] == first))
    told = [(each.measure, each.booked, each.computed, each.series.get("site")) for each in found(ledger, tmp_path)]  # type: ignore[union-attr]  # all are differences.
    assert told == [
        ("least_used", 3, 7, "S"),
        ("cycles", 0, 1, None),
        ("complete", 0, 1, None),
        ("last", None, microseconds(FIRST), None),
    ]
    assert found(ledger, tmp_path)[1].series == {"producer": "p"}  # type: ignore[union-attr]  # as above.


def test_rebuilding_makes_wrong_buckets_right(database: Database, tmp_path: Path) -> None:
    """Whatever was wrong, in narrow and wide buckets, and whatever is archived; what was right is left alone."""
    ledger = emptied(database, LEVEL, SOON)
    ledger.write(level_batch(levels(150)))
    for now in (SOON, FIRST + timedelta(days=25), LATER):
        ledger.clock = partial(microseconds, now)
        compact(ledger)
        check_mended(ledger, tmp_path)
        assert sum(each.changed for each in rebuild(ledger, Scope(tmp_path))) == 0
        list(archive(ledger, tmp_path, FIRST + timedelta(days=10)))


def test_days_without_all_records_are_left_alone(database: Database, tmp_path: Path) -> None:
    """What nobody can compute anew stays as it is booked, and is named."""
    ledger = emptied(database, LEVEL, LATER)
    ledger.write(level_batch(levels(100)))
    list(archive(ledger, tmp_path, FIRST + timedelta(days=2)))
    before = figures(ledger)
    done = list(rebuild(ledger, Scope(tmp_path / "elsewhere")))
    assert [(each.first, each.last) for portion in done for each in portion.untold] == [
        (FIRST, FIRST + timedelta(days=1))
    ]
    assert sum(each.changed for each in done) == 0
    assert figures(ledger) == before


def test_rebuilding_while_others_write(database: Database, tmp_path: Path) -> None:
    """Two writers of one producer and another, compaction and two rebuilds at once: all is what the records say."""
    ledger = emptied(database, LEVEL, SOON)
    ledger.write(level_batch(levels(150)))
    damage(ledger, 2)

    def write(seed: int, producer: str) -> None:
        mine = Ledger(ledger.database, {"level": LEVEL}, ledger.clock)
        records = levels(90, seed, producer=producer)
        for first in range(0, len(records), 15):
            mine.write(level_batch(records[first : first + 15]))

    later = Ledger(ledger.database, {"level": LEVEL}, partial(microseconds, LATER))
    work: list[Callable[[], object]] = [partial(write, 2, "p"), partial(write, 3, "q"), partial(write, 4, "new")]
    work += [lambda: compact(later), *[lambda: list(rebuild(ledger, Scope(tmp_path)))] * 2]
    assert all_at_once(work) == []
    list(rebuild(ledger, Scope(tmp_path)))
    assert found(ledger, tmp_path) == []
    records = [*levels(150), *levels(90, 2, producer="p"), *levels(90, 3, producer="q"), *levels(90, 4, producer="new")]
    total = ask(ledger, "sum:used", "records").totals
    assert total == (sum(record["used"] for record in records), len(records))


def test_buckets_of_nobody_are_taken_away(database: Database, tmp_path: Path) -> None:
    """Of a series that is not numbered: they are told, and gone after a rebuild."""
    ledger = emptied(database, LEVEL, SOON)
    ledger.write(level_batch([level(0)]))
    with ledger.database.write() as connection:
        connection.execute(ledger.snapshots["level"].buckets.update().values(_series=99_999))
    assert found(ledger, tmp_path) != []
    list(rebuild(ledger, Scope(tmp_path)))
    assert found(ledger, tmp_path) == []


@pytest.mark.parametrize("days", [1, 3])
def test_only_the_days_asked_for_are_looked_at(database: Database, tmp_path: Path, days: int) -> None:
    """Others stay wrong."""
    ledger = emptied(database, LEVEL, SOON)
    ledger.write(level_batch([level(day, time=after(days=day)) for day in range(6)]))
    with ledger.database.write() as connection:
        connection.execute(ledger.snapshots["level"].buckets.update().values(used=1))
    scope = Scope(tmp_path, end=microseconds(FIRST + timedelta(days=days)))
    assert sum(each.changed for each in rebuild(ledger, scope)) == days
    assert len(found(ledger, tmp_path)) == 6 - days
