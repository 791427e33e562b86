"""Sums of listed rows are those of whole numbers, whatever their size, order and number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accounting.query import listed_sums
from accounting.query.listed_sums import Sums

wide = st.integers(-(2**63), 2**63 - 1)
rows = st.lists(st.tuples(st.integers(0, 5), wide | st.integers(-9, 9) | st.integers(-(2**32), 2**32)), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(rows, max_size=4), at_once=st.sampled_from([1, 3, 2**20]))
@example(parts=[[(0, 2**63 - 1)] * 40, [(0, 2**63 - 1)] * 40], at_once=2**20)
@example(parts=[[(0, -(2**63))] * 40, [(5, 1)]], at_once=3)
@example(parts=[[(0, 2**31), (0, -(2**31)), (1, 2**31 - 1)]], at_once=2**20)
def test_sums_are_exact(monkeypatch: pytest.MonkeyPatch, parts: list[list[tuple[int, int]]], at_once: int) -> None:
    """Beyond 64 bits too, and from however many parts they come."""
    monkeypatch.setattr(listed_sums, "AT_ONCE", at_once)
    sums, wanted = Sums(), [0] * 6
    for part in parts:
        groups = np.array([group for group, _ in part], np.int64)
        sums.add(groups, np.array([value for _, value in part], np.int64))
        for group, value in part:
            wanted[group] += value
    assert sums.of(6) == wanted
    assert all(type(each) is int for each in sums.of(6))


def test_a_million_of_the_largest_add_up() -> None:
    """Where doubles would have lost the last digits long ago."""
    count = listed_sums.AT_ONCE + 1
    sums = Sums()
    sums.add(np.zeros(count, np.int64), np.full(count, 2**63 - 1, np.int64))
    assert sums.of(1) == [count * (2**63 - 1)]
