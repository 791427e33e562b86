"""What came of whom, counted with what is booked, and compared with what was expected: on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from at_once import all_at_once
from examples import JOB, batch_of, job
from given_up import given_up
from ledger_databases import prepared
from sqlalchemy import select

from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.completeness.cadence import SPREADS
from accounting.completeness.comparing import Asked, Completeness, Expected, Model, completeness
from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from siteward.kinds.job import Job
from siteward.kinds.record_count import RecordCount
from siteward.records import Kind, Record, kind_of, microseconds
from siteward.server.database import Database
from siteward.sinks import Batch, Outcome

COUNT: Final = kind_of(RecordCount)
MONDAY: Final = datetime(2026, 3, 2, tzinfo=UTC)
NOW: Final = MONDAY + timedelta(weeks=5, days=3)
Opens = Callable[[], Database]
Came = dict[tuple[str, datetime], tuple[int, int, int]]


def opened(database: Database, now: datetime = NOW) -> Ledger:
    kinds = {"job": JOB, "record-count": COUNT}
    return Ledger(database, kinds, lambda: microseconds(now), prepare(database, kinds))


def batch(records: list[Record], producer: str = "ce", kind: Kind = JOB) -> Batch:
    made = batch_of(kind, [kind.row_of(each, microseconds(NOW)) for each in records])
    made.producers = [producer] * len(records)
    return made


def ended(number: int, end: datetime, **changes: Any) -> Job:
    return job(number, start=end - timedelta(hours=1), end=end, **changes)


def came(ledger: Ledger) -> Came:
    """Records, first and last time received, by producer and hour."""
    arrivals, producers = ledger.common.arrivals, ledger.common.producers
    columns = (arrivals.c.hour, arrivals.c.records, arrivals.c.first, arrivals.c.last)
    joined = arrivals.join(producers, arrivals.c["_producer"] == producers.c["_producer"])
    with ledger.database.read() as connection:
        rows = connection.execute(select(producers.c.name, *columns).select_from(joined)).all()
    return {(name, datetime.fromtimestamp(hour, UTC)): (count, *times) for name, hour, count, *times in rows}


def test_new_records_are_counted_by_producer_and_hour(open_database: Opens, tmp_path: Path) -> None:
    """Neither duplicates nor newer revisions are, nor records that come back from the archive."""
    ledger = opened(open_database())
    hour = MONDAY + timedelta(hours=5)
    jobs = [ended(number, hour + timedelta(minutes=20 * number)) for number in range(5)]
    ledger.clock = lambda: microseconds(MONDAY + timedelta(days=1))
    ledger.write(batch([*jobs, jobs[0]]))
    ledger.clock = lambda: microseconds(MONDAY + timedelta(days=2))
    newer = ended(1, jobs[1].end, revision=1)
    assert ledger.write(batch([newer, jobs[0], ended(9, hour)])).outcomes[0] is Outcome.REPLACED
    ledger.write(batch([ended(10, hour)], "other"))
    first, second = (int((MONDAY + timedelta(days=day)).timestamp()) for day in (1, 2))
    due = {
        ("ce", hour): (4, first, second),
        ("ce", hour + timedelta(hours=1)): (2, first, first),
        ("other", hour): (1, second, second),
    }
    assert came(ledger) == due
    (file,) = archive(ledger, tmp_path, MONDAY + timedelta(days=1))
    ledger.write(batch(list(jobs)))
    restore(ledger, tmp_path, file.file)
    ledger.write(batch(list(jobs)))
    assert came(ledger) == due


def test_writers_at_once_count_each_record_once(open_database: Opens) -> None:
    """Four writers of the same hours and producers, in different orders: no deadlock, and nothing counted twice."""
    first = opened(open_database())
    jobs = [ended(number, MONDAY + timedelta(minutes=7 * number)) for number in range(240)]

    def write(place: int) -> None:
        mine = prepared(first.database, JOB, microseconds(NOW))
        for round_ in range(8):
            start = (round_ * 3 + place) % 8 * 30
            made = batch([*jobs[start : start + 30]])
            # A producer for each record, so that two writers meet in many rows.
            made.producers = [f"ce{number % 5}" for number in range(start, start + 30)]
            mine.write(made)

    with given_up(first.database) as said:
        errors = all_at_once(partial(write, place) for place in range(4))
    assert (errors, said) == ([], [])
    counted = came(first)
    assert sum(count for count, _, _ in counted.values()) == 240
    assert {count for count, _, _ in counted.values()} <= {1, 2, 3}


def regular(ledger: Ledger, missing: datetime) -> None:
    """Five weeks and three days of jobs, two every six hours, received an hour later, but for one day."""
    number = 0
    for hours in range(0, (5 * 7 + 3) * 24, 6):
        end = MONDAY + timedelta(hours=hours, minutes=30)
        number += 2
        if missing <= end < missing + timedelta(days=1):
            continue
        ledger.clock = partial(microseconds, end + timedelta(hours=1, minutes=30))
        ledger.write(batch([ended(number, end), ended(number + 1, end, site="SITE-X")]))
    ledger.clock = lambda: microseconds(NOW)


def asked(ledger: Ledger, start: datetime, end: datetime = NOW, **changes: Any) -> Completeness:
    question = Asked(start=int(start.timestamp()), end=int(end.timestamp()), **changes)
    return completeness(ledger, question)


def lacking(answer: Completeness) -> list[tuple[str, int | None, int, int]]:
    def day(row: Expected) -> str:
        return datetime.fromtimestamp(row.start, UTC).date().isoformat()

    return [(day(row), row.expected, row.came, row.missing) for row in answer.rows if row.missing]


def test_a_day_without_records_is_missed_and_then_filled(open_database: Opens) -> None:
    """By the cadence of four weeks; when the records come after all, nothing is missing any more."""
    ledger = opened(open_database())
    away = MONDAY + timedelta(weeks=5)
    regular(ledger, away)
    answer = asked(ledger, away - timedelta(days=3))
    assert {row.model for row in answer.rows} == {Model.CADENCE}
    assert lacking(answer) == [("2026-04-06", 8, 0, 8)]
    assert [each.silence for each in answer.producers] == [None]
    assert lacking(asked(ledger, away - timedelta(days=3), kinds=("record-count",))) == []
    assert lacking(asked(ledger, away - timedelta(days=3), producers=("other",))) == []
    late = [ended(5000 + number, away + timedelta(hours=3 * number)) for number in range(8)]
    ledger.write(batch([*late]))
    assert lacking(asked(ledger, away - timedelta(days=3))) == []
    ledger.clock = lambda: microseconds(NOW + timedelta(days=2))
    (silent,) = asked(ledger, away).producers
    assert silent.silence is not None
    assert silent.silence.usual == 6 * 3600


def test_counts_go_before_cadence(open_database: Opens) -> None:
    """Where the source says how many there are, that is what was expected: by producer, or by VO, site and host."""
    ledger = opened(open_database())
    away = MONDAY + timedelta(weeks=5)
    regular(ledger, away)

    def count(number: int, **of: Any) -> RecordCount:
        fields: dict[str, Any] = {"vo": "example", "counted": "job", "number": number, "start": away}
        return RecordCount(**fields | {"end": away + timedelta(days=1)} | of)

    month = {"start": MONDAY, "end": away}
    counts: list[Record] = [
        count(3, producer="ce"),
        count(4 * 35 + 1, site="SITE-X", **month),
        count(1000, site="SITE-X", vo="other", **month),
        count(7, producer="ce", start=away + timedelta(minutes=1)),
        count(7, counted="nothing", vo="all"),
    ]
    assert ledger.write(batch(counts, "accountant", COUNT)).outcomes == [Outcome.STORED] * 5
    rows = [row for row in asked(ledger, away - timedelta(days=1)).rows if row.kind != "record-count"]
    told = {(row.producer, row.scope): row for row in rows if row.model is not Model.CADENCE}
    by_producer = [row for row in rows if row.producer == "ce" and row.start == int(away.timestamp())]
    assert [(row.model, row.expected, row.came, row.missing) for row in by_producer] == [(Model.COUNT, 3, 0, 3)]
    by_site = told["", "vo=example, site=SITE-X"]
    assert (by_site.expected, by_site.came, by_site.missing) == (141, 140, 1)
    assert told["", "vo=other, site=SITE-X"].missing == 1000
    unknown = [row for row in rows if row.why]
    assert [(row.model, row.missing) for row in unknown] == [(Model.UNKNOWN, 0)] * 2
    assert {row.why.partition(";")[0] for row in unknown} == {
        "what a producer sent is known by the hour",
        "kind 'nothing' is not in the ledger",
    }
    # A newer revision of a count is what counts.
    ledger.write(batch([count(0, producer="ce", revision=1)], "accountant", COUNT))
    assert lacking(asked(ledger, away, spreads=SPREADS, producers=("ce",))) == []


def test_counts_outlast_the_archive(open_database: Opens, tmp_path: Path) -> None:
    """Archiving leaves them; where an earlier version archived some, the file is named until it is restored."""
    database = open_database()
    ledger = opened(database)
    away = MONDAY + timedelta(weeks=5)
    count = RecordCount(vo="all", counted="job", site="SITE-X", number=7, start=MONDAY, end=away)
    ledger.write(batch([ended(1, MONDAY + timedelta(hours=3), site="SITE-X")]))
    ledger.write(batch([count], "accountant", COUNT))

    def told() -> list[tuple[str, Model, int | None, int]]:
        rows = [row for row in asked(ledger, MONDAY, away, kinds=("job",)).rows if row.scope or row.why]
        return [(row.kind, row.model, row.expected, row.missing) for row in rows]

    due = [("job", Model.COUNT, 7, 6)]
    assert told() == due
    assert [file.kind for file in archive(ledger, tmp_path, NOW)] == ["job"]
    assert told() == due
    before = {"record-count": Kind(msgspec.structs.replace(COUNT.declaration, archived=True))}
    (file,) = archive(Ledger(database, before, ledger.clock, prepare(database, before)), tmp_path, NOW)
    assert told() == [("record-count", Model.UNKNOWN, None, 0)]
    (row,) = [row for row in asked(ledger, MONDAY, away).rows if row.kind == "record-count" and row.why]
    assert row.why.startswith(f"counts of this time may be archived in {file.file}; `siteward ledger restore`")
    assert not [row for row in asked(ledger, away + timedelta(days=1)).rows if row.why]
    restore(ledger, tmp_path, file.file)
    assert told() == due
