"""The simulated grid: the same whenever and however it is made, valid, believable, and apart from real records."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.simulator import Emission
from collectors.simulator.chance import Weighted, generator, poisson
from collectors.simulator.faults import random_faults
from collectors.simulator.grid import Grid, build_grid
from collectors.simulator.load import DAY, HOUR, activity, median_wait, utilisation
from collectors.simulator.timeline import Simulation, live
from siteward.envelope import seal
from siteward.kinds.data_operation import DataOperation
from siteward.kinds.downtime import Downtime
from siteward.kinds.job import Job
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.records import Record, kind_of, microseconds

START = microseconds(datetime(2026, 3, 2, tzinfo=UTC))
"""A Monday."""


def simulation(sites: int = 12, vos: int = 3, seed: int = 7, faults: int = 0, rate: float = 10.0) -> Simulation:
    grid = build_grid(sites, vos, seed, rate)
    return Simulation(grid, random_faults(faults, grid, START, START + 2 * DAY))


def encoded(emissions: list[Emission]) -> bytes:
    """All records in order as they would travel, so that a difference in any byte shows."""
    return b"".join(
        emission.time.to_bytes(8, "big")
        + seal(kind, [kind.row_of(emission.record, START + DAY)], "p", 0, identifier=b"0" * 16)
        for emission in emissions
        for kind in (kind_of(type(emission.record)),)
    )


def test_same_arguments_same_bytes() -> None:
    """Two simulations with the same arguments send the same records, byte for byte and in the same order."""
    first, second = (encoded(list(simulation(faults=10).between(START, START + 6 * HOUR))) for _ in range(2))
    assert first == second
    assert len(first) > 100_000


def test_another_seed_another_grid() -> None:
    """Another seed gives other records."""
    one, two = (encoded(list(simulation(seed=seed).between(START, START + HOUR))) for seed in (1, 2))
    assert one != two


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 8 * 3600 * 1_000_000 - 1), max_size=6), st.integers(0, 2))
def test_slices_do_not_matter(cuts: list[int], order: int) -> None:
    """Any way of cutting a window into slices, made in any order, gives the same records."""
    whole = list(_WHOLE.between(START, START + 8 * HOUR))
    edges = sorted({0, *cuts, 8 * HOUR})
    slices = [(START + begin, START + end) for begin, end in pairwise(edges)]
    made = {window: list(_WHOLE.between(*window)) for window in (slices[::-1] if order else slices)}
    assert encoded([emission for window in slices for emission in made[window]]) == encoded(whole)


_WHOLE = simulation(sites=5, vos=2, faults=10, rate=3)


def test_time_order() -> None:
    """Records come in the order of time, within the window asked for."""
    times = [emission.time for emission in simulation(faults=10).between(START + 1, START + 5 * HOUR - 1)]
    assert times == sorted(times)
    assert START < times[0] <= times[-1] < START + 5 * HOUR - 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 15), st.integers(-(2**70), 2**70), st.integers(0, 12))
def test_no_record_is_refused(sites: int, vos: int, seed: int, faults: int) -> None:
    """Whatever the grid, the seed and the faults, every record is valid, simulated, and in a VO of the simulation."""
    for emission in simulation(sites, vos, seed, faults).between(START + 30 * HOUR, START + 32 * HOUR):
        kind_of(type(emission.record)).row_of(emission.record, emission.time)
        assert emission.record.simulated
        assert emission.record.vo.startswith("sim-")


@pytest.mark.parametrize(("sites", "vos", "rate"), [(0, 1, 1.0), (1, 0, 1.0), (1, 1, -1.0)])
def test_impossible_grid(sites: int, vos: int, rate: float) -> None:
    """A grid of nothing is refused with what was asked for."""
    with pytest.raises(ValueError, match=f"got {sites}, {vos}"):
        build_grid(sites, vos, 1, rate)


def test_tiers() -> None:
    """A large grid has one tier 0, a tenth tier 1, mostly tier 2 and some tier 3, each site with a name of its own."""
    grid = build_grid(150, 5, 7)
    tiers = Counter(site.tier for site in grid.sites)
    assert tiers == {0: 1, 1: 15, 2: 101, 3: 33}
    assert len({site.name for site in grid.sites}) == 150
    assert len({storage.name for storage in grid.storages}) == len(grid.storages)
    assert {vo.name for site in grid.sites for vo in site.vos.items} == {vo.name for vo in grid.vos}


def test_identities_are_unique() -> None:
    """No two records with an identity have the same id."""
    emissions = list(simulation(faults=10).between(START, START + DAY))
    ids = Counter(
        (kind.id_of(kind.row_of(emission.record, START + DAY)), emission.record.revision)
        for emission in emissions
        for kind in (kind_of(type(emission.record)),)
        if kind.identity
    )
    assert max(ids.values()) == 1
    assert len(ids) > 2000


def jobs(made: Simulation, start: int, end: int) -> list[Job]:
    return [emission.record for emission in made.between(start, end) if isinstance(emission.record, Job)]


def test_jobs_add_up() -> None:
    """Wall time is the job's length, CPU time is at most wall time times processors, and a few percent fail."""
    found = jobs(simulation(), START, START + DAY)
    for job in found:
        assert (job.end - job.start).total_seconds() == job.wall_time
        assert job.cpu_time is not None
        assert job.cpu_time <= job.wall_time * job.processors
    failed = sum(job.state == "failed" for job in found) / len(found)
    assert 0.01 < failed < 0.06


def test_jobs_have_scores_energy_and_at_large_sites_gpus() -> None:
    """Cores of one site have one score, every job takes at least the power of an idle core, GPUs stand at tier 0."""
    made = simulation()
    tiers = {site.name: site.tier for site in made.grid.sites}
    found = jobs(made, START, START + DAY)
    scores = {(job.site, job.hs23, job.hs06) for job in found}
    assert len(scores) == len({job.site for job in found})
    assert all(job.energy is not None and job.energy >= 2 * job.wall_time * job.processors for job in found)
    assert {job.energy_method for job in found} == {"modelled"}
    assert {tiers[job.site] for job in found if job.gpus} == {0}
    assert all(bool(job.gpus) == bool(job.gpu_model) for job in found)


def test_rate() -> None:
    """Sites finish as many jobs as asked for, on average over a week."""
    made = simulation(sites=30, vos=1, rate=2)
    expected = sum(site.rate for site in made.grid.sites) * 7 * 24
    assert len(jobs(made, START, START + 7 * DAY)) == pytest.approx(expected, rel=0.15)
    assert sum(site.rate for site in made.grid.sites) / 30 == pytest.approx(2, rel=0.2)


def test_few_users_do_most() -> None:
    """Of the analysis users the busiest runs many times as many jobs as the median one."""
    users = Counter(job.user for job in jobs(simulation(vos=1), START, START + DAY) if job.group == "analysis")
    ranked = sorted(users.values(), reverse=True)
    assert ranked[0] > 5 * ranked[len(ranked) // 2]


def test_days_and_weeks() -> None:
    """Sites are busier in the afternoon than at night and on workdays than on Sundays, and waits follow the load."""
    for site in build_grid(20, 2, 3).sites:
        monday = START // HOUR - site.zone
        assert activity(site, monday + 15) > activity(site, monday + 3)
        week = [sum(activity(site, monday + 24 * day + hour) for hour in range(24)) for day in (2, 6)]
        assert week[0] > 0.9 * week[1]
        hours = sorted(range(monday, monday + 168), key=lambda hour, site=site: utilisation(site, hour))  # type: ignore[misc]  # a default binds the site.
        waits = [median_wait(site, hour) for hour in hours]
        assert waits == sorted(waits)
        assert 0 < utilisation(site, hours[0]) < utilisation(site, hours[-1]) < 1


def occupancies(made: Simulation, start: int, end: int) -> list[StorageOccupancy]:
    return [emission.record for emission in made.between(start, end) if isinstance(emission.record, StorageOccupancy)]


def test_cycles_are_complete() -> None:
    """Each producer's cycle has as many records as it says, all at one instant, once per interval."""
    made = simulation()
    cycles: Counter[tuple[str, datetime, int]] = Counter()
    for record in occupancies(made, START, START + DAY):
        cycles[record.producer, record.time, record.cycle_size] += 1
    assert cycles
    assert all(count == size for (_, _, size), count in cycles.items())
    for vo in made.grid.vos:
        assert sum(producer == f"sim-space@{vo.name}" for producer, _, _ in cycles) == 24


def test_storages_fill_slowly() -> None:
    """From hour to hour a storage grows a little, never beyond its size, and some are cleaned within a year."""
    made = Simulation(build_grid(3, 1, 5, 0), [], 86_400)
    by_name: dict[str, list[StorageOccupancy]] = {}
    for record in occupancies(made, START, START + 365 * DAY):
        by_name.setdefault(record.storage, []).append(record)
    for series in by_name.values():
        steps = [later.used - earlier.used for earlier, later in pairwise(series)]
        assert all(0 < record.used < record.total for record in series)
        assert sum(step > 0 for step in steps) > 0.95 * len(steps)
        assert any(step < 0 for step in steps)


def test_transfers_go_between_storages_of_a_vo() -> None:
    """A transfer connects two storages of its own VO; only what failed has a reason, and moved nothing."""
    made = simulation()
    vos = {storage.name: storage.vo for storage in made.grid.storages}
    found = [e.record for e in made.between(START, START + DAY) if isinstance(e.record, DataOperation)]
    assert len(found) > 200
    for transfer in found:
        assert vos[transfer.source] == vos[transfer.destination] == transfer.vo
        assert (transfer.state == "failed") == bool(transfer.reason) == (transfer.size == 0)


def test_downtimes_close_sites() -> None:
    """Over some weeks downtimes are announced, moved and withdrawn as revisions, and a closed site finishes no job."""
    made = simulation(sites=40, vos=1, rate=1)
    latest: dict[str, Downtime] = {}
    revisions: Counter[str] = Counter()
    for emission in made.between(START, START + 15 * DAY):
        record = emission.record
        if isinstance(record, Downtime):
            assert record.revision == revisions[record.reference] or record.reference not in revisions
            revisions[record.reference] += 1
            latest[record.reference] = record
    assert {record.state for record in latest.values()} == {"announced", "withdrawn"}
    assert any(count > 1 for count in revisions.values())
    held = [r for r in latest.values() if r.severity == "outage" and r.state == "announced"]
    for downtime in held[:3]:
        window = microseconds(downtime.start), microseconds(downtime.end)
        assert not [job for job in jobs(made, *window) if job.site == downtime.site]


def test_poisson() -> None:
    """Counts have the mean and variance of their distribution, below and above the point where it is approximated."""
    for mean in (0.5, 8.0, 200.0):
        chance = generator(1, mean)
        counts = [poisson(chance, mean) for _ in range(4000)]
        average = sum(counts) / len(counts)
        assert average == pytest.approx(mean, rel=0.06)
        assert sum((count - average) ** 2 for count in counts) / len(counts) == pytest.approx(mean, rel=0.12)
    assert poisson(generator(1), 0) == 0


def test_weighted() -> None:
    """Items are chosen as often as their weights say."""
    chance, choice = generator(1), Weighted("ab", [3, 1])
    counts = Counter(choice.choose(chance) for _ in range(4000))
    assert counts["a"] / counts["b"] == pytest.approx(3, rel=0.15)


def test_live_emits_as_time_passes() -> None:
    """Live, a record is sent when its time has come, and those that were due come at once; stopping is soon."""
    made = Simulation(build_grid(3, 1, 7, 0), [], 1)
    stop, sent = threading.Event(), list[tuple[int, Record]]()
    start = time.time_ns() // 1000 - 3_000_000

    def emit(record: Record) -> None:
        sent.append((time.time_ns() // 1000, record))
        if microseconds(record.time) > start + 4_000_000:  # type: ignore[attr-defined]  # occupancies only.
            stop.set()

    thread = threading.Thread(target=live, args=(made, start, emit, stop))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    due = [microseconds(record.time) for _, record in sent]  # type: ignore[attr-defined]  # occupancies only.
    assert due == sorted(due)
    assert all(at >= time_due for (at, _), time_due in zip(sent, due, strict=True))
    assert len(set(due)) >= 4


def test_memory_does_not_grow_with_the_window() -> None:
    """A window of any length is made hour by hour: the first record of a thousand years comes at once."""
    made = simulation(sites=2, vos=1)
    began = time.monotonic()
    assert next(made.between(START, START + 365_000 * DAY)).time >= START
    assert time.monotonic() - began < 5


def test_grid_is_a_value() -> None:
    """Equal arguments build equal grids, down to names and weights."""

    def facts(grid: Grid) -> list[object]:
        return [(site.name, site.rate, site.nodes, [vo.name for vo in site.vos.items]) for site in grid.sites]

    assert facts(build_grid(40, 4, 9)) == facts(build_grid(40, 4, 9))
