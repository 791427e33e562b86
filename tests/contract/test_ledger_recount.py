"""Buckets against records on every database: what is wrong is found, and made right while others write."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pytest
from at_once import all_at_once
from examples import batch_of
from hypothesis import given
from hypothesis import strategies as st
from ledger_databases import emptied, retiered
from searching import searched
from sqlalchemy import Table
from usage_model import FIRST, HOUR, LATER, SECOND, SOON, USE, batch, many, sited
from viewers import answered

from accounting import LedgerError
from accounting.archive.archiving import archive, files
from accounting.checks import recount
from accounting.checks.verify_sums import BadMonth
from accounting.checks.verifying import BadFile, Counts, Difference, Finding, Scope, Untold, verify
from accounting.ledger import Ledger
from accounting.periods.closing import close
from accounting.periods.signatures import sign
from accounting.tables import START, WIDTH
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.months import parse_month
from accounting.upkeep.rebuild import rebuild
from accounting.upkeep.tiers import compact
from siteward.kinds.pilot_submission import PilotSubmission
from siteward.records import kind_of, microseconds
from siteward.server.database import Database
from siteward.usage import OF_USAGE, Period, Quantity, UsageQuery, WantedUsage

Opens = Callable[[], Database]


def found(ledger: Ledger, folder: Path, **scope: Any) -> list[Finding]:
    return list(verify(ledger, Scope(folder, **scope), Counts()))


def figures(ledger: Ledger) -> list[Any]:
    """Everything that the ledger answers, day by day."""
    answers = []
    for attribution in OF_USAGE:
        counts = Quantity.RECORDS
        wanted = (WantedUsage(Quantity.SUM, "core_time"), WantedUsage(Quantity.SUM, "cpu_time"), WantedUsage(counts))
        query = UsageQuery(
            kind="use",
            wanted=wanted,
            start=FIRST - timedelta(days=10),
            end=FIRST + timedelta(days=60),
            attribution=attribution,
            by=("site",),
            period=Period.DAY,
        )
        answer = answered(ledger, query)
        answers.append([row for row in answer.rows if any(row.values)])
    return answers


def damage(ledger: Ledger, seed: int) -> None:
    """Buckets that lack something, have too much, are gone, or should not be."""
    chance = random.Random(seed)
    tables = ledger.tables["use"]
    with ledger.database.write() as connection:
        for table, count in ((tables.prorated, "_carried"), (tables.by_end, "_records")):
            keys = sorted(tuple(row) for row in connection.execute(table.primary_key.table.select()).all())
            for row in chance.sample(keys, min(12, len(keys))):
                mine = _of(table, row)
                if chance.random() < 0.3:
                    connection.execute(table.delete().where(mine))
                else:
                    column = table.c[chance.choice([count, "core_time", "wall_time"])]
                    connection.execute(
                        table.update().where(mine).values({column.name: column + chance.choice([-7, 3])})
                    )


def check_mended(ledger: Ledger, folder: Path) -> None:
    """What is damaged is found, and a rebuild gives it back."""
    before = figures(ledger)
    damage(ledger, 1)
    assert found(ledger, folder) != []
    assert sum(each.changed for each in rebuild(ledger, Scope(folder))) > 0
    assert found(ledger, folder) == []
    assert figures(ledger) == before


def _of(table: Table, row: tuple[Any, ...]) -> Any:
    start, series, width = row[:3]
    return (table.c[START] == start) & (table.c["_series"] == series) & (table.c[WIDTH] == width)


def test_what_is_booked_is_what_the_records_say(open_database: Opens, tmp_path: Path) -> None:
    """In narrow buckets, wide ones, and days that have both: nothing differs, whatever the order of arrival."""
    ledger = emptied(open_database(), USE, SOON)
    records = many(200)
    ledger.write(batch(records[:120]))
    assert found(ledger, tmp_path) == []
    ledger.clock = lambda: microseconds(FIRST + timedelta(days=20))
    ledger.write(batch(records[100:] + [record | {"revision": 1, "wall_time": 5} for record in records[:30]]))
    assert found(ledger, tmp_path) == []
    compact(ledger)
    counts = Counts()
    assert list(verify(ledger, Scope(tmp_path), counts)) == []
    assert counts.records >= 200
    assert counts.days >= 40
    ledger.clock = lambda: microseconds(LATER)
    compact(ledger)
    assert found(ledger, tmp_path) == []


def test_buckets_of_other_tiers_are_compared(open_database: Opens, tmp_path: Path) -> None:
    """Also where some lie across the ends of others; and what was wrong in them is made right."""
    ledger = retiered(emptied(open_database(), USE, FIRST + timedelta(days=50)), USE, (1, 6))
    records = many(200)
    ledger.write(batch(records[:100]))
    ledger = retiered(ledger, USE, (1, 8))
    ledger.write(batch(records[100:]))
    compact(ledger)
    assert found(ledger, tmp_path) == []
    before = figures(ledger)
    check_mended(ledger, tmp_path)
    ledger = retiered(ledger, USE, (1, 24))
    compact(ledger)
    assert found(ledger, tmp_path) == []
    assert figures(ledger) == before


def test_a_wrong_bucket_is_named(open_database: Opens, tmp_path: Path) -> None:
    """With kind, start, width, the dimensions of its series, the measure, and both figures."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([sited(), sited(1)]))
    prorated = ledger.tables["use"].prorated
    with ledger.database.write() as connection:
        first = prorated.c[START] == int(FIRST.timestamp()) + 3600
        connection.execute(prorated.update().where(first).values(core_time=prorated.c.core_time + 5))
    differences = found(ledger, tmp_path)
    assert [type(each) for each in differences] == [Difference, Difference]
    one = differences[0]
    assert isinstance(one, Difference)
    assert (one.kind, one.attribution, one.measure, one.width) == ("use", "prorated", "core_time", 3600)
    assert (one.start, one.booked, one.computed) == (FIRST + timedelta(hours=1), 14_405, 14_400)
    assert {each.series["site"] for each in differences if isinstance(each, Difference)} == {"S0", "S1"}
    before = microseconds(FIRST - timedelta(days=1))
    assert found(ledger, tmp_path, end=before) == []
    assert found(ledger, tmp_path, kinds=("other",)) == []


def test_sums_of_months_and_signed_months_are_compared(open_database: Opens, tmp_path: Path) -> None:
    """A kept sum that is not its buckets' is named, and a rebuild makes it right; so is a month signed otherwise."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(many(60)))
    assert sum_months(ledger)
    month = parse_month("2026-02")
    close(ledger, "use", month, by="ada")
    sign(ledger, "use", month, by="ada")
    assert found(ledger, tmp_path) == []
    tables = ledger.tables["use"]
    with ledger.database.write() as connection:
        kept = tables.months[1][1]
        connection.execute(kept.update().where(kept.c[START] == month).values(wall_time=kept.c.wall_time + 1))
    (one,) = found(ledger, tmp_path)
    assert isinstance(one, BadMonth)
    assert (one.kind, one.what, f"{one.month:%Y-%m}") == ("use", "accounting_use_by_end_months", "2026-02")
    assert list(rebuild(ledger, Scope(tmp_path)))
    assert found(ledger, tmp_path) == []
    assert sum_months(ledger) > 0
    assert found(ledger, tmp_path) == []
    with ledger.database.write() as connection:
        by_end = tables.by_end
        within = (by_end.c[START] >= month, by_end.c[START] < month + 28 * 86_400)
        connection.execute(by_end.update().where(*within).values(wall_time=by_end.c.wall_time + 1))
    signed = [each for each in found(ledger, tmp_path) if isinstance(each, BadMonth) and each.what == "signed"]
    assert [(each.kind, each.why) for each in signed] == [
        ("use", "its figures as of closing are not those that ada signed")
    ]
    list(rebuild(ledger, Scope(tmp_path)))
    assert found(ledger, tmp_path) == []


def test_archived_records_are_counted_too(open_database: Opens, tmp_path: Path) -> None:
    """With the archive's files everything is compared; without, days whose records they hold are named."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(many(150)))
    assert len(list(archive(ledger, tmp_path, FIRST + timedelta(days=20)))) > 10
    assert found(ledger, tmp_path) == []
    (tmp_path / "empty").mkdir()
    without = found(ledger, tmp_path / "empty")
    untold = [each for each in without if isinstance(each, Untold)]
    assert len([each for each in without if isinstance(each, BadFile)]) == len(files(ledger))
    assert [each.last for each in untold] == [FIRST + timedelta(days=19)]
    assert len(untold) + len(files(ledger)) == len(without), "later days are right"


def test_files_of_the_archive_that_are_wrong_are_named(open_database: Opens, tmp_path: Path) -> None:
    """Other bytes, no file, other ids, and records that came into the database past the ledger."""
    ledger = emptied(open_database(), USE, LATER)
    records = [sited(number, end=microseconds(FIRST) + (number * 24 + 2) * HOUR) for number in range(4)]
    ledger.write(batch(records))
    changed, gone, other, twice = list(archive(ledger, tmp_path, FIRST + timedelta(days=5)))
    (tmp_path / changed.file).write_bytes(b"PAR1")
    (tmp_path / gone.file).unlink()
    archived = ledger.common.archived
    with ledger.database.write() as connection:
        ids = connection.execute(archived.select().where(archived.c.file == gone.file)).mappings().one()["ids"]
        connection.execute(archived.update().where(archived.c.file == other.file).values(ids=ids))
        row = {"_series": 1, "_entry": 1, "_producer": 1, "_message": bytes(16), "name": "3", "wall_time": 0}
        times = {name: records[3][name] for name in ("_id", "start", "end", "revision")}
        connection.execute(ledger.tables["use"].records.insert(), row | times)
    told = {each.file: each.why for each in found(ledger, tmp_path) if isinstance(each, BadFile)}
    assert "not what was written" in told[changed.file]
    assert "cannot be read" in told[gone.file]
    assert "are not those of its records" in told[other.file]
    assert told[twice.file] == "1 of its records are in the database too"


def test_rebuilding_makes_wrong_buckets_right(open_database: Opens, tmp_path: Path) -> None:
    """Whatever was wrong, in hours and days, and whatever is archived; what was right is left alone."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch(many(150)))
    for now in (SOON, FIRST + timedelta(days=25), LATER):
        ledger.clock = partial(microseconds, now)
        compact(ledger)
        check_mended(ledger, tmp_path)
        assert sum(each.changed for each in rebuild(ledger, Scope(tmp_path))) == 0
        list(archive(ledger, tmp_path, FIRST + timedelta(days=10)))


def test_days_without_all_records_are_left_alone(open_database: Opens, tmp_path: Path) -> None:
    """What nobody can compute anew stays as it is booked, and is named."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(many(100)))
    list(archive(ledger, tmp_path, FIRST + timedelta(days=10)))
    before = figures(ledger)
    done = list(rebuild(ledger, Scope(tmp_path / "elsewhere")))
    assert [each.last for portion in done for each in portion.untold] == [FIRST + timedelta(days=9)]
    assert all("cannot be read" in each.why for portion in done for each in portion.untold)
    assert figures(ledger) == before


def test_rebuilding_while_others_write(open_database: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers, compaction and two rebuilds at once: every record is in the totals, once."""
    monkeypatch.setattr(recount, "MOST_DAYS", 3)
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch(many(150)))
    damage(ledger, 2)

    def write(place: int) -> None:
        mine = Ledger(ledger.database, {"use": USE}, ledger.clock)
        records = many(120, seed=place + 2)
        for first in range(0, 120, 20):
            mine.write(batch(records[first : first + 20]))

    later = Ledger(ledger.database, {"use": USE}, lambda: microseconds(LATER))
    work: list[Callable[[], object]] = [partial(write, 0), partial(write, 1), lambda: compact(later)]
    work += [lambda: list(rebuild(ledger, Scope(tmp_path)))] * 2
    assert all_at_once(work) == []
    list(rebuild(ledger, Scope(tmp_path)))
    assert found(ledger, tmp_path) == []
    records = [*many(150), *many(120, seed=2), *many(120, seed=3)]
    due = sum(record["wall_time"] * record["processors"] for record in records)
    for answer in figures(ledger):
        assert sum(int(row.values[0] or 0) for row in answer) == due


def test_a_rebuild_goes_on_where_it_was(open_database: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that died has left its note: the next one does the rest, then what the first was not asked for."""
    monkeypatch.setattr(recount, "MOST_DAYS", 1)
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(many(100)))
    damage(ledger, 3)
    start, end = microseconds(FIRST), microseconds(FIRST + timedelta(days=10))
    done = islice(rebuild(ledger, Scope(tmp_path, start=start, end=end)), 4)
    assert [each.first for each in done] == [int(FIRST.timestamp()) + day * 86_400 for day in range(4)]
    with pytest.raises(LedgerError, match="--start 2026-01-30 --end 2026-02-09"):
        list(rebuild(ledger, Scope(tmp_path, start=start + 86_400 * SECOND)))
    rest = [each.first for each in rebuild(ledger, Scope(tmp_path))]
    day = int(FIRST.timestamp())
    assert rest[:6] == [day + place * 86_400 for place in range(4, 10)]
    assert rest[6] < day
    assert len(rest) == len(set(rest))
    assert found(ledger, tmp_path) == []


def test_archives_at_once_keep_every_record(open_database: Opens, tmp_path: Path) -> None:
    """Two processes archive the same days: each record is in one file that is there, whoever was faster."""
    ledger = emptied(open_database(), USE, LATER)
    records = many(120)
    ledger.write(batch(records))
    errors: list[BaseException] = []

    def put_away() -> None:
        mine = Ledger(ledger.database, {"use": USE}, ledger.clock)
        try:
            list(archive(mine, tmp_path, FIRST + timedelta(days=50)))
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=put_away) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    counts = Counts()
    assert list(verify(ledger, Scope(tmp_path), counts)) == []
    assert counts.archived == len(records)
    assert len(list(tmp_path.glob("use/*"))) == counts.files, "what lost the race is removed"


def test_events_are_compared_too(open_database: Opens, tmp_path: Path) -> None:
    """Of a kind without duration both attributions are the bucket of its instant."""
    kind = kind_of(PilotSubmission)
    ledger = Ledger(open_database(), {kind.name: kind}, lambda: microseconds(SOON))
    ledger.metadata.create_all(ledger.database.engine)
    times = [FIRST + timedelta(hours=7 * number) for number in range(10)]
    made = [PilotSubmission(vo="v", time=time, reference=f"{time}", site="S", state="failed") for time in times]
    ledger.write(batch_of(kind, [kind.row_of(each, microseconds(SOON)) for each in made]))
    assert found(ledger, tmp_path) == []
    tables = ledger.tables[kind.name]
    with ledger.database.write() as connection:
        connection.execute(tables.prorated.delete())
        connection.execute(tables.by_end.update().values(pilots_total=5))
    assert sum(each.changed for each in rebuild(ledger, Scope(tmp_path))) == 20
    list(archive(ledger, tmp_path, FIRST + timedelta(days=1)))
    assert found(ledger, tmp_path) == []


few: Final = searched(8)


@few
@given(seed=st.integers(0, 1000), days=st.lists(st.integers(0, 60), min_size=1, max_size=3), size=st.integers(1, 40))
def test_rebuilt_is_what_was_booked(
    open_database: Opens, tmp_path: Path, seed: int, days: list[int], size: int
) -> None:
    """Whatever comes in when, is compacted when, and is damaged where: rebuilding gives what was there before."""
    ledger = emptied(open_database(), USE, FIRST)
    records = many(size, seed)
    now = FIRST
    for place, later in enumerate(days):
        now += timedelta(days=later)
        ledger.clock = partial(microseconds, now)
        ledger.write(batch(records[place :: len(days)]))
        if later % 2:
            compact(ledger)
    assert found(ledger, tmp_path) == []
    before = figures(ledger)
    damage(ledger, seed)
    list(rebuild(ledger, Scope(tmp_path)))
    assert found(ledger, tmp_path) == []
    assert figures(ledger) == before
