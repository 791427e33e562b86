"""A kind as declared, before anything is derived: its columns, and the check that it does not contradict itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise
from math import inf
from typing import Annotated, Any, Final, Literal

import msgspec

from siteward.records.fields import (
    INT64_MAX,
    INT64_MIN,
    UNITS,
    Bound,
    Combine,
    Dimension,
    Former,
    Measure,
    Product,
    Ratio,
)
from siteward.records.identity import microseconds
from siteward.records.shapes import DEFAULT_AHEAD, DEFAULT_TIERS, EARLIEST, LATEST, Record, Tier

_EARLIEST: Final = microseconds(EARLIEST)
_LATEST: Final = microseconds(LATEST)
SHORTEST_PERSONAL: Final = 51
"""Characters of a pseudonym, which records hold in place of a person's name, with its seal."""
LONGEST_PERSONAL: Final = 1000
"""Characters of a name in the table of people."""


LONGEST_KIND: Final = 36
"""Characters of a booked kind's name: with the ledger's `accounting_` and `_prorated_months` around it, a table has the
63 that every database takes."""
LONGEST_FIELD: Final = 63
LONGEST_SUMMED: Final = 55
"""Characters of a measure's or product's name: columns of the ledger have up to eight more, such as `_before_`."""
LONGEST_RATIO: Final = 59
"""The same of a ratio, with `_of_`."""


class Shape(StrEnum):
    """When a record was: at an instant, in a cycle of snapshots, or over an interval."""

    EVENT = "event"
    SNAPSHOT = "snapshot"
    INTERVAL = "interval"


class Type(StrEnum):
    """What a value is; exactly one of these, with no conversion between them except integer to number."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"


_TIME_DOCS: Final = {"start": "when it began", "end": "when it ended", "time": "when it was"}


class Column(msgspec.Struct, frozen=True):
    """One field of a kind, with everything a store, a page or a manual derives from it.

    Attributes:
        name: the field's name in records, queries and stores.
        type: what its values are.
        role: the Dimension or Measure it was declared with; None for the kind's times.
        optional: may be None (unknown): such a value takes part in no sum and no mean.
        required: has no default.
        default: value of a record that does not give it.
        values: the only texts allowed, or () for any.
    """

    name: str
    type: Type
    role: Dimension | Measure | None
    optional: bool = False
    required: bool = True
    default: str | int | float | bool | None = None
    values: tuple[str, ...] = ()

    @property
    def doc(self) -> str:
        """One sentence for the manual."""
        return self.role.doc if self.role else _TIME_DOCS.get(self.name, f"when it was {self.name}")

    @property
    def unit(self) -> str:
        """The measure's unit; "" for anything else."""
        return self.role.unit if isinstance(self.role, Measure) else ""

    @property
    def former(self) -> Former | None:
        """The field whose place a measure has taken."""
        return self.role.former if isinstance(self.role, Measure) else None

    @property
    def personal(self) -> bool:
        """Whether values name a person."""
        return isinstance(self.role, Dimension) and self.role.personal

    @property
    def longest_text(self) -> int:
        """Characters that a text may have."""
        return self.role.max_length if isinstance(self.role, Dimension) else 255

    def wire_type(self) -> Any:  # noqa: ANN401  # a type expression for msgspec, which has no static type.
        """The msgspec type that accepts exactly this column's values."""
        meta = msgspec.Meta
        kind: Any
        match self.type:
            case Type.STRING if self.values:
                kind = Literal[self.values] if self.required else Literal[("", *self.values)]
            case Type.STRING:
                kind = Annotated[str, meta(min_length=1 if self.required else 0, max_length=self.longest_text)]
            case Type.INTEGER:
                low, high = (
                    (self.role.minimum, self.role.maximum) if isinstance(self.role, Measure) else (INT64_MIN, None)
                )
                kind = Annotated[int, meta(ge=low, le=INT64_MAX if high is None else high)]
            case Type.NUMBER if isinstance(self.role, Measure):
                kind = Annotated[float, meta(ge=self.role.minimum, le=self.role.maximum)]
            case Type.NUMBER:
                kind = float
            case Type.BOOLEAN:
                kind = bool
            case Type.TIME:
                kind = Annotated[int, meta(ge=_EARLIEST, le=_LATEST)]
        return kind | None if self.optional else kind


class Declaration(msgspec.Struct, frozen=True):
    """A kind as declared, before anything is derived; what a class and a TOML table have in common."""

    name: str
    doc: str
    shape: Shape
    columns: tuple[Column, ...]
    identity: tuple[str, ...]
    products: dict[str, Product]
    ratios: dict[str, Ratio]
    retention: timedelta | None
    time: str
    ahead: timedelta = DEFAULT_AHEAD
    longest: timedelta | None = None
    tiers: tuple[Tier, ...] = DEFAULT_TIERS
    booked: bool = True
    archived: bool = True
    since: str = ""
    bounds: tuple[Bound, ...] = ()
    sent_by: str = ""
    record: type[Record] | None = None


class DeclarationError(TypeError):
    """A kind that contradicts itself; the message names kind, field and what to change."""


SENT_BY: Final = ("operate",)
"""Permissions by which records may be sent, beside reporting."""
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


def check_declaration(declaration: Declaration) -> None:
    """Refuse a kind that contradicts itself, at the moment it is declared.

    Raises:
        DeclarationError: naming the kind, the field and what to change.
    """
    problems = [
        *_name_problems(declaration),
        *_long_name_problems(declaration),
        *_column_problems(declaration.columns),
        *_identity_problems(declaration),
        *_product_problems(declaration),
        *_ratio_problems(declaration),
        *_bound_problems(declaration),
        *_longest_problems(declaration),
        *_tier_problems(declaration.tiers),
        *_counter_problems(declaration),
        *_sending_problems(declaration),
    ]
    if problems:
        message = f"kind {declaration.name!r}: {'; '.join(problems)}"
        raise DeclarationError(message)


def _sending_problems(declaration: Declaration) -> Iterator[str]:
    if declaration.sent_by not in {"", *SENT_BY}:
        yield f"option 'sent_by' is {declaration.sent_by!r}; it may be {', '.join(SENT_BY)}"


def _is_name(text: str) -> bool:
    return bool(text) and text[0].isalpha() and set(text) <= _NAME_CHARACTERS


def _name_problems(declaration: Declaration) -> Iterator[str]:
    if not _is_name(declaration.name.replace("-", "_")):
        yield "a kind's name is lower-case letters, digits and '-', starting with a letter"
    names = [column.name for column in declaration.columns]
    for name in names:
        if not _is_name(name):
            yield f"field {name!r}: a field's name is lower-case letters, digits and '_', starting with a letter"
        if names.count(name) > 1:
            yield f"field {name!r} is declared twice"


def _long_name_problems(declaration: Declaration) -> Iterator[str]:
    """Names that some database could not have in its tables, whichever this installation has."""
    if not declaration.booked:
        return
    summed = [column.name for column in declaration.columns if isinstance(column.role, Measure)]
    for what, names, longest in (
        ("kind", [declaration.name], LONGEST_KIND),
        ("field", [column.name for column in declaration.columns if column.name not in summed], LONGEST_FIELD),
        ("measure", summed, LONGEST_SUMMED),
        ("product", declaration.products, LONGEST_SUMMED),
        ("ratio", declaration.ratios, LONGEST_RATIO),
    ):
        for name in names:
            if len(name) > longest:
                yield f"{what} {name!r} has a name of {len(name)} characters; the ledger takes {longest}"


def _column_problems(columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        if column.personal and (column.type is not Type.STRING or column.values):
            yield f"dimension {column.name!r} is personal, and so must be a text, which a pseudonym can stand for"
        elif column.personal and not SHORTEST_PERSONAL <= column.longest_text <= LONGEST_PERSONAL:
            yield (
                f"dimension {column.name!r} is personal, and so must take from {SHORTEST_PERSONAL} to "
                f"{LONGEST_PERSONAL} characters: a pseudonym has to fit into it, and it into the table of names"
            )
        if isinstance(column.role, Measure):
            if column.role.unit not in UNITS:
                yield f"field {column.name!r} has the unknown unit {column.role.unit!r}; one of {', '.join(UNITS)}"
            if column.type not in {Type.INTEGER, Type.NUMBER}:
                yield f"measure {column.name!r} must be an integer or a number, not a {column.type}"
            yield from _limit_problems(column.name, column.role)
            yield from _former_problems(column, column.role)


def _limit_problems(name: str, measure: Measure) -> Iterator[str]:
    if measure.limit is None:
        return
    if measure.limit < measure.minimum:
        yield f"measure {name!r} has the limit {measure.limit}, below its minimum {measure.minimum}"
    if measure.maximum is not None and measure.limit > measure.maximum:
        yield f"measure {name!r} has the limit {measure.limit}, above its maximum {measure.maximum}"


def _former_problems(column: Column, measure: Measure) -> Iterator[str]:
    former = measure.former
    if former is None:
        return
    what = f"measure {column.name!r} has the former field {former.name!r}"
    if column.type is not Type.INTEGER:
        yield f"{what}, and so must be an integer: what is read of that is rounded; take a finer unit"
    if measure.counter:
        yield f"{what}, and cannot be a counter: nobody could tell what it has counted since the record before"
    if former.name == column.name:
        yield f"{what}, which is itself; give it another name"
    if former.times <= 0:
        yield f"{what}, and {former.times} of its unit make one of that field's; it must be more than 0"


def _identity_problems(declaration: Declaration) -> Iterator[str]:
    if declaration.time not in {column.name for column in declaration.columns if column.type is Type.TIME}:
        yield f"partition time {declaration.time!r} is not one of its times"
    known = {column.name for column in declaration.columns}
    for name in declaration.identity:
        if name not in known:
            yield f"identity field {name!r} is not a field"
        if name in {"vo", "revision"}:
            yield f"{name!r} cannot be an identity field: the VO always is, the revision never"


def _product_problems(declaration: Declaration) -> Iterator[str]:
    columns = {column.name: column for column in declaration.columns}
    for name, product in declaration.products.items():
        for factor in product.factors:
            column = columns.get(factor)
            if column is None or column.type is not Type.INTEGER or not isinstance(column.role, Measure):
                yield f"product {name!r} has the factor {factor!r}, which is not an integer measure"
        if product.unit not in UNITS:
            yield f"product {name!r} has the unknown unit {product.unit!r}; one of {', '.join(UNITS)}"
        if name in columns:
            yield f"product {name!r} has the name of a field"


def _ratio_problems(declaration: Declaration) -> Iterator[str]:
    columns = {column.name: column for column in declaration.columns}
    for name, ratio in declaration.ratios.items():
        for part in (ratio.numerator, ratio.denominator):
            if part not in declaration.products and not _adds_up(columns.get(part)):
                yield f"ratio {name!r} is of {part!r}, which is neither a product nor an integer measure that adds up"
        if ratio.unit not in UNITS:
            yield f"ratio {name!r} has the unknown unit {ratio.unit!r}; one of {', '.join(UNITS)}"
        if ratio.times < 1:
            yield f"ratio {name!r} is multiplied by {ratio.times}, which must be more than 0"
        if name in columns or name in declaration.products:
            yield f"ratio {name!r} has the name of a field or product"


def _bound_problems(declaration: Declaration) -> Iterator[str]:
    measures = {column.name for column in declaration.columns if isinstance(column.role, Measure)}
    for bound in declaration.bounds:
        for name in (bound.measure, *bound.of):
            if name not in measures:
                yield f"the bound of {bound.measure!r} names {name!r}, which is not a measure"
        if not bound.of and not bound.lasting:
            yield f"the bound of {bound.measure!r} names nothing that it depends on; give the measure a limit instead"
        if not (0 < bound.factor < inf and 0 <= bound.slack < inf):
            yield f"the bound of {bound.measure!r} needs a factor above 0, and a slack that is not below"
        if bound.lasting and declaration.shape is not Shape.INTERVAL and not declaration.since:
            yield f"the bound of {bound.measure!r} is by how long records last, and no {declaration.shape} does"


def _adds_up(column: Column | None) -> bool:
    return (
        column is not None
        and column.type is Type.INTEGER
        and isinstance(column.role, Measure)
        and column.role.combine is Combine.SUM
    )


def _longest_problems(declaration: Declaration) -> Iterator[str]:
    if declaration.longest is None:
        return
    if declaration.shape is not Shape.INTERVAL and not declaration.since:
        yield f"option 'longest' is for intervals and counters; a record of shape {declaration.shape} lasts no time"
    if declaration.longest <= timedelta(0):
        yield "option 'longest' must be longer than nothing"


def _counter_problems(declaration: Declaration) -> Iterator[str]:
    counters = {
        column.name for column in declaration.columns if isinstance(column.role, Measure) and column.role.counter
    }
    if not counters and not declaration.since:
        return
    if declaration.shape is not Shape.SNAPSHOT:
        yield f"counters are for snapshots; a record of shape {declaration.shape} says itself what was used"
    if not counters:
        yield f"option 'since' is {declaration.since!r}, but no measure is a counter"
    times = {column.name for column in declaration.columns if column.type is Type.TIME} - {declaration.time}
    if declaration.since not in times:
        names = ", ".join(sorted(counters))
        yield f"counters {names} need the option 'since': a time of the kind from which they count"
    if declaration.time not in declaration.identity or len(declaration.identity) == 1:
        yield f"a kind with counters needs the identity of what counts, and {declaration.time!r}"
    for column in declaration.columns:
        if column.name in counters and not _adds_up(column):
            yield f"counter {column.name!r} must be an integer measure that combines by its sum"
    for name, product in declaration.products.items():
        if len(counters.intersection(product.factors)) != 1:
            yield f"product {name!r} of a kind with counters must have exactly one of them among its factors"


_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)


def _tier_problems(tiers: tuple[Tier, ...]) -> Iterator[str]:
    ages = [age for age, _ in tiers]
    widths = [width for _, width in tiers]
    bounded = [age for age in ages if age is not None]
    if ages[-1:] != [None] or None in ages[:-1]:
        yield "option 'tiers': the last tier, and no other, has the age None: it is for everything older"
    if any(age <= timedelta(0) or age % _SECOND for age in bounded) or not _ascend(bounded):
        yield "option 'tiers': ages must be whole seconds and ascend"
    if any(width <= timedelta(0) or width % _SECOND or _DAY % width for width in widths):
        yield "option 'tiers': a bucket's width must be whole seconds and divide a day, so that days stay exact"
    elif not _ascend(widths) or any(wider % width for width, wider in pairwise(widths)):
        yield "option 'tiers': widths must ascend, each dividing the next, so that buckets merge whole"


def _ascend(spans: list[timedelta]) -> bool:
    return all(one < other for one, other in pairwise(spans))
