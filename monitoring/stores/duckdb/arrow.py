"""Batches as Arrow tables, the form in which DuckDB takes records fastest, and the ranges their ids lie in."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from siteward.records import Column, Type
from siteward.sinks import Batch

# Arrow's own allocator keeps tens of megabytes that a batch needed once; the system's gives them back.
pa.set_memory_pool(pa.system_memory_pool())
_TIME: Final = pa.timestamp("us")
_TYPES: Final[dict[Type, Any]] = {
    Type.STRING: pa.string(),
    Type.INTEGER: pa.int64(),
    Type.NUMBER: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
}
UNFIT: Final = (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError)
"""What arrow_table raises for a value that a table cannot hold."""
REVISION: Final = "revision"
"""Looked at by more than the insertion."""
MOST_RANGES: Final = 8
WIDE_GAP: Final = 10_000 << 16
"""Ten seconds, in units of an id's first half: milliseconds times 2^16. To leave out less is not worth a statement."""


def arrow_table(batch: Batch) -> Any:  # noqa: ANN401  # pyarrow has no types.
    """A batch as a pyarrow Table: the store's columns and `_position`, the place in the batch.

    Columns at their default throughout are left out, as they are in envelopes: a kind has many, and a batch few.

    Raises:
        UNFIT: a value is not what its column holds.
    """
    count = len(batch)
    high, low = _halves(batch.ids)
    columns = {
        "_position": pa.array(range(count), pa.int32()),
        "_id_high": high,
        "_id_low": low,
        "_producer": pa.array(batch.producers, pa.string()),
        "_message": pa.array(batch.messages, pa.binary()),
        "_received": pa.repeat(pa.scalar(batch.received, pa.int64()).cast(_TIME), count),
    }
    for column in batch.kind.columns:
        values = batch.columns[column.name]
        if column.name != REVISION and is_default(column, values):
            continue
        if column.type is Type.TIME:
            columns[column.name] = pa.array(values, pa.int64()).cast(_TIME)
        else:
            columns[column.name] = pa.array(values, _TYPES[column.type])
    return pa.table(columns)


def is_default(column: Column, values: Sequence[Any]) -> bool:
    """Whether all values are the column's default, and of its type: what is not is refused, and not left out."""
    default = column.default
    if column.required or not values or values[-1] != default or values.count(default) < len(values):
        return False
    # 0 is equal to False and to 0.0, and is no value of their columns.
    return not isinstance(default, int | float) or {*map(type, values)} == {type(default)}


def unfit_field(batch: Batch, position: int) -> str:
    """The field whose value a table cannot hold; "" where each of them fits."""
    for column in batch.kind.columns:
        sql_type = pa.int64() if column.type is Type.TIME else _TYPES[column.type]
        try:
            pa.array([batch.columns[column.name][position]], sql_type)
        except UNFIT:
            return column.name
    return ""


def _halves(ids: Sequence[bytes]) -> tuple[Any, Any]:
    """The first and last 8 bytes of each id as unsigned integers."""
    words = array("Q", b"".join(ids))
    if sys.byteorder == "little":
        words.byteswap()
    return tuple(pa.Array.from_buffers(pa.uint64(), len(ids), [None, pa.py_buffer(words[i::2])]) for i in (0, 1))


def id_ranges(table: Any) -> list[tuple[int, int]]:  # noqa: ANN401  # pyarrow has no types.
    """Where a batch's ids lie: at most MOST_RANGES pairs of smallest and largest first half, apart from each other.

    An old envelope that is replayed among new records would otherwise stretch one range over the whole table.
    """
    ordered = table["_id_high"].combine_chunks()
    ordered = ordered.take(pc.array_sort_indices(ordered))
    count = len(ordered)
    gaps = pa.table(
        {"gap": pc.subtract(ordered.slice(1), ordered.slice(0, count - 1)), "at": pa.array(range(1, count))}
    )
    gaps = gaps.filter(pc.greater(gaps["gap"], pa.scalar(WIDE_GAP, pa.uint64())))
    if len(gaps) >= MOST_RANGES:
        gaps = gaps.take(pc.select_k_unstable(gaps, k=MOST_RANGES - 1, sort_keys=[("gap", "descending")]))
    places = [0, *sorted(gaps["at"].to_pylist()), count]
    return [(ordered[first].as_py(), ordered[after - 1].as_py()) for first, after in pairwise(places)]
