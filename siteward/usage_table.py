"""A usage answer as a table: CSV, Arrow, Parquet, pandas; integers stay exact in each of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from siteward.query import Value
from siteward.query_window import format_time
from siteward.records.fields import INT64_MAX, INT64_MIN
from siteward.usage import UsageRow, ValueType
from siteward.usage_json import UsageDocument

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TIMES: Final = 2
"""Columns that are instants: the first ones."""
_DIGITS: Final = 38
"""Decimal digits of the widest integers that Parquet's readers agree on."""


def head(document: UsageDocument) -> tuple[str, ...]:
    """The names of a table's columns: the period, the attribution, the dimensions, then what was asked for.

    A dimension keeps its name; another column that has the same one begins with an underscore, as no field does.
    """
    by = document.query.by
    first, last = ("start", "end", "attribution"), (*_other(document), *document.columns)
    return (*(_apart(name, by) for name in first), *by, *(_apart(name, by) for name in last))


def lines(document: UsageDocument) -> Iterator[tuple[datetime | Value | str | bool, ...]]:
    """The rows of a table, as many values each as `head` has names; None is unknown, and all of Other's group is."""
    with_other = bool(_other(document))
    for row in document.rows:
        other = (row.other,) if with_other else ()
        yield (row.start, row.end, document.attribution, *_group(document, row), *other, *row.values)  # noqa: PD011  # a row of an answer.


def csv_text(document: UsageDocument) -> str:
    """CSV with a header line; instants are RFC 3339 in the document's time zone, unknown values empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head(document))
    writer.writerows([_text(value) for value in line] for line in lines(document))
    return out.getvalue()


def arrow_table(document: UsageDocument) -> pa.Table:
    """An Arrow table; attribution, question, units and totals are also in its metadata.

    Integers are of 64 bits, or decimals where one of their column does not fit. Needs pyarrow.

    Raises:
        OverflowError: an integer has more than 38 digits.
    """
    import pyarrow as pa  # noqa: PLC0415  # large, and asked for by few.

    values = list(zip(*lines(document), strict=True)) or [()] * len(head(document))
    time = pa.timestamp("us", tz=document.time_zone)
    first = [time, time, pa.string()]
    of_groups = [_arrow_type(column) for column in values[3 : -len(document.columns)]]
    of_values = [
        pa.float64() if type_ is ValueType.NUMBER else _arrow_integer(column)
        for type_, column in zip(document.types, values[-len(document.columns) :], strict=True)
    ]
    units = [""] * (len(values) - len(document.columns)) + list(document.units)
    fields = [
        pa.field(name, type_, metadata={"unit": unit} if unit else None)
        for name, type_, unit in zip(head(document), (*first, *of_groups, *of_values), units, strict=True)
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(values, fields, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=_metadata(document)))


def parquet_bytes(document: UsageDocument) -> bytes:
    """A Parquet file with what `arrow_table` has. Needs pyarrow.

    Raises:
        OverflowError: an integer has more than 38 digits.
    """
    import pyarrow as pa  # noqa: PLC0415  # see above.
    import pyarrow.parquet as pq  # noqa: PLC0415

    out = pa.BufferOutputStream()
    pq.write_table(arrow_table(document), out)
    written: bytes = out.getvalue().to_pybytes()
    return written


def arrow_bytes(document: UsageDocument) -> bytes:
    """An Arrow stream with what `arrow_table` has. Needs pyarrow."""
    import pyarrow as pa  # noqa: PLC0415  # see above.

    table = arrow_table(document)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    written: bytes = out.getvalue().to_pybytes()
    return written


def data_frame(document: UsageDocument) -> pd.DataFrame:
    """A DataFrame; attribution, question, units and totals are in its `attrs`. Needs `siteward[pandas]`.

    Integers are `Int64`, or Python's own where one of their column does not fit into 64 bits; numbers are floats.
    """
    import pandas as pd  # noqa: PLC0415  # large, and asked for by few.

    columns = dict(zip(head(document), zip(*lines(document), strict=True), strict=False))
    types = dict(zip(head(document)[-len(document.columns) :], document.types, strict=True))
    frame = pd.DataFrame(index=pd.RangeIndex(len(document.rows)))
    for place, name in enumerate(head(document)):
        values = list(columns.get(name, ()))
        if place < _TIMES:
            frame[name] = pd.to_datetime(values, utc=True).as_unit("us").tz_convert(document.time_zone)
        elif types.get(name) is ValueType.NUMBER:
            frame[name] = pd.array(values, dtype="float64")
        else:
            whole = name in types and _fit(values)
            frame[name] = pd.array(values, dtype="Int64") if whole else pd.Series(values, dtype="object")
    frame.attrs |= {
        "attribution": document.attribution,
        "query": msgspec.to_builtins(document.query),
        "units": dict(zip(document.columns, document.units, strict=True)),
        "totals": dict(zip(document.columns, document.totals, strict=True)),
        "visible": document.visible,
        "pseudonyms": document.pseudonyms,
    }
    return frame


def _apart(name: str, by: tuple[str, ...]) -> str:
    return f"_{name}" if name in by else name


def _other(document: UsageDocument) -> tuple[str, ...]:
    """A column that tells Other from a group of that name, where there may be one."""
    return ("other",) if document.query.top and document.query.by else ()


def _group(document: UsageDocument, row: UsageRow) -> tuple[str | int | bool | None, ...]:
    return (None,) * len(document.query.by) if row.other else row.group


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat() if value.utcoffset() else format_time(value)
    return "" if value is None else str(value)


def _fit(values: list[Any]) -> bool:
    return all(value is None or INT64_MIN <= value <= INT64_MAX for value in values)


def _arrow_integer(values: tuple[Any, ...]) -> Any:  # noqa: ANN401  # pyarrow ships no types.
    import pyarrow as pa  # noqa: PLC0415  # see above.

    if _fit(list(values)):
        return pa.int64()
    if any(value is not None and abs(value) >= 10**_DIGITS for value in values):
        message = f"an integer has more than {_DIGITS} digits; ask for JSON or CSV"
        raise OverflowError(message)
    return pa.decimal128(_DIGITS, 0)


def _arrow_type(values: tuple[Any, ...]) -> Any:  # noqa: ANN401  # see above.
    import pyarrow as pa  # noqa: PLC0415  # see above.

    known = next((value for value in values if value is not None), "")
    return pa.bool_() if isinstance(known, bool) else pa.int64() if isinstance(known, int) else pa.string()


def _metadata(document: UsageDocument) -> dict[str, bytes]:
    said = {
        "attribution": document.attribution.encode(),
        "query": msgspec.json.encode(document.query),
        "units": msgspec.json.encode(dict(zip(document.columns, document.units, strict=True))),
        "totals": msgspec.json.encode(dict(zip(document.columns, document.totals, strict=True))),
        "groups": str(document.groups).encode(),
        "visible": msgspec.json.encode(document.visible),
        "pseudonyms": msgspec.json.encode(document.pseudonyms),
    }
    return {f"siteward.{name}": text for name, text in said.items()}
