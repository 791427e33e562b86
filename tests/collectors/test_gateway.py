"""The HTTP door: every record gets an answer, hostile bodies get a clear one, and nothing is stored twice."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from examples import JOB
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from in_memory import MemoryBroker

from collectors import gateway
from collectors.receipts import Receipt, Receipts
from siteward.broker import BrokerFull
from siteward.envelope import Parcel, open_envelope
from siteward.records import Kind, kind_from_table
from siteward.server.app import create_app
from siteward.server.resources import Resources
from siteward.settings import GatewaySettings, Settings
from siteward.telemetry import GATEWAY_QUEUED, GATEWAY_REJECTED, telemetry

NOTICE = kind_from_table(
    "notice",
    {
        "doc": "A line.",
        "shape": "event",
        "dimensions": {"text": {"doc": "What it says.", "optional": True}},
        "measures": {
            "size": {"doc": "How large it is.", "unit": "B", "optional": True},
            "load": {"doc": "How much.", "unit": "1", "type": "number", "combine": "mean", "optional": True},
        },
    },
)
"""A kind without identity."""
KINDS = {"job": JOB, "notice": NOTICE}
GOOD = {"vo": "example", "time": "2026-03-02T12:00:00Z"}
LIMITS = GatewaySettings(max_body=200_000, max_plain=400_000, max_record=2_000, max_waiting=50_000)


class Shared(Resources):
    """Resources whose broker is in memory."""

    def __init__(self, settings: Settings, kinds: dict[str, Kind]) -> None:
        super().__init__(settings, kinds)
        self.memory = MemoryBroker("monitoring")

    @property
    def broker(self) -> MemoryBroker:
        return self.memory


class Door:
    """A client of a gateway."""

    def __init__(self, folder: Path, limits: GatewaySettings = LIMITS) -> None:
        settings = Settings(data=str(folder), gateway=limits)
        self.shared = Shared(settings, KINDS)
        self.client = TestClient(
            create_app(settings, routers=[gateway.router], resources=self.shared), "http://localhost"
        )
        self.receipts = folder / "collectors.sqlite"

    def post(
        self,
        content: bytes | Iterator[bytes],
        content_type: str = "application/json",
        kind: str = "notice",
        **more: str,
    ) -> Any:
        headers = {"content-type": content_type} | {name.replace("_", "-"): value for name, value in more.items()}
        return self.client.post(f"/v1/records/{kind}", content=content, headers=headers)

    @property
    def parcels(self) -> list[Parcel]:
        """The envelopes that were published."""
        now = time.time_ns() // 1000
        return [
            open_envelope(message.body, message.content_type, KINDS, now) for message in self.shared.memory.published
        ]

    @property
    def ids(self) -> list[str]:
        """Ids of the records that were published."""
        return [record.hex() for parcel in self.parcels for record in parcel.ids]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path)
    with opened.client:
        yield opened


def stream(door: Door, pieces: Iterator[bytes], content_type: str, last: int = 10**9) -> tuple[int, bytes]:
    """Post a body piece by piece, as a server would pass it on; the status, and the last bytes of the answer."""
    status, answer, ended = 0, b"", False

    async def receive() -> dict[str, object]:
        nonlocal ended
        if ended:
            await asyncio.Event().wait()
        piece = next(pieces, None)
        ended = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: Any) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer = (answer + message.get("body", b""))[-last:]

    headers = {"host": "localhost", "content-type": content_type, "accept": content_type}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/records/notice",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "app": door.client.app,
    }
    asyncio.run(door.client.app(scope, receive, send))  # type: ignore[arg-type]  # an ASGI scope is any mapping.
    return status, answer


def notice(text: str = "", **more: object) -> dict[str, object]:
    return GOOD | {"text": text} | more


def body(*records: object) -> bytes:
    return json.dumps(records).encode()


def test_each_record_is_answered_by_position(door: Door) -> None:
    """Queued with its id, or rejected with field, value and reason; the sums stand at the end."""
    answer = door.post(body(notice("one"), notice(size=-1), 7, notice("two")))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert [each["status"] for each in said["records"]] == ["queued", "rejected", "rejected", "queued"]
    assert [each["position"] for each in said["records"]] == [0, 1, 2, 3]
    assert (said["records"][1]["field"], said["records"][1]["value"]) == ("size", "-1")
    assert said["records"][2]["reason"] == "expected a JSON object"
    assert (said["queued"], said["rejected"]) == (2, 2)
    assert [each["id"] for each in said["records"] if "id" in each] == door.ids
    assert all(parcel.header.receipt for parcel in door.parcels)


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", body(notice("a"), notice("b"))),
        ("application/json; charset=UTF-8", b"\xef\xbb\xbf" + body(notice("a"), notice("b"))),
        ("application/json", json.dumps({"units": {"size": "B"}, "records": [notice("a"), notice("b")]}).encode()),
        ("application/x-ndjson", b"\n".join([json.dumps(notice("a")).encode(), json.dumps(notice("b")).encode()])),
        (
            "application/jsonl",
            json.dumps(notice("a")).encode() + b"\r\n\r\n" + json.dumps(notice("b")).encode() + b"\n",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["", "gzip", "zstd"])
def test_every_form_and_encoding_says_the_same(door: Door, content_type: str, content: bytes, encoding: str) -> None:
    """JSON array, object with units, NDJSON; plain, gzip, zstd."""
    packed = {"": content, "gzip": gzip.compress(content), "zstd": zstandard.compress(content)}[encoding]
    answer = door.post(packed, content_type, content_encoding=encoding)
    assert (answer.status_code, answer.json()["queued"]) == (200, 2)
    assert [text for parcel in door.parcels for text in parcel.columns["text"]] == ["a", "b"]


def test_answers_come_as_lines_for_those_who_ask(door: Door) -> None:
    """NDJSON out: a line per record, the sums in the last one."""
    answer = door.post(body(notice(), 1), accept="application/x-ndjson")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    first, second, last = [json.loads(line) for line in answer.text.splitlines()]
    assert (first["status"], second["status"]) == ("queued", "rejected")
    assert last == {"queued": 1, "rejected": 1}


def test_records_are_sealed_by_vo_and_the_answers_keep_their_order(door: Door) -> None:
    """An envelope holds one VO; every answer's id is that of the record at its position."""
    answer = door.post(body(*(notice(str(number), vo=f"vo{number % 3}") for number in range(2_500))))
    said = answer.json()["records"]
    assert [each["position"] for each in said] == list(range(2_500))
    assert {parcel.header.vo for parcel in door.parcels} == {"vo0", "vo1", "vo2"}
    assert max(len(parcel.ids) for parcel in door.parcels) <= 1_000
    texts = {
        record.hex(): text
        for parcel in door.parcels
        for record, text in zip(parcel.ids, parcel.columns["text"], strict=True)
    }
    assert [texts[each["id"]] for each in said] == [str(number) for number in range(2_500)]


def test_an_empty_array_is_an_answer_too(door: Door) -> None:
    """Nothing to do is no error."""
    assert door.post(b"[]").json() == {"records": [], "queued": 0, "rejected": 0}


def test_a_retry_with_its_key_is_the_same_records(door: Door) -> None:
    """Records without identity get stable ids from the key; without one, each is a new record."""
    records = body(*(notice("x") for _ in range(1_500)))
    first = door.post(records, idempotency_key="k1").json()
    again = door.post(records, idempotency_key="k1").json()
    assert first == again
    assert len(set(door.ids)) == 1_500
    assert door.post(records).json() != first
    assert door.post(records, idempotency_key="k2").json() != first
    assert door.post(b"[]", idempotency_key="k" * 300).status_code == 400


def test_a_key_used_again_for_other_records_loses_none(door: Door) -> None:
    """Ids follow from the content too."""
    door.post(body(notice("one")), idempotency_key="k1")
    door.post(body(notice("two")), idempotency_key="k1")
    assert len(set(door.ids)) == 2


def test_receipts_say_queued_and_then_what_the_sink_did(door: Door) -> None:
    """The word of the gateway is durable before it is given."""
    record = door.post(body(notice())).json()["records"][0]["id"]
    said = door.client.get(f"/v1/receipts/{record}").json()
    assert [sink["outcome"] for sink in said["submissions"][0]["sinks"]] == ["queued"]
    (parcel,) = door.parcels
    with Receipts(door.receipts) as receipts:
        receipts.note([Receipt(parcel.header.id, 0, "monitoring", bytes.fromhex(record), "stored")], 1)
    said = door.client.get(f"/v1/receipts/{record}").json()
    assert [sink["outcome"] for sink in said["submissions"][0]["sinks"]] == ["stored"]


def test_an_unknown_receipt_is_404_and_a_wrong_id_is_422(door: Door) -> None:
    """A clear word instead of an empty list."""
    assert door.client.get(f"/v1/receipts/{'0' * 32}").status_code == 404
    assert door.client.get("/v1/receipts/xyz").status_code == 422


HUGE = b"[" + b",".join(json.dumps(notice("x" * 100)).encode() for _ in range(3_000)) + b"]"
HOSTILE: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "empty": (b"", {}, 400, "is empty"),
    "empty lines": (b"\n\n", {"content_type": "application/x-ndjson"}, 400, "no record"),
    "truncated JSON": (body(notice())[:-5], {}, 400, "ends before"),
    "truncated gzip": (gzip.compress(body(notice()))[:-9], {"content_encoding": "gzip"}, 400, "ends before"),
    "truncated zstd": (zstandard.compress(body(notice()))[:-4], {"content_encoding": "zstd"}, 400, "ends before"),
    "not gzip": (body(notice()), {"content_encoding": "gzip"}, 400, "not gzip"),
    "not zstd": (body(notice()), {"content_encoding": "zstd"}, 400, "not zstd"),
    "gzip that is zstd": (zstandard.compress(body(notice())), {"content_encoding": "gzip"}, 400, "not gzip"),
    "gzip bomb": (gzip.compress(b"[" + b" " * 10**8), {"content_encoding": "gzip"}, 413, "after decompression"),
    "zstd bomb": (zstandard.compress(b"[" + b" " * 10**8), {"content_encoding": "zstd"}, 413, "after decompression"),
    "deep arrays": (b"[" * 100_000, {}, 400, "nested more than"),
    "deep objects": (b'[{"a":' * 30_000, {}, 400, "nested more than"),
    "UTF-16": (body(notice()).decode().encode("utf-16"), {}, 400, "UTF-16"),
    "UTF-16 without mark": (body(notice()).decode().encode("utf-16-le"), {}, 400, "UTF-16"),
    "UTF-16 behind a space": (b" " * 8 + body(notice()).decode().encode("utf-16-le")[:-1], {}, 200, "NUL"),
    "unknown charset": (body(), {"content_type": "application/json; charset=latin-1"}, 415, "latin-1"),
    "unknown encoding": (body(), {"content_encoding": "br"}, 415, "'br' is unknown"),
    "two encodings": (body(), {"content_encoding": "gzip, gzip"}, 415, "is unknown"),
    "unknown type": (body(), {"content_type": "text/csv"}, 415, "text/csv"),
    "no type": (body(), {"content_type": ""}, 415, "application/json"),
    "unknown kind": (body(), {"kind": "nothing"}, 404, "there are job, notice"),
    "too large": (HUGE, {}, 413, "more than 200000"),
    "wrong unit": (b'{"units": {"size": "kB"}, "records": []}', {}, 400, "is declared in 'B'"),
    "units of what is no measure": (b'{"units": {"text": "B"}, "records": []}', {}, 400, "is declared in ''"),
    "units that are no units": (b'{"units": {"size": 5}, "records": []}', {}, 400, "units"),
    "a number": (b"17", {}, 400, "expected a JSON array"),
    "rubbish": (b"\x89PNG rubbish" * 20, {}, 400, "expected a JSON array"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_gets_a_clear_answer(door: Door, name: str) -> None:
    """A 4xx that says what is wrong, and never a 500."""
    content, options, status, detail = HOSTILE[name]
    answer = door.post(content, **{"content_type": "application/json"} | options)
    assert answer.status_code == status
    assert detail in answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status


REJECTED: dict[str, tuple[bytes, str, str]] = {
    "duplicate key": (b'{"vo": "a", "vo": "b", "time": "2026-03-02T12:00:00Z"}', "vo", "given twice"),
    "NaN": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "load": NaN}', "", "NaN is not a JSON number"),
    "1e400": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "load": 1e400}', "load", "finite"),
    "2^63": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "size": 9223372036854775808}', "size", ""),
    "5,000 digits": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "size": ' + b"9" * 1_900 + b"}", "size", ""),
    "a fraction": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "size": 1.0}', "size", "int"),
    "a text": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "size": "1"}', "size", "int"),
    "empty VO": (b'{"vo": "", "time": "2026-03-02T12:00:00Z"}', "vo", "length"),
    "no time": (b'{"vo": "a"}', "time", "is missing"),
    "naive time": (b'{"vo": "a", "time": "2026-03-02T12:00:00"}', "time", "time zone"),
    "1970": (b'{"vo": "a", "time": "1970-01-01T00:00:00Z"}', "time", "outside"),
    "unknown field": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "sise": 1}', "sise", "did you mean 'size'"),
    "invalid UTF-8": (b'{"vo": "a\xff", "time": "2026-03-02T12:00:00Z"}', "", "utf-8"),
    "half a character": (b'{"vo": "a\\ud800", "time": "2026-03-02T12:00:00Z"}', "vo", "Unicode"),
    "half a name": (b'{"vo": "a", "time": "2026-03-02T12:00:00Z", "\\ud800": 1}', "", "not a field"),
    "a NUL": (b'{"vo": "a\\u0000", "time": "2026-03-02T12:00:00Z"}', "vo", "NUL"),
    "not an object": (b'["vo"]', "", "expected a JSON object"),
    "null": (b"null", "", "expected a JSON object"),
    "not JSON": (b'{"vo": tru}', "", "is not JSON"),
    "mixed brackets": (b'{"vo": [}', "", "is not JSON"),
    "huge": (b'{"vo": "' + b"x" * 3_000 + b'"}', "record", "larger than 2000 bytes"),
    "nested": (b'{"vo": ' + b"[" * 60 + b"]" * 60 + b"}", "", ""),
}


FORMS = ("application/json", "application/x-ndjson")
# In an array nobody can say where a record with mixed brackets ends; a later test has that.
CASES = [(name, form) for name in REJECTED for form in FORMS if (name, form) != ("mixed brackets", FORMS[0])]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_a_bad_record_is_rejected_and_its_neighbours_are_queued(door: Door, name: str, form: str) -> None:
    """One mistake costs one record, in either form."""
    record, field, reason = REJECTED[name]
    good = json.dumps(notice()).encode()
    content = b"[%b,%b,%b]" % (good, record, good) if form == "application/json" else b"\n".join((good, record, good))
    answer = door.post(content, form)
    said = answer.json()
    assert answer.status_code == 200
    assert [each["status"] for each in said["records"]] == ["queued", "rejected", "queued"]
    assert said["records"][1]["field"] == field or not field
    assert reason in said["records"][1]["reason"]


def test_what_was_queued_before_a_break_stays_queued(door: Door) -> None:
    """The answer says how many, which, and where it broke."""
    content = body(*(notice(str(number)) for number in range(1_200)))[:-1] + b', {"vo": [}'
    answer = door.post(content)
    said = answer.json()
    assert answer.status_code == 400
    assert (said["queued"], said["rejected"], said["position"]) == (1_200, 0, 1_200)
    assert len(said["records"]) == len(door.ids) == 1_200


def test_a_sender_that_goes_away_leaves_whole_records_only(door: Door) -> None:
    """A chunked body that is cut off is broken like any other."""

    def pieces() -> Iterator[bytes]:
        yield b"[" + json.dumps(notice()).encode() + b","
        yield json.dumps(notice()).encode()[:20]

    answer = door.post(pieces())
    assert (answer.status_code, answer.json()["queued"]) == (400, 1)


def test_a_body_without_a_length_is_measured_as_it_comes(door: Door) -> None:
    """413 while reading; what came before is answered for."""
    pieces = (HUGE[start : start + 10_000] for start in range(0, len(HUGE), 10_000))
    status, answer = stream(door, pieces, "application/json")
    said = json.loads(answer)
    assert (status, "as it was sent" in said["detail"]) == (413, True)
    assert said["queued"] == said["position"] == len(door.ids) > 1_000


def test_a_body_full_of_mistakes_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Answers to millions of tiny mistakes would be larger than the mistakes."""
    door = Door(tmp_path, GatewaySettings())
    with door.client:
        answer = door.post(b"[" + b"1," * 100_000 + b"1]")
        assert answer.status_code == 400
        assert answer.json()["rejected"] < 12_000


def test_full_queues_answer_429_and_a_lost_broker_503(tmp_path: Path) -> None:
    """Both say after how many seconds to try again."""
    door = Door(tmp_path, GatewaySettings(max_waiting=999))
    door.shared.memory.away = True
    answer = door.post(body(notice()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    door.shared.memory.away = False
    content = body(*[notice()] * 1_000)
    deadline = time.monotonic() + 5
    while (answer := door.post(content)).status_code == 200:
        assert time.monotonic() < deadline
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")


def test_a_full_broker_answers_429(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that counts no records says itself when it takes no more: the caller is to slow down, not to give up."""

    def put(_messages: Any) -> None:
        reason = "a queue is full"
        raise BrokerFull(reason)

    monkeypatch.setattr(door.shared.memory, "put", put)
    answer = door.post(body(notice()))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")


def test_a_broker_lost_on_the_way_says_where(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first record without an answer is named; those before are queued."""
    memory, put = door.shared.memory, door.shared.memory.put

    def put_once(messages: Any) -> None:
        put(messages)
        memory.away = True

    monkeypatch.setattr(memory, "put", put_once)
    answer = door.post(body(*[notice()] * 2_500))
    assert (answer.status_code, answer.json()["position"], answer.json()["queued"]) == (503, 1_000, 1_000)
    assert len(door.ids) == 1_000


def test_queued_and_rejected_records_are_counted(door: Door) -> None:
    """The page's figures come from here."""
    telemetry.reset()
    door.post(body(notice(), 1, 2))
    assert telemetry.value(GATEWAY_QUEUED, "notice") == 1
    assert telemetry.value(GATEWAY_REJECTED, "notice") == 2


@trying(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.text(alphabet='[]{}",:\\ntru1e-+.0', max_size=60).map(str.encode)
    | st.text(max_size=30).map(lambda text: f'[{{"vo": "{text}"}}]'.encode("utf-8", "replace")),
    st.sampled_from(["application/json", "application/x-ndjson"]),
    st.sampled_from(["", "", "gzip", "zstd"]),
)
def test_whatever_comes_the_answer_is_never_a_500(door: Door, content: bytes, form: str, encoding: str) -> None:
    """Random bodies, half of them nearly JSON."""
    assert door.post(content, form, content_encoding=encoding).status_code in {200, 400, 413}


def test_a_hundred_megabytes_pass_in_constant_memory(tmp_path: Path) -> None:
    """Read, validated, queued and answered as they stream."""
    record = json.dumps(notice("x" * 200, vo="v" * 100) | {"load": 0.123456789}).encode()
    record += b" " * (4_095 - len(record))
    door = Door(tmp_path, GatewaySettings(max_body=2**28))
    door.shared.memory.put = lambda messages: None  # type: ignore[method-assign]  # not measured.  # noqa: ARG005  # the name counts.

    def pieces(megabytes: int) -> Iterator[bytes]:
        megabyte = b"\n".join([record] * 256) + b"\n"
        return (megabyte[start : start + 65_536] for _ in range(megabytes) for start in range(0, 2**20, 65_536))

    stream(door, pieces(5), "application/x-ndjson", 1_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, answer = stream(door, pieces(100), "application/x-ndjson", 1_000)
    assert (status, json.loads(answer.splitlines()[-1])["queued"]) == (200, 25_600)
    assert sys.platform == "linux"  # Where ru_maxrss is in KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024
