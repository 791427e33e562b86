"""One file of the archive: records of a UTC day as Parquet, with where they came from.

Ids that follow from their records, most of a kind with an identity, are left out: ten bytes of a hash do not compress.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from accounting.booking.arithmetic import Integers
from accounting.tables import ENTRY, ID, MESSAGE, PRODUCER, is_bucketed, step_columns
from siteward.records import Column, Kind, Type
from siteward.records.identity import ID_BYTES, record_ids

if TYPE_CHECKING:
    import pyarrow as pa

DAY: Final = 86_400
RECEIVED: Final = "_received"
SAMPLE: Final = 1_000
"""Values by which it is guessed whether a column's come again and again."""
_IDENTITY: Final = b"siteward.identity"
_TIME: Final = b"siteward.time"


class ArchiveError(Exception):
    """A file of the archive is not what it should be; the message names it and what is wrong."""

    permanent = True


class File(msgspec.Struct, frozen=True):
    """One file of the archive.

    Attributes:
        kind: whose records.
        day: first second of the UTC day of their partition times.
        file: its path below the archive's folder.
        digest: SHA-256 of its bytes, 64 hexadecimal digits.
        records: in it.
    """

    kind: str
    day: int
    file: str
    digest: str
    records: int


class Repeated(msgspec.Struct, frozen=True):
    """A column whose values come again and again.

    Attributes:
        values: each once.
        places: of each record's value among them.
    """

    values: Sequence[Any]
    places: Integers


Listed = Sequence[Any] | Integers
"""A value for each record; as an array only whole numbers all of which are known."""
Values = Listed | Repeated
Stored = Mapping[str, Values]
"""Columns of records with where they came from, as the database holds them: times in microseconds since 1970 UTC."""


def drafted(kind: Kind, day: int, stored: Stored) -> pa.Table:
    """Records as they go into a file: what takes Python's time."""
    import pyarrow as pa  # noqa: PLC0415  # heavy, and only who archives needs it.

    written = {**stored, ID: _untold(kind, stored)}
    columns = {name: _array(_type(kind, name), values) for name, values in written.items()}
    metadata = {
        b"siteward.kind": kind.name.encode(),
        b"siteward.day": day_name(day).encode(),
        _IDENTITY: msgspec.json.encode(kind.identity),
        _TIME: kind.time.encode(),
    }
    return pa.table(columns).replace_schema_metadata(metadata)


def write(kind: str, folder: Path, day: int, table: pa.Table) -> File:
    """Write records into a file of their own, force it to disk and read it back; any thread may, beside others.

    Raises:
        ArchiveError: it does not give back what was written.
    """
    import pyarrow as pa  # noqa: PLC0415  # as above.
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above.

    # A name of its own: another process may write the same day, and who was slower removes what it wrote.
    name = f"{day_name(day)}.{secrets.token_hex(8)}.parquet"
    draft = folder / kind / f".{name}"
    draft.parent.mkdir(parents=True, exist_ok=True)
    repeated = [each for each in table.column_names if _is_repeated(table[each])]
    numbers = [each for each in table.column_names if each not in repeated and _is_whole(table[each].type)]
    # Without the types in memory, who reads the file finds strings and not numbers of strings.
    with pq.ParquetWriter(
        draft,
        table.schema,
        compression="zstd",
        use_dictionary=repeated,
        column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)
    with draft.open("rb") as opened:
        os.fsync(opened.fileno())
    digest = sha256(draft.read_bytes()).hexdigest()
    listed = [each for each in table.column_names if pa.types.is_dictionary(table[each].type)]
    if not _read_back(draft, listed).equals(table):
        message = f"{draft} does not give back what was written into it; is the disk full or broken?"
        raise ArchiveError(message)
    draft.replace(folder / kind / name)
    _force(folder / kind)
    return File(kind, day, f"{kind}/{name}", digest, len(table))


def _read_back(draft: Path, listed: Sequence[str]) -> pa.Table:
    """What a file holds, whose columns with these names come as dictionaries."""
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above.

    # As one file: what reads folders of them looks at it, and is loaded, in vain.
    with pq.ParquetFile(draft, read_dictionary=list(listed)) as opened:
        return opened.read(use_threads=False)


def _is_repeated(column: pa.ChunkedArray) -> bool:
    """Whether a dictionary of its values makes a column smaller, as far as its beginning tells."""
    import pyarrow as pa  # noqa: PLC0415  # as above.

    beginning = column.slice(0, SAMPLE)
    return pa.types.is_dictionary(column.type) or 2 * len(beginning.unique()) < len(beginning)


def _is_whole(type_: pa.DataType) -> bool:
    """Whether values are stored by their differences: whole numbers and times."""
    import pyarrow as pa  # noqa: PLC0415  # as above.

    return bool(pa.types.is_int64(type_) or pa.types.is_timestamp(type_))


def day_name(day: int) -> str:
    """Such as `2026-03-01`."""
    return datetime.fromtimestamp(day, UTC).strftime("%Y-%m-%d")


def _force(folder: Path) -> None:
    """Have a folder's names on disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _array(type_: pa.DataType, values: Values) -> pa.Array:
    """A column; strings that come again as a dictionary, in which form they are written and read back sooner."""
    import pyarrow as pa  # noqa: PLC0415  # as above.

    if isinstance(values, np.ndarray):
        return pa.array(values).view(type_)
    if not isinstance(values, Repeated):
        return pa.array(values, type_)
    if len(values.values) == 1:
        return _constant(type_, values.values[0], len(values.places))
    is_unknown = np.array([value is None for value in values.values], bool)
    # Values of other days are not in this one's file.
    is_here = (np.bincount(values.places, minlength=len(values.values)) > 0) & ~is_unknown
    number_of = (np.cumsum(is_here) - 1).astype(np.int32)
    places = pa.array(number_of[values.places], mask=is_unknown[values.places])
    here = [value for value, is_used in zip(values.values, is_here.tolist(), strict=True) if is_used]
    found = pa.DictionaryArray.from_arrays(places, pa.array(here, type_))
    return found if pa.types.is_string(type_) else found.dictionary_decode()


def _constant(type_: pa.DataType, value: object, count: int) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415  # as above.

    if value is None or not pa.types.is_string(type_):
        return pa.repeat(pa.scalar(value, type_), count)
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([value], type_))


def _type(kind: Kind, name: str) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415  # as above.

    own = {
        ID: pa.binary(ID_BYTES),
        ENTRY: pa.int64(),
        MESSAGE: pa.binary(ID_BYTES),
        PRODUCER: pa.string(),
        RECEIVED: pa.int64(),
        **dict.fromkeys(step_columns(kind), pa.int64()),
    }
    return own[name] if name in own else _type_of(kind.column[name])


def _type_of(column: Column) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415  # as above.

    match column.type:
        case Type.STRING:
            return pa.string()
        case Type.NUMBER:
            return pa.float64()
        case Type.TIME:
            return pa.timestamp("us", "UTC")
        case _:
            return pa.int64()


def _untold(kind: Kind, stored: Stored) -> Values:
    """The id of each record whose id does not follow from it."""
    needed = {name: plain(stored[name]) for name in {kind.time, "vo", *kind.identity}}
    told = _ids(kind.name, kind.time, kind.identity, needed)
    ids: list[bytes] = list(plain(stored[ID]))
    if told == ids:
        return Repeated([None], np.zeros(len(ids), np.int64))
    return [None if one == other else one for one, other in zip(ids, told, strict=True)] if told else list(ids)


def _ids(kind: str, time: str, identity: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """The ids that follow from records; none where the kind has no identity."""
    if not identity:
        return []
    return record_ids(columns[time], kind, columns["vo"], [columns[name] for name in identity])


def plain(values: Values) -> Sequence[Any]:
    """A value for each record."""
    if isinstance(values, np.ndarray):
        found: list[Any] = values.tolist()
        return found
    if isinstance(values, Repeated):
        return [values.values[place] for place in values.places.tolist()]
    return values


def checked_columns(folder: Path, file: File, names: Collection[str] = ()) -> dict[str, list[Any]]:
    """The records of a file, after a look at whether it is what was written; times in microseconds since 1970 UTC.

    Args:
        folder: of the archive.
        file: which.
        names: the columns that are wanted, as far as the file has them; () for all.

    Raises:
        ArchiveError: it is missing, or other bytes.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415  # as above.

    path = folder / file.file
    try:
        digest = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise ArchiveError(message) from error
    if digest != file.digest:
        message = f"{path} is not what was written: its digest is {digest}, not {file.digest}"
        raise ArchiveError(message)
    schema = pq.read_schema(path)
    wanted = [name for name in schema.names if not names or name in names]
    identity = msgspec.json.decode(schema.metadata[_IDENTITY], type=list[str])
    time = schema.metadata[_TIME].decode()
    needed = {time, "vo", *identity} if ID in wanted else set()
    table = pq.read_table(path, columns=[name for name in schema.names if name in wanted or name in needed])
    columns = {name: _listed(table[name]) for name in table.column_names}
    if ID in wanted and None in columns[ID]:
        told = _ids(file.kind, time, identity, columns)
        columns[ID] = [other if one is None else one for one, other in zip(columns[ID], told, strict=True)]
    return {name: columns[name] for name in wanted}


def _listed(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa  # noqa: PLC0415  # as above.

    found: list[Any] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return found


def fields_of(kind: Kind, stored: Mapping[str, Sequence[Any]], names: Collection[str] = ()) -> dict[str, Sequence[Any]]:
    """The fields of the records of a file, or some of them; those that the kind has gained since have their default.

    One that took another's place says what that one did.
    """
    count = len(stored[ID])
    fields: dict[str, Sequence[Any]] = {}
    for column in kind.columns:
        if names and column.name not in names:
            continue
        former = column.former
        if column.name not in stored and former and former.name in stored:
            fields[column.name] = [
                column.default if each is None else former.value(each) for each in stored[former.name]
            ]
            continue
        values = stored.get(column.name, [column.default] * count)
        # The series of a record is known by its values and their types; databases and files hold truth as integers.
        is_truth = column.type is Type.BOOLEAN
        fields[column.name] = [None if each is None else bool(each) for each in values] if is_truth else values
    return fields


def steps_in(kind: Kind, stored: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """What the records of a file hold of the ones before them; of counters that the kind has gained since, nothing."""
    nothing = [0] * len(stored[ID])
    return {name: stored.get(name, nothing) for name in step_columns(kind)}


def own_columns(kind: Kind) -> list[str]:
    """What a kind's table of records holds itself of its fields, and of counters of the record before."""
    return [*step_columns(kind), *(column.name for column in kind.columns if not is_bucketed(column))]
