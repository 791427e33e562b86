"""From a class or a TOML table to a Declaration: the two ways to declare a kind."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from siteward.records.declaration import Column, Declaration, DeclarationError, Shape, Type
from siteward.records.fields import Bound, Combine, Dimension, Former, Measure, Product, Ratio
from siteward.records.kind import Kind
from siteward.records.shapes import DEFAULT_AHEAD, DEFAULT_TIERS, Event, Interval, Record, Snapshot

SHAPES: Final[dict[Shape, type[Record]]] = {
    Shape.EVENT: Event,
    Shape.SNAPSHOT: Snapshot,
    Shape.INTERVAL: Interval,
}
_TYPES: Final[dict[Any, Type]] = {
    str: Type.STRING,
    int: Type.INTEGER,
    float: Type.NUMBER,
    bool: Type.BOOLEAN,
    datetime: Type.TIME,
}
_LAST_FIELDS: Final = ("simulated", "revision")
_DAYS: Final = timedelta(days=1)


@cache
def kind_of(cls: type[Record]) -> Kind:
    """The compiled kind of a declaring class.

    Raises:
        DeclarationError: the class declares no kind, or contradicts itself.
    """
    options = dict(cls.kind_options)
    name = options.pop("kind", "")
    shape = next((shape for shape, base in SHAPES.items() if issubclass(cls, base)), None)
    if shape is None or not name:
        message = f'{cls.__qualname__}: derive from Event, Snapshot or Interval and give kind="…"'
        raise DeclarationError(message)
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    moments = [name for name, field in fields.items() if field.type is datetime]
    columns = [
        _with_default(_column(name, field, fields[field].type), fields[field])
        for field in _ordered(tuple(fields), shape, moments)
    ]
    return Kind(
        _declaration(
            name,
            inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " "),
            shape,
            columns,
            options,
            _Derived(
                {key: value for key, value in vars(cls).items() if isinstance(value, Product)},
                {key: value for key, value in vars(cls).items() if isinstance(value, Ratio)},
                tuple(value for value in vars(cls).values() if isinstance(value, Bound)),
            ),
            cls,
        )
    )


def _with_default(column: Column, field: msgspec.structs.FieldInfo) -> Column:
    if field.required:
        return column
    return msgspec.structs.replace(column, required=False, default=field.default)


def _ordered(names: tuple[str, ...], shape: Shape, moments: Sequence[str] = ()) -> list[str]:
    """VO, times, then the declared fields, then what describes the record itself."""
    times = ["start", "end"] if shape is Shape.INTERVAL else ["time"]
    times += [name for name in moments if name not in times]
    middle = [name for name in names if name not in {"vo", *times, *_LAST_FIELDS}]
    return ["vo", *times, *middle, *_LAST_FIELDS]


def _column(kind: str, name: str, hint: Any) -> Column:  # noqa: ANN401  # a type expression.
    role: Dimension | Measure | None = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        role = next((extra for extra in extras if isinstance(extra, (Dimension, Measure))), None)
    optional = False
    if get_origin(hint) in {Union, types.UnionType}:
        optional = type(None) in get_args(hint)
        hint = next(part for part in get_args(hint) if part is not type(None))
    values: tuple[str, ...] = ()
    if get_origin(hint) is Literal:
        values = tuple(value for value in get_args(hint) if value)
        hint = str
    if hint not in _TYPES or (role is None and hint is not datetime):
        message = (
            f"kind {kind!r}: field {name!r} must be Annotated[str | int | float | bool, Dimension(…) or Measure(…)]"
        )
        raise DeclarationError(message)
    return Column(name=name, type=_TYPES[hint], role=role, optional=optional, values=values)


class _Derived(NamedTuple):
    """What is computed from the fields of a kind, or told by them."""

    products: dict[str, Product]
    ratios: dict[str, Ratio]
    bounds: tuple[Bound, ...]


def _declaration(
    name: str,
    doc: str,
    shape: Shape,
    columns: list[Column],
    options: dict[str, Any],
    derived: _Derived,
    record: type[Record] | None,
) -> Declaration:
    identity = tuple(options.pop("identity", _default_identity(shape, columns)))
    retention = options.pop("retention", None)
    ahead = options.pop("ahead", DEFAULT_AHEAD)
    longest = options.pop("longest", None)
    tiers = tuple((age, width) for age, width in options.pop("tiers", DEFAULT_TIERS))
    booked = bool(options.pop("booked", True))
    archived = bool(options.pop("archived", True))
    sent_by = str(options.pop("sent_by", ""))
    since = str(options.pop("since", ""))
    time = options.pop("partition", "end" if shape is Shape.INTERVAL else "time")
    if options:
        known = "identity, partition, retention, ahead, longest, tiers, booked, archived, since, sent_by"
        message = f"kind {name!r}: unknown option {min(options)!r}; known are {known}"
        raise DeclarationError(message)
    return Declaration(
        name=name,
        doc=doc,
        shape=shape,
        columns=tuple(columns),
        identity=identity,
        products=derived.products,
        ratios=derived.ratios,
        bounds=derived.bounds,
        retention=retention,
        time=time,
        ahead=ahead,
        longest=longest,
        tiers=tiers,
        booked=booked,
        archived=archived,
        since=since,
        sent_by=sent_by,
        record=record,
    )


def _default_identity(shape: Shape, columns: list[Column]) -> tuple[str, ...]:
    """Two snapshots are the same when producer, instant and every dimension are; events are never the same."""
    if shape is not Shape.SNAPSHOT:
        return ()
    return tuple(
        column.name
        for column in columns
        if column.type is Type.TIME or (isinstance(column.role, Dimension) and column.name not in {"vo", "simulated"})
    )


class DimensionTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[kinds.NAME.dimensions]`: one entry per dimension."""

    doc: str
    type: Literal["string", "integer", "boolean"] = "string"
    personal: bool = False
    optional: bool = False
    max_length: int = 255
    bucketed: bool = True
    live: bool = True
    values: tuple[str, ...] = ()


class MeasureTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[kinds.NAME.measures]`: one entry per measure."""

    doc: str
    unit: str
    type: Literal["integer", "number"] = "integer"
    combine: Combine = Combine.SUM
    optional: bool = False
    minimum: int = 0
    maximum: int | None = None
    limit: int | None = None
    live: bool = True
    counter: bool = False
    averaged: bool = True
    former: Former | None = None


class ProductTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[kinds.NAME.products]`: one entry per product."""

    factors: tuple[str, ...]
    unit: str
    doc: str = ""
    live: bool = True


class RatioTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[kinds.NAME.ratios]`: one entry per ratio."""

    numerator: str
    denominator: str
    unit: str
    doc: str = ""
    times: int = 1


class BoundTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[[kinds.NAME.bounds]]`: what a measure is at most by others of the same record."""

    measure: str
    of: tuple[str, ...] = ()
    factor: float = 1
    slack: float = 0
    lasting: bool = False


class TierTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[[kinds.NAME.tiers]]`: buckets of this width for records up to this age; without an age, for all older ones."""

    width_minutes: int
    age_days: int | None = None


class KindTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[kinds.NAME]` in a TOML file: a kind for communities that install no code."""

    doc: str
    shape: Shape
    dimensions: dict[str, DimensionTable] = {}
    measures: dict[str, MeasureTable] = {}
    products: dict[str, ProductTable] = {}
    ratios: dict[str, RatioTable] = {}
    bounds: tuple[BoundTable, ...] = ()
    identity: tuple[str, ...] | None = None
    retention_days: int | None = None
    ahead_days: int | None = None
    longest_days: int | None = None
    tiers: tuple[TierTable, ...] | None = None
    booked: bool = True
    archived: bool = True
    since: str = ""
    sent_by: str = ""


def kind_from_table(name: str, table: Mapping[str, Any]) -> Kind:
    """Compile a kind declared in TOML.

    An optional dimension has the default "" (integer and boolean ones None); an optional measure None.

    Raises:
        DeclarationError: with the kind, the key and what to change.
    """
    try:
        declared = msgspec.convert(table, KindTable)
    except msgspec.ValidationError as error:
        message = f"kind {name!r}: {error}"
        raise DeclarationError(message) from error
    base = SHAPES[declared.shape]
    given = {
        field.name: _with_default(_column(name, field.name, field.type), field)
        for field in msgspec.structs.fields(base)
    }
    fields = (*declared.dimensions, *declared.measures, *([declared.since] if declared.since else []))
    clash = next((field for field in fields if field in given or fields.count(field) > 1), None)
    if clash:
        message = f"kind {name!r}: field {clash!r} is there already; every {declared.shape} has {', '.join(given)}"
        raise DeclarationError(message)
    if declared.since:
        given[declared.since] = Column(name=declared.since, type=Type.TIME, role=None)
    for field, dimension in declared.dimensions.items():
        given[field] = _dimension_column(field, dimension)
    for field, measure in declared.measures.items():
        given[field] = Column(
            name=field,
            type=Type(measure.type),
            role=Measure(**{name: getattr(measure, name) for name in Measure.__struct_fields__}),
            optional=measure.optional,
            required=not measure.optional,
        )
    derived = _Derived(
        {
            key: Product(*value.factors, unit=value.unit, doc=value.doc, live=value.live)
            for key, value in declared.products.items()
        },
        {
            key: Ratio(value.numerator, value.denominator, unit=value.unit, doc=value.doc, times=value.times)
            for key, value in declared.ratios.items()
        },
        tuple(
            Bound(each.measure, *each.of, factor=each.factor, slack=each.slack, lasting=each.lasting)
            for each in declared.bounds
        ),
    )
    moments = [declared.since] if declared.since else []
    columns = [given[field] for field in _ordered(tuple(given), declared.shape, moments)]
    return Kind(_declaration(name, declared.doc, declared.shape, columns, _options(declared), derived, None))


def _options(declared: KindTable) -> dict[str, Any]:
    """What the class arguments of the same kind would be."""
    options: dict[str, Any] = {name: getattr(declared, name) for name in ("booked", "archived", "since", "sent_by")}
    if declared.identity is not None:
        options["identity"] = declared.identity
    spans = {
        "retention": declared.retention_days,
        "ahead": declared.ahead_days,
        "longest": declared.longest_days,
    }
    options |= {name: days * _DAYS for name, days in spans.items() if days is not None}
    if declared.tiers is not None:
        options["tiers"] = [
            (None if tier.age_days is None else tier.age_days * _DAYS, timedelta(minutes=tier.width_minutes))
            for tier in declared.tiers
        ]
    return options


def _dimension_column(name: str, table: DimensionTable) -> Column:
    text = table.type == "string"
    return Column(
        name=name,
        type=Type(table.type),
        role=Dimension(**{key: getattr(table, key) for key in Dimension.__struct_fields__}),
        optional=table.optional and not text,
        required=not table.optional,
        default="" if table.optional and text else None,
        values=table.values,
    )
