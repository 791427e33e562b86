"""What faults do to a job that would otherwise have finished well; one function per fault, pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from collectors.simulator.faults import Fault
from collectors.simulator.load import HOUR
from siteward.kinds.job import Job

EVICTION: Final = HOUR // 6
"""How long after the begin of an outage its running jobs are reported as evicted."""
DECAY: Final = 0.65
"""Share of its efficiency that a site has lost at the end of a slow decay."""
FLAP: Final = HOUR
"""How long a flapping site stays good, and then bad."""
TAKEN: Final = 0.3
"""Share of a community's analysis jobs that are the failing user's while the fault lasts."""

Effect = Callable[[Job, Fault, int, float], Job | None]
"""Changes a job that ends at an instant while a fault holds, or swallows it; the number is the job's own chance."""


def _outage(job: Job, fault: Fault, end: int, _coin: float) -> Job | None:
    if end - fault.start >= EVICTION:
        return None
    job.state, job.exit_status = "evicted", None
    return job


def _silence(_job: Job, _fault: Fault, _end: int, _coin: float) -> Job | None:
    return None


def _decay(job: Job, fault: Fault, end: int, _coin: float) -> Job | None:
    progress = (end - fault.start) / (fault.end - fault.start)
    job.cpu_time = round((job.cpu_time or 0) * (1 - DECAY * progress))
    return job


def _flap(job: Job, fault: Fault, end: int, _coin: float) -> Job | None:
    if (end - fault.start) // FLAP % 2 == 0:
        job.state, job.exit_status = "failed", 1
    return job


def _user(job: Job, fault: Fault, _end: int, coin: float) -> Job | None:
    if job.vo != fault.details["vo"] or job.group != "analysis":
        return job
    if job.user == fault.target or coin < TAKEN:
        job.user, job.state, job.exit_status = fault.target, "failed", 1
    return job


EFFECTS: Final[dict[str, Effect]] = {
    "site-outage": _outage,
    "silent-producer": _silence,
    "slow-decay": _decay,
    "flapping": _flap,
    "failing-user": _user,
}


def afflicted(job: Job, faults: list[Fault], end: int, coin: float) -> Job | None:
    """A job after all faults that hold at its end; None where no record of it is ever sent."""
    kept: Job | None = job
    for fault in faults:
        if kept is not None and fault.holds(end):
            kept = EFFECTS[fault.fault](kept, fault, end, coin)
    return kept
