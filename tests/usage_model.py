"""A plain computation of what the ledger has to answer: every record looked at for every cell."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any, Final

from siteward.records import Combine, Dimension, Interval, Measure, Product, Ratio, kind_of, microseconds
from siteward.sinks import Batch
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage

Fields = dict[str, Any]


class Use(Interval, kind="use", identity=("name", "end"), longest=timedelta(days=400)):
    """Anything that used something for some time."""

    site: Annotated[str, Dimension("where")]
    user: Annotated[str, Dimension("who", personal=True)] = ""
    code: Annotated[int | None, Dimension("how it ended")] = None
    name: Annotated[str, Dimension("its own", bucketed=False)]
    wall_time: Annotated[int, Measure("elapsed", unit="s", limit=10**9)]
    cpu_time: Annotated[int | None, Measure("used", unit="s")] = None
    processors: Annotated[int, Measure("allocated", unit="1")] = 1
    score: Annotated[int | None, Measure("of a processor, in thousandths", unit="m1", combine=Combine.MEAN)] = None
    memory: Annotated[int, Measure("most at once", unit="B", combine=Combine.MAX)] = 0
    core_time = Product("wall_time", "processors", unit="s")
    efficiency = Ratio("cpu_time", "core_time", unit="1")


USE: Final = kind_of(Use)
FIRST: Final = datetime(2026, 1, 30, tzinfo=UTC)
SECOND: Final = 1_000_000
HOUR: Final = 3600 * SECOND
SOON: Final = FIRST + timedelta(days=3)
"""When everything lies in buckets of an hour."""
LATER: Final = FIRST + timedelta(days=300)
"""When everything lies in buckets of a day."""
MEASURES: Final = ("wall_time", "cpu_time", "processors", "core_time")
SHARES: Final = {
    Quantity.MIN: Fraction(0),
    Quantity("p1"): Fraction(1, 100),
    Quantity.P50: Fraction(1, 2),
    Quantity("p75"): Fraction(3, 4),
    Quantity.P90: Fraction(9, 10),
    Quantity.P95: Fraction(19, 20),
    Quantity.P99: Fraction(99, 100),
    Quantity.MAX: Fraction(1),
}


def use(number: int = 0, **changes: Any) -> Fields:
    """One record of two hours on the first day; different numbers are different records."""
    start = microseconds(FIRST) + HOUR
    fields: Fields = {
        "vo": "one",
        "start": start,
        "end": start + 2 * HOUR,
        "site": "S",
        "user": "u",
        "code": None,
        "name": str(number),
        "wall_time": 7200,
        "cpu_time": 7000,
        "processors": 4,
        "score": None,
        "memory": 0,
        "simulated": False,
        "revision": 0,
    } | changes
    fields.setdefault("_id", (fields["end"] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big"))
    return fields


def sited(number: int = 0, **changes: Any) -> Fields:
    """The same at one of three sites, by its number."""
    return use(number, **{"site": f"S{number % 3}"} | changes)


def many(count: int, seed: int = 1) -> list[Fields]:
    """Records of minutes to days at three sites, over forty days, from four producers."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        end = microseconds(FIRST) + chance.randrange(40 * 24 * 3600) * SECOND
        start = end - chance.choice([0, 600, 7200, 86_400, 5 * 86_400]) * SECOND
        made.append(sited(number, start=start, end=end, wall_time=chance.randrange(10**6), _producer=f"ce{number % 4}"))
    return made


def batch(records: Sequence[Fields]) -> Batch:
    """Records, each with its `_id`, as a collector would hand them to a sink."""
    return Batch(
        kind=USE,
        ids=[record["_id"] for record in records],
        columns={name: [record[name] for record in records] for name in USE.names},
        producers=[record.get("_producer", "test") for record in records],
        messages=[b"\0" * 16] * len(records),
        received=0,
    )


def newest(records: Iterable[Fields]) -> list[Fields]:
    """What counts of records in their order of arrival: of each id the highest revision, the first of equals."""
    found: dict[bytes, Fields] = {}
    for record in records:
        known = found.get(record["_id"])
        if known is None or record["revision"] > known["revision"]:
            found[record["_id"]] = record
    return list(found.values())


def measured(record: Fields, measure: str) -> int | None:
    """A measure or product of a record."""
    if measure == "core_time":
        return int(record["wall_time"] * record["processors"])
    value: int | None = record[measure]
    return value


def single(record: Fields, measure: str) -> float | None:
    """The same, or a ratio of a record."""
    if measure != "efficiency":
        return measured(record, measure)
    below = measured(record, "core_time")
    return record["cpu_time"] / below if below and record["cpu_time"] is not None else None


def share(record: Fields, value: int, start: int, end: int) -> int:
    """The part of a record's value between two instants."""
    first, lasting = record["start"], max(record["end"] - record["start"], 1)
    before, after = (min(max(instant - first, 0), lasting) for instant in (start, end))
    part: int = value * after // lasting - value * before // lasting
    return part


def value_in(records: Iterable[Fields], query: UsageQuery, wanted: WantedUsage, start: int, end: int) -> Any:
    """One wanted value over records, between two instants."""
    if wanted.quantity in SHARES:
        ended = [single(record, wanted.measure) for record in records if start <= record["end"] < end]
        return interpolated(ended, SHARES[wanted.quantity])
    return _computed(list(records), query, wanted, start, end)


def _computed(records: list[Fields], query: UsageQuery, wanted: WantedUsage, start: int, end: int) -> Any:
    is_prorated = query.attribution is Attribution.PRORATED

    def total(measure: str, condition: str = "") -> int:
        known = [record for record in records if not condition or measured(record, condition) is not None]
        values = [(record, measured(record, measure) or 0) for record in known]
        if is_prorated:
            return sum(share(record, value, start, end) for record, value in values)
        return sum(value for record, value in values if start <= record["end"] < end)

    ended = [record for record in records if start <= record["end"] < end]
    found: Any = None
    match wanted.quantity:
        case Quantity.SUM:
            found = total(wanted.measure)
        case Quantity.CUMULATIVE:
            origin = microseconds(query.start)
            found = value_in(records, query, WantedUsage(Quantity.SUM, wanted.measure), origin, end)
        case Quantity.RATE:
            found = total(wanted.measure) * 1_000_000 / (end - start)
        case Quantity.MEAN:
            known = [record for record in ended if measured(record, wanted.measure) is not None]
            found = total(wanted.measure) / len(known) if known else None
        case Quantity.RATIO:
            below = total("core_time", "cpu_time")
            found = total("cpu_time") / below if below else None
        case Quantity.STARTED:
            found = sum(start <= record["start"] < end for record in records)
        case Quantity.RECORDS:
            found = len([record for record in records if _touches(record, start, end)] if is_prorated else ended)
    return found


def interpolated(values: list[float | None], share: Fraction) -> int | float | None:
    """What lies at a share of the way through the ordered values; the smallest and the largest as they are."""
    ordered = sorted(value for value in values if value is not None)
    if not ordered or share in {0, 1}:
        return (ordered[0] if share == 0 else ordered[-1]) if ordered else None
    place = (len(ordered) - 1) * share
    below = ordered[math.floor(place)]
    rest, step = place - math.floor(place), ordered[math.ceil(place)] - below
    return below + step * float(rest) if isinstance(below, float) else float(below + rest * Fraction(step))


def _touches(record: Fields, start: int, end: int) -> bool:
    return bool(record["start"] < end and max(record["end"], record["start"] + 1) > start)


def cells(
    records: Sequence[Fields], query: UsageQuery, periods: Iterable[tuple[datetime, datetime]]
) -> dict[tuple[datetime, tuple[Any, ...]], tuple[Any, ...]]:
    """Every cell that holds something, without regard to the top."""
    groups: dict[tuple[Any, ...], list[Fields]] = {}
    for record in records:
        if _meets(record, query):
            groups.setdefault(tuple(record[name] for name in query.by), []).append(record)
    found = {}
    for start, end in periods:
        first, last = microseconds(start), microseconds(end)
        for group, members in groups.items():
            counted = WantedUsage(Quantity.RECORDS)
            if value_in(members, query, counted, first, last):
                found[start, group] = tuple(value_in(members, query, each, first, last) for each in query.wanted)
    return found


def _meets(record: Mapping[str, Any], query: UsageQuery) -> bool:
    for condition in query.filters:
        value, (least, most) = record[condition.field], (condition.minimum, condition.maximum)
        is_met = value in condition.values if condition.values else value is not None
        is_met = is_met and (least is None or value >= least) and (most is None or value <= most)
        if is_met is condition.negated:
            return False
    return True
