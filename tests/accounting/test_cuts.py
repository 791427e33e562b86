"""Periods within buckets: what whole buckets answer and what records do make up the period, with nothing twice."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from accounting.booking.buckets import DAY, SECOND
from accounting.query.cuts import blocks_of, cut_blocks, joined_blocks, plan_of

widths = st.sampled_from([600, 3600, 4 * 3600, 6 * 3600, DAY])
buckets = st.lists(
    st.tuples(st.integers(0, 3 * DAY - 1), widths).map(lambda found: (found[0] // found[1] * found[1], found[1]))
)
instants = st.integers(0, 3 * DAY * SECOND) | st.integers(0, 72).map(lambda hours: hours * 3600 * SECOND)
periods = (
    st.tuples(instants, instants).filter(lambda found: found[0] != found[1]).map(lambda found: tuple(sorted(found)))
)


@given(buckets, periods)
def test_a_plan_covers_its_period_once(found: list[tuple[int, int]], period: tuple[int, int]) -> None:
    """Its parts follow each other from the start to the end, and no bucket lies across the ends of whole ones."""
    cut = cut_blocks(period, blocks_of(found))
    plan = plan_of(period, cut)
    parts = sorted([*plan.cut, *([plan.whole] if plan.whole else [])])
    assert joined_blocks(parts) == [period]
    assert sum(last - first for first, last in parts) == period[1] - period[0]
    for edge in plan.whole or ():
        assert not any(start * SECOND < edge < (start + width) * SECOND for start, width in found)


@given(buckets)
def test_no_bucket_reaches_beyond_its_block(found: list[tuple[int, int]]) -> None:
    """Blocks are disjoint, in order, and each bucket lies within one; none reaches beyond a UTC day."""
    blocks = blocks_of(found)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(blocks))
    for start, width in found:
        assert any(first <= start * SECOND and (start + width) * SECOND <= last for first, last in blocks)
    assert all(first // (DAY * SECOND) == (last - 1) // (DAY * SECOND) for first, last in blocks)


def test_periods_between_buckets_need_no_record() -> None:
    """Where no bucket lies across an instant, buckets answer alone."""
    hours = blocks_of([(0, 3600), (3600, 3600)])
    assert cut_blocks((3600 * SECOND, 5000 * 10 * SECOND), hours) == []
    assert plan_of((0, 3600 * SECOND), []).whole == (0, 3600 * SECOND)
