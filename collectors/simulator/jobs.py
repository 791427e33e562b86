"""Finished jobs of the simulated grid, by the hour in which they end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Final

import msgspec

from collectors.simulator import Emission
from collectors.simulator.chance import generator, poisson
from collectors.simulator.downtimes import Downtimes, Window
from collectors.simulator.effects import EFFECTS, afflicted
from collectors.simulator.faults import Fault, Faults
from collectors.simulator.grid import Application, Grid, Site
from collectors.simulator.load import HOUR, SECOND, activity, median_wait
from siteward.kinds.job import Job, JobState
from siteward.records import moment

LONGEST: Final = 3 * 86_400
"""Wall time at which the batch system ends any job, seconds."""
BLACK_HOLE_RATE: Final = 60.0
"""Jobs per hour that a black hole swallows, at least; at a busy site three times what all its nodes finish."""
_CANCELLED: Final = 0.006
_TIMEOUT: Final = 0.004
_EVICTED: Final = 0.003
_EXIT_STATUSES: Final = (1, 1, 1, 2, 8, 11, 65, 134, 137)
HS23: Final = 15_300
"""HEPscore23 of a core at a site of quality 1, in thousandths."""
HS06: Final = 14_100
"""HEP-SPEC06 of the same core, in thousandths."""
IDLE_WATTS, BUSY_WATTS, GPU_WATTS = 2, 5, 180
"""Power of a core that waits, what one that computes takes more, and that of a GPU."""
GPU_MODEL: Final = "simulated 24 GB"
_USER_FAULT: Final = "failing-user"


class _Hour(msgspec.Struct):
    """What all jobs of a site and an hour have in common."""

    site: Site
    number: int
    wait: float
    """Logarithm of the median queue wait in seconds."""
    faults: list[Fault]
    closed: list[Window]


class Jobs:
    """Every site finishes jobs at its rate, following days and weeks; a few percent fail by themselves."""

    def __init__(self, grid: Grid, faults: Faults, downtimes: Downtimes) -> None:
        """Say where jobs run and what goes wrong."""
        self._grid = grid
        self._faults = faults
        self._downtimes = downtimes

    def emissions(self, hour: int, start: int, end: int) -> Iterator[Emission]:  # noqa: ARG002  # see Stream.
        """See Stream."""
        closed = self._downtimes.closed(hour)
        faults = self._faults.during(hour, *EFFECTS)
        holes = self._faults.during(hour, "black-hole-node")
        for site in self._grid.sites:
            mine = [fault for fault in faults if fault.target == site.name or fault.fault == _USER_FAULT]
            wait = math.log(median_wait(site, hour))
            here = _Hour(site, hour, wait, mine, closed.get(site.name, []))
            yield from self._site(here)
            for hole in holes:
                if hole.details["site"] == site.name:
                    yield from self._black_hole(here, hole)

    def _site(self, here: _Hour) -> Iterator[Emission]:
        site, hour = here.site, here.number
        chance = generator(self._grid.seed, "jobs", site.name, hour)
        for number in range(poisson(chance, site.rate * activity(site, hour))):
            end = hour * HOUR + int(chance.random() * HOUR)
            job, coin = _job(chance, here, number, end), chance.random()
            kept = _after(here, job, end, coin)
            if kept is not None:
                yield kept

    def _black_hole(self, here: _Hour, fault: Fault) -> Iterator[Emission]:
        chance = generator(self._grid.seed, "black hole", fault.target, here.number)
        for number in range(poisson(chance, max(BLACK_HOLE_RATE, 3 * here.site.rate))):
            end = here.number * HOUR + int(chance.random() * HOUR)
            job, seconds = _job(chance, here, number, end), chance.randint(3, 40)
            job.node, job.state, job.exit_status = fault.target, "failed", 127
            job.local_job_id += f"-{fault.target}"
            job.wall_time, job.cpu_time, job.start = seconds, 0, moment(end - seconds * SECOND)
            kept = _after(here, job, end, 1.0) if fault.holds(end) else None
            if kept is not None:
                yield kept


def _after(here: _Hour, job: Job, end: int, coin: float) -> Emission | None:
    """What is sent of a job when downtimes and faults are through with it."""
    if any(begin <= end < until for begin, until in here.closed):
        return None
    kept = afflicted(job, here.faults, end, coin) if here.faults else job
    if kept is None:
        return None
    kept.energy, kept.energy_method = _joules(kept), "modelled"
    return Emission(end, kept)


def _joules(job: Job) -> int:
    waiting = job.wall_time * (job.processors * IDLE_WATTS + job.gpus * GPU_WATTS)
    return waiting + (job.cpu_time or 0) * BUSY_WATTS


def _job(chance: Random, here: _Hour, number: int, end: int) -> Job:
    """One job as it is when nothing is wrong with the site."""
    site = here.site
    vo = site.vos.choose(chance)
    application = vo.applications.choose(chance)
    state, exit_status = _outcome(chance, application)
    wall = _wall_time(chance, application, state)
    processors = application.processors
    gpus = 0 if site.tier else application.gpus
    efficiency = min(max(chance.gauss(application.efficiency * site.quality, 0.05), 0.02), 1.0)
    return Job(
        vo=vo.name,
        simulated=True,
        start=moment(end - wall * SECOND),
        end=moment(end),
        site=site.name,
        compute_element=chance.choice(site.elements),
        queue=_queue(application),
        node=chance.choice(site.nodes),
        submit_host=f"schedd{1 + number % 3}.{vo.name}.example",
        local_job_id=f"{here.number}.{number}",
        user=vo.users.choose(chance) if application.human else vo.robots[application.name],
        group=application.group,
        project=f"{vo.name}-{application.group}",
        application=application.name,
        state=state,
        exit_status=exit_status,
        wall_time=wall,
        cpu_time=round(wall * processors * efficiency),
        processors=processors,
        memory=round(processors * application.memory * chance.uniform(0.5, 1.05)),
        queue_time=round(min(chance.lognormvariate(here.wait, 1.0), LONGEST)),
        gpus=gpus,
        gpu_model=GPU_MODEL if gpus else "",
        hs06=round(HS06 * site.quality),
        hs23=round(HS23 * site.quality),
    )


def _outcome(chance: Random, application: Application) -> tuple[JobState, int | None]:
    point = chance.random()
    if point >= application.failing + _CANCELLED + _TIMEOUT + _EVICTED:
        return "completed", 0
    if point < application.failing:
        return "failed", chance.choice(_EXIT_STATUSES)
    point -= application.failing
    if point < _CANCELLED:
        return "cancelled", None
    return ("timeout", 152) if point < _CANCELLED + _TIMEOUT else ("evicted", None)


def _wall_time(chance: Random, application: Application, state: str) -> int:
    """Seconds; what did not complete ended somewhere on the way, or at the limit."""
    wall = application.wall * math.exp(application.spread * chance.gauss(0, 1))
    if state == "timeout":
        wall = max(wall, 4 * application.wall)
    elif state != "completed":
        wall *= chance.random()
    return min(max(int(wall), 1), LONGEST)


def _queue(application: Application) -> str:
    if application.processors > 1:
        return "multicore"
    return "short" if application.wall < 3600 else "long"  # noqa: PLR2004  # an hour.
