"""A plain computation of what the ledger has to answer of snapshots: every record looked at for every cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any, Final

from usage_model import FIRST
from viewers import answered

from accounting.ledger import Ledger
from siteward.records import Combine, Dimension, Measure, Product, Ratio, Snapshot, kind_of, microseconds
from siteward.sinks import Batch
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage

Fields = dict[str, Any]


class Level(Snapshot, kind="level", identity=("name", "time")):
    """How much of anything there was."""

    site: Annotated[str, Dimension("where")]
    user: Annotated[str, Dimension("whose", personal=True)] = ""
    name: Annotated[str, Dimension("its own", bucketed=False)]
    used: Annotated[int, Measure("taken", unit="B")]
    files: Annotated[int | None, Measure("known or not", unit="1")] = None
    copies: Annotated[int, Measure("of each", unit="1")] = 1
    quota: Annotated[int | None, Measure("allowed", unit="B", combine=Combine.LAST)] = None
    peak: Annotated[int, Measure("most at once", unit="B", combine=Combine.MAX)] = 0
    load: Annotated[int | None, Measure("how busy, in thousandths", unit="m1", combine=Combine.MEAN)] = None
    stored = Product("used", "copies", unit="B")
    size = Ratio("used", "files", unit="B")


LEVEL: Final = kind_of(Level)
MEASURES: Final = ("used", "files", "stored")
NOT_ADDED: Final = {"quota": Combine.LAST, "peak": Combine.MAX, "load": Combine.MEAN}
"""How series are put together that do not add up."""
OF_MEASURES: Final = (
    Quantity.SUM,
    Quantity.MEAN,
    Quantity.MEAN_PRESENT,
    Quantity.LAST,
    Quantity.LAST_KNOWN,
    Quantity.MIN,
    Quantity.MAX,
)
ALONE: Final = (Quantity.RECORDS, Quantity.INSTANTS, Quantity.CYCLES, Quantity.INCOMPLETE)


def level(number: int = 0, **changes: Any) -> Fields:
    """One record; different numbers or times are different records."""
    fields: Fields = {
        "vo": "one",
        "time": microseconds(FIRST),
        "producer": "p",
        "cycle_size": 1,
        "site": "S",
        "user": "",
        "name": str(number),
        "used": 100,
        "files": 10,
        "copies": 2,
        "quota": None,
        "peak": 0,
        "load": None,
        "simulated": False,
        "revision": 0,
    } | changes
    fields.setdefault("_id", (fields["time"] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big"))
    return fields


def after(**span: float) -> int:
    """So long after the first instant of the tests, microseconds since 1970 UTC."""
    return microseconds(FIRST + timedelta(**span))


def wanted(*texts: str) -> tuple[WantedUsage, ...]:
    """Such as `sum:used`."""
    parts = [text.partition(":") for text in texts]
    return tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in parts)


def ask(ledger: Ledger, *texts: str, **changes: Any) -> Any:
    """The answer to a question about three months."""
    question = {"start": FIRST - timedelta(days=30), "end": FIRST + timedelta(days=60)} | changes
    attribution = changes.pop("attribution", Attribution.AT_INSTANT)
    return answered(ledger, UsageQuery(kind="level", wanted=wanted(*texts), **question | {"attribution": attribution}))


def level_batch(records: Sequence[Fields]) -> Batch:
    """Records, each with its `_id`, as a collector would hand them to a sink; what they do not say is as by default."""
    return Batch(
        kind=LEVEL,
        ids=[record["_id"] for record in records],
        columns={name: [record.get(name, LEVEL.column[name].default) for record in records] for name in LEVEL.names},
        producers=["sender"] * len(records),
        messages=[b"\0" * 16] * len(records),
        received=0,
    )


def measured(record: Fields, measure: str) -> int | None:
    """A measure or product of a record."""
    if measure == "stored":
        return int(record["used"] * record["copies"])
    value: int | None = record.get(measure)
    return value


def series_of(record: Fields) -> tuple[Any, ...]:
    """What makes records one series."""
    return tuple(record[name] for name in ("vo", "producer", "site", "user", "simulated"))


def value_in(records: Sequence[Fields], everything: Sequence[Fields], wanted: WantedUsage) -> Any:
    """One wanted value.

    Args:
        records: of one group and period.
        everything: all records of the period.
        wanted: which.
    """
    looks: dict[str, dict[int, list[int]]] = {}
    for record in everything:
        looks.setdefault(record["producer"], {}).setdefault(record["time"], []).append(record["cycle_size"])
    series: dict[tuple[Any, ...], list[Fields]] = {}
    for record in records:
        series.setdefault(series_of(record), []).append(record)
    values = [each for record in records if (each := measured(record, wanted.measure)) is not None]
    found: Any
    match wanted.quantity:
        case Quantity.RATIO:
            known = [record for record in records if record["files"] is not None]
            below = sum(record["files"] for record in known)
            found = sum(record["used"] for record in known) / below if below else None
        case Quantity.SUM:
            found = sum(values)
        case Quantity.MIN:
            found = min(values, default=None)
        case Quantity.MAX:
            found = max(values, default=None)
        case Quantity.MEAN | Quantity.MEAN_PRESENT:
            is_added = wanted.measure not in NOT_ADDED
            found = _mean(series, looks, wanted) if is_added else _quotient(values)
        case Quantity.LAST | Quantity.LAST_KNOWN:
            found = (_together if wanted.measure in NOT_ADDED else _last)(series, looks, wanted)
        case _:
            found = _counted(series, looks, wanted.quantity)
    return found


def _counted(series: Any, looks: Any, quantity: Quantity) -> int:
    cycles = [looks[producer] for producer in {each[0]["producer"] for each in series.values()}]
    match quantity:
        case Quantity.RECORDS:
            return sum(len(each) for each in series.values())
        case Quantity.INSTANTS:
            return sum(len({record["time"] for record in each}) for each in series.values())
        case Quantity.CYCLES:
            return sum(len(times) for times in cycles)
    return sum(len(sizes) != max(sizes) for times in cycles for sizes in times.values())


def at_instants(records: Iterable[Fields], measure: str) -> dict[int, int | None]:
    """What records of one series say together at each instant; None where none of them knows."""
    found: dict[int, int | None] = {}
    for record in records:
        value = measured(record, measure)
        known = found.setdefault(record["time"], None)
        found[record["time"]] = known if value is None else (known or 0) + value
    return found


def _mean(series: Any, looks: Any, wanted: WantedUsage) -> float | None:
    shares: list[Fraction] = []
    for records in series.values():
        instants = at_instants(records, wanted.measure)
        known = [value for value in instants.values() if value is not None]
        # Unknown values are not zero, absent series are.
        cycles = len(looks[records[0]["producer"]]) - (len(instants) - len(known))
        if known:
            shares.append(Fraction(sum(known), cycles if wanted.quantity is Quantity.MEAN else len(known)))
    return float(sum(shares)) if shares else None


def _together(series: Any, looks: Any, wanted: WantedUsage) -> float | None:
    """The last records of each series, as the measure combines."""
    last: list[tuple[int, int]] = []
    for records in series.values():
        at = max(record["time"] for record in records)
        if wanted.quantity is Quantity.LAST_KNOWN or max(looks[records[0]["producer"]]) == at:
            last += [
                (at, value)
                for record in records
                if record["time"] == at
                if (value := record[wanted.measure]) is not None
            ]
    values = [value for _, value in last]
    match NOT_ADDED[wanted.measure]:
        case Combine.MEAN:
            return _quotient(values)
        case Combine.MAX:
            return max(values, default=None)
    return max(last)[1] if last else None


def _quotient(values: Sequence[int]) -> float | None:
    return float(Fraction(sum(values), len(values))) if values else None


def _last(series: Any, looks: Any, wanted: WantedUsage) -> int | None:
    found: list[int | None] = []
    for records in series.values():
        instants = at_instants(records, wanted.measure)
        if wanted.quantity is Quantity.LAST_KNOWN or max(looks[records[0]["producer"]]) == max(instants):
            found.append(instants[max(instants)])
    known = [value for value in found if value is not None]
    return sum(known) if known or not found else None


def cells(
    records: Sequence[Fields], query: UsageQuery, periods: Iterable[tuple[datetime, datetime]]
) -> dict[tuple[datetime, tuple[Any, ...]], tuple[Any, ...]]:
    """Every cell that holds something, without regard to the top."""
    found = {}
    for start, end in periods:
        here = [record for record in records if microseconds(start) <= record["time"] < microseconds(end)]
        groups: dict[tuple[Any, ...], list[Fields]] = {}
        for record in here:
            if all((record[each.field] in each.values) is not each.negated for each in query.filters):
                groups.setdefault(tuple(record[name] for name in query.by), []).append(record)
        for group, members in groups.items():
            found[start, group] = tuple(value_in(members, here, each) for each in query.wanted)
    return found
