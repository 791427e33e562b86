"""Periodic tasks: run when due, once among all processes, and again after whoever ran them has died."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from siteward.server.auth import Permission
from siteward.server.resources import Resources
from siteward.server.schedule import LEASE, RETRY, Leases, Schedule, Task, load_tasks
from siteward.settings import Settings

DAY = 86_400.0
START = 1_000_000.0


class Clock:
    """Time that goes when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Work:
    """A task that counts its runs, and lasts until it may end where it is told to last."""

    def __init__(self, *, lasting: bool = False) -> None:
        self.runs = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.error: Exception | None = None
        if not lasting:
            self.may_end.set()

    def __call__(self, _resources: Resources) -> None:
        self.runs += 1
        self.begun.set()
        self.may_end.wait(10)
        if self.error:
            raise self.error


def schedule(path: Path, work: Work, clock: Clock, owner: str = "one") -> Schedule:
    task = Task("work", DAY, Permission.PLATFORM, work)
    return Schedule([task], Resources(Settings(data=str(path)), {}), Leases(path / "schedule.sqlite", owner), clock)


def look_and_wait(one: Schedule) -> None:
    """Look once, and wait until what was started has ended."""
    one.look()
    for thread in one._running.values():
        thread.join(10)


def test_task_runs_when_due(tmp_path: Path) -> None:
    """A task runs at once, then not before its time has passed since it began."""
    work, clock = Work(), Clock()
    one = schedule(tmp_path, work, clock)
    for later, runs in ((0, 1), (1, 1), (DAY - 1, 1), (DAY, 2), (DAY + 1, 2), (3 * DAY, 3)):
        clock.now = START + later
        look_and_wait(one)
        assert work.runs == runs, later


def test_task_runs_once_among_processes(tmp_path: Path) -> None:
    """While one process runs a task, no other does, however long it takes, and afterwards it is not due."""
    work, other_work, clock = Work(lasting=True), Work(), Clock()
    one, other = schedule(tmp_path, work, clock), schedule(tmp_path, other_work, clock, "other")
    one.look()
    assert work.begun.wait(10)
    for _ in range(5):
        clock.now += LEASE * 0.9
        one.look()
        look_and_wait(other)
    work.may_end.set()
    for thread in one._running.values():
        thread.join(10)
    look_and_wait(other)
    assert (work.runs, other_work.runs) == (1, 0)


def test_lease_of_the_dead_lapses(tmp_path: Path) -> None:
    """A task whose process died while it ran is run by another one when the lease has lapsed, not before."""
    work, clock = Work(), Clock()
    assert Leases(tmp_path / "schedule.sqlite", "dead").take("work", START)
    living = schedule(tmp_path, work, clock)
    clock.now += LEASE - 1
    look_and_wait(living)
    assert work.runs == 0
    clock.now += 1
    look_and_wait(living)
    assert work.runs == 1
    assert not Leases(tmp_path / "schedule.sqlite", "dead").renew("work", clock.now)


def test_late_owner_cannot_give_back_what_it_lost(tmp_path: Path) -> None:
    """A process that was asleep while its lease lapsed does not end the lease of the next owner."""
    late, next_one = (Leases(tmp_path / "schedule.sqlite", owner) for owner in ("late", "next"))
    assert late.take("work", START)
    assert next_one.take("work", START + LEASE)
    late.give_back("work", 0)
    assert not late.take("work", START + LEASE)


def test_failed_task_is_tried_again_soon(tmp_path: Path) -> None:
    """A task that fails is logged and tried again after a minute, though it is due only once a day."""
    work, clock = Work(), Clock()
    work.error = RuntimeError("the store is away")
    one = schedule(tmp_path, work, clock)
    look_and_wait(one)
    clock.now += RETRY
    work.error = None
    look_and_wait(one)
    clock.now += RETRY
    look_and_wait(one)
    assert work.runs == 2


def test_thread_looks_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule's own thread runs what is due, and stops when told to."""
    monkeypatch.setattr("siteward.server.schedule.LOOK", 0.01)
    work = Work()
    one = schedule(tmp_path, work, Clock())
    one.start()
    assert work.begun.wait(10)
    one.stop()
    assert not one._thread.is_alive()


def test_installed_tasks_are_tasks() -> None:
    """Every installed task loads and has a name of its own."""
    tasks = load_tasks()
    assert all(isinstance(task, Task) for task in tasks)
    assert len({task.name for task in tasks}) == len(tasks)
