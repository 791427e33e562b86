"""What a store must answer, computed the slow and plain way; written from the contract, not from any store."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import floor
from typing import Any

from siteward.query import Answer, AnswerRow, Filter, Function, Query, Value, Wanted
from siteward.records import Combine, Kind, Measure, Shape, kind_from_table, microseconds, moment

SECOND = 1_000_000
Fields = dict[str, Any]
"""One record: field names to values, times as microseconds."""
Percentile = Callable[[list[Any], str], Any]
"""Computes `p50`, `p90` … of some values."""

EVENTS = kind_from_table(
    "test-event",
    {
        "doc": "Anything that happens.",
        "shape": "event",
        "identity": ["time", "name"],
        "dimensions": {
            "name": {"doc": "name"},
            "site": {"doc": "site", "optional": True},
            "good": {"doc": "good", "type": "boolean", "optional": True},
            "code": {"doc": "code", "type": "integer", "optional": True},
        },
        "measures": {
            "amount": {"doc": "amount", "unit": "B", "minimum": -(2**63)},
            "factor": {"doc": "factor", "unit": "1", "optional": True},
            "weight": {"doc": "weight", "unit": "1", "type": "number", "optional": True, "minimum": -1000},
        },
        "products": {"area": {"factors": ["amount", "factor"], "unit": "B"}},
    },
)
SNAPSHOTS = kind_from_table(
    "test-snapshot",
    {
        "doc": "Anything that is seen.",
        "shape": "snapshot",
        "dimensions": {"site": {"doc": "site"}, "element": {"doc": "element"}},
        "measures": {
            "used": {"doc": "used", "unit": "B"},
            "files": {"doc": "files", "unit": "1", "optional": True},
            "level": {"doc": "level", "unit": "1", "type": "number", "combine": "mean"},
            "limit": {"doc": "limit", "unit": "1", "combine": "last"},
            "peak": {"doc": "peak", "unit": "1", "combine": "max"},
        },
    },
)


def expected(kind: Kind, stored: Iterable[Fields], query: Query, percentile: Percentile | None = None) -> Answer:
    """The answer to a query over these records; `percentile` may be one of the neighbours that it lies between."""
    start, end = microseconds(query.start), microseconds(query.end)
    window = [record for record in stored if start <= record[kind.time] < end]
    chosen = [record for record in window if all(accepts(condition, record) for condition in query.filters)]

    def group(record: Fields) -> tuple[Any, ...]:
        return tuple(record[name] for name in query.by)

    def values(records: Sequence[Fields], low: int = start, high: int = end) -> tuple[Value, ...]:
        seen = [record for record in window if low <= record[kind.time] < high]
        seconds = (high - low) / SECOND
        return tuple(compute(kind, wanted, records, seen, seconds, percentile or between) for wanted in query.wanted)

    def ranked(records: Sequence[Fields]) -> Value:
        # By the exact percentile, also where neighbours are asked for.
        return compute(kind, query.wanted[0], records, window, (end - start) / SECOND, between)

    groups = sorted({group(record) for record in chosen}, key=_order)
    top = set(groups)
    if query.top and query.by:
        ranks = {key: ranked([record for record in chosen if group(record) == key]) for key in groups}
        top = set(sorted(groups, key=lambda key: (ranks[key] is None, -(ranks[key] or 0)))[: query.top])
    cells: dict[tuple[int, bool, Any], list[Fields]] = defaultdict(list)
    for record in chosen:
        bucket = record[kind.time] // (query.width * SECOND) if query.width else 0
        other = group(record) not in top
        cells[bucket, other, () if other else group(record)].append(record)
    rows = []
    for bucket, other, key in sorted(cells, key=lambda cell: (cell[0], cell[1], _order(cell[2]))):
        low, high = start, end
        if query.width:
            low = max(start, bucket * query.width * SECOND)
            high = min(end, (bucket + 1) * query.width * SECOND)
        time = moment(bucket * query.width * SECOND) if query.width else None
        rows.append((time, key, values(cells[bucket, other, key], low, high), other))
    return Answer(
        query=query,
        rows=tuple(AnswerRow(*row) for row in rows),
        totals=values(chosen),
        units=(),
        groups=len(groups),
    )


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((value is None, 0 if value is None else value) for value in key)


def accepts(condition: Filter, record: Fields) -> bool:
    """Whether a record meets a condition."""
    value = record[condition.field]
    if condition.values:
        found = value in condition.values
        if condition.wildcard:
            found = any(_matches(str(pattern), value) for pattern in condition.values)
        if found == condition.negated:
            return False
    if condition.minimum is not None and (value is None or value < condition.minimum):
        return False
    return condition.maximum is None or (value is not None and value <= condition.maximum)


def _matches(pattern: str, text: str) -> bool:
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(sign, re.escape(sign)) for sign in pattern), text, re.DOTALL) is not None


def known(kind: Kind, measure: str, records: Iterable[Fields]) -> list[Any]:
    """The known values of a measure or product."""
    if measure in kind.products:
        first, second = kind.products[measure].factors
        return [r[first] * r[second] for r in records if r[first] is not None and r[second] is not None]
    return [record[measure] for record in records if record[measure] is not None]


def compute(
    kind: Kind,
    wanted: Wanted,
    records: Sequence[Fields],
    seen: Sequence[Fields],
    seconds: float,
    percentile: Percentile,
) -> Value:
    """One value from the records of a group; `seen` are all records of the kind in the same time."""
    if wanted.function is Function.COUNT:
        return len(records)
    role = kind.column[wanted.measure].role if wanted.measure in kind.column else None
    combine = role.combine if isinstance(role, Measure) else Combine.SUM
    if wanted.function is Function.LAST:
        return _last(wanted.measure, combine, records, _complete(seen))
    if wanted.function is Function.MEAN and kind.shape is Shape.SNAPSHOT and combine is Combine.SUM:
        return _cycle_mean(kind, wanted.measure, records, _complete(seen))
    values = known(kind, wanted.measure, records)
    simple: dict[Function, Callable[[], Value]] = {
        Function.SUM: lambda: sum(values),
        Function.RATE: lambda: sum(values) / seconds,
        Function.MEAN: lambda: float(sum(map(Fraction, values)) / len(values)),
        Function.MIN: lambda: min(values),
        Function.MAX: lambda: max(values),
    }
    if not values:
        return None
    return simple[wanted.function]() if wanted.function in simple else percentile(values, str(wanted.function))


def between(values: list[Any], name: str) -> float:
    """A percentile by linear interpolation between neighbours."""
    low, high = below(values, name), above(values, name)
    place = (len(values) - 1) * int(name[1:]) / 100
    return float(low + (high - low) * (place - floor(place)))


def below(values: list[Any], name: str) -> Any:
    """The value at a percentile's place, or the nearest before it."""
    return sorted(values)[floor((len(values) - 1) * int(name[1:]) / 100)]


def above(values: list[Any], name: str) -> Any:
    """The value after the one of `below`, where there is one."""
    return sorted(values)[min(floor((len(values) - 1) * int(name[1:]) / 100) + 1, len(values) - 1)]


def _complete(seen: Sequence[Fields]) -> dict[str, list[int]]:
    """The times of each producer's complete cycles."""
    cycles: dict[tuple[str, int], list[int]] = defaultdict(list)
    for record in seen:
        cycles[record["producer"], record["time"]].append(record["cycle_size"])
    complete: dict[str, list[int]] = defaultdict(list)
    for (producer, time), sizes in sorted(cycles.items()):
        if len(sizes) == max(sizes):
            complete[producer].append(time)
    return complete


def _cycle_mean(kind: Kind, measure: str, records: Sequence[Fields], complete: dict[str, list[int]]) -> Value:
    series: dict[tuple[Any, ...], list[Fields]] = defaultdict(list)
    for record in records:
        if record["time"] in complete[record["producer"]]:
            series[tuple(record[column.name] for column in kind.dimensions)].append(record)
    total, anything = Fraction(0), False
    for members in series.values():
        values = known(kind, measure, members)
        if values:
            cycles = len(complete[members[0]["producer"]]) - (len(members) - len(values))
            total += Fraction(sum(values), cycles)
            anything = True
    return float(total) if anything else None


def _last(measure: str, combine: Combine, records: Sequence[Fields], complete: dict[str, list[int]]) -> Value:
    within = [record for record in records if record["time"] in complete[record["producer"]]]
    last = [record for record in within if record["time"] == complete[record["producer"]][-1]]
    values = [record[measure] for record in last if record[measure] is not None]
    if combine is Combine.SUM and within and not last:
        return 0
    if not values:
        return None
    match combine:
        case Combine.SUM:
            return int(sum(values))
        case Combine.MEAN:
            return float(sum(values) / len(values))
        case Combine.MAX:
            return int(max(values))
        case Combine.LAST:
            return int(max(last, key=lambda record: record["_id"])[measure])
