"""`siteward up`: one command starts everything, says where it is, answers, and stops cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from siteward.client import Client

LIMIT = 40.0
PROGRAM = (sys.executable, "-c", "from siteward.cli import main; main()")


class Up:
    """A running `siteward up` and what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SITEWARD_DATA": str(folder / "data"), "SITEWARD_SERVER__PORT": "0"}
        self.told = folder / "told"
        with self.told.open("w") as told:
            self.process = subprocess.Popen([*PROGRAM, "up"], stderr=told, cwd=folder, env=self.environment)

    def banner(self) -> str:
        """The address, once it is told."""
        until = time.monotonic() + LIMIT
        while time.monotonic() < until and self.process.poll() is None:
            address = self.told.read_text().partition("Siteward is up:")[2].split()
            if address:
                return address[0]
            time.sleep(0.05)
        raise AssertionError(self.told.read_text())

    def siteward(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments], capture_output=True, text=True, cwd=self.folder, env=self.environment, check=False
        )


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    if up.process.poll() is None:
        up.process.kill()
        up.process.wait()


def test_up_answers_and_stops(up: Up) -> None:
    """Records emitted from the shell are in answers; a second `up` is refused; Ctrl-C ends all, the data stays."""
    client = Client(up.banner())
    fields = ("vo=example", "site=SITE-A", "local_job_id=1", "start=-2h", "end=-1h", "wall_time=3600")
    assert up.siteward("emit", "job", *fields).returncode == 0
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and not client.query("job", where=["site=SITE-A"]).totals[0]:
        time.sleep(0.05)
    question = ("query", "job", "--measures", "sum:wall_time", "--where", "site=SITE-A")
    answer = json.loads(up.siteward("--output", "json", *question).stdout)
    assert answer["totals"] == [3600]
    second = up.siteward("up")
    assert second.returncode == 1
    assert f"process {up.process.pid}" in second.stderr
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(LIMIT) == 0
    assert up.told.read_text().rstrip().endswith("with the same data.")
    states = json.loads((up.folder / "data" / "run" / "services.json").read_text())
    assert {state["state"] for state in states} == {"stopped"}
    assert json.loads(up.siteward("--output", "json", *question).stdout)["totals"] == [3600], "the store itself answers"


def test_port_in_use_is_said(up: Up) -> None:
    """Where somebody else listens, `up` says so with what to do, and does not start."""
    port = up.banner().rpartition(":")[2]
    environment = up.environment | {"SITEWARD_DATA": str(up.folder / "other"), "SITEWARD_SERVER__PORT": port}
    other = subprocess.run(
        [*PROGRAM, "up"], capture_output=True, text=True, cwd=up.folder, env=environment, check=False, timeout=LIMIT
    )
    assert other.returncode == 2
    assert f"{port} cannot be used" in other.stderr
    assert "SITEWARD_SERVER__PORT" in other.stderr
    assert "Siteward is up" not in other.stderr


def test_query_asks_only_the_app_of_its_own_data(up: Up) -> None:
    """An app that serves another data folder is never asked, whatever address the settings name."""
    port = up.banner().rpartition(":")[2]
    environment = up.environment | {"SITEWARD_DATA": str(up.folder / "other"), "SITEWARD_SERVER__PORT": port}
    question = ["query", "host", "--measures", "count"]
    asked = subprocess.run(
        [*PROGRAM, *question], capture_output=True, text=True, cwd=up.folder, env=environment, check=True
    )
    assert "count 0" in asked.stderr
