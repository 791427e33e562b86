"""Which records a question looks at, and what single values of theirs say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usage_model import SHARES, USE, interpolated

from accounting.query.amounts import mean, percentile
from accounting.query.quantities import check_wanted, is_sampled, type_of
from accounting.query.record_sums import id_times
from accounting.query.samples import Samples
from siteward.query import QueryError
from siteward.records import Combine, Event, Interval, Measure, kind_of
from siteward.usage import Attribution, Quantity, UsageQuery, ValueType, WantedUsage

TWENTY_YEARS = 20 * 366 * 24 * 3_600_000_000
HOUR = 3600 * 1_000_000


class Rented(Interval, kind="rented", partition="start", identity=("start",)):
    """Something that is filed by its start, and of any length."""


class Booked(Interval, kind="booked", partition="start", identity=("start",), longest=timedelta(hours=2)):
    """The same, of two hours at most."""


class Heated(Event, kind="heated"):
    """Something with a peak."""

    temperature: Annotated[float, Measure("largest", unit="K", combine=Combine.MAX)]


def test_what_does_not_add_up_has_single_values_only() -> None:
    """The sum of a peak is refused with what there is; its percentile is a number, by end."""
    kind = kind_of(Heated)
    day: dict[str, Any] = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2026, 1, 2, tzinfo=UTC)}
    query = UsageQuery(kind="heated", wanted=(WantedUsage(Quantity.SUM, "temperature"),), **day)
    with pytest.raises(
        QueryError, match="'temperature' is not a measure that adds up of heated: only whole numbers have exact sums"
    ):
        check_wanted(kind, query)
    largest = WantedUsage(Quantity.MAX, "temperature")
    with pytest.raises(QueryError, match="a part of a record has no max; ask with attribution by-end"):
        check_wanted(kind, UsageQuery(kind="heated", wanted=(largest,), **day))
    check_wanted(kind, UsageQuery(kind="heated", wanted=(largest,), attribution=Attribution.BY_END, **day))
    assert type_of(kind, largest) is ValueType.NUMBER
    assert type_of(USE, WantedUsage(Quantity.MAX, "core_time")) is ValueType.INTEGER
    middle = WantedUsage(Quantity.MEAN, "temperature")
    check_wanted(kind, UsageQuery(kind="heated", wanted=(middle,), attribution=Attribution.BY_END, **day))
    assert (type_of(kind, middle), is_sampled(kind, middle)) == (ValueType.NUMBER, True)
    assert not is_sampled(USE, WantedUsage(Quantity.MEAN, "core_time"))


def test_means_depend_on_no_order() -> None:
    """Of what does not add up: rounded once, and of integers exact before."""
    assert mean(np.array([1e100, 1.0, -1e100])) == mean(np.array([1.0, 1e100, -1e100])) == 1 / 3
    assert mean(np.array([2**62, 2**62, 2**62, 1], np.int64)) == (3 * 2**62 + 1) / 4
    assert mean(np.array([], np.float64)) is None


def test_ids_bound_what_is_looked_at() -> None:
    """By the partition time, and the longest interval that is booked."""
    stretch = (100 * HOUR, 101 * HOUR)
    longest = USE.longest or 0
    assert id_times(USE, stretch, is_prorated=False) == stretch
    assert id_times(USE, stretch, is_prorated=True) == (stretch[0], stretch[1] + longest + 1)
    for is_prorated in (False, True):
        assert id_times(kind_of(Rented), stretch, is_prorated=is_prorated) == (
            stretch[0] - 20 * 366 * 24 * HOUR,
            stretch[1],
        )
        assert id_times(kind_of(Booked), stretch, is_prorated=is_prorated) == (98 * HOUR, stretch[1])


@given(st.lists(st.integers(-(2**62), 2**62), max_size=30), st.sampled_from(sorted(SHARES)))
def test_percentiles_are_rounded_once(values: list[int], quantity: Quantity) -> None:
    """Those of integers are the nearest number to the exact ones, however large; the ends are exact."""
    assert quantity.hundredths is not None
    found = percentile(np.array(values, np.int64), quantity.hundredths)
    assert found == interpolated([*values], SHARES[quantity])
    assert quantity not in {Quantity.MIN, Quantity.MAX} or found is None or isinstance(found, int)


def test_percentiles_of_numbers_lie_between_neighbours() -> None:
    """Interpolation works on numbers with a point as on integers."""
    assert percentile(np.array([4.0, 1.0, 2.5]), 50) == 2.5
    assert percentile(np.array([1.0, 2.0]), 90) == pytest.approx(1.9)
    assert percentile(np.array([], np.float64), 50) is None
    assert {quantity: Fraction(quantity.hundredths or 0, 100) for quantity in SHARES} == SHARES


def test_samples_are_those_of_their_group_and_period() -> None:
    """A record that does not know a factor has no value of the product, and is counted all the same."""
    pieces = [(11, 15), (15, 31)]
    samples = Samples(USE, ["core_time", "cpu_time", "efficiency"], [("S",), ("T",)], pieces)
    columns: dict[str, list[Any]] = {"wall_time": [2, 0, 4], "processors": [5, 6, 7], "cpu_time": [None, 7, 9]}
    samples.add(np.array([0, 0, 0]), np.array([30, 20, 20]), columns)
    samples.add(np.array([0]), np.array([15]), {"wall_time": [1], "processors": [1], "cpu_time": [None]})
    found = samples.groups((15, 31))
    assert found.keys() == {("S",)}
    assert found["S",].count == 4
    assert sorted(found["S",].values["core_time"].tolist()) == [0, 1, 10, 28]
    assert sorted(found["S",].values["cpu_time"].tolist()) == [7, 9]
    assert found["S",].values["efficiency"].tolist() == [9 / 28], "nobody divides by nothing"
    assert samples.groups((11, 15)) == {}
    assert Samples(USE, ["cpu_time"], [], [(0, 99)]).groups((0, 99)) == {}
