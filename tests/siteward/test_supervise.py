"""The supervisor: services live as long as it does, are started again when they die, and stop in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from siteward.server import supervise
from siteward.server.service import Labelled
from siteward.server.supervise import Child, RunningAlreadyError, Supervisor, services, sole_supervisor
from siteward.settings import ProbeSettings, Settings

LIMIT = 20.0
SERVICES = '''
"""Services for tests: each notes in the data folder when it starts and stops."""
import os, signal, time

def note(settings, text):
    with open(settings.folder / "notes", "a") as file:
        file.write(text + "\\n")

def quiet(settings, stop, name="quiet"):
    note(settings, f"{name} started {os.getpid()} {settings.probe.site}")
    stop.wait()
    note(settings, f"{name} stopped")

def other(settings, stop):
    quiet(settings, stop, "other")

def broken(settings, stop):
    note(settings, f"broken started {os.getpid()} -")
    raise RuntimeError("broken on purpose")

def stubborn(settings, stop):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(settings, f"stubborn started {os.getpid()} -")
    time.sleep(3600)
'''
SUPERVISOR = """
import sys, threading
from siteward.server.supervise import Supervisor
from siteward.settings import Settings
Supervisor(Settings(data=sys.argv[1]), sys.argv[2:]).run(threading.Event())
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data folder, and settings that no file holds."""
    return Settings(data=str(tmp_path / "data"), probe=ProbeSettings(site="SITE-A"))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that brings the services, found by child processes too."""
    place = tmp_path / "site"
    (place / "watched-1.0.dist-info").mkdir(parents=True)
    (place / "watched-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: watched\nVersion: 1.0\n")
    names = ("quiet", "other", "broken", "stubborn")
    entries = "\n".join(f"{name} = watched_services:{name}" for name in names)
    (place / "watched-1.0.dist-info" / "entry_points.txt").write_text(f"[siteward.services]\n{entries}\n")
    (place / "watched_services.py").write_text(SERVICES)
    monkeypatch.setenv("PYTHONPATH", str(place))


@pytest.fixture
def supervised(settings: Settings) -> Iterator[Callable[..., Supervised]]:
    """Starts supervisors in threads, and stops them."""
    begun: list[Supervised] = []

    def start(*names: str) -> Supervised:
        begun.append(Supervised(settings, names))
        return begun[-1]

    yield start
    for one in begun:
        one.end()


class Supervised:
    """A supervisor in a thread."""

    def __init__(self, settings: Settings, names: tuple[str, ...]) -> None:
        self.settings = settings
        self.stop, self.hurry = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=Supervisor(settings, names).run, args=(self.stop, self.hurry))
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()


def notes(settings: Settings) -> list[list[str]]:
    path = settings.folder / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(what: Callable[[], Any]) -> Any:
    """What a condition gives as soon as it is true."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(what)


def started(settings: Settings, name: str, times: int = 1) -> int:
    """The process id of a service that has been started so many times."""

    def pids() -> list[int]:
        return [int(note[2]) for note in notes(settings) if note[:2] == [name, "started"]]

    wait_for(lambda: len(pids()) >= times)
    return pids()[times - 1]


def states(settings: Settings) -> dict[str, Any]:
    path = settings.folder / "run" / "services.json"
    return {state["name"]: state for state in json.loads(path.read_text())} if path.exists() else {}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_services_start_in_order_and_stop_in_reverse(settings: Settings, supervised: Callable[..., Supervised]) -> None:
    """Services get the supervisor's settings, are noted with process id and state, and the last started stops first."""
    one = supervised("quiet", "other")
    pids = {name: started(settings, name) for name in ("quiet", "other")}
    assert {name: state["pid"] for name, state in states(settings).items()} == pids
    assert {state["state"] for state in states(settings).values()} == {"running"}
    assert all(note[3] == "SITE-A" for note in notes(settings))
    one.end()
    assert [note[0] for note in notes(settings)[2:]] == ["other", "quiet"]
    assert {(state["state"], state["pid"]) for state in states(settings).values()} == {("stopped", None)}
    assert not any(map(is_alive, pids.values()))


def test_killed_service_is_started_again(settings: Settings, supervised: Callable[..., Supervised]) -> None:
    """A service killed by anyone is back soon, counted, while the others go on undisturbed."""
    supervised("quiet", "other")
    other = started(settings, "other")
    os.kill(started(settings, "quiet"), signal.SIGKILL)
    again = started(settings, "quiet", times=2)
    wait_for(lambda: states(settings)["quiet"]["restarts"] == 1)
    assert states(settings)["quiet"]["pid"] == again
    assert states(settings)["other"]["pid"] == other


def test_wait_doubles_and_is_short_again_after_a_while(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that dies again and again is started ever more rarely; one that has lived for long, at once."""

    class Dead:
        pid, stdin = 1, None

        def poll(self) -> int:
            return 1

    def start(child: Child) -> None:
        child.process = Dead()  # type: ignore[assignment]  # as much of a process as is looked at.
        child._started = now

    monkeypatch.setattr(Child, "start", start)
    child, now, waits = Child("quiet", settings), 0.0, []
    child.start()
    for _ in range(9):
        assert child.look(now)
        waits.append(child._due - now)
        assert not child.look(child._due - 0.001)
        now = child._due
        assert child.look(now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    now += supervise.HEALTHY
    assert child.look(now)
    assert child._due - now == supervise.SHORTEST_WAIT


def test_broken_service_does_not_end_the_others(settings: Settings, supervised: Callable[..., Supervised]) -> None:
    """A service that raises is tried again while the others run."""
    supervised("broken", "quiet")
    started(settings, "broken", times=2)
    assert is_alive(started(settings, "quiet"))


def test_stubborn_service_is_killed(
    settings: Settings, supervised: Callable[..., Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that does not stop in time is killed, and no other is."""
    monkeypatch.setattr(supervise, "PATIENCE", 0.5)
    one = supervised("quiet", "stubborn")
    stubborn, _ = started(settings, "stubborn"), started(settings, "quiet")
    one.end()
    assert not is_alive(stubborn)
    assert notes(settings)[-1] == ["quiet", "stopped"]


def test_second_signal_does_not_wait(settings: Settings, supervised: Callable[..., Supervised]) -> None:
    """Whoever presses Ctrl-C twice does not wait for a service that does not stop."""
    one = supervised("stubborn")
    started(settings, "stubborn")
    began = time.monotonic()
    one.hurry.set()
    one.end()
    assert time.monotonic() - began < supervise.PATIENCE / 2


def test_services_die_with_a_killed_supervisor(settings: Settings) -> None:
    """After kill -9 of the supervisor its services stop by themselves, cleanly, and another one may start."""
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(settings.folder), "quiet", "other"])
    pids = [started(settings, name) for name in ("quiet", "other")]
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, pids)))
    assert sorted(note[0] for note in notes(settings)[2:]) == ["other", "quiet"]
    with sole_supervisor(settings):
        pass


def test_one_supervisor_per_data_folder(settings: Settings) -> None:
    """A second supervisor on the same data is refused, and told which process holds it."""
    with sole_supervisor(settings):
        with pytest.raises(RunningAlreadyError, match=rf"process {os.getpid()}\).*SITEWARD_DATA"):
            Supervisor(settings, []).run(threading.Event())
        with sole_supervisor(Settings(data=f"{settings.data}-other")):
            pass
    with sole_supervisor(settings):
        pass


def test_the_data_folder_is_for_its_user_only(tmp_path: Path) -> None:
    """Records name people, and other users of the machine have no business with them."""
    with sole_supervisor(Settings(data=str(tmp_path / "new"))):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_order_of_services() -> None:
    """What takes starts before what brings; the simulator only runs in a demonstration."""
    names = services(demo=True)
    assert names[:2] == ["collector", "app"]
    assert "simulator" not in services(demo=False)


def test_lines_are_labelled_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of a service carries its name, however it was written, and no half line is."""
    stream = Labelled(sys.stderr, "app")
    for text in ("one\ntw", "o", "\nthree"):
        stream.write(text)
    assert capsys.readouterr().err == "app | one\napp | two\n"
