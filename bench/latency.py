"""How long after emit() a record can be asked for."""

from __future__ import annotations

import time
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.examples import BEGIN, job
from bench.processes import service
from monitoring.stores.opening import open_monitoring
from siteward.emit import Emitter
from siteward.kinds import load_kinds
from siteward.query import Function, Query, Wanted
from siteward.settings import load_settings

QUESTION = Query(
    kind="job",
    wanted=(Wanted(Function.COUNT),),
    start=BEGIN - timedelta(days=1),
    end=datetime(2099, 1, 1, tzinfo=UTC),
)


def seconds_to_queryable(data: Path, rate: int, seconds: int) -> list[float]:
    """Emit at a steady rate and ask the store all the time; the delay of each record in seconds, sorted.

    The store counts records; record number n, emitted in order, is there when the count first passes n.
    """
    settings = load_settings(environ={"SITEWARD_DATA": str(data)})
    with service("collector", data), Emitter(settings) as emitter:
        while not (data / "monitoring.duckdb").exists():
            time.sleep(0.05)
        store = open_monitoring(settings, load_kinds())
        emitted: list[float] = []
        seen: list[tuple[int, float]] = []
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds + 10:
            due = min(int((now - began) * rate), rate * seconds)
            for number in range(len(emitted), due):
                emitter.emit(job(number))
                emitted.append(time.perf_counter())
            count = store.query(QUESTION).totals[0]
            assert isinstance(count, int)
            seen.append((count, time.perf_counter()))
            if count >= rate * seconds:
                break
            time.sleep(0.005)
        store.close()
    counts = [count for count, _ in seen]
    return sorted(seen[bisect_right(counts, number)][1] - emitted[number] for number in range(len(emitted)))
