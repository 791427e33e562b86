"""Channels: what went from one place to another, and from what one belongs to to what the other does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from viewers import answered

from accounting.ledger import Ledger
from accounting.topology.attributes import Entry
from accounting.topology.topology_table import write_topology
from siteward.query import Filter, QueryError
from siteward.records import kind_from_table, microseconds
from siteward.server.database import Database
from siteward.sinks import Batch
from siteward.usage import OF_USAGE, Period, Quantity, UsageQuery, WantedUsage
from siteward.usage_text import UsageText, groupable, parse_usage

FIRST: Final = datetime(2026, 3, 1, tzinfo=UTC)
PLACES: Final = {
    "source": {"doc": "from where", "optional": True},
    "destination": {"doc": "to where", "optional": True},
}
DECLARED: Final[dict[str, Any]] = {
    "doc": "Something that was moved.",
    "shape": "event",
    "dimensions": PLACES,
    "measures": {"size": {"doc": "moved", "unit": "B"}},
}
MOVE: Final = kind_from_table("move", DECLARED)
OWN: Final = kind_from_table("own", DECLARED | {"dimensions": {**PLACES, "channel": {"doc": "its own"}}})


@pytest.fixture
def ledger(open_database: Callable[[], Database]) -> Ledger:
    """Holds six moves of different sizes, and where the places are; one of them moved on the second day."""
    database = open_database()
    made = Ledger(database, {"move": MOVE}, lambda: microseconds(FIRST))
    made.metadata.create_all(database.engine)
    ends = [("A", "B"), ("A", "B"), ("B", "A"), ("A", ""), ("", ""), ("C→D", "A\\")]
    defaults = {"vo": "one", "time": microseconds(FIRST), "simulated": False, "revision": 0}
    rows = [
        defaults | {"source": source, "destination": destination, "size": 2**place}
        for place, (source, destination) in enumerate(ends)
    ]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in MOVE.names}
    columns["time"][1] += 86_400 * 1_000_000
    ids = [(time // 1000).to_bytes(6, "big") + bytes([place] * 10) for place, time in enumerate(columns["time"])]
    made.write(Batch(MOVE, ids, columns, ["test"] * 6, [bytes(16)] * 6, 0))
    moved = int((FIRST + timedelta(days=1)).timestamp())
    entries = [
        Entry("source", "A", "country", "CH", None, moved),
        Entry("source", "A", "country", "FR", moved, None),
        Entry("destination", "B", "country", "IT"),
        Entry("source", "B", "tier", "1"),
    ]
    write_topology(database, made.common.topology, entries, int(FIRST.timestamp()))
    return made


def found(ledger: Ledger, *by: str, **changes: Any) -> list[tuple[Any, ...]]:
    """Groups with the size moved."""
    wanted = (WantedUsage(Quantity.SUM, "size"),)
    window: dict[str, Any] = {"start": FIRST, "end": FIRST + timedelta(days=2)}
    answer = answered(ledger, UsageQuery(kind="move", wanted=wanted, by=by, **window, **changes))
    assert answer.totals == (sum(row.values[0] or 0 for row in answer.rows),)
    return [(*row.group, *row.values) for row in answer.rows]


def test_a_channel_is_one_group(ledger: Ledger) -> None:
    """Direction counts, an unknown end is empty, and arrows within names make no other channel."""
    due = [("", 16), ("A→", 8), ("A→B", 3), ("B→A", 4), ("C\\→D→A\\\\", 32)]
    for attribution in OF_USAGE:
        assert found(ledger, "channel", attribution=attribution) == due
    assert found(ledger, "destination", "channel", filters=(Filter("source", ("B",)),)) == [("A", "B→A", 4)]
    assert found(ledger, "channel", period=Period.DAY)[-1] == ("A→B", 2)


def test_channels_can_be_asked_for(ledger: Ledger) -> None:
    """By value, by pattern, and all but some."""
    assert found(ledger, filters=(Filter("channel", ("A→B", "B→A")),)) == [(7,)]
    assert found(ledger, "channel", filters=(Filter("channel", ("A→*",), wildcard=True),)) == [("A→", 8), ("A→B", 3)]
    assert found(ledger, filters=(Filter("channel", ("A→B",), negated=True),)) == [(60,)]


def test_what_either_end_belongs_to(ledger: Ledger) -> None:
    """Each end has attributes of its own; those that both have make channels, as they were when it was moved."""
    assert found(ledger, "source.country") == [(None, 52), ("CH", 9), ("FR", 2)]
    assert found(ledger, "channel.country") == [(None, 52), ("CH→", 8), ("CH→IT", 1), ("FR→IT", 2)]
    assert found(ledger, filters=(Filter("channel.country", ("CH→IT",)),)) == [(1,)]
    with pytest.raises(QueryError, match=r"'channel.tier' is not in the topology of move"):
        found(ledger, "channel.tier")


def test_channels_follow_from_the_names_of_both_ends() -> None:
    """A kind with one end has none, and one that declares a channel of its own has that one."""
    assert "channel" in groupable(MOVE, {})
    assert groupable(OWN, {"source": ["x"], "destination": ["x"]})["channel"].doc == "its own"
    assert "channel.x" not in groupable(OWN, {"source": ["x"], "destination": ["x"]})
    one = kind_from_table("one", DECLARED | {"dimensions": {"source": PLACES["source"]}})
    assert "channel" not in groupable(one, {})


def test_channels_as_text() -> None:
    """As they are typed."""
    text = UsageText(kind="move", by=("channel",), where=("channel=A→B|B→A", "channel.x!~A→*"))
    query = parse_usage(text, {"move": MOVE}, FIRST + timedelta(days=1), {"source": ["x"], "destination": ["x"]})
    assert query.by == ("channel",)
    assert query.filters == (
        Filter("channel", ("A→B", "B→A")),
        Filter("channel.x", ("A→*",), negated=True, wildcard=True),
    )
