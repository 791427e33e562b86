"""Cutting an envelope into one per record, to find the record that nobody survives reading."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from siteward.envelope.opening import JsonEnvelope
from siteward.envelope.sealing import JSON, MSGPACK, Envelope
from siteward.records import Refused

_Columns = dict[str, list[msgspec.Raw]]
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


def divide(body: bytes, content_type: str) -> list[bytes]:
    """The records of an envelope, each in an envelope of its own that gives it the same id.

    Values are carried over unread: whoever opens the envelopes judges them.

    Args:
        body: the envelope, decompressed.
        content_type: MSGPACK or JSON.

    Returns:
        Envelopes of the same content type, in the order of the records.

    Raises:
        Refused: nothing can be cut from it.
    """
    try:
        if content_type == MSGPACK:
            return list(_cut_columns(msgspec.msgpack.decode(body, type=Envelope)))
        if content_type == JSON:
            return list(_cut_records(msgspec.json.decode(body, type=JsonEnvelope)))
    except _UNREADABLE as error:
        reason = f"is not an envelope: {error}"
        raise Refused(reason, field="envelope", value=body[:40]) from error
    reason = f"expected the content type {MSGPACK} or {JSON}"
    raise Refused(reason, field="content_type", value=content_type)


def _cut_columns(envelope: Envelope) -> Iterator[bytes]:
    columns = msgspec.msgpack.decode(envelope.columns, type=_Columns)
    broken = next((name for name, values in columns.items() if len(values) != envelope.count), None)
    if broken is not None or not columns:
        reason = f"expected a list of {envelope.count} values"
        raise Refused(reason, kind=envelope.kind, field=broken or "columns")
    for place in range(envelope.count):
        part = msgspec.msgpack.encode({name: [values[place]] for name, values in columns.items()})
        yield msgspec.msgpack.encode(
            msgspec.structs.replace(envelope, columns=msgspec.Raw(part), count=1, first=envelope.first + place)
        )


def _cut_records(envelope: JsonEnvelope) -> Iterator[bytes]:
    for place, record in enumerate(envelope.records, envelope.first):
        yield msgspec.json.encode(msgspec.structs.replace(envelope, records=[record], first=place))
