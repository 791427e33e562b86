"""One emitting program, collectors, and real servers between them, of which any can be disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

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

RATE = 2_000
"""Records emitted per second."""
EMITTER = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from examples import job
from siteward.emit import Emitter
from siteward.settings import load_settings
rate, report = int(sys.argv[2]), Path(sys.argv[3])
stop = report.with_suffix(".stop")
jobs, longest, emitted = [job(number) for number in range(1000)], 0.0, 0
end = jobs[0].end
with Emitter(load_settings()) as emitter:
    began = time.perf_counter()
    while not stop.exists():
        due = int((time.perf_counter() - began) * rate)
        for number in range(emitted, due):
            record = jobs[number % 1000]
            record.local_job_id, record.end = str(number), end + timedelta(seconds=number)
            before = time.perf_counter()
            assert emitter.emit(record) is None
            longest = max(longest, time.perf_counter() - before)
        emitted = due
        time.sleep(0.01)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
report.write_text(json.dumps({"emitted": emitted, "longest": longest, "megabytes": int(peak.split()[1]) / 1000}))
"""


def eventually(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until something is so; fail, naming it, when it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


class Counted:
    """What became of everything that was emitted."""

    def __init__(
        self, emitted: int, stored: Counter[str], longest: float, megabytes: dict[str, float], put_aside: int
    ) -> None:
        self.emitted = emitted
        self.put_aside = put_aside
        self.stored = stored
        self.longest = longest
        self.megabytes = megabytes

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {size:.0f} MB" for name, size in self.megabytes.items())
        return (
            f"{self.emitted:,} emitted, {len(self.stored):,} stored, most often {max(self.stored.values())} time; "
            f"longest emit() {1000 * self.longest:.1f} ms; {peaks}"
        )

    def check(self) -> None:
        """Every record exactly once, the program undisturbed, memory bounded."""
        assert set(self.stored) == {str(number) for number in range(self.emitted)}
        assert set(self.stored.values()) == {1}
        assert self.put_aside == 0, "good records are in the dead letters, or parked"
        assert self.longest < 0.5, "the emitting program was held up"
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
        self._emitter = self._launch(
            "emitter", ["-c", EMITTER, str(Path(__file__).parent), str(RATE), str(self._report)]
        )
        eventually(lambda: self.indexed() > 0, "the first records")

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
        """Records that can be found; duplicates count."""
        self.place.refresh()
        found: int = self.place.ask("GET", f"/{self.place.prefix}-*/_count")["count"]
        return found

    def has_spooled(self) -> bool:
        """Whether the emitter has had to keep anything on disk; the file is not made before."""
        return (self.settings("emitter").spool / "spool.sqlite").exists()

    def progress(self, records: int = RATE // 2) -> None:
        """Wait until more records arrive."""
        reached = self.indexed()
        eventually(lambda: not reached <= self.indexed() < reached + records, "further records")

    def finish(self) -> Counted:
        """Stop emitting, wait until everything has arrived, and count."""
        assert self._emitter is not None
        self._report.with_suffix(".stop").touch()
        assert self._emitter.wait(90) == 0
        self._emitter.communicate()
        told = json.loads(self._report.read_text())
        self._peaks["emitter"] = told["megabytes"]
        self._empty_spool()
        # What a queue holds is told late, and wrongly just after its node was restarted; what is stored is not.
        eventually(lambda: self.stored() >= told["emitted"], "the last records")
        with closing(open_declared(self.settings("test"))) as broker:
            eventually(lambda: all(each.ready == 0 and each.unacked == 0 for each in broker.status()), "empty queues")
        aside = self._put_aside()
        return Counted(told["emitted"], self._stored(told["emitted"]), told["longest"], dict(self._peaks), aside)

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

    def _empty_spool(self) -> None:
        """The next program sends what the last one left."""
        from siteward.emit.spool import Spool  # noqa: PLC0415  # looked into here and nowhere else.

        settings = self.settings("emitter")
        spool = Spool(settings.spool, settings.emitter.spool_bytes)
        with closing(open_declared(settings)) as broker, closing(broker.publisher()) as publisher:
            while messages := spool.peek():
                publisher.publish(messages)
                spool.forget()
        spool.release()
        spool.close()

    def _put_aside(self) -> int:
        """Dead letters of all collectors, and parked messages."""
        with closing(open_declared(self.settings("test"))) as broker:
            count = sum(queue.parked for queue in broker.status())
        for number in range(len(self.collectors)):
            with DeadLetters(database_path(self.settings(f"collector-{number}"))) as letters:
                count += letters.count()
        return count

    def _stored(self, emitted: int) -> Counter[str]:
        """How often each job is stored."""
        settings = self.settings("test")
        with closing(open_store(settings.monitoring_url, settings, load_kinds())) as store:
            question = Query(
                kind="job",
                wanted=(Wanted(Function.COUNT),),
                start=NOON - timedelta(days=1),
                end=NOON + timedelta(seconds=emitted + 1),
                by=("local_job_id",),
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
