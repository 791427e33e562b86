"""A plain computation of what the ledger has to answer of counters: each record less the one before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from hypothesis import strategies as st
from searching import searched
from usage_model import FIRST, SECOND, share

from siteward.records import Dimension, Measure, Product, Snapshot, kind_of, microseconds
from siteward.records.identity import record_ids
from siteward.sinks import Batch
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageQuery, WantedUsage

Fields = dict[str, Any]
DAY: Final = 86_400


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
FEW: Final = searched(6)
"""Examples of what takes a database a while."""


def machine(number: int = 0, day: float = 1, **changes: Any) -> Fields:
    """One record of a machine at some time after it was started; its wall time is that by default."""
    time = changes.pop("time", microseconds(FIRST) + int(day * DAY) * SECOND)
    fields: Fields = {
        "vo": "one",
        "time": time,
        "started": microseconds(FIRST),
        "producer": "p",
        "cycle_size": 1,
        "site": "S",
        "name": str(number),
        "wall_time": (time - microseconds(FIRST)) // SECOND,
        "cpu_time": None,
        "processors": 4,
        "simulated": False,
        "revision": 0,
    } | changes
    (identifier,) = record_ids([time], MACHINE.name, [fields["vo"]], [[fields["name"]], [time]])
    return {"_id": identifier} | fields


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


@st.composite
def revisions(draw: st.DrawFn) -> list[Fields]:
    """Records as they arrive: of a few machines, some again, some revised, counters not always known or rising."""
    arrived: list[Fields] = []
    for _ in range(draw(st.integers(0, 8))):
        number = draw(st.integers(0, 1))
        second = draw(st.sampled_from([0, 1, 3600, 7200, DAY, 2 * DAY, 20 * DAY]) | st.integers(0, 40 * DAY))
        time = microseconds(FIRST) + second * SECOND + draw(st.sampled_from([0, 1, 999]))
        arrived += [
            machine(
                number,
                time=time,
                started=microseconds(FIRST) + draw(st.sampled_from([0, 0, 0, DAY, 30 * DAY])) * SECOND,
                site=draw(st.sampled_from(["S", "T"])),
                wall_time=draw(st.integers(0, 10**6) | st.just(second)),
                cpu_time=draw(st.none() | st.integers(0, 10**6)),
                processors=draw(st.sampled_from([1, 8])),
                revision=draw(st.integers(0, 2)),
            )
            for _ in range(draw(st.integers(1, 2)))
        ]
    return draw(st.permutations(arrived))


@st.composite
def questions(draw: st.DrawFn) -> UsageQuery:
    """Any question, also one whose window is not of whole buckets."""
    wanted = [WantedUsage(Quantity.SUM, measure) for measure in ("wall_time", "cpu_time", "core_time")]
    offsets = st.just(0) | st.sampled_from([1800, 3600, 5000, DAY - 1])
    start = FIRST + timedelta(days=draw(st.integers(-3, 31)), seconds=draw(offsets))
    end = start + timedelta(days=draw(st.integers(1, 50)), seconds=draw(offsets))
    return UsageQuery(
        kind="machine",
        wanted=(*wanted, WantedUsage(Quantity.RECORDS)),
        start=start,
        end=end,
        attribution=draw(st.sampled_from(OF_USAGE)),
        by=draw(st.sampled_from([(), ("site",)])),
        period=draw(st.sampled_from([Period.WHOLE, Period.DAY, Period.WEEK, Period.MONTH])),
    )
