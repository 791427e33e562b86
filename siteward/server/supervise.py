"""The supervisor: starts the services as child processes, starts again what dies, and stops all cleanly."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from siteward import extensions
from siteward.log import get_logger
from siteward.private_files import warn_of_others
from siteward.settings import Settings
from siteward.telemetry import SERVICE_RESTARTS, telemetry

FIRST: Final = ("collector", "app")
"""Started in this order before all others, and stopped after them: what takes before what brings."""
DEMO: Final = "simulator"
"""Started only when asked for."""
SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds before a service that died is started again; doubled each time …"""
HEALTHY: Final = 60.0
"""… and short again after it has lived this long."""
PATIENCE: Final = 15.0
"""Seconds that a service has to stop by itself."""
LOOK: Final = 0.1

log = get_logger(__name__)


class RunningAlreadyError(RuntimeError):
    """Another supervisor holds the data folder."""

    permanent = True


class ServiceState(msgspec.Struct, frozen=True):
    """One line of `<data>/run/services.json`.

    Attributes:
        name: of the service.
        pid: its process; None where there is none.
        state: running, waiting (to be started again), or stopped.
        restarts: how often it was started again.
        since: since when the state holds.
    """

    name: str
    pid: int | None
    state: str
    restarts: int
    since: datetime


def services(*, demo: bool) -> list[str]:
    """The installed services in the order in which they start.

    Raises:
        siteward.extensions.ExtensionError: a name is taken twice.
    """
    names = [name for name in extensions.found("siteward.services") if demo or name != DEMO]
    return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name == DEMO, name))


@contextmanager
def sole_supervisor(settings: Settings) -> Iterator[None]:
    """Hold the data folder; whoever dies lets go of it.

    Raises:
        RunningAlreadyError: another process holds it.
    """
    path = settings.folder / "run" / "supervisor.lock"
    # For this user only: the records name people.
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    warn_of_others(settings.folder)
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            message = (
                f"Siteward runs already on the data folder {settings.folder} (process {lock.read().strip() or '?'}); "
                "stop that one first, or choose another folder with SITEWARD_DATA"
            )
            raise RunningAlreadyError(message) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Child:
    """One supervised service."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Nothing is started yet."""
        self.name = name
        self.restarts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = settings
        self._wait = SHORTEST_WAIT
        self._due = 0.0
        self._started = 0.0
        self._since = datetime.now(UTC)
        self._word = "stopped"

    @property
    def state(self) -> ServiceState:
        """What it is doing."""
        pid = self.process.pid if self.process else None
        return ServiceState(self.name, pid, self._word, self.restarts, self._since)

    def start(self) -> None:
        """Start the process; it lives no longer than this one, which holds the other end of its input."""
        self.process = subprocess.Popen(  # noqa: S603  # our own module, and a name that is an entry point.
            [sys.executable, "-m", "siteward.server.service", self.name, "--supervised"],
            stdin=subprocess.PIPE,
            # Ctrl-C at the terminal is for the supervisor, which stops the children in order.
            start_new_session=True,
        )
        self._started = time.monotonic()
        self._become("running")
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(msgspec.json.encode(self._settings) + b"\n")
            self.process.stdin.flush()

    def look(self, now: float) -> bool:
        """See to it at this instant (monotonic seconds); whether its state changed."""
        if self.process is None:
            if now < self._due:
                return False
            self.restarts += 1
            telemetry.add(SERVICE_RESTARTS, 1, self.name)
            try:
                self.start()
            except OSError as error:
                # No process or no memory to be had now: the others go on, this one is tried again.
                log.warning("service cannot be started", service=self.name, reason=str(error), seconds=self._wait)
                self._put_off(now)
            return True
        code = self.process.poll()
        if code is None:
            return False
        if now - self._started >= HEALTHY:
            self._wait = SHORTEST_WAIT
        log.error("service died and will be started again", service=self.name, exit_code=code, seconds=self._wait)
        self._put_off(now)
        return True

    def _put_off(self, now: float) -> None:
        self._let_go("waiting")
        self._due = now + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)

    def stop(self, hurry: threading.Event) -> None:
        """Stop it and wait for its end; killed where it takes too long, or when `hurry` is set."""
        if self.process is not None:
            self.process.terminate()
            until = time.monotonic() + PATIENCE
            while self.process.poll() is None and time.monotonic() < until and not hurry.is_set():
                time.sleep(LOOK / 5)
            if self.process.poll() is None:
                log.error("service did not stop in time and is killed", service=self.name)
                self.process.kill()
                self.process.wait()
        self._let_go("stopped")

    def _let_go(self, word: str) -> None:
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process = None
        self._become(word)

    def _become(self, word: str) -> None:
        self._word = word
        self._since = datetime.now(UTC)


class Supervisor:
    """All services of one installation."""

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        """Nothing is started yet.

        Args:
            settings: given to every service.
            names: of the services, in the order in which they start.
        """
        self._settings = settings
        self._children = [Child(name, settings) for name in names]

    def run(self, stop: threading.Event, hurry: threading.Event | None = None) -> None:
        """Keep all services running until `stop` is set; then stop them, the last started first.

        Args:
            stop: ends it.
            hurry: set during the stop: what has not ended is killed.

        Raises:
            RunningAlreadyError: another supervisor holds the data folder.
        """
        with sole_supervisor(self._settings):
            # What a killed app noted: somebody else may answer there by now.
            (self._settings.folder / "run" / "app.url").unlink(missing_ok=True)
            try:
                for child in self._children:
                    child.start()
                self._note()
                while not stop.wait(LOOK):
                    changes = [child.look(time.monotonic()) for child in self._children]
                    if any(changes):
                        self._note()
            finally:
                for child in reversed(self._children):
                    child.stop(hurry or threading.Event())
                    self._note()

    def _note(self) -> None:
        """Leave the states where the app finds them; a disk that is full must not end the supervision."""
        folder = self._settings.folder
        try:
            write_states(folder / "run" / "services.json", [child.state for child in self._children])
            telemetry.share(folder / "telemetry", "supervisor")
        except OSError as error:
            log.warning("states not noted", error=str(error))


def write_states(path: Path, states: Sequence[ServiceState]) -> None:
    """Replace the file of states at once, so that nobody reads half of it."""
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(states))
    draft.replace(path)
