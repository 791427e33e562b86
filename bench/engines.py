"""Emit → RabbitMQ → collectors → OpenSearch, every part a process of its own, all of them on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from bench.examples import BEGIN, Jobs, job
from bench.processes import peak_megabytes, service
from monitoring.stores.opening import open_monitoring
from siteward.broker import Message
from siteward.broker.opening import open_declared
from siteward.broker.topology import routing_key
from siteward.emit import Emitter
from siteward.envelope import seal
from siteward.kinds import load_kinds
from siteward.kinds.job import Job
from siteward.query import Function, Query, Wanted
from siteward.records import kind_of
from siteward.settings import Settings, load_settings


class Engines(msgspec.Struct, frozen=True):
    """Running servers, and a prefix of this run's own."""

    broker: str
    management: str
    store: str
    prefix: str
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """What chooses them."""
        return {
            "SITEWARD_BROKER__URL": self.broker,
            "SITEWARD_BROKER__PASSWORD": "guest",
            "SITEWARD_BROKER__MANAGEMENT": self.management,
            "SITEWARD_MONITORING__URL": self.store,
            "SITEWARD_MONITORING__PREFIX": self.prefix,
            "SITEWARD_LOG_LEVEL": "error",
        }

    @property
    def settings(self) -> Settings:
        """The same, for this process."""
        return load_settings(environ=self.environ | {"SITEWARD_DATA": str(self.folder)})


class Run(msgspec.Struct):
    """One measured run."""

    rate: float
    emitter_megabytes: float
    collector_megabytes: float


def emit_jobs(count: int) -> None:
    """Emit jobs as fast as the emitter takes them, from the word `go` on; runs in a process of its own."""
    jobs = Jobs()
    with Emitter(load_settings(), when_full="wait") as emitter:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(count):
            emitter.emit(jobs(number))
    print(peak_megabytes(os.getpid()), flush=True)


@contextmanager
def _emitting(engines: Engines, count: int) -> Iterator[subprocess.Popen[str]]:
    """A program that is about to emit."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"from bench.engines import emit_jobs; emit_jobs({count})"],
        env=os.environ | engines.environ | {"SITEWARD_DATA": str(engines.folder / "emitter")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.stdout.close()
    assert process.wait(60) == 0


def indexed(engines: Engines) -> int:
    """Documents ever indexed under the prefix, whether or not they can be found yet."""
    address = engines.store.replace("opensearch://", "http://")
    wanted = "filter_path=_all.primaries.indexing.index_total"
    with urllib.request.urlopen(f"{address}/{engines.prefix}-*/_stats/indexing?{wanted}") as answer:  # noqa: S310  # ours.
        found = msgspec.json.decode(answer.read())
    return int(found.get("_all", {}).get("primaries", {}).get("indexing", {}).get("index_total", 0))


def _until_indexed(engines: Engines, count: int, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while indexed(engines) < count:
        if time.monotonic() > deadline:
            message = f"only {indexed(engines)} of {count} records arrived within {seconds:.0f} s"
            raise RuntimeError(message)
        time.sleep(0.1)


def through(engines: Engines, count: int, collectors: int) -> Run:
    """Emit and store `count` records, the collectors running from the start."""
    with ExitStack() as stack:
        folders = [engines.folder / f"collector-{number}" for number in range(collectors)]
        processes = [stack.enter_context(service("collector", each, **engines.environ)) for each in folders]
        _until_collecting(folders)
        with _emitting(engines, count) as emitter:
            assert emitter.stdin is not None
            assert emitter.stdout is not None
            began = time.perf_counter()
            emitter.stdin.write("go\n")
            emitter.stdin.flush()
            _until_indexed(engines, count)
            seconds = time.perf_counter() - began
            emitted = float(emitter.stdout.readline())
        peak = max(peak_megabytes(process.pid) for process in processes)
    return Run(count / seconds, emitted, peak)


def backlog(engines: Engines, count: int) -> Run:
    """Emit `count` records with nobody collecting, then start one collector and drain."""
    with _emitting(engines, count) as emitter:
        assert emitter.stdin is not None
        assert emitter.stdout is not None
        emitter.stdin.write("go\n")
        emitter.stdin.flush()
        emitted = float(emitter.stdout.readline())
    began = time.perf_counter()
    with service("collector", engines.folder, **engines.environ) as collector:
        _until_indexed(engines, count)
        seconds = time.perf_counter() - began
        return Run(count / seconds, emitted, peak_megabytes(collector.pid))


def confirmed(engines: Engines, count: int, size: int) -> float:
    """Records per second that RabbitMQ confirms, in sealed envelopes of `size` records, as the emitter sends them."""
    kind, now = kind_of(Job), time.time_ns() // 1000
    body = seal(kind, [kind.row_of(job(number), now) for number in range(size)], "bench@host", now)
    messages = [Message(routing_key("bench", "job"), body, size) for _ in range(count // size)]
    broker = open_declared(engines.settings)
    publisher = broker.publisher()
    publisher.publish(messages[:1])
    began = time.perf_counter()
    for first in range(0, len(messages), 20):
        publisher.publish(messages[first : first + 20])
    seconds = time.perf_counter() - began
    publisher.close()
    broker.remove("monitoring")  # type: ignore[attr-defined]  # every broker of ours offers it.
    broker.close()
    return len(messages) * size / seconds


def seconds_to_visible(engines: Engines, rate: int, seconds: int) -> list[float]:
    """Emit at a steady rate and ask the store all the time; the delay of each record in seconds, sorted."""
    question = Query(
        kind="job",
        wanted=(Wanted(Function.COUNT),),
        start=BEGIN - timedelta(days=1),
        end=datetime(2099, 1, 1, tzinfo=UTC),
    )
    emitted: list[float] = []
    seen: list[tuple[int, float]] = []
    with service("collector", engines.folder, **engines.environ), Emitter(engines.settings) as emitter:
        _until_collecting([engines.folder])
        store = open_monitoring(engines.settings, load_kinds())
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds + 20:
            due = min(int((now - began) * rate), rate * seconds)
            for number in range(len(emitted), due):
                emitter.emit(job(number))
                emitted.append(time.perf_counter())
            count = store.query(question).totals[0]
            assert isinstance(count, int)
            seen.append((count, time.perf_counter()))
            if count >= rate * seconds:
                break
            time.sleep(0.02)
        store.close()
    counts = [count for count, _ in seen]
    return sorted(seen[bisect_right(counts, number)][1] - emitted[number] for number in range(len(emitted)))


def _until_collecting(folders: list[Path]) -> None:
    """Until every collector runs, so that starting up is not measured."""
    deadline = time.monotonic() + 60
    while not all((folder / "telemetry" / "collector.json").exists() for folder in folders):
        if time.monotonic() > deadline:
            message = "the collectors did not start"
            raise RuntimeError(message)
        time.sleep(0.1)
    time.sleep(1)
