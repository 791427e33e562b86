"""Occupancy of simulated storages: each community's reporter looks at all of its storages in one cycle."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from collectors.simulator import Emission
from collectors.simulator.chance import generator
from collectors.simulator.faults import Faults, space_producer
from collectors.simulator.grid import Grid, Storage
from collectors.simulator.load import DAY, SECOND
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.records import moment


class Filling(msgspec.Struct, frozen=True):
    """How one storage fills: slowly from `low` to `high` within `period`, then a cleaning campaign empties it to `low`.

    Attributes:
        low: share in use after a campaign.
        high: share in use before one.
        period: between campaigns, microseconds.
        phase: where in the period it is at 1970, 0 to 1.
        file_size: mean size of a file, bytes.
    """

    low: float
    high: float
    period: int
    phase: float
    file_size: int

    def used(self, total: int, time: int) -> int:
        """Bytes in use at an instant."""
        position = (time / self.period + self.phase) % 1
        return int(total * (self.low + (self.high - self.low) * position))


class Occupancies:
    """One record per storage and cycle; a producer for each community, whose cycles are always complete."""

    def __init__(self, grid: Grid, faults: Faults, interval: int = 3600) -> None:
        """Say how often.

        Args:
            grid: whose storages.
            faults: `silent-producer` leaves out whole cycles.
            interval: seconds between cycles; they fall on its multiples since 1970.
        """
        self._faults = faults
        self._interval = interval * SECOND
        self._of_vo: dict[str, list[tuple[Storage, Filling]]] = {}
        for storage in grid.storages:
            self._of_vo.setdefault(storage.vo, []).append((storage, _filling(grid.seed, storage)))

    def emissions(self, hour: int, start: int, end: int) -> Iterator[Emission]:
        """See Stream."""
        silent = self._faults.during(hour, "silent-producer")
        first = -(-start // self._interval) * self._interval
        for time in range(first, end, self._interval):
            for vo, places in self._of_vo.items():
                if not any(fault.target == space_producer(vo) and fault.holds(time) for fault in silent):
                    yield from _cycle(vo, places, time)


def _cycle(vo: str, places: list[tuple[Storage, Filling]], time: int) -> Iterator[Emission]:
    at, producer = moment(time), space_producer(vo)
    for storage, filling in places:
        used = filling.used(storage.total, time)
        record = StorageOccupancy(
            vo=vo,
            simulated=True,
            time=at,
            producer=producer,
            cycle_size=len(places),
            site=storage.site,
            endpoint=storage.endpoint,
            storage=storage.name,
            media=storage.media,
            total=storage.total,
            used=used,
            files=used // filling.file_size,
        )
        yield Emission(time, record)


def _filling(seed: int, storage: Storage) -> Filling:
    chance = generator(seed, "filling", storage.name)
    return Filling(
        low=chance.uniform(0.4, 0.6),
        high=chance.uniform(0.82, 0.97),
        period=int(chance.uniform(60, 240) * DAY),
        phase=chance.random(),
        file_size=int(chance.uniform(4e8, 4e9)),
    )
