"""A collector that is killed between counting and acknowledging, and the next one, as a real Prometheus sees them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from composition import free_ports
from examples import job
from prometheus_server import increase, running, until

from monitoring.prometheus.promql import PromQL, Series
from siteward.emit import Emitter
from siteward.settings import load_settings

HANGS: Final = "hangs"
DIES: Final = "dies"
COLLECTOR: Final = """
import os, signal, sys, threading
from pathlib import Path
from collectors.service import collect
from monitoring.prometheus import counters
from monitoring.prometheus.sink import PrometheusSink
from siteward.settings import load_settings

counters.SETTLE = 0
count, folder = PrometheusSink.write, Path(sys.argv[1])

def write(sink, batch):
    written = count(sink, batch)
    if (folder / "dies").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (folder / "hangs").exists():
        threading.Event().wait()
    return written

PrometheusSink.write = write
collect(load_settings(), threading.Event(), ["prometheus"])
"""
"""Feeds the sink `prometheus`; behind its count it dies, or waits to be killed, where a file of this name is there."""


@contextmanager
def collector(folder: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A collector in a process of its own, killed at the end at the latest."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR, str(folder)], env=os.environ | environ)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def jumps_back(series: tuple[Series, ...]) -> list[tuple[float, float]]:
    """Where counters shrink to anything but zero."""
    points = [
        (before.value, after.value)
        for each in series
        for before, after in zip(each.points, each.points[1:], strict=False)
    ]
    return [(before, after) for before, after in points if after < before and after != 0]


@pytest.mark.parametrize(("trouble", "seen"), [(HANGS, 500 + 300), (DIES, 300 + 300)])
def test_a_killed_collector_is_counted_again_by_the_next_from_zero(tmp_path: Path, trouble: str, seen: int) -> None:
    """What was counted and not acknowledged is counted again: twice if it was scraped; counters never jump back."""
    (port,) = free_ports(1)
    environ = {
        "SITEWARD_DATA": str(tmp_path / "data"),
        "SITEWARD_PROMETHEUS__PORT": str(port),
        "SITEWARD_COLLECTOR__LEAVE_OUT": '["monitoring"]',
        "SITEWARD_BROKER__LEASE": "1",
        # One emitter, one message.
        "SITEWARD_EMITTER__BATCH_AGE": "60",
        "SITEWARD_LOG_LEVEL": "warning",
    }
    settings = load_settings(environ=environ)

    def emit(first: int, count: int) -> None:
        now = datetime.now(UTC)
        with Emitter(settings, producer="test") as emitter:
            for number in range(first, first + count):
                emitter.emit(job(number, start=now - timedelta(hours=1), end=now))

    with running(tmp_path) as server:
        server.scrape(port)
        ask = PromQL(server.url)

        def counted() -> tuple[Series, ...]:
            return ask.instant("siteward_job_records_total[1h]").series

        def shown() -> float:
            return sum(series.last.value for series in ask.instant("siteward_job_records_total").series)

        with collector(tmp_path, environ) as first:
            emit(0, 300)
            until(lambda: shown() == 300)
            (tmp_path / trouble).touch()
            emit(300, 200)
            if trouble == HANGS:
                until(lambda: shown() == 500)
                first.kill()
            assert first.wait(30) == -signal.SIGKILL
        (tmp_path / trouble).unlink()
        until(lambda: ask.instant("sum(up)").series[0].last.value == 0)
        with collector(tmp_path, environ):
            emit(500, 100)
            until(lambda: shown() == 300)
            assert increase(counted()) == seen
            assert jumps_back(counted()) == []
