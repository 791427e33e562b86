"""Transfers between storages of the simulated grid, by the hour in which they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, Literal

from collectors.simulator import Emission
from collectors.simulator.chance import Weighted, generator, poisson
from collectors.simulator.downtimes import Downtimes
from collectors.simulator.faults import Faults, broken_doors
from collectors.simulator.grid import Grid, Site, Storage
from collectors.simulator.load import HOUR, SECOND, activity
from siteward.kinds.data_operation import DataOperation
from siteward.records import moment

PER_JOB: Final = 0.3
"""Transfers into a site for each job that finishes there."""
FAILING: Final = 0.03
"""Share of transfers that fail by themselves."""
_REASONS: Final = ("checksum mismatch", "timed out", "no space left", "source file not found")
_ACTIVITIES: Final = Weighted(("production", "rebalancing", "analysis", "consolidation"), (5, 2, 2, 1))


class Transfers:
    """Data comes to each site's storages from others of the same community, through one of the destination's doors."""

    def __init__(self, grid: Grid, faults: Faults, downtimes: Downtimes) -> None:
        """Say between which storages, and what goes wrong."""
        self._grid = grid
        self._faults = faults
        self._downtimes = downtimes
        self._of_site: dict[str, list[Storage]] = {}
        self._of_vo: dict[str, list[Storage]] = {}
        for storage in grid.storages:
            self._of_site.setdefault(storage.site, []).append(storage)
            self._of_vo.setdefault(storage.vo, []).append(storage)

    def emissions(self, hour: int, start: int, end: int) -> Iterator[Emission]:  # noqa: ARG002  # see Stream.
        """See Stream."""
        trouble = _Trouble(self._grid, self._faults, self._downtimes, hour)
        for site in self._grid.sites:
            mine = self._of_site.get(site.name)
            if mine:
                yield from self._into(site, mine, hour, trouble)

    def _into(self, site: Site, mine: Sequence[Storage], hour: int, trouble: _Trouble) -> Iterator[Emission]:
        chance = generator(self._grid.seed, "transfers", site.name, hour)
        for number in range(poisson(chance, PER_JOB * site.rate * activity(site, hour))):
            end = hour * HOUR + int(chance.random() * HOUR)
            destination = chance.choice(mine)
            source = chance.choice(self._of_vo[destination.vo])
            if source.name != destination.name:
                yield Emission(
                    end, _transfer(chance, source, destination, end, trouble, f"{site.name}-{hour}-{number}")
                )


class _Trouble:
    """What keeps transfers from succeeding during one hour."""

    def __init__(self, grid: Grid, faults: Faults, downtimes: Downtimes, hour: int) -> None:
        self._closed = downtimes.closed(hour)
        for fault in faults.during(hour, "site-outage"):
            self._closed.setdefault(fault.target, []).append((fault.start, fault.end))
        self._partial = [
            (fault, frozenset(broken_doors(grid, fault.target))) for fault in faults.during(hour, "partial-doors")
        ]

    def reason(self, source: Storage, destination: Storage, door: str, end: int) -> str:
        """Why a transfer must fail, or ""."""
        for storage in (source, destination):
            if any(begin <= end < until for begin, until in self._closed.get(storage.site, ())):
                return f"no route to {storage.site}"
        for fault, doors in self._partial:
            if fault.target == destination.name and fault.holds(end) and door in doors:
                return f"connection refused by {door}"
        return ""


def _transfer(
    chance: Random, source: Storage, destination: Storage, end: int, trouble: _Trouble, reference: str
) -> DataOperation:
    door, protocol = chance.choice(destination.doors)
    files = 1 + int(chance.expovariate(0.4))
    size = files * round(chance.lognormvariate(21.4, 0.8))
    moving = round(SECOND * size / chance.uniform(2e7, 2.5e8))
    registering = round(SECOND * chance.lognormvariate(-1.6, 0.7))
    failing, usual, activity_name = chance.random() < FAILING, chance.choice(_REASONS), _ACTIVITIES.choose(chance)
    reason = trouble.reason(source, destination, door, end) or (usual if failing else "")
    state: Literal["done", "failed"] = "failed" if reason else "done"
    return DataOperation(
        vo=destination.vo,
        simulated=True,
        start=moment(end - moving - registering),
        end=moment(end),
        reference=reference,
        operation="transfer",
        user=f"{destination.vo.removeprefix('sim-')}-data",
        activity=activity_name,
        execution_site=destination.site,
        source=source.name,
        destination=destination.name,
        protocol=protocol,
        state=state,
        reason=reason,
        size=0 if reason else size,
        transfer_duration=moving,
        registration_duration=0 if reason else registering,
        files_done=0 if reason else files,
        files_total=files,
        registrations_done=0 if reason else files,
        registrations_total=0 if reason else files,
    )
