"""The finished processes of this machine as jobs, seen by watching the process table as a node agent would."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import psutil  # type: ignore[import-untyped]  # it ships no types.

from siteward.kinds.job import Job

LOOK_SECONDS: Final = 1.0
"""Between two looks at the process table; a process that lives shorter may be missed."""
REFRESH_SHARE: Final = 0.05
"""A process is read again when this share of its age has passed: its CPU time is known to about this share."""
REFRESH_SECONDS: Final = 15.0
"""… but at least this often. Reading every process at every look would cost several times more than all else here."""
_GONE: Final = (psutil.NoSuchProcess, psutil.AccessDenied, OSError)


class Seen(msgspec.Struct):
    """What is known of a living process.

    Attributes:
        process: psutil's view of it.
        created: when it started, seconds since 1970.
        user: its owner when first seen.
        name: its command's name, without arguments: those may hold secrets.
        cpu: user and system seconds at the last reading.
        memory: largest resident memory seen, bytes.
        due: when it is read next, seconds since 1970.
    """

    process: psutil.Process
    created: float
    user: str
    name: str = ""
    cpu: float = 0.0
    memory: int = 0
    due: float = 0.0


class ProcessWatch:
    """Tells each process that was seen and is gone, or is a zombie, as one job.

    What it cannot know: processes that lived between two looks (the shorter, the likelier missed), CPU time used
    after the last reading, and the exit status, which only a parent gets; so their state is `unknown`. Kernel threads
    are left out. `processors` is the number of processors the process kept busy on average, rounded up.
    """

    interval = LOOK_SECONDS

    def __init__(self, site: str, vo: str, host: str) -> None:
        """Say to whom the jobs belong."""
        self._site = site
        self._vo = vo
        self._host = host
        self._living: dict[int, Seen] = {}
        self._ignored: set[int] = set()
        """Kernel threads, and zombies that were told already, until they leave the process table."""
        self._kernel = _kernel_parent()

    def look(self, now: datetime) -> list[Job]:
        """Jobs that finished since the look before."""
        at = now.timestamp()
        pids = set(psutil.pids())
        self._ignored &= pids
        jobs = [self._job(pid, now) for pid in self._living.keys() - pids]
        for pid in pids - self._living.keys() - self._ignored:
            self._meet(pid)
        for pid, seen in list(self._living.items()):
            if seen.due <= at and not self._refresh(seen, at):
                jobs.append(self._job(pid, now))
        return [job for job in jobs if job is not None]

    def _meet(self, pid: int) -> None:
        """Begin to follow a process."""
        try:
            process = psutil.Process(pid)
            if self._is_kernel_thread(process):
                self._ignored.add(pid)
            else:
                self._living[pid] = Seen(process, process.create_time(), _user(process))
        except _GONE:
            return

    def _is_kernel_thread(self, process: psutil.Process) -> bool:
        return self._kernel is not None and (process.pid == self._kernel or process.ppid() == self._kernel)

    def _refresh(self, seen: Seen, at: float) -> bool:
        """Read a process again; False when it is finished."""
        process = seen.process
        try:
            if not process.is_running():
                return False
            with process.oneshot():
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if zombie:
                    self._ignored.add(process.pid)
                times = process.cpu_times()
                seen.cpu = times.user + times.system
                if not zombie:
                    seen.name = process.name()
                    seen.memory = max(seen.memory, process.memory_info().rss)
        except psutil.AccessDenied:
            zombie = False
        except _GONE:
            return False
        seen.due = at + min(max((at - seen.created) * REFRESH_SHARE, 0.0), REFRESH_SECONDS)
        return not zombie

    def _job(self, pid: int, now: datetime) -> Job | None:
        """The record of a finished process; None where it was gone before anything was read of it."""
        seen = self._living.pop(pid)
        if not seen.name:
            return None
        start = min(datetime.fromtimestamp(seen.created, UTC), now)
        wall = now - start
        return Job(
            vo=self._vo,
            site=self._site,
            node=self._host,
            submit_host=self._host,
            local_job_id=f"{pid}-{int(seen.created)}",
            user=seen.user,
            application=seen.name,
            state="unknown",
            start=start,
            end=now,
            wall_time=round(wall.total_seconds()),
            cpu_time=round(seen.cpu),
            processors=max(1, math.ceil(seen.cpu / max(wall, timedelta(seconds=1)).total_seconds() - 0.05)),
            memory=seen.memory,
        )


def _user(process: psutil.Process) -> str:
    try:
        return str(process.username())
    except _GONE:
        return ""


def _kernel_parent() -> int | None:
    """The process that is the parent of all kernel threads; None in a container, where it cannot be seen."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return 2 if psutil.Process(2).name() == "kthreadd" else None
    except _GONE:
        return None
