"""Writers at once, of every sort of kind: none of them has to give way to another, whatever they have in common."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import pytest
from at_once import all_at_once
from counter_model import MACHINE, machine, machine_batch
from given_up import given_up
from ledger_databases import emptied
from snapshot_model import LEVEL, after, level, level_batch
from sqlalchemy import func, select
from usage_model import FIRST, HOUR, USE, Fields, batch, use

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.periods.closing import close
from accounting.tables import ID
from accounting.upkeep.months import parse_month
from siteward.records import Kind, microseconds
from siteward.server.database import Database
from siteward.sinks import Batch

WRITERS: Final = 4
SPOTS: Final = 150
"""Buckets, or more, to which every writer adds a record of its own."""
COMMON: Final = 50
"""Others, whose records every writer sends."""
AT_ONCE: Final = 75
"""Records of a batch."""
NOW: Final = FIRST + timedelta(days=40)
"""When February is over, and its last days lie in buckets of an hour still."""
Made = Callable[[int, int], Fields]


def a_use(spot: int, place: int) -> Fields:
    """Of hours to days, from a few producers; most spots are a series."""
    end = microseconds(FIRST) + spot * 997 % 700 * HOUR
    sited = {"site": f"S{spot % 13}", "user": f"u{spot % 97}", "_producer": f"ce{spot % 5}"}
    return use(WRITERS * spot + place, start=end - (1 + spot % 40) * HOUR, end=end, **sited)


def a_level(spot: int, place: int) -> Fields:
    """Of cycles of a few producers."""
    producer, time = f"p{spot % 3}", after(hours=spot // 10 * 7)
    return level(WRITERS * spot + place, time=time, producer=producer, site=f"S{spot % 5}", cycle_size=7, used=spot)


def a_machine(spot: int, place: int) -> Fields:
    """Of fifteen machines, each of which every writer knows something of."""
    return machine(spot % 15, day=1 + spot // 15 * 2 + place / 8, site=f"S{spot % 3}")


def batches(made: Made, batched: Callable[[Sequence[Fields]], Batch], place: int) -> Iterator[Batch]:
    """What one writer sends: what all send, records of its own in the others' buckets, and revisions of both."""
    chance = random.Random(place)
    common = [made(spot, other) for spot in range(SPOTS, SPOTS + COMMON) for other in range(WRITERS)]
    mine = [made(spot, place) for spot in range(SPOTS)]
    for records in (common, mine, [*map(revised, mine[::3])], [*map(revised, common[::3])]):
        chance.shuffle(records)
        for begin in range(0, len(records), AT_ONCE):
            yield batched(records[begin : begin + AT_ONCE])


def revised(record: Fields) -> Fields:
    """The same at another site."""
    return record | {"revision": 1, "site": "T"}


@pytest.mark.parametrize(
    ("kind", "made", "batched"),
    [(USE, a_use, batch), (LEVEL, a_level, level_batch), (MACHINE, a_machine, machine_batch)],
    ids=["use", "level", "machine"],
)
def test_writers_at_once_never_give_way(
    database: Database, kind: Kind, made: Made, batched: Callable[[Sequence[Fields]], Batch]
) -> None:
    """Four that share buckets, series, producers, a closed month and records: not one deadlock that is done again."""
    first = emptied(database, kind, NOW)
    digests = prepare(database, {kind.name: kind})
    if not kind.of_instants:
        close(first, kind.name, parse_month("2026-02"), "anna")

    def write(place: int) -> None:
        mine = Ledger(database, {kind.name: kind}, first.clock, digests)
        for each in batches(made, batched, place):
            mine.write(each)

    with given_up(database) as said:
        errors = all_at_once(partial(write, place) for place in range(WRITERS))
    assert errors == []
    assert said == []
    records = first.tables_of(kind.name).records
    with database.read() as connection:
        counted = connection.execute(select(func.count(records.c[ID]), func.sum(records.c.revision))).one()
    of_all = WRITERS * SPOTS, WRITERS * COMMON
    assert tuple(map(int, counted)) == (sum(of_all), sum(-(-count // 3) for count in (*[SPOTS] * WRITERS, of_all[1])))
