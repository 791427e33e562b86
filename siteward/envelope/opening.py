"""Opening envelopes from anywhere: decoded, validated, good records as columns and bad ones apart with reasons."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import isfinite
from operator import gt
from typing import Any, Final

import msgspec

from siteward.envelope.sealing import (
    JSON,
    LONGEST_PRODUCER,
    MAX_BYTES,
    MAX_RECORDS,
    MSGPACK,
    VERSION,
    Columns,
    Envelope,
    Header,
)
from siteward.records import Kind, Refused, Row, Shape, Type, anonymous_id, moment, record_id
from siteward.records.doors import row_from_json

FIXMAP: Final = 0x80
MAP_SIZES: Final = {0xDE: 3, 0xDF: 5}
"""MessagePack's maps: up to 15 pairs in the first byte; else two or four bytes of length follow it."""


class JsonEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """An envelope as other languages may write it: records as JSON objects, the id as 32 hexadecimal digits."""

    v: int
    id: str
    kind: str
    producer: str
    sent: int
    records: list[msgspec.Raw]
    vo: str
    receipt: bool = False
    units: dict[str, str] = {}
    first: int = 0


class Parcel(msgspec.Struct):
    """A decoded envelope: its accepted records as columns, and the refused ones with reason and bytes.

    Attributes:
        header: the envelope's header.
        kind: the compiled kind.
        ids: a 16-byte record id for each accepted record.
        columns: the accepted records' values; every column of the kind.
        refused: position in the envelope, reason, and the record's bytes as JSON.
    """

    header: Header
    kind: Kind
    ids: list[bytes]
    columns: Columns
    refused: list[tuple[int, Refused, bytes]]


_decoder = msgspec.msgpack.Decoder(Envelope)


def open_envelope(
    body: bytes, content_type: str, kinds: Mapping[str, Kind], now: int, *, routed_vo: str | None = None
) -> Parcel:
    """Decode and validate an envelope from anywhere.

    Args:
        body: the message body, decompressed.
        content_type: MSGPACK or JSON.
        kinds: every known kind by name.
        now: microseconds since 1970 UTC.
        routed_vo: the VO in the message's routing key; an envelope of another VO is refused.

    Raises:
        Refused: the envelope as a whole cannot be read; single bad records are in Parcel.refused instead.
    """
    if len(body) > MAX_BYTES:
        reason = f"is larger than {MAX_BYTES} bytes; send smaller envelopes"
        raise Refused(reason, field="envelope", value=f"{len(body)} bytes")
    if content_type == JSON:
        return _open_json(body, kinds, now, routed_vo)
    if content_type != MSGPACK:
        reason = f"expected the content type {MSGPACK} or {JSON}"
        raise Refused(reason, field="content_type", value=content_type)
    try:
        envelope = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        reason = f"is not an envelope: {error}"
        raise Refused(reason, field="envelope", value=body[:40]) from error
    kind = _check_header(envelope, kinds, routed_vo)
    if not 0 < envelope.count <= MAX_RECORDS:
        reason = f"holds none or more than {MAX_RECORDS} records"
        raise Refused(reason, kind=kind.name, field="count", value=envelope.count)
    _check_columns_once(kind, envelope)
    columns = _columns_fast(kind, envelope, now)
    if columns is not None:
        return Parcel(envelope, kind, _ids(kind, envelope, columns), columns, [])
    return _open_by_record(kind, envelope, now)


def _check_header(header: Header, kinds: Mapping[str, Kind], routed_vo: str | None) -> Kind:
    if header.v != VERSION:
        reason = f"has a version this collector does not read; it reads {VERSION}"
        raise Refused(reason, field="v", value=header.v)
    if len(header.id) != 16:  # noqa: PLR2004  # 128 bits.
        reason = "expected 16 bytes"
        raise Refused(reason, field="id", value=header.id)
    if not 0 <= header.first <= MAX_RECORDS:
        reason = f"is no place in an envelope of at most {MAX_RECORDS} records"
        raise Refused(reason, field="first", value=header.first)
    if len(header.producer) > LONGEST_PRODUCER:
        reason = f"is longer than {LONGEST_PRODUCER} characters; name the program and its host"
        raise Refused(reason, field="producer", value=header.producer[:40])
    kind = kinds.get(header.kind)
    if kind is None:
        reason = "no kind of this name is known here; see `siteward kinds`"
        raise Refused(reason, field="kind", value=header.kind)
    if routed_vo is not None and header.vo != routed_vo:
        reason = f"disagrees with the routing key, which says {routed_vo!r}"
        raise Refused(reason, kind=kind.name, field="vo", value=header.vo)
    check_units(kind, header.units)
    return kind


def _check_columns_once(kind: Kind, envelope: Envelope) -> None:
    """A map with a key given twice would be read as its last value in silence."""
    raw = bytes(memoryview(envelope.columns)[:5])
    pairs = raw[0] & 15 if raw[0] & 0xF0 == FIXMAP else int.from_bytes(raw[1 : MAP_SIZES.get(raw[0], 1)], "big")
    try:
        given = len(msgspec.msgpack.decode(envelope.columns, type=dict[str, msgspec.Raw]))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return  # Not a map of columns at all, which is said where they are read.
    if given != pairs:
        reason = "is a map with a key given twice"
        raise Refused(reason, kind=kind.name, field="columns")


def check_units(kind: Kind, units: Mapping[str, str]) -> None:
    """Refuse units that are not the kind's.

    Raises:
        Refused: naming the measure, the unit given and the unit declared.
    """
    for name, unit in units.items():
        column = kind.column.get(name)
        if column is None or column.unit != unit:
            reason = f"is declared in {column.unit!r}; convert before sending" if column else "is not a measure"
            raise Refused(reason, kind=kind.name, field=name, value=unit)


@cache
def _columns_decoder(kind: Kind) -> msgspec.msgpack.Decoder[Any]:
    fields: list[Any] = []
    for column in kind.columns[1:]:
        accepted = column.wire_type()
        fields.append((column.name, list[accepted] | None, None))  # type: ignore[valid-type]  # made at run time.
    return msgspec.msgpack.Decoder(msgspec.defstruct(f"{kind.name}-columns", fields, forbid_unknown_fields=True))


def _columns_fast(kind: Kind, envelope: Envelope, now: int) -> Columns | None:
    """All columns if every record is good; None when any is not, to look at each record by itself."""
    count = envelope.count
    try:
        decoded = _columns_decoder(kind).decode(envelope.columns)
        first = msgspec.convert(envelope.vo, kind.columns[0].wire_type())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    columns: Columns = {"vo": [first] * count}
    for column in kind.columns[1:]:
        values = getattr(decoded, column.name)
        if values is None:
            if column.required:
                return None
            values = [column.default] * count
        if len(values) != count:
            return None
        columns[column.name] = values
    return columns if _plausible(kind, columns, now) else None


def _plausible(kind: Kind, columns: Columns, now: int) -> bool:
    """The checks of Kind.checked that types cannot express, by column."""
    if kind.shape is Shape.INTERVAL and any(map(gt, columns["start"], columns["end"])):
        return False
    if any(max(columns[name]) > now + kind.ahead for name in kind.times):
        return False
    for column in kind.columns:
        values = columns[column.name]
        if column.type is Type.NUMBER and not all(value is None or isfinite(value) for value in values):
            return False
        if column.type is Type.STRING and not column.values and "\0" in "".join(values):
            return False
    return True


def _ids(kind: Kind, header: Header, columns: Columns) -> list[bytes]:
    times = columns[kind.time]
    identities = zip(*(columns[name] for name in kind.identity), strict=True) if kind.identity else [()] * len(times)
    name, vo = kind.name, header.vo
    if kind.optional_identity:
        return [
            record_id(time, name, vo, identity) if any(identity) else anonymous_id(time, header.id, position)
            for position, (time, identity) in enumerate(zip(times, identities, strict=True), header.first)
        ]
    return [record_id(time, name, vo, identity) for time, identity in zip(times, identities, strict=True)]


def _open_by_record(kind: Kind, envelope: Envelope, now: int) -> Parcel:
    """Find the bad records of an envelope, so that the good ones need not wait for them."""
    try:
        given = msgspec.msgpack.decode(envelope.columns)
        if not isinstance(given, dict):
            reason = "expected a map of columns"
            raise Refused(reason, kind=kind.name, field="columns")
        unknown = next((name for name in given if name not in kind.names[1:]), None)
        if unknown is not None:
            reason = f"is not a field of {kind.name}"
            raise Refused(reason, kind=kind.name, field=str(unknown))
        lists = {
            name: values for name, values in given.items() if isinstance(values, list) and len(values) == envelope.count
        }
        if len(lists) != len(given):
            broken = next(name for name in given if name not in lists)
            reason = f"expected a list of {envelope.count} values"
            raise Refused(reason, kind=kind.name, field=broken)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        reason = f"cannot be decoded: {error}"
        raise Refused(reason, kind=kind.name, field="columns") from error
    missing = next((column.name for column in kind.columns[1:] if column.required and column.name not in lists), None)
    if missing:
        reason = "is missing"
        raise Refused(reason, kind=kind.name, field=missing)
    defaults = {column.name: column.default for column in kind.columns}

    def values(position: int) -> list[Any]:
        rest = (lists[name][position] if name in lists else defaults[name] for name in kind.names[1:])
        return [envelope.vo, *rest]

    return _judge(
        kind,
        envelope,
        envelope.count,
        lambda position: kind.checked(values(position), now),
        lambda p: as_json(kind, values(p)),
    )


def _judge(
    kind: Kind, header: Header, count: int, check: Callable[[int], Row], original: Callable[[int], bytes]
) -> Parcel:
    """Sort records into accepted and refused, one by one."""
    rows: list[Row] = []
    ids: list[bytes] = []
    refused: list[tuple[int, Refused, bytes]] = []
    for position in range(count):
        try:
            row = check(position)
            _check_vo(header, row)
        except Refused as reason_refused:
            refused.append((position, reason_refused, original(position)))
            continue
        rows.append(row)
        ids.append(kind.id_of(row, anonymous_id(getattr(row, kind.time), header.id, header.first + position)))
    columns: Columns = {name: [getattr(row, name) for row in rows] for name in kind.names}
    return Parcel(header, kind, ids, columns, refused)


def _check_vo(header: Header, row: Row) -> None:
    vo: str = row.vo  # type: ignore[attr-defined]  # every row has one.
    if vo != header.vo:
        reason = f"is not the envelope's, which is {header.vo!r}"
        raise Refused(reason, kind=header.kind, field="vo", value=vo)


def _open_json(body: bytes, kinds: Mapping[str, Kind], now: int, routed_vo: str | None) -> Parcel:
    try:
        keys = [key for key, _ in json.loads(body.decode("utf-8"), object_pairs_hook=list)]
        envelope = msgspec.json.decode(body, type=JsonEnvelope)
        identifier = bytes.fromhex(envelope.id)
    except (msgspec.MsgspecError, TypeError, RecursionError, ValueError) as error:
        reason = f"is not an envelope: {error}"
        raise Refused(reason, field="envelope", value=body[:40]) from error
    if len(set(keys)) != len(keys):
        reason = "has a key given twice"
        raise Refused(reason, field=next(key for key in keys if keys.count(key) > 1))
    header = Header(
        v=envelope.v,
        id=identifier,
        kind=envelope.kind,
        vo=envelope.vo,
        producer=envelope.producer,
        sent=envelope.sent,
        receipt=envelope.receipt,
        units=envelope.units,
        first=envelope.first,
    )
    kind = _check_header(header, kinds, routed_vo)
    records = envelope.records
    if not 0 < len(records) <= MAX_RECORDS:
        reason = f"holds none or more than {MAX_RECORDS} records"
        raise Refused(reason, kind=kind.name, field="records", value=len(records))
    return _judge(
        kind,
        header,
        len(records),
        lambda position: row_from_json(kind, bytes(records[position]), now),
        lambda position: bytes(records[position]),
    )


def as_json(kind: Kind, values: Sequence[Any]) -> bytes:
    """Values in columns order as the JSON object that the JSON door would accept, whatever they are."""
    fields: dict[str, Any] = {}
    for column, value in zip(kind.columns, values, strict=True):
        if value is None and column.default is None and not column.required:
            continue
        fields[column.name] = _time_text(value) if column.type is Type.TIME else value
    return json.dumps(fields, default=repr).encode()


def _time_text(value: object) -> object:
    try:
        return moment(value).isoformat() if isinstance(value, int) else value
    except OverflowError:
        return value
