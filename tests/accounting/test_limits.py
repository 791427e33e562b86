"""Limits: what nobody books without a look at it, of which kind and type of value whatever."""

from __future__ import annotations

import math
from typing import Any

import pytest
from examples import JOB, job_rows

from accounting.booking.limits import beyond_limits
from accounting.booking.measures import MOST
from siteward.kinds import load_kinds
from siteward.records import Kind, kind_from_table

KINDS = load_kinds()
LEVEL = kind_from_table(
    "heat",
    {
        "doc": "Temperatures.",
        "shape": "event",
        "measures": {
            "warm": {"doc": "mean", "unit": "K", "type": "number", "combine": "mean", "limit": 400, "optional": True},
            "peak": {"doc": "largest", "unit": "K", "combine": "max", "limit": 500, "optional": True},
            "free": {"doc": "anything", "unit": "K", "combine": "max", "optional": True},
        },
    },
)


def refused(kind: Kind, *records: dict[str, Any]) -> dict[int, tuple[str, str]]:
    """Field and value of what is refused, by position, of records that are as usual where they say nothing."""
    usual = {column.name: column.default for column in kind.columns} | {"time": 0, "start": 0, "end": 0}
    rows = [usual | record for record in records]
    columns = {name: [row[name] for row in rows] for name in kind.names}
    return {position: (each.field, each.value) for position, each in beyond_limits(kind, columns).items()}


def jobs(**changes: Any) -> dict[int, tuple[str, str]]:
    """Of one job."""
    (row,) = job_rows(1, **changes)
    columns = {name: [getattr(row, name)] for name in JOB.names}
    return {position: (each.field, each.value) for position, each in beyond_limits(JOB, columns).items()}


def test_measures_that_do_not_add_up_have_limits_too() -> None:
    """A peak, a mean, whole or with a fraction; one without a limit may be what buckets hold the sum of."""
    most: dict[str, Any] = {"warm": 400.0, "peak": 500, "free": MOST}
    records: list[dict[str, Any]] = [
        most,
        {},
        {"warm": 400.5},
        {"peak": 501},
        {"warm": 0.0, "peak": 0},
        {"warm": 1e300},
        {"free": MOST + 1},
    ]
    assert refused(LEVEL, *records) == {
        2: ("warm", "400.5"),
        3: ("peak", "501"),
        5: ("warm", "1e+300"),
        6: ("free", str(MOST + 1)),
    }
    assert refused(LEVEL, {"warm": None}, {"warm": -400.5}) == {1: ("warm", "-400.5")}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_beyond_every_limit(value: float) -> None:
    """The doors take none; whatever brings one by another way does not get it booked."""
    assert list(refused(LEVEL, {"warm": 1.0}, {"warm": value})) == [1]


def test_limits_of_our_kinds_hold() -> None:
    """Memory of a job, throughput and delay of a network: the limits that their kinds declare."""
    assert jobs() == {}
    assert jobs(memory=2**50) == {}
    assert jobs(memory=2**62) == {0: ("memory", str(2**62))}
    assert jobs(hs23=200_001) == {0: ("hs23", "200001")}
    network = KINDS["network"]
    assert refused(network, {"throughput": 2**62}) == {0: ("throughput", str(2**62))}
    hour = 3600 * 10**6
    assert refused(network, {"one_way_latency": 2**62}, {"delay_variation": hour + 1}, {"delay_variation": hour}) == {
        0: ("one_way_latency", str(2**62)),
        1: ("delay_variation", str(hour + 1)),
    }


def test_bounds_are_told_by_other_fields() -> None:
    """Processor time by wall time and processors, wall time by start and end: with room for what sources do say."""
    hour = 3600
    assert jobs(cpu_time=1000 * hour + 86_400, processors=1) == {}, (
        "a whole node, or nobody knows of how many processors"
    )
    assert jobs(cpu_time=1000 * hour + 86_401, processors=1) == {0: ("cpu_time", "3686401")}
    assert jobs(cpu_time=1000 * hour + 86_401, processors=2) == {}
    assert jobs(cpu_time=86_400, wall_time=0) == {}, "a short job whose wall time is told in whole minutes"
    assert jobs(cpu_time=10**12) == {0: ("cpu_time", str(10**12))}
    assert jobs(cpu_time=None, wall_time=hour + 30 * 86_400) == {}, "all attempts of a job, of which the last is timed"
    assert jobs(cpu_time=None, wall_time=256 * hour) == {}, "what its source calls so is that of all processors"
    assert jobs(cpu_time=None, wall_time=34_000_000) == {0: ("wall_time", "34000000")}
    network = KINDS["network"]
    records = [{"packets_sent": 10, "packets_lost": lost} for lost in (10, 11, None)]
    assert refused(network, *records, {"packets_lost": 5}) == {1: ("packets_lost", "11")}
    virtual = {"started": 0, "time": 100 * 10**6, "vcpus": 2000, "wall_time": 100}
    machine = {**virtual, "cpu_time": 200_000 + 86_400}
    assert refused(KINDS["cloud-vm"], machine, {**machine, "cpu_time": 200_000 + 86_401}) == {1: ("cpu_time", "286401")}
    assert refused(KINDS["cloud-vm"], {**virtual, "wall_time": 100 + 31 * 86_400}) == {0: ("wall_time", "2678500")}


def test_a_kind_of_a_community_has_bounds() -> None:
    """Of any measures, with fractions, in a table; the reason names the bound and what it comes to."""
    measure: dict[str, object] = {"doc": "d", "unit": "1"}
    table: dict[str, object] = {
        "doc": "Licences.",
        "shape": "interval",
        "measures": {"used": measure, "owned": measure | {"optional": True}, "load": measure | {"type": "number"}},
        "bounds": [
            {"measure": "used", "of": ["owned"], "factor": 10, "slack": 2},
            {"measure": "load", "of": ["owned"], "factor": 0.5, "lasting": True},
        ],
    }
    kind = kind_from_table("licence-use", table)
    usual: dict[str, Any] = {"vo": "x", "start": 0, "end": 4_000_000, "used": 0, "owned": 1, "load": 0.0}
    records: list[dict[str, Any]] = [
        {"used": 12},
        {"used": 13},
        {"used": 13, "owned": None},
        {"load": 2.0},
        {"load": 2.5},
    ]
    rows = [{column.name: column.default for column in kind.columns} | usual | each for each in records]
    columns = {name: [row[name] for row in rows] for name in kind.names}
    assert {position: str(each) for position, each in beyond_limits(kind, columns).items()} == {
        1: "licence-use.used: is more than 10 * owned + 2 = 12 allows; mend it, or its kind's `bounds` (got 13)",
        4: "licence-use.load: is more than 0.5 * seconds that it lasts * owned = 2 allows; mend it, or its kind's "
        "`bounds` (got 2.5)",
    }
