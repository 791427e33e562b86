"""Periodic tasks: one thread per process runs what is due, and a lease in a table keeps two from running one task."""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

import msgspec

from siteward import extensions
from siteward.log import get_logger
from siteward.private_files import begin_private
from siteward.server.auth import Permission, declared
from siteward.server.resources import Resources

GROUP: Final = "siteward.tasks"
LEASE: Final = 60.0
"""Seconds after which the task of a process that died may run elsewhere; a living one renews it."""
RETRY: Final = 60.0
"""Seconds after which a task that failed is tried again, where it is not due earlier."""
LOOK: Final = 1.0
"""Seconds between two looks at what is due."""

log = get_logger(__name__)


class Task(msgspec.Struct, frozen=True):
    """Something done again and again. Registered under the entry-point group `siteward.tasks`.

    Attributes:
        name: the same in every process and every release.
        every: seconds from one start to the next.
        permission: what somebody would need who did the same by hand.
        run: does it once. It may block, is stopped only by the end of the process, and must bear being killed
            at any point and started again. What it raises is logged.
    """

    name: str
    every: float
    permission: Permission
    run: Callable[[Resources], None]

    def __post_init__(self) -> None:
        """Refuse what only looks like a declaration.

        Raises:
            TypeError: the permission is none.
        """
        declared(self.permission, f"the task {self.name!r}")


def load_tasks() -> list[Task]:
    """Every task that is installed.

    Raises:
        siteward.extensions.ExtensionError: one does not load, or declares no permission.
    """
    return [task_of(entry) for entry in extensions.found(GROUP).values()]


def task_of(entry: extensions.Found) -> Task:
    """The task that an entry point names.

    Raises:
        siteward.extensions.ExtensionError: it does not load, or is none.
    """
    task = entry.load()
    if not isinstance(task, Task):
        message = (
            f"{entry.group}: {entry.name!r} of {entry.distribution} is no siteward.server.schedule.Task, "
            "and declares no permission"
        )
        raise extensions.ExtensionError(message)
    return task


class Leases:
    """Who runs which task, until when, and when it last began; one small SQLite file for all processes."""

    def __init__(self, path: Path, owner: str = "") -> None:
        """Make the table where it is missing; `owner` is unique to the process unless given."""
        self._path = path
        self._owner = owner or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        begin_private(path)
        with self._open() as table:
            table.execute(
                "CREATE TABLE IF NOT EXISTS task "
                "(name TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL, next REAL NOT NULL, last REAL)"
            )

    def take(self, task: str, now: float) -> bool:
        """Take the lease of a task that is due and that nobody runs; whether it was taken."""
        with self._open() as table:
            table.execute("INSERT OR IGNORE INTO task VALUES (?, '', 0, 0, NULL)", (task,))
            taken = table.execute(
                "UPDATE task SET owner = ?, until = ?, last = ? WHERE name = ? AND until <= ? AND next <= ?",
                (self._owner, now + LEASE, now, task, now, now),
            )
            return taken.rowcount == 1

    def renew(self, task: str, now: float) -> bool:
        """Keep a lease that is held; false where it had lapsed and another process took it."""
        with self._open() as table:
            kept = table.execute(
                "UPDATE task SET until = ? WHERE name = ? AND owner = ?", (now + LEASE, task, self._owner)
            )
            return kept.rowcount == 1

    def give_back(self, task: str, due: float) -> None:
        """Let go of a lease that is held and say when the task is due again."""
        with self._open() as table:
            table.execute(
                "UPDATE task SET owner = '', until = 0, next = ? WHERE name = ? AND owner = ?",
                (due, task, self._owner),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection, connection:
            yield connection


class Schedule:
    """Runs tasks when they are due, each in a thread of its own, never twice at once."""

    def __init__(
        self,
        tasks: Sequence[Task],
        resources: Resources,
        leases: Leases,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing runs before `start` or `look`."""
        self._tasks = tasks
        self._resources = resources
        self._leases = leases
        self._clock = clock
        self._running: dict[str, Thread] = {}
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="schedule", daemon=True)

    def start(self) -> None:
        """Begin to look for due tasks, every second, until `stop`."""
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """Start nothing more, and wait up to `patience` seconds for what runs."""
        self._stop.set()
        until = time.monotonic() + patience
        for thread in (self._thread, *self._running.values()):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def look(self) -> None:
        """Start what is due and renew the leases of what runs."""
        now = self._clock()
        self._running = {name: thread for name, thread in self._running.items() if thread.is_alive()}
        for task in self._tasks:
            if task.name in self._running:
                self._leases.renew(task.name, now)
            elif self._leases.take(task.name, now):
                thread = Thread(target=self._run, args=(task, now), name=f"task-{task.name}", daemon=True)
                self._running[task.name] = thread
                thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                self.look()
            except sqlite3.Error as error:
                log.warning("schedule cannot be read", error=str(error))

    def _run(self, task: Task, began: float) -> None:
        due = began + task.every
        try:
            task.run(self._resources)
        except Exception as error:  # noqa: BLE001  # whatever a task raises, the others go on.
            log.warning("task failed", task=task.name, error=str(error) or type(error).__name__)
            due = min(due, self._clock() + RETRY)
        else:
            log.debug("task done", task=task.name, seconds=round(self._clock() - began, 3))
        self._leases.give_back(task.name, due)
