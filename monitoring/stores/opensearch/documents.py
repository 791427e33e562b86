"""Batches as OpenSearch documents, column by column: the hot path from a collector to the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, partial
from itertools import repeat
from operator import mul
from typing import Any, Final

import msgspec

from monitoring.stores.opensearch.templates import (
    HIGH,
    LOW,
    LOW_BITS,
    MESSAGE,
    PRODUCER,
    RECEIVED,
    TIME,
    WIDE,
    index_name,
    split_names,
)
from siteward.records import Kind, Refused, Type
from siteward.records.fields import INT64_MAX, INT64_MIN
from siteward.sinks import Batch

Document = msgspec.Struct
"""One record as it is stored; a value of None is left out."""
UNFIT: Final = (OverflowError, UnicodeError, TypeError, ValueError)
"""What is raised for a value that no document can hold."""
_LOW_MASK: Final = (1 << LOW_BITS) - 1
_encoder: Final = msgspec.json.Encoder()
_Values = list[Any]


def documents_of(batch: Batch) -> list[Document]:
    """The documents of a batch, in its order.

    Raises:
        UNFIT: a value is not what its column holds. Other such values are found only by `lines_of`.
    """
    kind = batch.kind
    columns = [_stored(column.type, batch.columns[column.name]) for column in kind.columns]
    products = {name: _product(batch, name) for name in kind.products}
    wide = _take_wide(products, len(batch))
    values = {**batch.columns, **products}
    columns += products.values()
    columns += [batch.columns[kind.time], batch.producers, [message.hex() for message in batch.messages]]
    columns.append([batch.received] * len(batch))
    if kind.products:
        columns.append(wide or [None] * len(batch))
    parts = [_parts(values[name]) for name in split_names(kind)]
    columns += [low for low, _ in parts] + [high for _, high in parts]
    return list(map(_document_type(kind), *columns))


@cache
def _document_type(kind: Kind) -> type[Document]:
    """The struct whose fields are the document's, in the order in which documents_of gives them."""
    names = [*kind.names, *kind.products, TIME, PRODUCER, MESSAGE, RECEIVED]
    if kind.products:
        names.append(WIDE)
    names += [f"{part}.{name}" for part in (LOW, HIGH) for name in split_names(kind)]
    attributes = [f"f{place}" for place in range(len(names))]
    return msgspec.defstruct(
        f"{kind.name}-document",
        [(attribute, Any, None) for attribute in attributes],
        rename=dict(zip(attributes, names, strict=True)),
        omit_defaults=True,
        gc=False,
    )


def _stored(type_: Type, values: _Values) -> _Values:
    """Times as texts of milliseconds with three decimals, exact where a float would not be; all else as it is."""
    if type_ is not Type.TIME:
        return values
    return [f"{text[:-3]}.{text[-3:]}" for text in map(str, values)]


def microseconds_of(text: str) -> int:
    """A stored time in microseconds since 1970 UTC; the inverse of what documents hold."""
    whole, _, rest = text.partition(".")
    return int(whole) * 1000 + int(rest)


def _product(batch: Batch, name: str) -> _Values:
    first, *others = (batch.columns[factor] for factor in batch.kind.products[name].factors)
    if any(map(_is_unknown, (first, *others))):
        return [None] * len(batch)
    values = first
    for other in others:
        if None in values or None in other:
            values = [None if a is None or b is None else a * b for a, b in zip(values, other, strict=True)]
        else:
            values = list(map(mul, values, other))
    return values


def _take_wide(products: dict[str, _Values], count: int) -> list[list[str] | None]:
    """Take out what does not fit 64 bits, and name it for each record; [] where everything fits."""
    wide: list[list[str] | None] = []
    for name, values in products.items():
        known = [value for value in values if value is not None]
        if not known or (max(known) <= INT64_MAX and min(known) >= INT64_MIN):
            continue
        wide = wide or [None] * count
        products[name] = fit = list(values)
        for place, value in enumerate(values):
            if value is not None and not INT64_MIN <= value <= INT64_MAX:
                fit[place] = None
                wide[place] = [*(wide[place] or ()), name]
    return wide


def _parts(values: _Values) -> tuple[_Values, _Values]:
    """The low bits and what is above them, so that high * 2^26 + low is the value, also below zero."""
    if _is_unknown(values):
        return values, values
    if None in values:
        low = [None if value is None else value & _LOW_MASK for value in values]
        return low, [None if value is None else value >> LOW_BITS for value in values]
    return [value & _LOW_MASK for value in values], [value >> LOW_BITS for value in values]


def _is_unknown(values: _Values) -> bool:
    """Whether no record knows its value, as for most columns of a wide kind: then there is nothing to compute."""
    return values[:1] == [None] and values.count(None) == len(values)


class Placed(msgspec.Struct):
    """Where the records of a batch belong.

    Attributes:
        indices: names of the indices, most batches have one.
        actions: the line that goes before each record's document.
    """

    indices: list[str]
    actions: list[msgspec.Raw]


def placed(batch: Batch, prefix: str, *, daily: bool = False) -> Placed:
    """The index and the action line of every record.

    Kinds with an identity are revisable: a higher revision replaces, and the cluster compares. Without one, every
    record is new and an id that is there already is the same record once more.
    """
    kind = batch.kind
    name_of = partial(index_name, prefix, kind, daily=daily)
    first, last = name_of(min(batch.ids)), name_of(max(batch.ids))
    indices = [first] if first == last else [name_of(identifier) for identifier in batch.ids]
    names: Iterable[str] = repeat(first) if first == last else indices
    action = "index" if kind.identity else "create"
    tails: Iterable[str] = repeat('"}}')
    if kind.identity:
        tails = [f'","version":{revision},"version_type":"external"}}}}' for revision in batch.columns["revision"]]
    actions = [
        msgspec.Raw(f'{{"{action}":{{"_index":"{name}","_id":"{identifier.hex()}{tail}')
        for name, identifier, tail in zip(names, batch.ids, tails, strict=False)
    ]
    return Placed(sorted(set(indices)), actions)


def lines_of(actions: Sequence[msgspec.Raw], documents: Sequence[Document]) -> bytes:
    """The body of a bulk request.

    Raises:
        UNFIT: a value cannot be written as JSON. An integer beyond 64 bits can; the cluster refuses it.
    """
    lines: list[Any] = [None] * (2 * len(actions))
    lines[::2] = actions
    lines[1::2] = documents
    return _encoder.encode_lines(lines)


def unfit_records(batch: Batch) -> dict[int, Refused]:
    """The records of a batch that documents_of refused for which it does so, each with the field and the reason."""
    unfit: dict[int, Refused] = {}
    for position in range(len(batch)):
        try:
            documents_of(batch.part([position]))
        except UNFIT as error:
            unfit[position] = unfit_reason(batch, position, error)
    return unfit


def unfit_reason(batch: Batch, position: int, error: Exception) -> Refused:
    """Why no document can hold a record."""
    field = _unfit_field(batch, position)
    value = batch.columns[field][position] if field else None
    return Refused(f"cannot be stored: {error}", kind=batch.kind.name, field=field, value=value)


def _unfit_field(batch: Batch, position: int) -> str:
    """The field whose value no document can hold; "" where it is none of them."""
    for column in batch.kind.columns:
        value = batch.columns[column.name][position]
        try:
            _encoder.encode(value)
        except UNFIT:
            return column.name
        if column.type in {Type.INTEGER, Type.TIME} and value is not None and not _is_long(value):
            return column.name
    return ""


def _is_long(value: object) -> bool:
    return isinstance(value, int) and INT64_MIN <= value <= INT64_MAX
