"""A plain computation of what the ledger has to answer of counters: each record less the one before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from usage_model import share

from siteward.records import Dimension, Measure, Product, Snapshot, kind_of, microseconds
from siteward.sinks import Batch
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage

Fields = dict[str, Any]


class Machine(Snapshot, kind="machine", identity=("name", "time"), since="started"):
    """What a machine had used since it was started."""

    started: datetime
    site: Annotated[str, Dimension("where")]
    name: Annotated[str, Dimension("its own", bucketed=False)]
    wall_time: Annotated[int, Measure("elapsed", unit="s", counter=True)]
    cpu_time: Annotated[int | None, Measure("used", unit="s", counter=True)] = None
    processors: Annotated[int, Measure("allocated", unit="1")] = 1
    core_time = Product("wall_time", "processors", unit="s")


MACHINE: Final = kind_of(Machine)


def machine_batch(records: Sequence[Fields]) -> Batch:
    """Records, each with its `_id`, as a collector would hand them to a sink."""
    return Batch(
        kind=MACHINE,
        ids=[record["_id"] for record in records],
        columns={name: [record[name] for record in records] for name in MACHINE.names},
        producers=["sender"] * len(records),
        messages=[b"\0" * 16] * len(records),
        received=0,
    )


def steps(records: Iterable[Fields]) -> list[Fields]:
    """What each record adds to the one before: an interval with what was used in it."""
    by_counter: dict[tuple[str, str], list[Fields]] = {}
    for record in sorted(records, key=lambda record: record["time"]):
        by_counter.setdefault((record["vo"], record["name"]), []).append(record)
    found = []
    for counted in by_counter.values():
        known = {"wall_time": 0, "cpu_time": 0}
        before: Fields | None = None
        for record in counted:
            begin = min(record["started"], record["time"]) if before is None else before["time"]
            if before is not None and record["started"] > before["time"]:
                begin, known = min(record["started"], record["time"]), {"wall_time": 0, "cpu_time": 0}
            step = record | {"start": begin, "end": record["time"]}
            for name in known:
                if record[name] is not None:
                    step[name] = record[name] - known[name]
                    known = known | {name: record[name]}
            found.append(step)
            before = record
    return found


def measured(step: Fields, measure: str) -> int:
    """A measure or product of a step; zero where unknown."""
    if measure == "core_time":
        return int(step["wall_time"] * step["processors"])
    return step[measure] or 0


def value_in(records: Iterable[Fields], query: UsageQuery, wanted: WantedUsage, start: int, end: int) -> int:
    """One wanted value over steps, between two instants."""
    if query.attribution is Attribution.BY_END:
        ended = [step for step in records if start <= step["end"] < end]
        return len(ended) if wanted.quantity is Quantity.RECORDS else sum(measured(s, wanted.measure) for s in ended)
    if wanted.quantity is Quantity.RECORDS:
        return sum(step["start"] < end and max(step["end"], step["start"] + 1) > start for step in records)
    return sum(share(step, measured(step, wanted.measure), start, end) for step in records)


def cells(
    records: Sequence[Fields], query: UsageQuery, periods: Iterable[tuple[datetime, datetime]]
) -> dict[tuple[datetime, tuple[Any, ...]], tuple[int, ...]]:
    """Every cell that holds something."""
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for step in steps(records):
        groups.setdefault(tuple(step[name] for name in query.by), []).append(step)
    found = {}
    for start, end in periods:
        first, last = microseconds(start), microseconds(end)
        for group, members in groups.items():
            values = tuple(value_in(members, query, each, first, last) for each in query.wanted)
            if value_in(members, query, WantedUsage(Quantity.RECORDS), first, last):
                found[start, group] = values
    return found
