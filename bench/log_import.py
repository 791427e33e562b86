"""A real grid's log: how fast it is imported, and how fast it answers."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import msgspec

from bench.processes import service
from monitoring.stores.opening import open_monitoring
from siteward.broker.opening import open_declared
from siteward.kinds import load_kinds
from siteward.query import Function, Query, Wanted
from siteward.settings import load_settings

LOG = Path(os.environ.get("SITEWARD_TEST_DATA", "../shared/data")) / "LPC-EGEE-2004-1.2-cln.swf.gz"
PORT = 18473
ADDRESS = (
    f"http://127.0.0.1:{PORT}/v1/query?kind=job&measures=sum:wall_time&by=user&width=1d&start=2004-08-01&end=2005-06-01"
)


class Imported(msgspec.Struct):
    """The log's figures; times in seconds and milliseconds."""

    records: int
    emitted_seconds: float
    stored_seconds: float
    store_milliseconds: float
    http_milliseconds: float
    rows: int


def measure(data: Path) -> Imported:
    """Import the log while the collector and the application run, then ask by user and day."""
    settings = load_settings(environ={"SITEWARD_DATA": str(data)})
    environ = os.environ | {"SITEWARD_DATA": str(data)}
    with service("collector", data), service("app", data, SITEWARD_SERVER__PORT=str(PORT)):
        store = open_monitoring(settings, load_kinds())
        began = time.perf_counter()
        command = [sys.executable, "-m", "siteward", "import", "swf", str(LOG), "--vo", "biomed", "--site", "LPC"]
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
        emitted = time.perf_counter() - began
        broker = open_declared(settings)
        while broker.status()[0].records:
            time.sleep(0.02)
        stored = time.perf_counter() - began
        broker.close()
        question = Query(
            kind="job",
            wanted=(Wanted(Function.SUM, "wall_time"),),
            start=datetime(2004, 8, 1, tzinfo=UTC),
            end=datetime(2005, 6, 1, tzinfo=UTC),
            by=("user",),
            width=86_400,
        )
        answer = store.query(question)
        count = store.query(msgspec.structs.replace(question, wanted=(Wanted(Function.COUNT),), by=(), width=0))
        records = count.totals[0]
        assert isinstance(records, int)
        imported = Imported(
            records=records,
            emitted_seconds=emitted,
            stored_seconds=stored,
            store_milliseconds=_median_milliseconds(lambda: store.query(question)),
            http_milliseconds=_median_milliseconds(lambda: urlopen(ADDRESS).read()),  # our own.
            rows=len(answer.rows),
        )
        store.close()
        return imported


def _median_milliseconds(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(21):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)
