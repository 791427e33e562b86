"""The arithmetic of buckets against a plain reference: parts add up, whatever the width, the tier and the size."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.booking.arithmetic import shares, sums
from accounting.booking.buckets import DAY, SECOND, Tier, bucket_of, pieces_of, spread, tiers_at
from siteward.records import microseconds

EARLY: Final = -(2**61)
LATE: Final = 2**61
FINE: Final = [Tier(EARLY, LATE, 3600)]
DAILY: Final = [Tier(EARLY, LATE, DAY)]
signed = st.integers(-(2**63), 2**63 - 1)


def integers(*values: int) -> Any:
    return np.array(values, np.int64)


def at(text: str) -> int:
    return microseconds(datetime.fromisoformat(text).replace(tzinfo=UTC))


def reference(start: int, end: int, value: int, width: int) -> dict[int, int]:
    """The parts of one record by bucket start in seconds, as one would compute them by hand."""
    lasting = max(end - start, 1)
    parts, wide = {}, width * SECOND
    bucket = start // wide * wide
    while bucket < max(end, start + 1):
        before = max(bucket - start, 0)
        after = min(bucket + wide - start, lasting)
        parts[bucket // SECOND] = value * after // lasting - value * before // lasting
        bucket += wide
    return parts


def parts_of(start: int, end: int, value: int, tiers: list[Tier]) -> dict[int, int]:
    found = spread(integers(start), integers(end), tiers)
    return dict(zip(found.start.tolist(), found.parts(integers(value)).tolist(), strict=True))


@st.composite
def shares_of(draw: st.DrawFn) -> tuple[int, int, int]:
    total = draw(st.integers(1, 2**61) | st.integers(1, 10**11))
    return draw(signed | st.integers(0, 10**6)), draw(st.integers(0, total) | st.sampled_from([0, total])), total


@given(st.lists(shares_of(), max_size=20))
def test_shares_are_exact(cases: list[tuple[int, int, int]]) -> None:
    """The floor of value times part over total, to the last unit, where the product needs 128 bits as well."""
    values, parts, totals = (integers(*column) for column in zip(*cases, strict=True)) if cases else [integers()] * 3
    assert shares(values, parts, totals).tolist() == [value * part // total for value, part, total in cases]


@given(st.lists(st.lists(signed, min_size=1), min_size=1, max_size=8))
def test_sums_are_exact(runs: list[list[int]]) -> None:
    """Sums of runs never wrap around, however large."""
    firsts = np.cumsum([0, *map(len, runs)])[:-1]
    assert sums(integers(*(value for run in runs for value in run)), firsts).tolist() == [sum(run) for run in runs]


moments = st.integers(at("2026-01-01"), at("2026-03-01"))
durations = st.one_of(
    st.just(0), st.integers(0, 20 * DAY * SECOND), st.integers(0, 3 * 24).map(lambda h: h * 3600 * SECOND)
)


@given(moments, durations, signed, st.sampled_from([900, 3600, DAY]))
def test_parts_are_those_of_the_reference(start: int, lasting: int, value: int, width: int) -> None:
    """Each bucket's part is what a plain loop with Python's integers finds, and the parts add up to the value."""
    found = parts_of(start, start + lasting, value, [Tier(EARLY, LATE, width)])
    assert found == reference(start, start + lasting, value, width)
    assert sum(found.values()) == value


@given(moments, durations, signed)
def test_hours_add_up_to_days(start: int, lasting: int, value: int) -> None:
    """Compaction from hours to days gives the same as splitting by days at once."""
    days: defaultdict[int, int] = defaultdict(int)
    for hour, part in parts_of(start, start + lasting, value, FINE).items():
        days[hour // DAY * DAY] += part
    assert dict(days) == parts_of(start, start + lasting, value, DAILY)


@given(moments, durations, signed, moments)
def test_a_record_across_tiers_loses_nothing(start: int, lasting: int, value: int, now: int) -> None:
    """One that lies in days, hours and quarters of hours at once has parts of each, which add up to it."""
    tiers = tiers_at(now, [(2 * DAY, 900), (8 * DAY, 3600), (None, DAY)])
    found = spread(integers(start), integers(start + lasting), tiers)
    assert int(found.parts(integers(value)).astype(object).sum()) == value
    assert int(found.started.sum()) == 1
    assert len(set(found.start.tolist())) == len(found.start)
    for begin, width in zip(found.start.tolist(), found.width.tolist(), strict=True):
        assert begin % width == 0
        (tier,) = (tier for tier in tiers if tier.start <= begin * SECOND < tier.end)
        assert tier.width == width


@given(
    st.lists(st.tuples(st.integers(0, 10**16), st.integers(0, 10**13)), min_size=1, max_size=5),
    st.integers(0, 10**16),
)
def test_pieces_are_counted_before_they_are_made(lasting: list[tuple[int, int]], now: int) -> None:
    """As many as there will be."""
    tiers = tiers_at(now, ((8 * DAY, 3600), (None, DAY)))
    starts, spans = (integers(*column) for column in zip(*lasting, strict=True))
    made = np.bincount(spread(starts, starts + spans, tiers).record, minlength=len(lasting))
    assert pieces_of(starts, starts + spans, tiers).tolist() == made.tolist()


def test_tiers_change_by_whole_days() -> None:
    """A day is of one width, the coarser one when its start is older than the finer tier's age."""
    fine, coarse = tiers_at(at("2026-03-10T17:30"), [(8 * DAY, 3600), (None, DAY)])
    assert (fine.start, coarse.end) == (at("2026-03-02"), at("2026-03-02"))
    assert (fine.width, coarse.width) == (3600, DAY)


def test_a_job_across_the_end_of_a_month() -> None:
    """Of a job from 22:00 on the 31st to 04:00, a third of the processor time is January's, to the second."""
    start, end = at("2026-01-31T22:00"), at("2026-02-01T04:00")
    found = parts_of(start, end, 7201, DAILY)
    assert found == {at("2026-01-31") // SECOND: 2400, at("2026-02-01") // SECOND: 4801}


def test_an_end_on_the_hour_belongs_to_the_hour_that_it_closes() -> None:
    """Buckets are half-open: a job until 11:00 uses nothing of the hour from 11:00 on, yet ended in it."""
    start, end = at("2026-01-05T10:00"), at("2026-01-05T11:00")
    assert parts_of(start, end, 60, FINE) == {start // SECOND: 60}
    assert [column.tolist() for column in bucket_of(integers(end), FINE)] == [[end // SECOND], [3600]]


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1, -(2**63)])
def test_an_instant_has_one_piece(value: int) -> None:
    """A record without duration lies whole in the bucket of its instant."""
    instant = at("2026-01-05T10:00")
    assert parts_of(instant, instant, value, FINE) == {instant // SECOND: value}


def test_nothing_is_nothing() -> None:
    """No records have no pieces."""
    assert len(spread(integers(), integers(), FINE).record) == 0
