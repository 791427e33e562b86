"""Metric families derived from kinds: names, labels, and what may never be one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from monitoring.prometheus.families import FamilyType, families_of
from siteward.kinds import load_kinds
from siteward.records import Kind, kind_from_table
from siteward.settings import SettingsError
from siteward.telemetry import METRICS

KINDS = load_kinds()


def kind(name: str, shape: str = "event", **table: Any) -> dict[str, Kind]:
    return {name: kind_from_table(name, {"doc": "Anything.", "shape": shape, **table})}


def measure(unit: str = "1", **more: Any) -> dict[str, Any]:
    return {"doc": "something", "unit": unit, **more}


def test_families_of_our_own_kinds() -> None:
    """Events and intervals become counters and histograms of durations, snapshots gauges, all in base units."""
    families = families_of(KINDS, {})
    job, host, data = families["job"], families["host"], families["data-operation"]
    assert [family.name for family in job.values] == [
        "siteward_job_records_total",
        "siteward_job_wall_time_seconds_total",
        "siteward_job_cpu_time_seconds_total",
        "siteward_job_processors_total",
        "siteward_job_memory_bytes_total",
        "siteward_job_queue_time_seconds_total",
        "siteward_job_core_time_seconds_total",
    ]
    assert {family.type for family in job.values} == {FamilyType.COUNTER}
    assert [family.name for family in job.histograms] == [
        "siteward_job_wall_time_seconds",
        "siteward_job_cpu_time_seconds",
        "siteward_job_queue_time_seconds",
    ]
    assert "siteward_data_operation_files_total" in {family.name for family in data.values}
    assert "siteward_host_memory_used_bytes" in {family.name for family in host.values}
    assert {family.type for family in host.values} == {FamilyType.GAUGE}
    assert host.histograms == ()


def test_labels_name_no_person_and_nothing_nearly_unique() -> None:
    """By default all other dimensions are labels; histograms carry those that are always given or have few values."""
    job = families_of(KINDS, {})["job"]
    assert {"vo", "site", "queue", "state", "simulated"} <= set(job.labels)
    assert {"user", "node", "local_job_id"}.isdisjoint(job.labels)
    assert [job.labels[position] for position in job.coarse] == ["vo", "site", "state", "simulated"]


def test_chosen_labels_are_taken_and_simulated_stays() -> None:
    """[prometheus.labels] chooses; whether a record was simulated is always told."""
    families = families_of(KINDS, {"job": ["vo", "site"], "host": ["site", "host"]})
    assert families["job"].labels == ("vo", "site", "simulated")
    assert families["host"].labels == ("site", "host", "simulated")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"jop": ["vo"]}, "no kind is called so; did you mean 'job'"),
        ({"job": ["sight"]}, "'sight' is not a dimension of job; did you mean 'site'"),
        ({"job": ["wall_time"]}, "'wall_time' is not a dimension"),
        ({"job": ["user"]}, "'user' names persons"),
        ({"job": ["node"]}, "'node' is nearly unique"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: dict[str, list[str]], said: str) -> None:
    """A wrong label stops the start with its kind, its name and what to do."""
    with pytest.raises(SettingsError, match=re.escape(said)) as error:
        families_of(KINDS, labels)
    assert f"prometheus.labels.{next(iter(labels))}" in str(error.value)


def test_names_are_given_once() -> None:
    """Kinds whose names run together, and names of our own telemetry, give different families nonetheless."""
    kinds = {
        **kind("a", measures={"b_c": measure()}),
        **kind("a-b", measures={"c": measure()}),
        **kind("x", measures={"records": measure(), "n": measure(), "n_total": measure()}),
        **kind("queue", "snapshot", measures={"records": measure(), "bytes": measure("B")}),
    }
    families = families_of(kinds, {}).values()
    names = [family.name for each in families for family in (*each.values, *each.histograms)]
    assert len(set(names)) == len(names)
    assert {metric.name for metric in METRICS}.isdisjoint(names)
    assert {"siteward_a_b_c_total", "siteward_a_b_c_value_total", "siteward_x_records_value_total"} <= set(names)


def test_what_may_shrink_is_no_counter() -> None:
    """A measure that may be negative, or that does not add up, has no counter; neither has a product with one."""
    measures = {
        "balance": measure(minimum=-5),
        "peak": measure(combine="max"),
        "factor": measure(),
        "wait": measure("s", minimum=-1),
    }
    products = {"area": {"factors": ["balance", "factor"], "unit": "1"}}
    each = families_of(kind("k", measures=measures, products=products), {})["k"]
    assert [family.name for family in each.values] == ["siteward_k_records_total", "siteward_k_factor_total"]
    assert each.histograms == ()


def test_units_and_reserved_words_in_names() -> None:
    """Every unit has a word, thousandths that of the unit; no gauge ends like a counter; no label hides a bucket's."""
    measures = {
        "wait_seconds": measure("s"),
        "rate": measure("B/s"),
        "score": measure("HS23"),
        "work": measure("HS23.s"),
        "speed": measure("mHS06"),
        "gpu_time": measure("ms"),
        "share": measure("m1"),
        "files_count": measure(),
        "jobs_total": measure(),
    }
    dimensions = {"le": {"doc": "bound"}, "instance": {"doc": "machine"}}
    each = families_of(kind("k", "snapshot", measures=measures, dimensions=dimensions), {})["k"]
    assert [family.name.removeprefix("siteward_k_") for family in each.values[1:]] == [
        "wait_seconds",
        "rate_bytes_per_second",
        "score_hs23",
        "work_hs23_seconds",
        "speed_hs06",
        "gpu_time_seconds",
        "share",
        "files_count_value",
        "jobs_total_value",
    ]
    assert {"k_le", "k_instance"} <= set(each.labels)
    assert [family.exposed(15_300) for family in each.values[5:8]] == [15.3, 15.3, 15.3]
