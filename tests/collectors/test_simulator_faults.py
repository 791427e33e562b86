"""Faults: visible where the label says, and nowhere else; labels apart from the records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import typer
from typer.testing import CliRunner

from collectors.cli.simulate import simulate
from collectors.simulator import Emission
from collectors.simulator.faults import (
    CATALOGUE,
    Fault,
    FaultError,
    labels,
    make_fault,
    parse_fault,
    random_faults,
    space_producer,
)
from collectors.simulator.grid import build_grid
from collectors.simulator.load import DAY, HOUR
from collectors.simulator.timeline import Simulation
from siteward.broker.opening import open_broker
from siteward.cli.options import Options
from siteward.kinds.data_operation import DataOperation
from siteward.kinds.downtime import Downtime
from siteward.kinds.job import Job
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.records import microseconds
from siteward.settings import Settings

START = microseconds(datetime(2026, 3, 2, tzinfo=UTC))
GRID = build_grid(10, 2, 11, 12)
PLAIN = list(Simulation(GRID, []).between(START, START + DAY))
SITE = next(site for site in GRID.sites if site.tier == 1)
FROM, UNTIL = START + 6 * HOUR, START + 14 * HOUR


def text(emission: Emission) -> str:
    return f"{emission.time} {emission.record!r}"


def afflicted(name: str, target: str) -> tuple[Fault, list[Emission], list[Emission]]:
    """A fault, what is sent with it that was not before, and what is missing that was."""
    fault = make_fault(name, target, FROM, UNTIL, GRID)
    faulty = list(Simulation(GRID, [fault]).between(START, START + DAY))
    before, after = Counter(map(text, PLAIN)), Counter(map(text, faulty))
    new = [emission for emission in faulty if text(emission) not in before]
    gone = [emission for emission in PLAIN if text(emission) not in after]
    return fault, new, gone


def jobs(emissions: list[Emission], matching: Callable[[Job], bool] = lambda _: True) -> list[Job]:
    found = [emission.record for emission in emissions if isinstance(emission.record, Job)]
    return [job for job in found if matching(job)]


def within(emissions: list[Emission]) -> bool:
    return all(FROM <= emission.time < UNTIL for emission in emissions)


def test_site_outage() -> None:
    """An outage evicts what runs, then the site finishes nothing and all its transfers fail; other sites go on."""
    fault, new, gone = afflicted("site-outage", SITE.name)
    assert gone
    assert within(new)
    assert within(gone)
    assert all(job.site == SITE.name for job in jobs(gone))
    assert {job.state for job in jobs(new)} == {"evicted"}
    assert max(microseconds(job.end) for job in jobs(new)) < fault.start + HOUR / 6
    transfers = [emission.record for emission in new if isinstance(emission.record, DataOperation)]
    assert transfers
    assert {(transfer.state, transfer.reason) for transfer in transfers} == {("failed", f"no route to {SITE.name}")}


def test_black_hole_node() -> None:
    """A black hole adds many short failed jobs on one node and changes nothing else."""
    node = SITE.nodes[3]
    _, new, gone = afflicted("black-hole-node", node)
    assert gone == []
    assert within(new)
    assert len(jobs(new)) == len(new) > 60
    assert {(job.node, job.site, job.state) for job in jobs(new)} == {(node, SITE.name, "failed")}
    assert max(job.wall_time for job in jobs(new)) <= 40
    assert make_fault("black-hole-node", SITE.name, FROM, UNTIL, GRID).target == SITE.nodes[0]


def test_failing_user() -> None:
    """One user's jobs all fail, at many sites; those of others do not change."""
    user = GRID.vos[0].users.items[2]
    _, new, gone = afflicted("failing-user", user)
    assert within(new)
    assert len(new) == len(gone) > 20
    assert {(job.user, job.state, job.vo) for job in jobs(new)} == {(user, "failed", GRID.vos[0].name)}
    assert len({job.site for job in jobs(new)}) >= 3


def test_slow_decay() -> None:
    """A site's efficiency falls with time; nothing else of its jobs changes."""
    _, new, gone = afflicted("slow-decay", SITE.name)
    assert within(new)
    assert len(new) == len(gone)
    assert {job.site for job in jobs(new)} == {SITE.name}
    half = [efficiency(jobs([e for e in new if (e.time < FROM + 4 * HOUR) == early])) for early in (True, False)]
    assert half[0] > half[1] * 1.3


def efficiency(found: list[Job]) -> float:
    return sum(job.cpu_time or 0 for job in found) / sum(job.wall_time * job.processors for job in found)


def test_partial_doors() -> None:
    """Some of the transfers into a storage fail, and name the door; others to the same storage succeed."""
    storage = next(place for place in GRID.storages if place.site == "SIM-T0-CH-1")
    fault, new, gone = afflicted("partial-doors", storage.name)
    assert within(new)
    assert len(new) == len(gone) > 0
    doors = fault.details["doors"].split(", ")
    for emission in new:
        assert isinstance(emission.record, DataOperation)
        assert emission.record.destination == storage.name
        assert emission.record.reason.removeprefix("connection refused by ") in doors
    untouched = [e.record for e in PLAIN if FROM <= e.time < UNTIL and e not in gone]
    assert any(isinstance(r, DataOperation) and r.destination == storage.name and r.state == "done" for r in untouched)


def test_flapping() -> None:
    """A flapping site fails every job of one hour and none more than usual in the next."""
    _, new, gone = afflicted("flapping", SITE.name)
    assert within(new)
    assert len(new) == len(gone) > 0
    assert {(job.site, job.state) for job in jobs(new)} == {(SITE.name, "failed")}
    assert {(emission.time - FROM) // HOUR % 2 for emission in new} == {0}


def test_silent_site() -> None:
    """Of a silent site no job is heard; nothing is sent instead, and its storages are still reported."""
    _, new, gone = afflicted("silent-producer", SITE.name)
    assert new == []
    assert within(gone)
    assert len(jobs(gone)) == len(gone) == len(jobs(PLAIN, lambda job: job.site == SITE.name and held(job)))


def held(job: Job) -> bool:
    return FROM <= microseconds(job.end) < UNTIL


def test_silent_storage_reporter() -> None:
    """A silent reporter leaves out whole cycles, so that those which arrive are complete."""
    producer = space_producer(GRID.vos[0].name)
    _, new, gone = afflicted("silent-producer", producer)
    assert new == []
    cycles = {e.record.time for e in gone if isinstance(e.record, StorageOccupancy) and e.record.producer == producer}
    assert len(cycles) == 8
    assert len(gone) == 8 * sum(storage.vo == GRID.vos[0].name for storage in GRID.storages)


@pytest.mark.parametrize(
    ("name", "states", "closed"),
    [
        ("downtime-announced", ["announced"], True),
        ("downtime-changed", ["announced", "announced"], True),
        ("downtime-withdrawn", ["announced", "withdrawn"], False),
    ],
)
def test_downtimes(name: str, states: list[str], *, closed: bool) -> None:
    """A downtime's revisions come before it begins; the last says what holds, and only then is the site closed."""
    fault = make_fault(name, SITE.name, FROM, UNTIL, GRID)
    made = Simulation(GRID, [fault])
    found = [
        emission
        for emission in made.between(START - 3 * DAY, START + DAY)
        if isinstance(emission.record, Downtime) and emission.record.reference.startswith("injected")
    ]
    records = [emission.record for emission in found if isinstance(emission.record, Downtime)]
    assert [record.state for record in records] == states
    assert [record.revision for record in records] == list(range(len(states)))
    assert len({(record.reference, record.announced) for record in records}) == 1
    assert (microseconds(records[-1].start), microseconds(records[-1].end)) == (fault.start, fault.end)
    assert all(emission.time < fault.start for emission in found)
    ran = jobs(list(made.between(FROM, UNTIL)), lambda job: job.site == SITE.name)
    assert (ran == []) == closed


def test_records_never_carry_labels() -> None:
    """Nothing in a record says that a fault was injected."""
    faults = random_faults(20, GRID, START, START + DAY)
    sent = "".join(map(text, Simulation(GRID, faults).between(START, START + DAY)))
    assert not [name for name in CATALOGUE if name in sent]
    assert "black" not in sent


def test_labels() -> None:
    """A label says fault, target, begin, end and details, one JSON object per line."""
    fault = make_fault("black-hole-node", SITE.name, FROM, UNTIL, GRID)
    (line,) = labels([fault]).splitlines()
    assert json.loads(line) == {
        "fault": "black-hole-node",
        "target": SITE.nodes[0],
        "start": "2026-03-02T06:00:00Z",
        "end": "2026-03-02T14:00:00Z",
        "details": {"site": SITE.name},
    }


def test_random_faults() -> None:
    """Random faults go through the whole catalogue, lie in the window, and are the same for the same window."""
    drawn = random_faults(len(CATALOGUE), GRID, START, START + 60 * DAY)
    assert {fault.fault for fault in drawn} == set(CATALOGUE)
    assert all(START <= fault.start < fault.end <= START + 60 * DAY for fault in drawn)
    assert random_faults(len(CATALOGUE), GRID, START, START + 60 * DAY) == drawn


@pytest.mark.parametrize(
    ("begin", "start", "end"),
    [
        ("-3d:8h", START - 3 * DAY, START - 3 * DAY + 8 * HOUR),
        ("+90m:1w", START + HOUR * 3 // 2, START + HOUR * 3 // 2 + 7 * DAY),
        ("2026-03-01:3600s", START - DAY, START - DAY + HOUR),
        ("2026-03-01T10:00:00+01:00:2h", START - 15 * HOUR, START - 13 * HOUR),
    ],
)
def test_written_fault(begin: str, start: int, end: int) -> None:
    """A fault may be written with a relative or an absolute start and a duration in any unit."""
    fault = parse_fault(f"site-outage:{SITE.name}:{begin}", GRID, START)
    assert (fault.fault, fault.target, fault.start, fault.end) == ("site-outage", SITE.name, start, end)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("site-outage", "expected NAME:TARGET:START:DURATION"),
        ("site-outage:X", "expected NAME:TARGET:START:DURATION"),
        (f"earthquake:{SITE.name}:-1d:1h", "no fault is called 'earthquake'"),
        ("site-outage:SIM-T0-CH-2:-1d:1h", "did you mean 'SIM-T0-CH-1'"),
        (f"site-outage:{SITE.name}:soon:1h", "start 'soon'"),
        (f"site-outage:{SITE.name}:-1d:long", "duration 'long'"),
        (f"site-outage:{SITE.name}:-1d:0h", "lasts no time"),
    ],
)
def test_unreadable_fault(written: str, message: str) -> None:
    """A fault that cannot be injected is refused with the part that is wrong and what is possible."""
    with pytest.raises(FaultError, match=message):
        parse_fault(written, GRID, START)


def command(folder: str, *arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(simulate)
    given = Options(output="json")
    given.__dict__["settings"] = Settings(data=folder)
    result = CliRunner().invoke(app, ["--sites", "4", "--vos", "1", "--days", "0.5", *arguments], obj=given)
    return result.exit_code, result.stdout, result.stderr


def test_command(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`siteward simulate` emits the window into the broker and writes the labels to a file of their own."""
    folder = tmp_path_factory.mktemp("data")
    code, out, err = command(str(folder), "--end", "2026-03-02", "--fault", "site-outage:SIM-T0-CH-1:-6h:3h")
    assert code == 0, err
    counts = {line["kind"]: line["records"] for line in json.loads(out)}
    broker = open_broker(Settings(data=str(folder)))
    try:
        assert sum(status.records or 0 for status in broker.status()) == sum(counts.values()) > 100
    finally:
        broker.close()
    (label,) = (folder / "simulated-faults.jsonl").read_text().splitlines()
    assert json.loads(label)["start"] == "2026-03-01T18:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--faults", "many"), "expected random:N"),
        (("--fault", "site-outage:NOWHERE:-1d:1h"), "no site is called"),
        (("--live", "--end", "2026-03-02"), "cannot be combined"),
    ],
)
def test_command_refuses(tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...], message: str) -> None:
    """Options that make no sense are refused before anything is emitted."""
    folder = tmp_path_factory.mktemp("data")
    code, _, err = command(str(folder), *arguments)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(folder.iterdir())
