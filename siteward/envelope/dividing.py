"""Cutting an envelope: into one per record, to find the one that nobody survives reading, or into chosen parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from siteward.envelope.opening import JsonEnvelope
from siteward.envelope.sealing import JSON, MSGPACK, Envelope
from siteward.records import Refused

_Columns = dict[str, list[msgspec.Raw]]
_Runs = Callable[[int], Sequence[range]]
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
    return _cut(body, content_type, lambda count: [range(place, place + 1) for place in range(count)])


def cut(body: bytes, content_type: str, runs: Sequence[range]) -> list[bytes]:
    """An envelope for each run of records that stand side by side, which gives them the same ids.

    Args:
        body: the envelope, decompressed.
        content_type: MSGPACK or JSON.
        runs: places of records in the envelope.

    Raises:
        Refused: nothing can be cut from it.
    """
    return _cut(body, content_type, lambda _: runs)


def _cut(body: bytes, content_type: str, runs: _Runs) -> list[bytes]:
    try:
        if content_type == MSGPACK:
            return list(_cut_columns(msgspec.msgpack.decode(body, type=Envelope), runs))
        if content_type == JSON:
            return list(_cut_records(msgspec.json.decode(body, type=JsonEnvelope), runs))
    except _UNREADABLE as error:
        reason = f"is not an envelope: {error}"
        raise Refused(reason, field="envelope", value=body[:40]) from error
    reason = f"expected the content type {MSGPACK} or {JSON}"
    raise Refused(reason, field="content_type", value=content_type)


def _cut_columns(envelope: Envelope, runs: _Runs) -> Iterator[bytes]:
    columns = msgspec.msgpack.decode(envelope.columns, type=_Columns)
    broken = next((name for name, values in columns.items() if len(values) != envelope.count), None)
    if broken is not None or not columns:
        reason = f"expected a list of {envelope.count} values"
        raise Refused(reason, kind=envelope.kind, field=broken or "columns")
    for run in runs(envelope.count):
        part = msgspec.msgpack.encode({name: values[run.start : run.stop] for name, values in columns.items()})
        first = envelope.first + run.start
        yield msgspec.msgpack.encode(
            msgspec.structs.replace(envelope, columns=msgspec.Raw(part), count=len(run), first=first)
        )


def _cut_records(envelope: JsonEnvelope, runs: _Runs) -> Iterator[bytes]:
    for run in runs(len(envelope.records)):
        records, first = envelope.records[run.start : run.stop], envelope.first + run.start
        yield msgspec.json.encode(msgspec.structs.replace(envelope, records=records, first=first))
