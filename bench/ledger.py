"""The sections about the ledger: booking, growth, questions to ten million jobs, compaction, archive."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np
import psutil  # type: ignore[import-untyped]  # it ships no types.
from sqlalchemy import func, select

from accounting.archive.archived_ids import first_id, packed
from accounting.archive.archiving import archive
from accounting.ledger import Ledger
from accounting.query.usage import Usage
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.tiers import compact
from bench.asked import Asked
from bench.booking import Place, booked, curve, opened, together
from bench.jobs import BATCH, DAY, JOB, KEY, PEOPLE, SERIES, SITES, USERS, batches
from siteward.records import moment
from siteward.records.identity import HASH_BYTES
from siteward.server.people_table import PeopleTable
from siteward.settings import Settings
from siteward.settings_sections import AccessSettings
from siteward.sinks import Outcome
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer, Visible

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
EVERYTHING: Final = Viewer(visible=Visible.ALL, names=True)
BOOKING: Final = "## The ledger: booking"
GROWTH: Final = "## The ledger: growth"
QUESTIONS: Final = "## The ledger: questions and upkeep"
LEAST_SHARE: Final = 0.6
"""Of bare prepared SQL with the same rows."""
MOST_GROWTH: Final = 1.2
"""Of what a record costs, beside one in an empty ledger."""
LAST_STEPS: Final = 5
MOST_SECONDS: Final = {"site and month for a year": 0.3, "user and day for a month": 0.5}
MOST_MEGABYTES: Final = 500
LEAST_COMPACTED: Final = 100_000
"""Buckets per second."""
LEAST_ARCHIVED: Final = 50_000
"""Records per second."""
MOST_BYTES: Final = 20
"""Of a record in the archive."""
MOST_ID_BYTES: Final = 12
"""Of an archived record's id in the database."""
ARCHIVED_DAYS: Final = 730
MEMORY: Final = {"postgresql": {"shared_buffers": "512MB"}, "mariadb": {"innodb-buffer-pool-size": "512M"}}


class LedgerSize(msgspec.Struct):
    """How many jobs are booked for each measurement."""

    booked: int
    grown: int
    asked: int
    moved: int
    archived: int


LEDGER_SIZES: Final = {
    "full": LedgerSize(500_000, 20_000_000, 10_000_000, 1_000_000, 100_000_000),
    "short": LedgerSize(30_000, 60_000, 100_000, 30_000, 730_000),
}


def booking(size: LedgerSize, asked: Asked) -> Iterator[str]:
    """Measure how fast jobs are booked; the lines of the section."""
    yield from _headed(BOOKING, "ledger")
    yield "Bare SQL is a prepared statement run for each row, and the ledger's own statements, for whole columns each."
    yield ""
    yield "| database | the ledger | bare by rows, columns | ratio to the better | asked | one writer, two | rows |"
    yield "|---|---|---|---|---|---|---|"
    for sort in ("sqlite", "postgresql", "mariadb"):
        yield from _booking(sort, size.booked, asked)


def growth(size: LedgerSize, asked: Asked) -> Iterator[str]:
    """Measure what a record costs while a ledger grows; the lines of the section."""
    yield from _headed(GROWTH, "growth")
    yield "| SQLite grows to | ms per record | of the processor | beside, in an empty one | ratio | by the clock |"
    yield "|---|---|---|---|---|---|"
    yield from _growth(size.grown, asked)


def questions(size: LedgerSize, asked: Asked) -> Iterator[str]:
    """Measure what is asked of many jobs, and their upkeep; the lines of the section."""
    yield from _headed(QUESTIONS, "questions")
    yield "| what | figure | asked |\n|---|---|---|"
    yield from _questions(size.asked, asked)
    yield from _compaction(size.moved, asked)
    yield from _duplicates(size.archived, asked)


def _headed(title: str, name: str) -> Iterator[str]:
    yield f"\n{title}\n"
    yield f"Made by `make bench ARGS={name}`, or within `make bench`, on {datetime.now(UTC):%Y-%m-%d}."
    yield f"Jobs of ten minutes to twelve hours in batches of {BATCH:,} over {SERIES:,} series"
    yield f"({USERS} users at {SITES} sites), durable.\n"


def _booking(sort: str, records: int, asked: Asked) -> Iterator[str]:
    try:
        with _places(sort, 5) as (first, second, third, alone, both):
            done = booked(first, second, third, records)
            rates = [together(alone, records, 1)] + ([] if sort == "sqlite" else [together(both, records, 2)])
    except BaseException as error:
        # The tests' words for a server that is not on this machine. CI may not go without, as tests/servers.py says.
        if type(error).__name__ not in {"Skipped", "Failed"}:
            raise
        if type(error).__name__ == "Failed":
            asked.lack(str(error))
        yield f"| {sort} | not measured: {error} | | | | | |"
        return
    share = done.rate / max(done.bare, done.sets)
    cell = asked.judge(f"the ledger on {sort}", f"at least {LEAST_SHARE}", met=share >= LEAST_SHARE)
    told = ", ".join(f"{rate:,.0f}" for rate in rates)
    bare = f"{done.bare:,.0f}/s, {done.sets:,.0f}/s"
    yield f"| {sort} | {done.rate:,.0f}/s | {bare} | {share:.2f} | {cell} | {told} | {done.rows:.1f} |"


def _growth(records: int, asked: Asked) -> Iterator[str]:
    step = max(BATCH, records // 20)
    with _places("sqlite", 1 + records // step) as (place, *others):
        points = curve(place, others, records, step)
    shares = [point.processor / point.empty for point in points]
    for point, share in zip(points, shares, strict=True):
        times = (point.seconds, point.processor, point.empty)
        milliseconds = " | ".join(f"{1000 * each:.4f}" for each in times)
        yield f"| {point.records:,} | {milliseconds} | {share:.2f} | {point.clock:.2f} |"
    late = median(shares[-LAST_STEPS:])
    cell = asked.judge("growth of a record's cost", f"at most {MOST_GROWTH}", met=late <= MOST_GROWTH)
    by_clock = [point.clock for point in points]
    yield f"| median of the last {LAST_STEPS} steps | | | | {late:.2f}; {cell} | {median(by_clock[-LAST_STEPS:]):.2f} |"
    yield f"| dearest step | | | | {max(shares):.2f} | {max(by_clock):.2f} |"


def _questions(records: int, asked: Asked) -> Iterator[str]:
    now = time.time_ns() // 1000
    with _places("sqlite", 1) as (place,), closing(opened(place)) as ledger, _people() as people:
        for batch in batches(records // BATCH, now - 730 * DAY, now - DAY // 24):
            ledger.write(batch)
        compact(ledger)
        yield from _unsummed(ledger, people, moment(now))
        began = time.perf_counter()
        months = sum_months(ledger)
        yield f"| {records:,} jobs over two years: {months} months summed | {time.perf_counter() - began:.1f} s | |"
        for attribution in OF_USAGE:
            for what, query in _asked_of(moment(now), attribution):
                seconds, rows = _fastest(Usage(ledger, people), query)
                most = MOST_SECONDS[what]
                cell = asked.judge(what, f"under {most} s", met=seconds < most)
                yield f"| CPU by {what}, {attribution}, {rows:,} rows | {seconds:.3f} s | {cell} |"
        megabytes = psutil.Process().memory_info().rss / 1e6
        cell = asked.judge("memory of the questions", f"under {MOST_MEGABYTES} MB", met=megabytes < MOST_MEGABYTES)
        yield f"| memory of this process | {megabytes:.0f} MB | {cell} |"
        yield from _archiving(ledger, records, asked)


def _unsummed(ledger: Ledger, people: PeopleTable, now: datetime) -> Iterator[str]:
    """What the year costs where no month is summed, as after late records of all of them."""
    for attribution in OF_USAGE:
        what, query = next(_asked_of(now, attribution))
        seconds, rows = _fastest(Usage(ledger, people), query)
        yield f"| CPU by {what}, {attribution}, {rows:,} rows, before months are summed | {seconds:.3f} s | |"


def _asked_of(now: datetime, attribution: Attribution) -> Iterator[tuple[str, UsageQuery]]:
    wanted = (WantedUsage(Quantity.SUM, "cpu_time"),)
    year = datetime(now.year - 1, 1, 1, tzinfo=UTC), datetime(now.year, 1, 1, tzinfo=UTC)
    last = datetime(now.year, now.month, 1, tzinfo=UTC) - timedelta(days=40)
    month = last.replace(day=1), (last.replace(day=1) + timedelta(days=32)).replace(day=1)
    for what, (start, end), by, period in (
        ("site and month for a year", year, "site", Period.MONTH),
        ("user and day for a month", month, "user", Period.DAY),
    ):
        yield (
            what,
            UsageQuery(
                kind="job", wanted=wanted, start=start, end=end, by=(by,), period=period, attribution=attribution
            ),
        )


@contextmanager
def _people() -> Iterator[PeopleTable]:
    """The names of whoever ran the jobs, in a database of their own."""
    with tempfile.TemporaryDirectory(prefix="siteward-bench-") as folder:
        settings = Settings(data=folder, access=AccessSettings(pseudonym_key=KEY))
        with closing(PeopleTable(settings)) as people:
            people.enter(PEOPLE)
            yield people


def _fastest(usage: Usage, query: UsageQuery) -> tuple[float, int]:
    """Seconds of the faster of three answers, and their rows."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        answer = usage.ask(query, EVERYTHING)
        seconds.append(time.perf_counter() - began)
    return min(seconds), len(answer.rows)


def _archiving(ledger: Ledger, records: int, asked: Asked) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="siteward-bench-") as folder:
        began, count = time.perf_counter(), 0
        for file in archive(ledger, Path(folder), datetime.now(UTC)):
            count += file.records
            if count >= records // 10:
                break
        rate = count / (time.perf_counter() - began)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet")) / count
    cell = asked.judge("archive", f"at least {LEAST_ARCHIVED:,}/s", met=rate >= LEAST_ARCHIVED)
    yield f"| archived, {count:,} records | {rate:,.0f} records/s | {cell} |"
    cell = asked.judge("size of the archive", f"at most {MOST_BYTES} bytes", met=size <= MOST_BYTES)
    yield f"| … each | {size:.1f} bytes | {cell} |"


def _compaction(records: int, asked: Asked) -> Iterator[str]:
    with _places("sqlite", 1) as (place,), closing(opened(place)) as ledger:
        now = time.time_ns() // 1000
        for batch in batches(records // BATCH, now - 5 * DAY, now - DAY // 24):
            ledger.write(batch)
        before = _buckets(ledger)
        ledger.clock = lambda: now + 30 * DAY
        began = time.perf_counter()
        count = compact(ledger)
        rate = count / (time.perf_counter() - began)
        assert _buckets(ledger) < before
    cell = asked.judge("compaction", f"at least {LEAST_COMPACTED:,}/s", met=rate >= LEAST_COMPACTED)
    yield f"| compacted, {count:,} buckets | {rate:,.0f} buckets/s | {cell} |"


def _duplicates(archived: int, asked: Asked) -> Iterator[str]:
    """What it costs to know records again that were archived, beside new ones: of one day, and of every day."""
    now = time.time_ns() // 1000
    with _places("sqlite", 1) as (place,), closing(opened(place)) as ledger:
        of_last, of_all = _archived_ids(ledger, now, archived)
        kept = ledger.common.archived
        with ledger.database.read() as connection:
            sums = select(func.sum(func.length(kept.c.ids)), func.sum(kept.c.records))
            size, count = connection.execute(sums).one()
        new, one, other = batches(3, now - DAY, now - DAY // 24)
        seconds = []
        for batch, known in ((new, []), (one, of_last), (other, of_all)):
            mixed = msgspec.structs.replace(batch, ids=[*known, *batch.ids[len(known) :]])
            began = time.perf_counter()
            outcomes = ledger.write(mixed).outcomes
            seconds.append(time.perf_counter() - began)
            assert outcomes.count(Outcome.DUPLICATE) == len(known)
    each = size / count
    cell = asked.judge("size of archived ids", f"at most {MOST_ID_BYTES} bytes", met=each <= MOST_ID_BYTES)
    yield f"| {count:,} archived ids, each | {each:.1f} bytes | {cell} |"
    first, *others = seconds
    cell = asked.judge("known again", "at most as long as new ones", met=others[0] <= first)
    yield f"| beside {archived:,} archived ids: {BATCH:,} new records | {first:.2f} s | |"
    yield f"| … {len(of_last):,} archived ones of one day come again | {others[0]:.2f} s | {cell} |"
    yield f"| … {len(of_all):,} archived ones of {ARCHIVED_DAYS} days come again | {others[1]:.2f} s | |"


def _archived_ids(ledger: Ledger, now: int, count: int) -> tuple[list[bytes], list[bytes]]:
    """Enter so many ids as archived; some of the last day's, and some of every day's."""
    chance = np.random.default_rng(1)
    of_last: list[bytes] = []
    of_all: list[bytes] = []
    for number in range(ARCHIVED_DAYS):
        begin = (now // DAY - ARCHIVED_DAYS + number) * DAY
        times = (begin + np.sort(chance.integers(DAY, size=count // ARCHIVED_DAYS))) // 1000
        hashes = chance.bytes(HASH_BYTES * len(times))
        tails = (hashes[first : first + HASH_BYTES] for first in range(0, len(hashes), HASH_BYTES))
        of_last = [first_id(time_)[:-HASH_BYTES] + tail for time_, tail in zip(times.tolist(), tails, strict=True)]
        of_all += of_last[: BATCH // ARCHIVED_DAYS]
        row = {"kind": JOB.name, "day": begin // 1_000_000, "file": str(number), "digest": "", "records": len(of_last)}
        kept = packed(dict.fromkeys(of_last, 0))
        with ledger.database.write() as connection:
            connection.execute(ledger.common.archived.insert(), row | {"at": now, "ids": kept})
    return of_last[:BATCH], of_all


def _buckets(ledger: Ledger) -> int:
    tables = ledger.tables[JOB.name]
    with ledger.database.read() as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (tables.prorated, tables.by_end)
        )


@contextmanager
def _places(sort: str, count: int) -> Iterator[list[Place]]:
    """Empty databases on a server of their own, with memory as in production."""
    with ExitStack() as stack:
        if sort == "sqlite":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="siteward-bench-")))
            yield [Place(f"sqlite:///{folder / f'{number}.sqlite'}") for number in range(count)]
            return
        from database_server import running  # noqa: PLC0415  # the tests' tools, which need the servers.
        from mariadb_server import MariaNode, MariaPlace  # noqa: PLC0415  # as above.
        from postgresql_server import PostgresNode, PostgresPlace  # noqa: PLC0415  # as above.

        if sort == "postgresql":
            postgresql = stack.enter_context(running(PostgresNode(MEMORY[sort])))
            yield [_place(PostgresPlace(postgresql)) for _ in range(count)]
        else:
            mariadb = stack.enter_context(running(MariaNode(MEMORY[sort])))
            yield [_place(MariaPlace(mariadb)) for _ in range(count)]


def _place(made: object) -> Place:
    return Place(made.url, made.password)  # type: ignore[attr-defined]  # both have them.
