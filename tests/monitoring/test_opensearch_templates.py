"""Index names and templates follow from the kinds, and no two kinds can be taken for each other."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from answers import EVENTS, SNAPSHOTS
from examples import JOB
from hypothesis import given
from hypothesis import strategies as st

from monitoring.stores.opensearch.differences import Contradiction, Present, Step, differences
from monitoring.stores.opensearch.policy import policy_of
from monitoring.stores.opensearch.templates import (
    KindsClash,
    check_names,
    index_name,
    index_patterns,
    is_daily,
    period_end,
    properties_of,
    settings_of,
    split_names,
    template_of,
)
from siteward.kinds import load_kinds
from siteward.records import Kind, kind_from_table
from siteward.settings import MonitoringSettings

SETTINGS = MonitoringSettings(prefix="test")
LATEST_MS = 4_102_444_800_000
"""The year 2100 in milliseconds since 1970."""


def kind(name: str = "thing", **table: Any) -> Kind:
    """A small kind."""
    return kind_from_table(name, {"doc": "A thing.", "shape": "event", **table})


def named(name: str, pattern: str) -> bool:
    """Whether an index template's pattern, which knows only the star, takes a name."""
    return name.startswith(pattern.removesuffix("*"))


def test_fields_are_mapped_as_what_they_are() -> None:
    """Texts are keywords, integers long, numbers double, measures without an index, times dates to look at."""
    mapped = properties_of(EVENTS)
    assert mapped["name"] == {"type": "keyword"}
    assert mapped["good"] == {"type": "boolean"}
    assert mapped["code"] == {"type": "long"}
    assert mapped["amount"] == mapped["area"] == {"type": "long", "index": False}
    assert mapped["weight"] == {"type": "double", "index": False}
    assert mapped["time"] == {"type": "date", "format": "epoch_millis"}
    assert mapped["siteward"]["properties"]["time"] == {"type": "long"}


def test_bytes_are_stored_in_two_parts() -> None:
    """Measures and products in bytes have two more fields, everything else does not."""
    assert split_names(EVENTS) == ("amount", "area")
    assert split_names(SNAPSHOTS) == ("used",)
    assert split_names(JOB) == tuple(column.name for column in JOB.measures if column.unit == "B")
    assert set(properties_of(JOB)["siteward"]["properties"]["high"]["properties"]) == set(split_names(JOB))
    assert "low" not in properties_of(kind())["siteward"]["properties"]


def test_templates_are_strict() -> None:
    """A field that no kind declares is refused by the cluster, never guessed."""
    template = template_of(JOB, SETTINGS, daily=False)
    assert template["template"]["mappings"]["dynamic"] == "strict"
    assert template["index_patterns"] == ["test-job-1*", "test-job-2*"]


@pytest.mark.parametrize(("replicas", "name"), [("0-1", "auto_expand_replicas"), ("2", "number_of_replicas")])
def test_copies_are_a_number_or_a_range(replicas: str, name: str) -> None:
    """A range follows the number of nodes, a number stays."""
    made = settings_of(MonitoringSettings(replicas=replicas, shards=3, refresh=0.5))["index"]
    assert made == {"number_of_shards": "3", name: replicas, "refresh_interval": "500ms"}


@given(milliseconds=st.integers(631_152_000_000, LATEST_MS), tail=st.binary(min_size=10, max_size=10))
def test_a_period_ends_after_its_records(milliseconds: int, tail: bytes) -> None:
    """An index's period holds the time of every id in it, and ends on the first day after."""
    identifier = milliseconds.to_bytes(6, "big") + tail
    day = date.fromordinal(date(1970, 1, 1).toordinal() + milliseconds // 86_400_000)
    for daily, longest in ((False, 31), (True, 1)):
        index = index_name("test", JOB, identifier, daily=daily)
        end = period_end("test", JOB, index)
        assert end is not None
        assert day < end <= day + timedelta(days=longest)
        assert any(named(index, pattern) for pattern in index_patterns("test", JOB))


@pytest.mark.parametrize(
    "name", ["test-job-", "test-job-2026", "test-job-2026.13", "test-job-2026.02.30", "test-job-x.y"]
)
def test_a_foreign_name_is_no_period(name: str) -> None:
    """An index that is not named as ours are is never taken for one that may be deleted."""
    assert period_end("test", JOB, name) is None


def test_short_lived_kinds_get_an_index_per_day() -> None:
    """What is kept for weeks is deleted by the day, what is kept for months by the month."""
    assert is_daily(kind(retention_days=45))
    assert not is_daily(kind(retention_days=46))
    assert not is_daily(kind())


def test_kinds_whose_names_begin_alike_are_kept_apart() -> None:
    """The indices of `job-step` are not those of `job`; a name that could be a year is refused."""
    check_names({each.name: each for each in (JOB, kind("job-step"))})
    step = index_name("test", kind("job-step"), bytes(16))
    assert not any(named(step, pattern) for pattern in index_patterns("test", JOB))
    with pytest.raises(KindsClash, match=r"kind 'job-2x' could be taken for those of 'job'; rename"):
        check_names({each.name: each for each in (JOB, kind("job-2x"))})


def test_a_field_may_not_have_our_own_name() -> None:
    """The object that holds producer, message and receipt cannot also be a kind's field."""
    clash = kind(dimensions={"siteward": {"doc": "taken"}})
    with pytest.raises(KindsClash, match="has a field 'siteward'"):
        check_names({"thing": clash})


def test_names_that_no_index_may_have_are_refused() -> None:
    """A prefix and a kind that are too long together are said at the start, not when the first record comes."""
    check_names({"job": JOB}, "p" * 240)
    with pytest.raises(KindsClash, match=r"256 bytes.*shorten monitoring.prefix") as caught:
        check_names({"job": JOB}, "p" * 241)
    assert caught.value.permanent


def present(template: dict[str, Any], **indices: dict[str, Any]) -> Present:
    """A template, and indices with their mappings."""
    return Present({"test-thing": template}, indices)


def test_nothing_differs_from_what_was_just_made() -> None:
    """A template and an index made from it are as they should be."""
    for each in load_kinds().values():
        template = template_of(each, SETTINGS, daily=False)
        found = Present({f"test-{each.name}": template}, {"index": properties_of(each)})
        assert differences(each, SETTINGS, found) == []


def test_an_added_field_is_added_everywhere_at_the_start() -> None:
    """A new field is put into the template and into every index, without anybody's help."""
    old, new = kind(), kind(dimensions={"colour": {"doc": "colour"}})
    found = present(template_of(old, SETTINGS, daily=False), one=properties_of(old))
    changes = differences(new, SETTINGS, found)
    assert {(each.place, each.what, each.wanted, each.step) for each in changes} == {
        ("template test-thing", "colour", "type keyword", Step.START),
        ("index one", "colour", "type keyword", Step.START),
    }


def test_a_dropped_field_waits_for_an_upgrade() -> None:
    """A field that the kind no longer has may still be written by a collector that is not restarted yet."""
    old, new = kind(dimensions={"colour": {"doc": "colour"}}), kind()
    found = present(template_of(old, SETTINGS, daily=False), one=properties_of(old))
    (change,) = differences(new, SETTINGS, found)
    assert (change.what, change.wanted, change.step) == ("colour", "", Step.UPGRADE)


def test_a_changed_type_can_be_changed_in_no_index() -> None:
    """A template follows where somebody says so, an index that holds such records never does."""
    old = kind(dimensions={"colour": {"doc": "colour"}})
    new = kind(dimensions={"colour": {"doc": "colour", "type": "integer"}})
    found = present(template_of(old, SETTINGS, daily=False), one=properties_of(old))
    assert [(each.place, each.step) for each in differences(new, SETTINGS, found)] == [
        ("template test-thing", Step.REFUSED),
        ("index one", Step.NEVER),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_meta": {}}, "is not ours.*monitoring.prefix"),
        ({"_meta": None}, "is not ours"),
        ({"_meta": {"siteward": {"prefix": "test-a", "kind": "thing"}}}, "is not ours"),
        ({"version": 999}, "newer Siteward.*upgrade this one"),
    ],
)
def test_a_template_of_others_is_left_alone(changes: dict[str, Any], said: str) -> None:
    """What another installation or a newer version made is never changed, and that is permanent."""
    template = template_of(kind(), SETTINGS, daily=False) | changes
    with pytest.raises(Contradiction, match=said) as caught:
        differences(kind(), SETTINGS, present(template))
    assert caught.value.permanent


@pytest.mark.parametrize(("days", "age"), [(400, "432d"), (30, "62d")])
def test_a_policy_deletes_no_record_too_early(days: int, age: str) -> None:
    """Age counts from an index's first record: retention, the period, and how far ahead records may lie."""
    policy = policy_of(kind(retention_days=days), "test")
    assert policy is not None
    (transition,) = policy["policy"]["states"][0]["transitions"]
    assert transition["conditions"] == {"min_index_age": age}
    assert policy_of(kind(), "test") is None


@pytest.mark.parametrize("first", [7, 45, 46, 400])
@pytest.mark.parametrize("then", [7, 30, 45, 46, 400])
def test_a_policy_follows_a_changed_retention(first: int, then: int) -> None:
    """Whatever the retention was when the template was made, the policy of now deletes no record that is too young."""
    began, changed = kind(retention_days=first), kind(retention_days=then)
    policy = policy_of(changed, "test")
    assert policy is not None
    (transition,) = policy["policy"]["states"][0]["transitions"]
    age = timedelta(days=int(transition["conditions"]["min_index_age"].removesuffix("d")))
    for month in range(1, 13):
        start = datetime(2026, month, 1, tzinfo=UTC)
        identifier = int(start.timestamp() * 1000).to_bytes(6, "big") + bytes(10)
        index = index_name("test", began, identifier, daily=is_daily(began))
        end = period_end("test", began, index)
        assert end is not None
        made = start - timedelta(microseconds=changed.ahead)
        last = datetime.combine(end, time(), UTC)
        assert made + age - last >= timedelta(days=then)
        assert any(named(index, pattern) for pattern in policy["policy"]["ism_template"][0]["index_patterns"])
