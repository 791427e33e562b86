"""What an envelope promises: records come out as they went in, bad ones apart with reasons, bad envelopes refused."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest
from examples import JOB, NOON, NOW, job, job_rows
from hypothesis import given
from hypothesis import strategies as st

from siteward.compression import compress_zstd, decompress
from siteward.envelope import JSON, MAX_BYTES, MSGPACK, Envelope, open_envelope, seal
from siteward.kinds.data_operation import DataOperation
from siteward.records import Refused, kind_of

KINDS = {"job": JOB, "data-operation": kind_of(DataOperation)}


def test_records_come_out_as_they_went_in() -> None:
    """Sealing and opening changes no value, no id and no order."""
    rows = job_rows(50)
    parcel = open_envelope(seal(JOB, rows, "p@h", NOW), MSGPACK, KINDS, NOW, routed_vo="example")
    assert parcel.refused == []
    assert parcel.ids == [JOB.id_of(row) for row in rows]
    assert parcel.columns == {name: [getattr(row, name) for row in rows] for name in JOB.names}
    assert parcel.header.producer == "p@h"


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.text(max_size=30), st.booleans()), min_size=1, max_size=20))
def test_any_valid_values_survive(values: list[tuple[int, str, bool]]) -> None:
    """Integers to 2^63-1, any text, optional values given or not: all survive exactly."""
    rows = [
        JOB.row_of(job(number, memory=amount if known else None, application=text.replace("\0", "")), NOW)
        for number, (amount, text, known) in enumerate(values)
    ]
    parcel = open_envelope(seal(JOB, rows, "p", NOW), MSGPACK, KINDS, NOW)
    assert parcel.columns["memory"] == [row.memory for row in rows]  # type: ignore[attr-defined]
    assert parcel.columns["application"] == [row.application for row in rows]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("wall_time", -5, ">= 0"),
        ("wall_time", 2**63, "<="),
        ("wall_time", 1.5, "got float"),
        ("site", "", "length >= 1"),
        ("site", "a\0", "NUL"),
        ("end", 0, "outside 1990"),
        ("end", 1_772_000_000_000_000, "ends before it starts"),
        ("end", 4_000_000_000_000_000, "in the future"),
        ("state", "odd", "expected one of"),
        ("cpu_time", "x", "got str"),
    ],
)
def test_one_bad_record_does_not_hold_up_the_others(column: str, value: object, reason: str) -> None:
    """A bad record is set apart with its reason and its content; the rest of the envelope is accepted."""
    rows = job_rows(20)
    parcel = open_envelope(_with(rows, column, 7, value), MSGPACK, KINDS, NOW)
    assert len(parcel.ids) == 19
    assert parcel.ids == [JOB.id_of(row) for position, row in enumerate(rows) if position != 7]
    ((position, refused, original),) = parcel.refused
    assert (position, refused.field) == (7, column)
    assert reason in refused.reason
    assert json.loads(original)["local_job_id"] == "7"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"v": 2}, "v"),
        ({"kind": "jobs"}, "kind"),
        ({"id": b"short"}, "id"),
        ({"count": 0}, "count"),
        ({"count": 19}, "start"),
        ({"units": {"wall_time": "min"}}, "wall_time"),
        ({"units": {"colour": "s"}}, "colour"),
        ({"columns": msgspec.Raw(b"\x93\x01\x02\x03")}, "columns"),
        ({"columns": msgspec.Raw(b"\x81\xa1x\x90")}, "x"),
        ({"columns": msgspec.Raw(b"\x80")}, "start"),
        ({"columns": msgspec.Raw(b"\x82\xa4site\x90\xa4site\x90")}, "columns"),
        ({"columns": msgspec.Raw(b"\xde\x00\x02\xa4site\x90\xa4site\x90")}, "columns"),
    ],
)
def test_an_envelope_that_cannot_be_read_is_refused_whole(change: dict[str, Any], field: str) -> None:
    """Version, kind, id, count, units and columns must be right before any record is."""
    envelope = msgspec.structs.replace(_envelope(job_rows(20)), **change)
    with pytest.raises(Refused) as caught:
        open_envelope(msgspec.msgpack.encode(envelope), MSGPACK, KINDS, NOW)
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", b"\x81", b"\x91" * 100_000, b"\x80", bytes(1000)])
def test_bytes_that_are_no_envelope_are_refused(body: bytes) -> None:
    """Whatever bytes arrive on a queue, the answer is a reason, not a crash."""
    with pytest.raises(Refused):
        open_envelope(body, MSGPACK, KINDS, NOW)
    with pytest.raises(Refused):
        open_envelope(body, JSON, KINDS, NOW)


@given(st.binary(max_size=400), st.integers(0, 2**32))
def test_damaged_envelopes_never_crash(noise: bytes, place: int) -> None:
    """Bytes changed anywhere give an answer: the records, some refused, or the whole refused."""
    body = bytearray(seal(JOB, job_rows(3), "p", NOW, identifier=b"i" * 16))
    place %= len(body)
    body[place : place + len(noise)] = noise
    try:
        parcel = open_envelope(bytes(body), MSGPACK, KINDS, NOW)
    except Refused:
        return
    assert len(parcel.ids) + len(parcel.refused) >= 1
    assert all(len(values) == len(parcel.ids) for values in parcel.columns.values())


def test_the_routing_keys_vo_must_be_the_envelopes() -> None:
    """A producer that may publish for one VO cannot slip in records of another."""
    with pytest.raises(Refused, match="routing key"):
        open_envelope(seal(JOB, job_rows(1), "p", NOW), MSGPACK, KINDS, NOW, routed_vo="other")


def test_a_producers_name_has_an_end() -> None:
    """One that no store could index is refused at the door; our own envelopes never have it."""
    assert len(open_envelope(seal(JOB, job_rows(1), "p" * 5_000, NOW), MSGPACK, KINDS, NOW).header.producer) == 1_024
    sealed = msgspec.msgpack.decode(seal(JOB, job_rows(1), "p", NOW), type=Envelope)
    sealed.producer = "p" * 1_025
    with pytest.raises(Refused, match="longer than 1024") as caught:
        open_envelope(msgspec.msgpack.encode(sealed), MSGPACK, KINDS, NOW)
    assert caught.value.field == "producer"


def test_too_large_an_envelope_is_refused_before_it_is_decoded() -> None:
    """Size is checked first, so that one message cannot exhaust a collector."""
    with pytest.raises(Refused, match="smaller envelopes"):
        open_envelope(bytes(MAX_BYTES + 1), MSGPACK, KINDS, NOW)


def test_the_json_form_gives_the_same_records() -> None:
    """An envelope written by hand in JSON is worth as much as one of ours."""
    rows = job_rows(2)
    records = [{"vo": "example", "site": "SITE-0", "local_job_id": "0", "start": "2026-03-02T11:00:00Z"}]
    records[0] |= {"end": NOON.isoformat(), "submit_host": "submit.example.org"}
    body: dict[str, Any] = {"v": 1, "id": "00" * 16, "kind": "job", "vo": "example", "producer": "p", "sent": NOW}
    body["records"] = [records[0] | {"wall_time": 1}, records[0] | {"wall_time": -1}, records[0] | {"vo": "b"}]
    parcel = open_envelope(json.dumps(body).encode(), JSON, KINDS, NOW)
    assert parcel.ids == [JOB.id_of(rows[0])]
    assert [(position, refused.field) for position, refused, _ in parcel.refused] == [
        (1, "wall_time"),
        (2, "wall_time"),
    ]


def test_a_json_envelope_with_a_key_given_twice_is_refused() -> None:
    """Which of the two was meant, nobody knows."""
    body = b'{"v":1,"id":"%s","kind":"job","vo":"a","vo":"b","producer":"p","sent":1,"records":[{}]}' % (b"00" * 16)
    with pytest.raises(Refused, match="given twice"):
        open_envelope(body, JSON, KINDS, NOW)


def test_a_record_with_a_reference_is_the_same_record_when_sent_again() -> None:
    """Where the identity is optional, giving it makes resends harmless; leaving it out makes every record new."""
    kind = KINDS["data-operation"]
    one = DataOperation(vo="v", start=NOON, end=NOON, operation="transfer", state="done", reference="fts-1")
    rows = [kind.row_of(one, NOW)] * 2
    first, second = (open_envelope(seal(kind, rows, "p", NOW), MSGPACK, KINDS, NOW).ids for _ in range(2))
    assert len({*first, *second}) == 1
    assert kind.id_of(rows[0], b"anonymous") == first[0]


def test_equal_records_without_identity_stay_two_and_keep_their_ids() -> None:
    """Two equal transfers are two; the same envelope delivered again gives the same ids."""
    kind = KINDS["data-operation"]
    one = DataOperation(vo="v", start=NOON, end=NOON, operation="transfer", state="done")
    body = seal(kind, [kind.row_of(one, NOW)] * 2, "p", NOW)
    first = open_envelope(body, MSGPACK, KINDS, NOW).ids
    assert len(set(first)) == 2
    assert open_envelope(body, MSGPACK, KINDS, NOW).ids == first
    assert not set(first) & set(open_envelope(seal(kind, [kind.row_of(one, NOW)], "p", NOW), MSGPACK, KINDS, NOW).ids)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", compress_zstd), ("", bytes)])
def test_compressed_bodies_are_bounded_and_complete(encoding: str, compress: Any) -> None:
    """What decompresses beyond the limit is refused while it is small; what ends early is refused too."""
    plain = b"siteward" * 1000
    assert decompress(compress(plain), encoding, len(plain)) == plain
    with pytest.raises(Refused, match="larger than"):
        decompress(compress(bytes(50 * 2**20)), encoding, 2**20)
    if encoding:
        with pytest.raises(Refused, match="ends before"):
            decompress(compress(plain)[:-4], encoding, len(plain))
        with pytest.raises(Refused):
            decompress(b"neither", encoding, 100)


def test_an_unknown_encoding_is_refused() -> None:
    """Guessing would store garbage."""
    with pytest.raises(Refused, match="expected gzip, zstd"):
        decompress(b"", "br", 10)


def _envelope(rows: list[Any]) -> Envelope:
    return msgspec.msgpack.decode(seal(JOB, rows, "p", NOW), type=Envelope)


def _with(rows: list[Any], column: str, position: int, value: object) -> bytes:
    envelope = _envelope(rows)
    columns = msgspec.msgpack.decode(envelope.columns)
    columns.setdefault(column, [None] * len(rows))[position] = value
    return msgspec.msgpack.encode(
        msgspec.structs.replace(envelope, columns=msgspec.Raw(msgspec.msgpack.encode(columns)))
    )
