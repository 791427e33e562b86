"""`siteward collect` and `siteward dead-letters` as real processes, with the real broker and store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from examples import JOB, NOON, NOW, job, job_rows
from fastapi.testclient import TestClient

from collectors import api, gateway
from siteward.broker import Message
from siteward.broker.opening import open_declared
from siteward.broker.topology import routing_key
from siteward.envelope import as_json, seal
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.settings import Settings
from siteward.telemetry import WRITTEN, shared_samples

SENT = microseconds(NOON)


def siteward(folder: Path, *arguments: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "siteward", *arguments],
        env={"SITEWARD_DATA": str(folder), "PATH": "", **environment},
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextmanager
def collecting(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A collector in a process of its own; killed at the end if it still lives."""
    process = subprocess.Popen(
        [sys.executable, "-m", "siteward", "collect", "--name", "collector"],
        env={"SITEWARD_DATA": str(folder), "PATH": "", "SITEWARD_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def publish(settings: Settings, *messages: Message) -> None:
    with closing(open_declared(settings)) as broker, closing(broker.publisher()) as publisher:
        publisher.publish(messages)


def waiting(settings: Settings) -> int:
    with closing(open_declared(settings)) as broker:
        return sum(queue.records or 0 for queue in broker.status())


def until_empty(settings: Settings) -> None:
    deadline = time.monotonic() + 30
    while waiting(settings):
        assert time.monotonic() < deadline, "the queue was not emptied in time"
        time.sleep(0.05)


def test_a_collector_stops_on_sigterm_with_everything_in_its_place(tmp_path: Path) -> None:
    """It ends soon, with code 0; what is acknowledged is stored, refused records are dead letters, the rest waits."""
    settings = Settings(data=str(tmp_path))
    bodies = [seal(JOB, job_rows(200)[100 * n : 100 * n + 100], "test", SENT) for n in range(2)]
    bodies.append(seal(JOB, job_rows(3), "test", SENT).replace(b"submit.example", b"submit\0example", 1))
    publish(settings, *(Message(routing_key("example", "job"), body, 100) for body in bodies))
    with collecting(tmp_path) as process:
        until_empty(settings)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    written = {
        sample.labels: sample.value
        for sample in shared_samples(tmp_path / "telemetry")["collector"]
        if sample.metric == WRITTEN.name
    }
    assert written["monitoring", "job", "stored"] == 200
    assert written["monitoring", "job", "duplicate"] == 2
    listed = siteward(tmp_path, "--output", "json", "dead-letters", "list")
    assert [each["field"] for each in json.loads(listed.stdout)] == ["submit_host"]


def test_dead_letters_are_decided_on_the_command_line(tmp_path: Path) -> None:
    """list, show, fix, discard, counts: honest exit codes, data on standard output only."""
    settings = Settings(data=str(tmp_path))
    body = seal(JOB, job_rows(3), "pilot@node7", SENT).replace(b"submit.example", b"submit\0example", 3)
    publish(settings, Message(routing_key("example", "job"), body, 3), Message("example.job", b"rubbish", 1))
    with collecting(tmp_path):
        until_empty(settings)
    shown = json.loads(siteward(tmp_path, "dead-letters", "show", "1").stdout)
    assert (shown["producer"], shown["reason"]) == ("pilot@node7", "contains a NUL character")
    again = siteward(tmp_path, "dead-letters", "replay", "1", "2", "99")
    assert (again.returncode, again.stdout) == (1, "")
    assert "0 of 3 replayed" in again.stderr
    mended = shown["original"].replace("\\u0000", ".")
    assert siteward(tmp_path, "dead-letters", "fix", "1", mended, "--note", "NUL").returncode == 0
    assert siteward(tmp_path, "dead-letters", "fix", "2", "-", text='{"vo": 1}').returncode == 1
    assert siteward(tmp_path, "dead-letters", "discard", "3").returncode == 0
    counts = siteward(tmp_path, "--output", "csv", "dead-letters", "counts").stdout.splitlines()
    assert counts == [
        "queue,kind,state,count",
        "monitoring,job,discarded,1",
        "monitoring,job,fixed,1",
        "monitoring,job,open,1",
    ]
    assert waiting(settings) == 1
    messages = siteward(tmp_path, "--output", "json", "dead-letters", "messages", "list")
    (parked,) = json.loads(messages.stdout)
    assert parked["reason"].startswith("envelope: is not an envelope")
    assert siteward(tmp_path, "dead-letters", "messages", "discard", str(parked["number"])).returncode == 0
    assert siteward(tmp_path, "dead-letters", "messages", "discard", str(parked["number"])).returncode == 1
    assert "no such queue" in siteward(tmp_path, "dead-letters", "resume").stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(("collect", "nowhere"), 2), (("dead-letters", "show", "1"), 1), (("dead-letters",), 2)]
)
def test_wrong_use_has_an_honest_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """2 for wrong usage, 1 for what is not there; one line says why."""
    ended = siteward(tmp_path, *arguments)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", [("collect",), ("collect", "monitoring"), ("up",)])
def test_a_collector_does_not_wait_for_a_broker_that_only_takes(tmp_path: Path, words: tuple[str, ...]) -> None:
    """An application's address is one for programs that emit: it says so and ends, whether anybody answers there."""
    ended = siteward(tmp_path, *words, SITEWARD_BROKER__URL="https://127.0.0.1:1", SITEWARD_SERVER__PORT="0")
    assert ended.returncode == 1
    assert "setting broker.url: https://127.0.0.1:1 is the address of an application" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_record_posted_to_the_gateway_gets_its_receipt_from_the_store(tmp_path: Path) -> None:
    """Gateway, broker, collector and store are the real ones: queued becomes stored, and a retry a duplicate."""
    settings = Settings(data=str(tmp_path))
    row = JOB.row_of(job(), NOW)
    record = as_json(JOB, [getattr(row, name) for name in JOB.names])
    app = create_app(settings, routers=[gateway.router, api.router])
    outcomes: list[str] = []
    with collecting(tmp_path), TestClient(app, "http://localhost") as client:
        for _ in range(2):
            answer = client.post("/v1/records/job", content=record, headers={"content-type": "application/json"})
            said = answer.json()["records"][0]
            assert said["status"] == "queued"
            deadline = time.monotonic() + 30
            while (outcome := newest_outcome(client, said["id"])) == "queued":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            outcomes.append(outcome)
        pipeline = client.get("/v1/pipeline").json()
    assert outcomes == ["stored", "duplicate"]
    assert pipeline["stored"] == {"total": 1, "kinds": {"job": 1}}
    assert pipeline["emitted"] == {"total": 2}


def newest_outcome(client: TestClient, record: str) -> str:
    """What the monitoring sink did with the latest submission of a record."""
    (sink,) = client.get(f"/v1/receipts/{record}").json()["submissions"][0]["sinks"]
    assert sink["sink"] == "monitoring"
    return str(sink["outcome"])
