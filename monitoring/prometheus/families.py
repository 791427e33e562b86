"""Metric families derived from a kind: their names, labels and types, the same on every collector; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from monitoring.stores.questions import combine_of, factors_of
from siteward.records import Column, Combine, Dimension, Kind, Measure, Shape, Type
from siteward.records.doors import nearest
from siteward.settings import SettingsError
from siteward.telemetry import METRICS

BOUNDS: Final = (1, 10, 60, 300, 1800, 3600, 21_600, 86_400, 604_800)
"""Upper bounds of a duration's buckets in seconds, from one second to a week."""
UNIT_WORDS: Final[Mapping[str, str]] = {
    "1": "",
    "s": "seconds",
    "B": "bytes",
    "B/s": "bytes_per_second",
    "1/s": "per_second",
    "J": "joules",
    "W": "watts",
    "K": "kelvin",
    "Hz": "hertz",
    "g": "grams",
}
"""How a unit is written at the end of a name; any other as its own symbol in lower case."""
PARTS: Final[Mapping[str, tuple[int, str]]] = {
    "m1": (1000, "1"),
    "u1": (1_000_000, "1"),
    "ms": (1000, "s"),
    "us": (1_000_000, "s"),
    "mHS06": (1000, "HS06"),
    "mHS23": (1000, "HS23"),
    "mHS06.s": (1000, "HS06.s"),
    "mHS23.s": (1000, "HS23.s"),
    "uHS06.s": (1_000_000, "HS06.s"),
    "uHS23.s": (1_000_000, "HS23.s"),
    "msi2k.s": (1000, "si2k.s"),
}
"""Units of which so many make another one, in which series are: Prometheus wants base units, and counts in floats."""
RESERVED_ENDS: Final = ("total", "count", "sum", "bucket", "info", "created")
"""Ends of names that mean something to Prometheus; a gauge must not have one."""
RESERVED_LABELS: Final = frozenset({"le", "quantile", "job", "instance"})
"""Labels that histograms, or every scrape, have already."""


class FamilyType(StrEnum):
    """What the series of a family do."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Family(msgspec.Struct, frozen=True):
    """One metric family.

    Attributes:
        name: as exposed, for a histogram without `_bucket`, `_sum`, `_count`.
        type: counter, gauge or histogram.
        help: one sentence.
        factors: the measures that are multiplied within each record; () counts the records.
        combine: how values of several records become one; for gauges.
        parts: how many of the unit that records have make one of the unit that the series has.
    """

    name: str
    type: FamilyType
    help: str
    factors: tuple[str, ...] = ()
    combine: Combine = Combine.SUM
    parts: int = 1

    def exposed(self, value: float) -> float:
        """A value as the series has it."""
        return value if self.parts == 1 else value / self.parts


class KindFamilies(msgspec.Struct, frozen=True):
    """All families of one kind.

    Attributes:
        kind: the kind.
        dimensions: those that are labels, in the kind's order.
        labels: their names as labels.
        coarse: positions of the labels that histograms carry: the dimensions that are always given or have few values.
        values: counters of events and intervals, or gauges of snapshots; the first one counts records.
        histograms: of durations; none for snapshots.
    """

    kind: Kind
    dimensions: tuple[str, ...]
    labels: tuple[str, ...]
    coarse: tuple[int, ...]
    values: tuple[Family, ...]
    histograms: tuple[Family, ...]


Chosen = Mapping[str, Sequence[str]]
"""Names by kind, as an operator chose them."""


def families_of(kinds: Mapping[str, Kind], labels: Chosen, measures: Chosen | None = None) -> dict[str, KindFamilies]:
    """The families of all kinds, with no name given twice.

    Args:
        kinds: all kinds by name.
        labels: `[prometheus.labels]`: the dimensions that become labels, by kind.
        measures: `[prometheus.measures]`: the measures and products that become series, by kind.

    Raises:
        SettingsError: they name an unknown kind, dimension or measure, or a dimension that may not be a label.
    """
    measures = measures or {}
    for setting, chosen in (("labels", labels), ("measures", measures)):
        for name in chosen:
            if name not in kinds:
                message = f"setting 'prometheus.{setting}.{name}': no kind is called so{nearest(name, tuple(kinds))}"
                raise SettingsError(message)
    taken = {metric.name for metric in METRICS}
    return {
        name: _families(kind, _dimensions(kind, labels.get(name)), _numbers(kind, measures.get(name)), taken)
        for name, kind in sorted(kinds.items())
    }


def _families(kind: Kind, dimensions: Sequence[Column], numbers: Sequence[_Number], taken: set[str]) -> KindFamilies:
    names = _Names(kind.name, taken)
    counted = Shape.SNAPSHOT is not kind.shape
    values = [_records(kind, names), *(_gauges, _counters)[counted](kind, numbers, names)]
    return KindFamilies(
        kind=kind,
        dimensions=tuple(column.name for column in dimensions),
        labels=tuple(_label(column.name, kind) for column in dimensions),
        coarse=tuple(position for position, column in enumerate(dimensions) if _is_coarse(column)),
        values=tuple(values),
        histograms=tuple(_histograms(kind, numbers, names)) if counted else (),
    )


def _dimensions(kind: Kind, wanted: Sequence[str] | None) -> list[Column]:
    """The dimensions that are labels; `simulated` always is, so that what is not real is never added to what is."""
    if wanted is None:
        return [
            column
            for column in kind.dimensions
            if isinstance(column.role, Dimension) and column.role.live and not _objection(column, kind, asked=False)
        ]
    for name in wanted:
        column = kind.column.get(name)
        if column is None or column not in kind.dimensions:
            known = tuple(each.name for each in kind.dimensions)
            why = f"{name!r} is not a dimension of {kind.name}{nearest(name, known)}"
        else:
            why = _objection(column, kind, asked=True)
        if why:
            message = f"setting 'prometheus.labels.{kind.name}': {why}"
            raise SettingsError(message)
    return [column for column in kind.dimensions if column.name in {*wanted, "simulated"}]


def _objection(column: Column, kind: Kind, *, asked: bool) -> str:
    """Why a dimension may not be a label; "" where it may.

    What is nearly unique for each record would make a series of each record. In a snapshot it names what is looked
    at, such as a host, and its series goes when the snapshots no longer hold it: who asks for it may have it.
    """
    role = column.role
    assert role is not None
    if column.personal:
        return f"{column.name!r} names persons, and who scrapes sees all; take it out"
    if not getattr(role, "bucketed", True) and not (asked and kind.shape is Shape.SNAPSHOT):
        return f"{column.name!r} is nearly unique for each record, and each would be a series; take it out"
    return ""


def _is_coarse(column: Column) -> bool:
    return bool(column.required or column.values or column.type is Type.BOOLEAN)


def _label(name: str, kind: Kind) -> str:
    return f"{kind.name.replace('-', '_')}_{name}" if name in RESERVED_LABELS else name


class _Names:
    """Gives out names of one kind's families, each once."""

    def __init__(self, kind: str, taken: set[str]) -> None:
        self._kind = kind.replace("-", "_")
        self._taken = taken

    def give(self, measure: str, unit: str, type_: FamilyType) -> str:
        """`siteward_<kind>_<measure>_<unit>`, with `_total` for a counter."""
        stem = f"siteward_{self._kind}_{measure}"
        _, unit = PARTS.get(unit, (1, unit))
        word = UNIT_WORDS.get(unit, unit.lower().replace(".s", "_seconds"))
        if word and not stem.endswith(f"_{word}"):
            stem += f"_{word}"
        if type_ is FamilyType.COUNTER:
            stem = stem.removesuffix("_total")
        elif stem.rpartition("_")[2] in RESERVED_ENDS:
            stem += "_value"
        # Two kinds, or a kind and our own telemetry, may come to the same name.
        while not self._taken.isdisjoint(_series_names(stem, type_)):
            stem += "_value"
        self._taken.update(_series_names(stem, type_))
        return f"{stem}_total" if type_ is FamilyType.COUNTER else stem


def _series_names(stem: str, type_: FamilyType) -> Collection[str]:
    match type_:
        case FamilyType.COUNTER:
            return (f"{stem}_total",)
        case FamilyType.GAUGE:
            return (stem,)
        case FamilyType.HISTOGRAM:
            return (stem, f"{stem}_bucket", f"{stem}_sum", f"{stem}_count")


def _records(kind: Kind, names: _Names) -> Family:
    if kind.shape is Shape.SNAPSHOT:
        text = f"Records of kind {kind.name} in each producer's last complete cycle."
        return Family(names.give("records", "1", FamilyType.GAUGE), FamilyType.GAUGE, text)
    text = f"Live records of kind {kind.name}."
    return Family(names.give("records", "1", FamilyType.COUNTER), FamilyType.COUNTER, text)


class _Number(NamedTuple):
    """A measure or product that becomes series."""

    name: str
    unit: str
    doc: str


def _numbers(kind: Kind, wanted: Sequence[str] | None) -> list[_Number]:
    known = {column.name: (column.unit, column.doc) for column in kind.measures}
    known |= {name: (product.unit, product.doc) for name, product in kind.products.items()}
    if wanted is None:
        roles = {column.name: column.role for column in kind.measures} | dict(kind.products)
        wanted = [name for name, role in roles.items() if getattr(role, "live", True)]
    for name in wanted:
        if name not in known:
            why = f"{name!r} is no measure of {kind.name}{nearest(name, tuple(known))}"
            message = f"setting 'prometheus.measures.{kind.name}': {why}"
            raise SettingsError(message)
    return [_Number(name, *known[name]) for name in known if name in wanted]


def _counters(kind: Kind, numbers: Sequence[_Number], names: _Names) -> Iterator[Family]:
    """What adds up and never shrinks."""
    for name, unit, doc in numbers:
        factors = factors_of(kind, name)
        if combine_of(kind, name) is Combine.SUM and all(_minimum(kind, factor) >= 0 for factor in factors):
            given = names.give(name, unit, FamilyType.COUNTER)
            text = f"Live records of kind {kind.name}: {doc}."
            yield Family(given, FamilyType.COUNTER, text, tuple(factors), parts=_parts(unit))


def _gauges(kind: Kind, numbers: Sequence[_Number], names: _Names) -> Iterator[Family]:
    for name, unit, doc in numbers:
        combine = combine_of(kind, name)
        text = f"Last complete cycle of kind {kind.name}: {doc} ({combine} over records)."
        given = names.give(name, unit, FamilyType.GAUGE)
        yield Family(given, FamilyType.GAUGE, text, tuple(factors_of(kind, name)), combine, _parts(unit))


def _parts(unit: str) -> int:
    return PARTS.get(unit, (1, unit))[0]


def _histograms(kind: Kind, numbers: Sequence[_Number], names: _Names) -> Iterator[Family]:
    """Of every measure in seconds; a product in seconds is no duration of anything."""
    for name, unit, doc in numbers:
        if name in kind.products or unit != "s":
            continue
        if combine_of(kind, name) is Combine.SUM and _minimum(kind, name) >= 0:
            given = names.give(name, "s", FamilyType.HISTOGRAM)
            yield Family(given, FamilyType.HISTOGRAM, f"Each live record of kind {kind.name}: {doc}.", (name,))


def _minimum(kind: Kind, measure: str) -> int:
    role = kind.column[measure].role
    assert isinstance(role, Measure)
    return role.minimum
