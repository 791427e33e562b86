"""A real grid's log through the whole path: its totals equal an independent computation, to the second."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from viewers import answered

from accounting.opening import open_ledger
from collectors.service import collect
from monitoring.stores.opening import open_monitoring
from siteward.broker.opening import open_declared
from siteward.kinds import load_kinds
from siteward.query import Function, Query, Wanted
from siteward.settings import Settings, load_settings
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage

BEGIN = 1_091_615_532
"""UnixStartTime of the log's header."""
PARTITIONS = {"1": "clrglop195.in2p3.fr", "2": "clrce01.in2p3.fr", "3": "clrce02.in2p3.fr"}
WINDOW = (datetime(2004, 1, 1, tzinfo=UTC), datetime(2006, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def imported(lpc_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The whole log, imported twice by the CLI and collected into store and ledger."""
    folder = tmp_path_factory.mktemp("lpc")
    given = {"SITEWARD_DATA": str(folder), "SITEWARD_COLLECTOR__LEAVE_OUT": "prometheus"}
    settings = load_settings(environ=given)
    stop = threading.Event()
    collector = threading.Thread(target=collect, args=(settings, stop, ["monitoring", "ledger"]))
    collector.start()
    command = [sys.executable, "-m", "siteward", "import", "swf", str(lpc_log), "--vo", "biomed", "--site", "LPC"]
    for _ in range(2):
        environ = os.environ | given
        subprocess.run([*command, "--no-resume"], env=environ, check=True, stdout=subprocess.DEVNULL, timeout=120)
    broker = open_declared(settings)
    deadline = time.monotonic() + 300
    while any(queue.records for queue in broker.status()) and time.monotonic() < deadline:
        time.sleep(0.05)
    broker.close()
    stop.set()
    collector.join()
    return settings


def test_every_job_is_stored_once(imported: Settings) -> None:
    """Importing twice stores nothing twice."""
    assert _ask(imported, ())[()][0] == 234_889


def test_usage_per_compute_element_and_month_is_exact(imported: Settings, lpc_log: Path) -> None:
    """Jobs, wall time and core time per compute element and month of the end are those of the log's own lines."""
    expected: dict[tuple[str, str], list[int]] = {}
    for number, fields in enumerate(_lines(lpc_log)):
        submit, wait, run, processors = (int(fields[column]) for column in (1, 2, 3, 4))
        end = datetime.fromtimestamp(BEGIN + submit + max(wait, 0) + max(run, 0), UTC)
        sums = expected.setdefault((PARTITIONS.get(fields[15], ""), f"{end:%Y-%m}"), [0, 0, 0])
        sums[0] += 1
        sums[1] += max(run, 0)
        sums[2] += max(run, 0) * max(processors, 0)
        assert number < 234_889
    found: dict[tuple[str, str], list[int]] = {}
    for month in _months():
        for group, values in _ask(imported, ("compute_element",), month).items():
            found[str(group[0]), f"{month[0]:%Y-%m}"] = [int(value or 0) for value in values]
    assert found == expected


@pytest.mark.parametrize("attribution", Attribution)
def test_ledger_usage_per_compute_element_and_month_is_exact(
    imported: Settings, lpc_log: Path, attribution: Attribution
) -> None:
    """The ledger's figures of each compute element and month are those of the log's lines, to the second.

    Prorated, a job has used in each month what had been used at the month's end less what had been at its beginning,
    each rounded down.
    """
    expected: Counter[tuple[str, str, str]] = Counter()
    for fields in _lines(lpc_log):
        submit, wait, run, processors, cpu = (max(0, int(fields[column])) for column in (1, 2, 3, 4, 5))
        start = BEGIN + submit + wait
        used = {"wall_time": run, "cpu_time": cpu, "core_time": run * processors}
        for month, before, after in _parts(start, start + run, attribution):
            for measure, value in used.items():
                lasting = max(run, 1)
                expected[PARTITIONS.get(fields[15], ""), month, measure] += (
                    value * after // lasting - value * before // lasting
                )
    measures = ("wall_time", "cpu_time", "core_time")
    query = UsageQuery(
        kind="job",
        wanted=tuple(WantedUsage(Quantity.SUM, measure) for measure in measures),
        start=WINDOW[0],
        end=WINDOW[1],
        by=("compute_element",),
        period=Period.MONTH,
        attribution=attribution,
    )
    with closing(open_ledger(imported, load_kinds(imported.kinds))) as ledger:
        rows = answered(ledger, query).rows
    found = Counter(
        {
            (str(row.group[0]), f"{row.start:%Y-%m}", measure): int(value or 0)
            for row in rows
            for measure, value in zip(measures, row.values, strict=True)
        }
    )
    assert +found == +expected


def _parts(start: int, end: int, attribution: Attribution) -> Iterator[tuple[str, int, int]]:
    """Months with the seconds that a job had lasted at their beginning, or its start, and at their end, or its own."""
    if attribution is Attribution.BY_END or end == start:
        yield f"{datetime.fromtimestamp(end, UTC):%Y-%m}", 0, max(end - start, 1)
        return
    at = start
    while at < end:
        month = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0)
        until = min(end, int((month + timedelta(days=32)).replace(day=1).timestamp()))
        yield f"{month:%Y-%m}", at - start, until - start
        at = until


def test_users_and_groups_are_as_many_as_in_the_log(imported: Settings, lpc_log: Path) -> None:
    """Grouping by who ran it loses nobody and invents nobody."""
    users = Counter((fields[11], fields[12]) for fields in _lines(lpc_log))
    found = _ask(imported, ("user", "group"))
    assert sorted(int(values[0] or 0) for values in found.values()) == sorted(users.values())


def _lines(log: Path) -> list[list[str]]:
    with gzip.open(log, "rt", encoding="utf-8") as text:
        return [line.split() for line in text if line.strip() and not line.startswith(";")]


def _months() -> list[tuple[datetime, datetime]]:
    first = datetime(2004, 8, 1, tzinfo=UTC)
    months = []
    while first < datetime(2005, 7, 1, tzinfo=UTC):
        after = (first + timedelta(days=32)).replace(day=1)
        months.append((first, after))
        first = after
    return months


def _ask(
    settings: Settings, by: tuple[str, ...], window: tuple[datetime, datetime] = WINDOW
) -> dict[tuple[object, ...], tuple[int | float | None, ...]]:
    wanted = (Wanted(Function.COUNT), Wanted(Function.SUM, "wall_time"), Wanted(Function.SUM, "core_time"))
    question = Query(kind="job", wanted=wanted, start=window[0], end=window[1], by=by)
    store = open_monitoring(settings, load_kinds())
    rows = store.query(question).rows
    store.close()
    return {row.group: row.values for row in rows}
