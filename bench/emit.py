"""What emit() costs its caller."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.examples import job
from siteward.emit import Emitter
from siteward.settings import load_settings


def emit_microseconds(data: Path, count: int) -> tuple[float, float]:
    """Median and 99th percentile of one call, in microseconds, the clock's own cost taken off."""
    records = [job(number) for number in range(count)]
    clock = time.perf_counter_ns
    empty = statistics.median([-clock() + clock() for _ in range(10_000)])
    times = []
    with Emitter(load_settings(environ={"SITEWARD_DATA": str(data)}), when_full="wait") as emitter:
        for record in records:
            began = clock()
            emitter.emit(record)
            times.append(clock() - began)
    times.sort()
    return (times[count // 2] - empty) / 1000, (times[count * 99 // 100] - empty) / 1000
