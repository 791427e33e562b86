"""Limits: what nobody books without a look at it, of which kind and type of value whatever."""

from __future__ import annotations

import math
from typing import Any

import pytest
from examples import JOB, job_rows

from accounting.booking.limits import beyond_limits
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
    """A peak, a mean, whole or with a fraction; one without a limit may be anything, and so may what is unknown."""
    most: dict[str, Any] = {"warm": 400.0, "peak": 500, "free": 2**62}
    records: list[dict[str, Any]] = [
        most,
        {},
        {"warm": 400.5},
        {"peak": 501},
        {"warm": 0.0, "peak": 0},
        {"warm": 1e300},
    ]
    assert refused(LEVEL, *records) == {2: ("warm", "400.5"), 3: ("peak", "501"), 5: ("warm", "1e+300")}
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
    assert refused(network, {"one_way_delay": 1e300}, {"jitter": 3601.0}) == {
        0: ("one_way_delay", "1e+300"),
        1: ("jitter", "3601.0"),
    }
