"""Announced downtimes of simulated sites: some are held, some moved, some withdrawn, each step a new revision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal

import msgspec

from collectors.simulator import Emission
from collectors.simulator.chance import generator
from collectors.simulator.faults import Fault, Faults
from collectors.simulator.grid import SHARED_VO, Grid
from collectors.simulator.load import DAY, HOUR
from siteward.kinds.downtime import Downtime
from siteward.records import moment

DAILY: Final = 1 / 45
"""Chance that a site announces a downtime on a day."""
REACH: Final = 9
"""Days after its announcement by which any downtime is over."""
_CHANGED: Final = 0.2
_WITHDRAWN: Final = 0.15
_OUTAGES: Final = 0.75
_REASONS: Final = ("network intervention", "storage upgrade", "power maintenance", "operating system update")

Window = tuple[int, int]
"""From and until, microseconds since 1970 UTC."""


class Step(msgspec.Struct, frozen=True):
    """One revision: when it was made, and what it says."""

    time: int
    start: int
    end: int
    state: Literal["announced", "withdrawn"] = "announced"


class Plan(msgspec.Struct, frozen=True):
    """One downtime with all its revisions, all of them made before it begins."""

    site: str
    reference: str
    severity: Literal["outage", "warning"]
    description: str
    steps: tuple[Step, ...]

    def closed(self) -> Window | None:
        """When the site is really down; None where it never is."""
        last = self.steps[-1]
        return (last.start, last.end) if self.severity == "outage" and last.state == "announced" else None

    def records(self) -> Iterator[Emission]:
        """Its revisions in order."""
        first = self.steps[0]
        for revision, step in enumerate(self.steps):
            record = Downtime(
                vo=SHARED_VO,
                simulated=True,
                revision=revision,
                announced=moment(first.time),
                start=moment(step.start),
                end=moment(step.end),
                source="sim-downtimes",
                reference=self.reference,
                site=self.site,
                severity=self.severity,
                classification="scheduled" if step.start - first.time >= DAY else "unscheduled",
                state=step.state,
                description=self.description,
            )
            yield Emission(step.time, record)


class Downtimes:
    """All downtimes of a grid: those of ordinary maintenance, and those injected as faults."""

    def __init__(self, grid: Grid, faults: Faults) -> None:
        """Prepare; days are drawn when they are asked for."""
        self._grid = grid
        self._injected = [_injected(fault) for fault in faults.all if fault.fault.startswith("downtime-")]
        self._of_day = lru_cache(maxsize=4 * REACH)(self._draw_day)

    def emissions(self, hour: int, start: int, end: int) -> Iterator[Emission]:
        """See Stream."""
        for plan in self._plans(hour):
            yield from (emission for emission in plan.records() if start <= emission.time < end)

    def closed(self, hour: int) -> dict[str, list[Window]]:
        """Sites that are down at some instant of an hour, with the windows."""
        found: dict[str, list[Window]] = {}
        for plan in self._plans(hour):
            window = plan.closed()
            if window is not None and window[0] < (hour + 1) * HOUR and window[1] > hour * HOUR:
                found.setdefault(plan.site, []).append(window)
        return found

    def _plans(self, hour: int) -> Iterator[Plan]:
        yield from self._injected
        today = hour // 24
        for day in range(today - REACH, today + 1):
            yield from self._of_day(day)

    def _draw_day(self, day: int) -> tuple[Plan, ...]:
        """The downtimes announced on a day since 1970."""
        chance = generator(self._grid.seed, "downtimes", day)
        plans: list[Plan] = []
        for site in self._grid.sites:
            if chance.random() >= DAILY:
                continue
            announced = day * DAY + int(chance.random() * 24) * HOUR
            start = announced + chance.randint(12, 120) * HOUR
            end = start + chance.randint(2, 36) * HOUR
            steps = [Step(announced, start, end)]
            changed_at = announced + int(chance.uniform(0.2, 0.9) * (start - announced))
            fate = chance.random()
            if fate < _CHANGED:
                steps.append(Step(changed_at, start + 6 * HOUR, end + 8 * HOUR))
            elif fate < _CHANGED + _WITHDRAWN:
                steps.append(Step(changed_at, start, end, "withdrawn"))
            severity: Literal["outage", "warning"] = "outage" if chance.random() < _OUTAGES else "warning"
            plans.append(Plan(site.name, f"{day}-{site.name}", severity, chance.choice(_REASONS), tuple(steps)))
        return tuple(plans)


def _injected(fault: Fault) -> Plan:
    """The downtime of a fault; the fault's window is the last that was announced."""
    start, end = fault.start, fault.end
    announced, decided = start - 2 * DAY, start - DAY
    steps: tuple[Step, ...] = (Step(announced, start, end),)
    if fault.fault == "downtime-changed":
        steps = (Step(announced, start - 6 * HOUR, end - 6 * HOUR), Step(decided, start, end))
    elif fault.fault == "downtime-withdrawn":
        steps = (*steps, Step(decided, start, end, "withdrawn"))
    return Plan(fault.target, f"injected-{start}-{fault.target}", "outage", "announced maintenance", steps)
