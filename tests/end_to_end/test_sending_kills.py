"""Programs that send over HTTP, the application and the collector are killed at random: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from gateway_server import REPORTER
from killing import Process, counts_of, wait
from rabbitmq_server import free_ports

from siteward.broker.opening import open_declared
from siteward.emit.spool import Spool
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.settings import Settings, load_settings

SENDS: Final = """
import sys, time
from datetime import timedelta
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from examples import NOON, job
from siteward.emit import Emitter
from siteward.kinds.data_operation import DataOperation

def operation(number):
    end = NOON + timedelta(seconds=number)
    return DataOperation(vo="example", start=end, end=end, operation="upload", state="done", file=str(number))

done, enough = Path(sys.argv[2]), Path(sys.argv[3])
make = job if done.name == "jobs" else operation
number = int(done.read_text() or 0) if done.exists() else 0
with Emitter() as emitter:
    while not enough.exists():
        for number in range(number, number + 50):
            assert emitter.emit(make(number)) is None
        number += 1
        assert emitter.flush(60)
        draft = done.with_suffix(".draft")
        draft.write_text(str(number))
        draft.replace(done)
        time.sleep(0.1)
    while True:
        emitter.emit(make(number))
        time.sleep(1)
"""
"""Emits without end; a file says how many are flushed. When another file is there, what is spooled gets its time."""


PROGRAMS: Final = ("jobs", "operations")
"""What they emit. Operations have no name but their envelope's, so that one sent under two names would show; whoever
emits them is not killed, since it would not know which ones are flushed."""


class Installation:
    """An application that asks for tokens, its collector, and two programs on a disk of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (port,) = free_ports(1)
        (folder / "siteward.toml").write_text('[issuers.local]\nprofile = "local"\n')
        common = os.environ | {"SITEWARD_LOG_LEVEL": "error", "SITEWARD_EMITTER__BATCH_AGE": "0.05"}
        self.settings = Settings(data=str(folder / "app"))
        here = common | {"SITEWARD_CONFIG": str(folder / "siteward.toml"), "SITEWARD_DATA": self.settings.data}
        here |= {"SITEWARD_SERVER__PORT": str(port)}
        away = common | {"SITEWARD_BROKER__URL": f"http://127.0.0.1:{port}"}
        away |= {
            "SITEWARD_DATA": str(folder / "program"),
            "BEARER_TOKEN": LocalIssuer(self.settings.issuer_file).token("pilots", (REPORTER,), 1),
        }
        self.program = load_settings(environ={name: away[name] for name in away if name.startswith("SITEWARD_")})
        service = [sys.executable, "-m", "siteward.server.service"]
        tests = str(Path(__file__).parent.parent)
        self.processes = {
            "collector": Process([*service, "collector"], here),
            "app": Process([*service, "app"], here),
            **{
                name: Process([sys.executable, "-c", SENDS, tests, str(folder / name), str(folder / "enough")], away)
                for name in PROGRAMS
            },
        }

    def flushed(self, name: str) -> int:
        """The number of records that a program has flushed."""
        file = self.folder / name
        return int(file.read_text()) if file.exists() else 0

    def goes_on(self) -> None:
        """Wait until both programs have flushed more than before, which takes all that is killed."""
        before = {name: self.flushed(name) for name in PROGRAMS}
        for name, count in before.items():
            wait(lambda name=name, count=count: self.flushed(name) > count, f"progress of {name}")  # type: ignore[misc]

    def is_spooled(self) -> bool:
        """Whether anything waits on the programs' disk."""
        spool = Spool(self.program.spool, 2**30)
        found = [status.ready + (status.unacked or 0) for status in spool._file.status()]
        spool.close()
        return any(found)


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """A running one."""
    made = Installation(folder)
    try:
        yield made
    finally:
        for name in (*PROGRAMS, "app", "collector"):
            made.processes[name].end()


def survives(folder: Path, kills: int, seed: int, tell: Callable[[str], None]) -> None:
    chance = random.Random(seed)
    with installed(folder) as running:
        running.goes_on()
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 1.0))
            running.processes[chance.choice(["app", "app", "collector", "jobs"])].kill()
        running.goes_on()
        (folder / "enough").touch()
        wait(lambda: not running.is_spooled(), "an empty spool")
        for name in PROGRAMS:
            running.processes[name].end()
        broker = open_declared(running.settings)
        wait(lambda: all(status.records == 0 for status in broker.status()), "an empty queue")
        broker.close()
        emitted, operated = map(running.flushed, PROGRAMS)
        # The last batch may have got through without being noted.
        jobs = counts_of(running.settings, "job", "local_job_id", emitted + 1_000)
        operations = counts_of(running.settings, "data-operation", "file", operated + 1_000)
    killed = {name: process.kills for name, process in running.processes.items()}
    tell(f"killed {killed}; {emitted:,} + {operated:,} flushed, {len(jobs):,} + {len(operations):,} stored")
    assert sum(killed.values()) == kills
    assert set(jobs.values()) == {1}
    # The last one is emitted again and again while the others get their time.
    assert {operations[str(number)] for number in range(operated)} == {1}
    assert {str(number) for number in range(emitted)} <= set(jobs)
    assert {str(number) for number in range(operated)} <= set(operations)


def test_fifteen_kills_lose_nothing_and_double_nothing(tmp_path: Path, tell_counts: Callable[[str], None]) -> None:
    """Every record that a program has flushed is stored once, also one that only its envelope names."""
    survives(tmp_path, 15, 15, tell_counts)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, seed: int, tell_counts: Callable[[str], None]
) -> None:
    """The same for longer, from three different beginnings."""
    survives(tmp_path, 100, seed, tell_counts)
