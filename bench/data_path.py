"""Emit → embedded broker → collector → DuckDB, in two processes, as an installation runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.examples import Jobs
from bench.processes import megabytes, peak_megabytes, service
from siteward.broker.opening import open_declared
from siteward.emit import Emitter
from siteward.settings import Settings, load_settings

DUPLICATES = 50
"""Every so many records the last thousand are emitted again."""


class Point(msgspec.Struct):
    """The state after so many records were stored."""

    records: int
    rate: float
    collector_megabytes: float


class Run(msgspec.Struct):
    """One measured run."""

    points: list[Point]
    rate: float
    emitter_megabytes: float
    collector_megabytes: float


def emit_jobs(data: Path, first: int, count: int) -> None:
    """Emit jobs as fast as the emitter takes them, duplicates included; runs in a process of its own."""
    job = Jobs()
    with Emitter(_settings(data), when_full="wait") as emitter:
        for number in range(first, first + count):
            emitter.emit(job(number))
            if number % (1000 * DUPLICATES) == 0:
                for again in range(max(0, number - 1000), number):
                    emitter.emit(job(again))
    print(peak_megabytes(os.getpid()))


def through(data: Path, count: int, step: int = 500_000) -> Run:
    """Emit and store `count` records at once; the collector runs from the start."""
    points: list[Point] = []
    with service("collector", data) as collector:
        _wait_for_queue(data)
        began = mark = time.perf_counter()
        emitter = subprocess.Popen(
            [sys.executable, "-c", f"from bench.data_path import *; emit_jobs(Path({str(data)!r}), 0, {count})"],
            stdout=subprocess.PIPE,
        )
        broker = open_declared(_settings(data))
        done = 0
        while emitter.poll() is None or broker.status()[0].records:
            time.sleep(0.1)
            acknowledged = broker.status()[0].acknowledged or 0
            if acknowledged - done >= step:
                now = time.perf_counter()
                points.append(Point(acknowledged, (acknowledged - done) / (now - mark), megabytes(collector.pid)))
                mark, done = now, acknowledged
        total = broker.status()[0].acknowledged or 0
        seconds = time.perf_counter() - began
        broker.close()
        assert emitter.stdout is not None
        return Run(points, total / seconds, float(emitter.stdout.read()), peak_megabytes(collector.pid))


def backlog(data: Path, count: int) -> Run:
    """Emit `count` records with nobody collecting, then start the collector and drain."""
    output = subprocess.run(
        [sys.executable, "-c", f"from bench.data_path import *; emit_jobs(Path({str(data)!r}), 0, {count})"],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    broker = open_declared(_settings(data))
    began = time.perf_counter()
    with service("collector", data) as collector:
        while broker.status()[0].records:
            time.sleep(0.2)
        seconds = time.perf_counter() - began
        total = broker.status()[0].acknowledged or 0
        broker.close()
        return Run([], total / seconds, float(output), peak_megabytes(collector.pid))


def _wait_for_queue(data: Path) -> None:
    """Until the collector holds the queue, so that its start-up is not measured."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (data / "monitoring.duckdb").exists():
            return
        time.sleep(0.05)
    message = "the collector did not start"
    raise RuntimeError(message)


def _settings(data: Path) -> Settings:
    return load_settings(environ={"SITEWARD_DATA": str(data)})
