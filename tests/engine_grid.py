"""One emitting program, collectors, and real servers between them, of which any can be disturbed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from examples import NOON
from opensearch_server import Node, Place
from rabbitmq_server import RabbitNode, Vhost

from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from monitoring.stores.opensearch import open_store
from siteward.broker.opening import open_declared
from siteward.kinds import load_kinds
from siteward.query import Function, Query, Wanted
from siteward.settings import Settings, load_settings
from siteward.telemetry import CONSUMED, OPENSEARCH_RETRIED, SINK_FAILURES, WRITTEN, Metric, shared_samples

RATE = 2_000
"""Records emitted per second."""
JOBS = """
from examples import job
jobs = [job(number) for number in range(1000)]
end = jobs[0].end

def emit(emitter, number):
    record = jobs[number % 1000]
    record.local_job_id, record.end = str(number), end + timedelta(seconds=number)
    return emitter.emit(record)
"""
"""What is emitted: a function that emits the record of a number."""
EMITTER = """
report, longest, emitted = Path(sys.argv[2]), 0.0, 0
rate, most = int(sys.argv[3]), int(sys.argv[4])
stop, idle, leave = [report.with_suffix(suffix) for suffix in (".stop", ".idle", ".leave")]
with Emitter(load_settings()) as emitter:
    began = time.perf_counter()
    while not stop.exists() and emitted < most:
        due = min(most, int((time.perf_counter() - began) * rate))
        for number in range(emitted, due):
            before = time.perf_counter()
            assert emit(emitter, number) is None
            longest = max(longest, time.perf_counter() - before)
        emitted = due
        time.sleep(0.01)
    assert emitter.flush(60)
    idle.touch()
    while not leave.exists():
        time.sleep(0.05)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
told = {"emitted": emitted, "longest": longest, "megabytes": int(peak.split()[1]) / 1000}
told |= {"confirmed": telemetry.total(CONFIRMED), "spooled": telemetry.total(SPOOLED)}
report.write_text(json.dumps(told))
"""
"""A program that emits as fast as it is told, and goes on sending what it has spooled until it is told to leave."""
IMPORTS = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from siteward.emit import Emitter
from siteward.settings import load_settings
from siteward.telemetry import CONFIRMED, SPOOLED, telemetry
"""
POLL = 0.5
"""Seconds between two looks at what costs the servers something."""


def eventually(condition: Callable[[], bool], what: str, seconds: float = 120, pause: float = 0.1) -> None:
    """Wait until something is so; fail, naming it, when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(pause)


class Told(msgspec.Struct):
    """What the emitting program says of itself."""

    emitted: int
    longest: float
    megabytes: float
    confirmed: float
    spooled: float


class Counted:
    """What became of everything that was emitted."""

    def __init__(self, told: Told, stored: Counter[str], megabytes: dict[str, float], put_aside: int) -> None:
        self.told = told
        self.put_aside = put_aside
        self.stored = stored
        self.megabytes = megabytes

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {size:.0f} MB" for name, size in self.megabytes.items())
        return (
            f"{self.told.emitted:,} emitted, {self.told.spooled:,.0f} of them spooled and sent later, "
            f"{len(self.stored):,} stored, most often {max(self.stored.values())} time, {self.put_aside} put aside; "
            f"longest emit() {1000 * self.told.longest:.1f} ms; {peaks}"
        )

    def check(self, poison: Collection[int] = ()) -> None:
        """Every record exactly once but those that no store takes, the program undisturbed, memory bounded."""
        assert set(self.stored) == {str(number) for number in range(self.told.emitted) if number not in poison}
        assert set(self.stored.values()) == {1}
        assert self.put_aside == len(poison), "good records are in the dead letters, or parked"
        assert self.told.confirmed == self.told.emitted, "the program that emitted has not sent all of it"
        assert self.told.longest < 0.5, "the emitting program was held up"
        assert max(self.megabytes.values()) < 300


class Grid:
    """A running installation on a virtual host and an index prefix of its own."""

    def __init__(self, folder: Path, rabbit: RabbitNode, vhost: Vhost, node: Node, place: Place) -> None:
        self.folder = folder
        self.rabbit = rabbit
        self.vhost = vhost
        self.node = node
        self.place = place
        self.kills = 0
        self.store_url = node.url
        self._report = folder / "report.json"
        self._spool = self.settings("emitter").spool / "spool.sqlite"
        self._emitter: subprocess.Popen[bytes] | None = None
        self.collectors: list[subprocess.Popen[bytes]] = []
        self._peaks: dict[str, float] = {}
        self._watching = threading.Event()
        self._watch = threading.Thread(target=self._note_peaks)
        self._watch.start()

    def environ(self, name: str) -> dict[str, str]:
        """Where a process of this name finds everything; each has a data folder of its own."""
        return {
            "SITEWARD_DATA": str(self.folder / name),
            "SITEWARD_BROKER__URL": self.vhost.url,
            "SITEWARD_BROKER__PASSWORD": "guest",
            "SITEWARD_BROKER__TIMEOUT": "10",
            "SITEWARD_BROKER__MANAGEMENT": f"http://127.0.0.1:{self.rabbit.management}",
            "SITEWARD_MONITORING__URL": self.store_url,
            "SITEWARD_MONITORING__PREFIX": self.place.prefix,
            "SITEWARD_MONITORING__TIMEOUT": "20",
            "SITEWARD_LOG_LEVEL": "error",
        }

    def settings(self, name: str) -> Settings:
        """The same for this process."""
        return load_settings(environ=self.environ(name))

    def start(self, collectors: int = 1) -> None:
        """Begin to emit and to collect, and wait for the first records."""
        for _ in range(collectors):
            self.add_collector()
        self.emit()
        eventually(lambda: self.indexed() > 0, "the first records")

    def emit(self, making: str = JOBS, most: int = 10**9) -> None:
        """Begin to emit, until so many records are emitted or finish() says stop."""
        arguments = [str(Path(__file__).parent), str(self._report), str(RATE), str(most)]
        self._emitter = self._launch("emitter", ["-c", IMPORTS + making + EMITTER, *arguments])

    def add_collector(self) -> None:
        """One more collector on the queue."""
        name = f"collector-{len(self.collectors)}"
        self.collectors.append(self._launch(name, ["-m", "siteward.server.service", "collector"]))

    def kill_collector(self, number: int) -> None:
        """Kill a collector in the middle of whatever it does, and start it again."""
        process = self.collectors[number]
        process.kill()
        process.communicate()
        self.kills += 1
        self.collectors[number] = self._launch(f"collector-{number}", ["-m", "siteward.server.service", "collector"])

    def indexed(self) -> int:
        """Records that were written, whether or not they can be found yet."""
        wanted = "filter_path=_all.primaries.docs.count,_all.primaries.indexing.index_total"
        found: dict[str, Any] = self.place.ask("GET", f"/{self.place.prefix}-*/_stats/docs,indexing?{wanted}")
        total: int = found.get("_all", {}).get("primaries", {}).get("indexing", {}).get("index_total", 0)
        return total

    def stored(self) -> int:
        """Records that can be found by now; duplicates count. Asked again and again, it must not cost the node much."""
        found = self.place.ask("GET", f"/{self.place.prefix}-*/_count")
        assert found["_shards"]["successful"] == found["_shards"]["total"], found
        count: int = found["count"]
        return count

    def counted(self, metric: Metric, *labels: str) -> float:
        """What the living collectors have counted, as they tell it once a second; of those with these labels."""
        return sum(
            sample.value
            for number in range(len(self.collectors))
            for samples in shared_samples(self.settings(f"collector-{number}").folder / "telemetry").values()
            for sample in samples
            if sample.metric == metric.name and set(labels) <= set(sample.labels)
        )

    @property
    def has_spooled(self) -> bool:
        """Whether the emitter has had to keep anything on disk; the file is not made before."""
        return self._spool.exists()

    @property
    def spooled(self) -> int:
        """Messages that wait in the emitter's spool, seen from outside; those put aside are among them."""
        if not self.has_spooled:
            return 0
        with closing(sqlite3.connect(f"file:{self._spool}?mode=ro", uri=True, timeout=30)) as opened:
            ((count,),) = opened.execute("SELECT (SELECT count(*) FROM deliveries) + (SELECT count(*) FROM parked)")
        return int(count)

    def progress(self, records: int = RATE // 2) -> None:
        """Wait until more records are stored than now."""
        reached = self.stored()
        eventually(lambda: self.stored() >= reached + records, "further records", pause=POLL)

    def settle(self) -> Told:
        """Let the emitter stop emitting, wait until it has sent all that it spooled, and end it."""
        emitter, idle = self._emitter, self._report.with_suffix(".idle")
        assert emitter is not None
        eventually(lambda: idle.exists() or emitter.poll() is not None, "an emitter that has let go of everything", 90)
        assert emitter.poll() is None, "the emitting program has failed"
        # Nobody else empties it.
        eventually(lambda: self.spooled == 0, "an emitter that sends what it has spooled")
        self._report.with_suffix(".leave").touch()
        assert emitter.wait(90) == 0
        emitter.communicate()
        assert self.spooled == 0
        told = msgspec.json.decode(self._report.read_bytes(), type=Told)
        self._peaks["emitter"] = told.megabytes
        return told

    def finish(self) -> Counted:
        """Stop emitting, wait until everything has arrived, and count."""
        self._report.with_suffix(".stop").touch()
        told = self.settle()
        # What a queue holds is told late, and wrongly just after its node was restarted; what is stored is not.
        try:
            eventually(lambda: self.stored() >= told.emitted, "the last records", pause=POLL)
        except AssertionError as error:
            error.add_note(self._where(told))
            raise
        return self.count(told)

    def count(self, told: Told, kind: str = "job", by: str = "local_job_id") -> Counted:
        """What became of all that was emitted, by the dimension that has its number."""
        with closing(open_declared(self.settings("test"))) as broker:
            eventually(lambda: all(each.ready == 0 and each.unacked == 0 for each in broker.status()), "empty queues")
        self.place.refresh()
        stored = self._stored(told.emitted, kind, by)
        return Counted(told, stored, dict(self._peaks), self._put_aside())

    def end(self) -> None:
        """End every process that is left."""
        self._watching.set()
        self._watch.join()
        for process in [*self.collectors, *([self._emitter] if self._emitter else [])]:
            process.send_signal(signal.SIGTERM)
        for process in [*self.collectors, *([self._emitter] if self._emitter else [])]:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()

    def _launch(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        # The services take the end of their standard input for the end of their supervisor.
        return subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | self.environ(name), stdin=subprocess.PIPE
        )

    def _where(self, told: Told) -> str:
        """Where the records are that are not where they should be."""
        with closing(open_declared(self.settings("test"))) as broker:
            queues = broker.status()
        counted = {
            metric.name: self.counted(metric) for metric in (CONSUMED, WRITTEN, SINK_FAILURES, OPENSEARCH_RETRIED)
        }
        return f"{told}, {self.stored()} stored, {self._put_aside()} put aside, {counted}, {queues}"

    def _put_aside(self) -> int:
        """Dead letters of all collectors, and parked messages."""
        with closing(open_declared(self.settings("test"))) as broker:
            count = sum(queue.parked for queue in broker.status())
        for number in range(len(self.collectors)):
            with DeadLetters(database_path(self.settings(f"collector-{number}"))) as letters:
                count += letters.count()
        return count

    def _stored(self, emitted: int, kind: str, by: str) -> Counter[str]:
        """How often each record is stored."""
        settings = self.settings("test")
        with closing(open_store(settings.monitoring_url, settings, load_kinds(settings.kinds))) as store:
            question = Query(
                kind=kind,
                wanted=(Wanted(Function.COUNT),),
                start=NOON - timedelta(days=1),
                end=NOON + timedelta(seconds=emitted + 1),
                by=(by,),
            )
            return Counter({str(row.group[0]): int(row.values[0] or 0) for row in store.query(question).rows})

    def _note_peaks(self) -> None:
        while not self._watching.wait(0.5):
            for number, process in enumerate(list(self.collectors)):
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except OSError:
                    continue
                peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0")
                name = f"collector {number}"
                self._peaks[name] = max(self._peaks.get(name, 0.0), int(peak.split()[1]) / 1000)
