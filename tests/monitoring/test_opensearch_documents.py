"""Documents for OpenSearch hold what the records hold, to the last unit, and say where they belong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answers import EVENTS, SECOND, SNAPSHOTS, Fields
from examples import JOB, NOW, batch_of, job_rows
from hypothesis import given
from hypothesis import strategies as st

from monitoring.stores.opensearch.differences import flat
from monitoring.stores.opensearch.documents import (
    UNFIT,
    documents_of,
    lines_of,
    microseconds_of,
    placed,
    unfit_reason,
    unfit_records,
)
from monitoring.stores.opensearch.templates import LOW_BITS, properties_of
from siteward.records import Kind, Row, kind_from_table, microseconds
from siteward.records.fields import INT64_MAX, INT64_MIN
from siteward.records.shapes import EARLIEST, LATEST
from siteward.sinks import Batch

integers = st.integers(INT64_MIN, INT64_MAX)


def batch(kind: Kind, records: list[Fields]) -> Batch:
    """Records as a batch; what they do not give is unknown."""
    columns = {column.name: [record.get(column.name, column.default) for record in records] for column in kind.columns}
    ids = [
        (record[kind.time] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")
        for number, record in enumerate(records)
    ]
    messages = [bytes([number]) * 16 for number in range(len(records))]
    return Batch(kind, ids, columns, ["host:1"] * len(records), messages, NOW)


def event(**values: Any) -> Fields:
    """One event."""
    return {"vo": "example", "time": NOW, "name": "n", "amount": 0, **values}


def written(given: Batch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Action and document of each record, as the cluster reads them."""
    lines = lines_of(placed(given, "test").actions, documents_of(given)).splitlines()
    decoded = [json.loads(line) for line in lines]
    return list(zip(decoded[::2], decoded[1::2], strict=True))


def source(record: Fields) -> dict[str, Any]:
    """The document of one event."""
    ((_, document),) = written(batch(EVENTS, [record]))
    return document


def test_a_document_holds_the_record_and_where_it_came_from() -> None:
    """Fields stand under their names, what is ours in an object of its own, and what is unknown is left out."""
    found = source(event(site="S", good=False, amount=3, weight=0.0))
    assert found == {
        "vo": "example",
        "time": f"{NOW // 1000}.000",
        "name": "n",
        "site": "S",
        "good": False,
        "amount": 3,
        "weight": 0.0,
        "simulated": False,
        "revision": 0,
        "siteward.time": NOW,
        "siteward.producer": "host:1",
        "siteward.message": "00" * 16,
        "siteward.received": NOW,
        "siteward.low.amount": 3,
        "siteward.high.amount": 0,
    }


@pytest.mark.parametrize("kind", [JOB, EVENTS, SNAPSHOTS], ids=lambda kind: kind.name)
def test_every_field_of_a_document_is_mapped(kind: Kind) -> None:
    """A strict mapping takes whatever a document can hold, because both follow from the kind."""
    values: Fields = {column.name: 1 for column in kind.columns} | {kind.time: NOW}
    ((_, whole),) = written(batch(kind, [values | dict.fromkeys(kind.products, 1)]))
    mapped = set(flat(properties_of(kind)))
    assert set(whole) <= mapped
    assert mapped - set(whole) <= {"siteward.wide"}


@given(time=st.integers(microseconds(EARLIEST), microseconds(LATEST)))
def test_times_are_exact_to_the_microsecond(time: int) -> None:
    """A time is a text of milliseconds with three decimals, which reads back as the same microsecond."""
    found = source(event(time=time))
    assert microseconds_of(found["time"]) == found["siteward.time"] == time


@given(value=integers)
def test_two_parts_make_up_a_byte_measure(value: int) -> None:
    """High times 2^26 plus low is the value, below zero too, and low is never negative."""
    found = source(event(amount=value))
    low, high = found["siteward.low.amount"], found["siteward.high.amount"]
    assert (high << LOW_BITS) + low == value == found["amount"]
    assert 0 <= low < 1 << LOW_BITS


@given(amount=integers, factor=st.none() | st.integers(0, INT64_MAX))
def test_a_product_is_stored_where_it_fits(amount: int, factor: int | None) -> None:
    """A product within 64 bits is stored, a wider one is named, and one of an unknown factor is neither."""
    found = source(event(amount=amount, factor=factor))
    product = None if factor is None else amount * factor
    fits = product is not None and INT64_MIN <= product <= INT64_MAX
    assert found.get("area") == (product if fits else None)
    assert found.get("siteward.wide") == (None if fits or product is None else ["area"])


def test_one_wide_product_leaves_its_neighbours_alone() -> None:
    """In a batch, only the record whose product is too wide lacks it."""
    records = [event(amount=n, factor=f) for n, f in ((1, 2), (INT64_MAX, 2), (3, None), (4, 5))]
    found = [document for _, document in written(batch(EVENTS, records))]
    assert [document.get("area") for document in found] == [2, None, None, 20]
    assert [document.get("siteward.wide") for document in found] == [None, ["area"], None, None]


def test_kinds_with_an_identity_are_compared_by_revision() -> None:
    """The cluster replaces a lower revision, and refuses the same and lower ones."""
    ((action, _),) = written(batch_of_one(revision=7))
    identifier = batch_of_one(revision=7).ids[0].hex()
    assert action == {
        "index": {"_index": "test-job-2026.03", "_id": identifier, "version": 7, "version_type": "external"}
    }


def batch_of_one(**changes: Any) -> Batch:
    rows: list[Row] = job_rows(1, **changes)
    return batch_of(JOB, rows)


def test_kinds_without_an_identity_are_only_created() -> None:
    """A record that has no identity never replaces another one."""
    kind = kind_from_table("log", {"doc": "A line.", "shape": "event", "identity": []})
    ((action, _),) = written(batch(kind, [{"vo": "v", "time": NOW}]))
    assert list(action) == ["create"]
    assert "version" not in action["create"]


def test_each_record_goes_into_the_index_of_its_id() -> None:
    """The period is that of the id, so that no revision of a record can land beside it."""
    days = [NOW + day * 86_400 * SECOND for day in (-32, 0, 29)]
    given = batch(EVENTS, [event(time=time) for time in days])
    assert [action["index"]["_index"] for action, _ in written(given)] == [
        "test-test-event-2026.01",
        "test-test-event-2026.03",
        "test-test-event-2026.04",
    ]
    assert placed(given, "test").indices == [f"test-test-event-2026.0{month}" for month in (1, 3, 4)]
    daily = placed(batch(EVENTS, [event()]), "test", daily=True)
    assert daily.indices == ["test-test-event-2026.03.03"]


def test_a_value_that_is_no_value_is_found_with_its_field() -> None:
    """What is not of its column's type, or no Unicode text, cannot be written; the record and the field are named."""
    given = batch(EVENTS, [event(), event(amount="many"), event(name="\ud800")])
    with pytest.raises(UNFIT):
        documents_of(given)
    assert {place: refused.field for place, refused in unfit_records(given).items()} == {1: "amount"}
    surrogate = batch(EVENTS, [event(name="\ud800")])
    with pytest.raises(UNFIT) as caught:
        written(surrogate)
    refused = unfit_reason(surrogate, 0, caught.value)
    assert (refused.field, refused.value) == ("name", repr("\ud800"))
