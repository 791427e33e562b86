"""Ids of archived records: what was packed is found again, also as earlier versions packed it."""

from __future__ import annotations

import zlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from accounting.archive.archived_ids import day_of, days_of, first_id, packed, revisions_among, unpacked
from siteward.records.identity import HASH_BYTES

DAY = 86_400_000
"""Milliseconds."""
BEGIN = 20_000 * DAY
hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)
ids = st.builds(lambda time, tail: first_id(BEGIN + time)[:-HASH_BYTES] + tail, st.integers(0, DAY - 1), hashes)
of_a_day = st.dictionaries(ids, st.sampled_from([0, 0, 1, 2**62]), max_size=30)


@given(revisions=of_a_day, others=st.lists(ids, max_size=5))
def test_what_was_packed_is_found(revisions: dict[bytes, int], others: list[bytes]) -> None:
    """All of it, in any order, and nothing else."""
    data = packed(revisions)
    assert unpacked(data) == revisions
    assert revisions_among(data, [*others, *revisions]) == revisions | {
        each: revisions[each] for each in others if each in revisions
    }
    assert revisions_among(data, others) == {each: revisions[each] for each in others if each in revisions}


@given(times=st.lists(st.integers(0, 2**48 - 1), max_size=20))
def test_days_of_many_are_those_of_each(times: list[int]) -> None:
    """Each once and in order, over all times that an id can have; of none there are none."""
    identifiers = [first_id(time) for time in times]
    assert days_of(identifiers) == sorted({day_of(each) for each in identifiers})


def test_both_ends_of_a_day() -> None:
    """The first and the last millisecond, and some at the same."""
    revisions = {
        first_id(BEGIN + time)[:-HASH_BYTES] + bytes([tail] * HASH_BYTES): tail
        for time in (0, DAY - 1)
        for tail in (0, 7, 255)
    }
    assert unpacked(packed(revisions)) == revisions
    assert revisions_among(packed(revisions), revisions) == revisions


def test_what_earlier_versions_packed_is_read() -> None:
    """They wrote times as a list of numbers, from 1970 on."""
    tails = [bytes([each] * HASH_BYTES) for each in (3, 1, 2)]
    times = [BEGIN, BEGIN, BEGIN + 5]
    steps = zlib.compress(msgspec.msgpack.encode([BEGIN, 0, 5]))
    data = msgspec.msgpack.encode([steps, b"".join(tails), {2: 9}])
    due = {
        first_id(time)[:-HASH_BYTES] + tail: revision
        for time, tail, revision in zip(times, tails, [0, 0, 9], strict=True)
    }
    assert unpacked(data) == due
    assert revisions_among(data, due) == due
