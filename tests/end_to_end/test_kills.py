"""Nothing lost, nothing twice: emitter, collector and application are killed at random, and every id is counted."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
from examples import JOB, NOW, job
from killing import Process, counts_of, wait
from rabbitmq_server import free_ports

from siteward.broker.opening import open_declared
from siteward.envelope import as_json
from siteward.settings import Settings, load_settings

EMITTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from examples import job
from siteward.emit import Emitter
from siteward.settings import load_settings

done = Path(sys.argv[2])
first = int(done.read_text() or 0) if done.exists() else 0
with Emitter(load_settings()) as emitter:
    for number in range(first, 10**9):
        assert emitter.emit(job(number)) is None
        if number % 250 == 249:
            assert emitter.flush(60)
            draft = done.with_suffix(".draft")
            draft.write_text(str(number + 1))
            draft.replace(done)
"""
POSTED = 10_000_000
"""Numbers of the jobs that come through the gateway, so that they differ from the emitter's."""


class Poster(threading.Thread):
    """Posts jobs to the gateway, each batch again and again until it is answered."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._url = f"http://127.0.0.1:{port}/v1/records/job"
        self.stop = threading.Event()
        self.queued = 0

    def run(self) -> None:
        while not self.stop.is_set():
            first = POSTED + self.queued
            rows = [JOB.row_of(job(n, local_job_id=str(first + n)), NOW) for n in range(20)]
            body = b"\n".join(as_json(JOB, [getattr(row, name) for name in JOB.names]) for row in rows)
            if self._post(body):
                self.queued += len(rows)

    def _post(self, body: bytes) -> bool:
        request = Request(self._url, body, {"Content-Type": "application/x-ndjson", "Accept": "application/json"})
        while True:
            try:
                with urlopen(request, timeout=30) as answer:
                    told = json.loads(answer.read())
                    assert told["rejected"] == 0, told
                    assert told["queued"] == 20, told
                    return True
            except HTTPError as error:
                if error.code not in {429, 503}:
                    raise
            except (URLError, OSError, HTTPException, json.JSONDecodeError):
                pass  # Killed while it answered: nobody knows, so the same records are posted again.
            if self.stop.wait(0.05):
                return False


@contextmanager
def _installation(folder: Path) -> Iterator[tuple[Settings, dict[str, Process], Poster]]:
    """Emitter, collector and application on one data folder, and somebody who posts."""
    (port,) = free_ports(1)
    environ = os.environ | {"SITEWARD_DATA": str(folder), "SITEWARD_SERVER__PORT": str(port)}
    environ |= {"SITEWARD_LOG_LEVEL": "error", "SITEWARD_EMITTER__BATCH_AGE": "0.05"}
    service = [sys.executable, "-m", "siteward.server.service"]
    tests = Path(__file__).parent.parent
    processes = {
        "collector": Process([*service, "collector"], environ),
        "app": Process([*service, "app"], environ),
        "emitter": Process([sys.executable, "-c", EMITTER, str(tests), str(folder / "emitted")], environ),
    }
    poster = Poster(port)
    poster.start()
    try:
        yield load_settings(environ={"SITEWARD_DATA": str(folder)}), processes, poster
    finally:
        poster.stop.set()
        for name in ("emitter", "app", "collector"):
            processes[name].end()
        poster.join()


def _survives(folder: Path, kills: int, seed: int, tell: Callable[[str], None]) -> None:
    chance = random.Random(seed)
    with _installation(folder) as (settings, processes, poster):
        wait(lambda: (folder / "emitted").exists() and poster.queued > 0, "the first records")
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 1.0))
            processes[chance.choice(sorted(processes))].kill()
        # Every process does something once more after the last kill.
        reached, posted = int((folder / "emitted").read_text()), poster.queued
        wait(lambda: int((folder / "emitted").read_text()) > reached and poster.queued > posted, "progress")
        poster.stop.set()
        poster.join()
        processes["emitter"].end()
        broker = open_declared(settings)
        wait(lambda: all(status.records == 0 for status in broker.status()), "an empty queue")
        broker.close()
        emitted = int((folder / "emitted").read_text())
        # The last batch may have got through without being noted.
        counts = counts_of(settings, "job", "local_job_id", emitted + 10_000_000)
    killed = {name: process.kills for name, process in processes.items()}
    tell(f"killed {killed}; {emitted:,} emitted and flushed, {poster.queued:,} posted, {len(counts):,} stored")
    assert sum(killed.values()) == kills
    assert min(killed.values()) > 0
    assert set(counts.values()) == {1}
    assert {str(number) for number in range(emitted)} <= set(counts)
    assert {str(POSTED + number) for number in range(poster.queued)} <= set(counts)


def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path, tell_counts: Callable[[str], None]) -> None:
    """Emitter, collector and application die at random points; every flushed and every queued record is stored once."""
    _survives(tmp_path, 21, 20, tell_counts)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, seed: int, tell_counts: Callable[[str], None]
) -> None:
    """The same for longer, from four different beginnings: 200 kills in all."""
    _survives(tmp_path, 50, seed, tell_counts)
