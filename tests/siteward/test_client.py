"""The client: what it asks, what it gives back, and how it says that something went wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from examples import JOB, NOON, job

from siteward.client import Client, ClientError
from siteward.records.doors import row_from_json
from siteward.records.identity import microseconds

ANSWER: dict[str, Any] = {
    "query": {
        "kind": "job",
        "measures": ["sum:wall_time"],
        "by": ["site"],
        "where": [],
        "start": "2026-03-01T00:00:00Z",
        "end": "2026-03-02T00:00:00Z",
        "width": 0,
        "top": 0,
    },
    "columns": ["sum:wall_time"],
    "units": ["s"],
    "rows": [{"time": None, "group": ["SITE-A"], "values": [2**70], "other": False}],
    "totals": [2**70],
    "groups": 1,
    "incomplete": 0,
    "took_ms": 1.5,
}


class Server(ThreadingHTTPServer):
    """Answers what it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, body: object, status: int = 200, **headers: str) -> None:
        self.body, self.status, self.headers = json.dumps(body).encode(), status, headers


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815  # the library's name.

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


USAGE: dict[str, Any] = {
    "query": {
        "kind": "job",
        "measures": ["sum:cpu_time"],
        "by": ["site"],
        "where": [],
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-04-01T00:00:00Z",
        "attribution": "by-end",
        "period": "month",
        "top": 0,
    },
    "attribution": "by-end",
    "time_zone": "UTC",
    "columns": ["sum:cpu_time"],
    "units": ["s"],
    "types": ["integer"],
    "rows": [
        {
            "start": "2026-01-01T00:00:00Z",
            "end": "2026-02-01T00:00:00Z",
            "group": ["SITE-A"],
            "values": [2**70],
            "other": False,
        }
    ],
    "totals": [2**70],
    "groups": 1,
    "took_ms": 1.5,
}


def test_usage_asks_the_ledger(server: Server) -> None:
    """Each part of the question is a parameter; the answer's integers are exact."""
    server.answer(USAGE)
    answer = Client(server.url).usage(
        "job", ["cpu_time"], by=["site"], where=["vo!=x"], window="2026-Q1", attribution="by-end", period="month"
    )
    path, _, query = server.asked[0][0].partition("?")
    asked = parse_qs(query, keep_blank_values=True)
    assert path == "/v1/accounting/usage"
    assert {name: values for name, values in asked.items() if values != [""]} == {
        "kind": ["job"],
        "measures": ["cpu_time"],
        "by": ["site"],
        "where": ["vo!=x"],
        "window": ["2026-Q1"],
        "attribution": ["by-end"],
        "period": ["month"],
        "top": ["0"],
        "zone": ["UTC"],
    }
    assert (answer.totals, answer.rows[0].values, answer.attribution) == ((2**70,), (2**70,), "by-end")


def test_query_is_asked_and_read(server: Server) -> None:
    """A question's parts are the parameters of the text form, and the answer is typed, integers exact."""
    server.answer(ANSWER)
    answer = Client(server.url + "/").query(
        "job", ["sum:wall_time", "count"], by=["site"], where=["user=a|b", "site~L*"], start=NOON, width="1h", top=5
    )
    path = urlsplit(server.asked[0][0])
    assert path.path == "/v1/query"
    assert parse_qs(path.query) == {
        "kind": ["job"],
        "measures": ["sum:wall_time,count"],
        "by": ["site"],
        "where": ["user=a|b", "site~L*"],
        "start": ["2026-03-02T12:00:00Z"],
        "end": ["now"],
        "width": ["1h"],
        "top": ["5"],
    }
    assert answer.totals == (2**70,)
    assert answer.rows[0].group == ("SITE-A",)


def test_values_and_records(server: Server) -> None:
    """Values and records are plain lists; names in paths are quoted."""
    server.answer({"values": ["a", 1, None]})
    assert Client(server.url).values("a/b", "site", limit=3) == ["a", 1, None]
    assert server.asked[0][0] == "/v1/values/a%2Fb/site?limit=3"
    record = {"id": "0" * 32, "fields": {"site": "X"}, "producer": "p", "message": "1" * 32}
    server.answer({"records": [record | {"received": "2026-03-02T12:00:00Z"}]})
    assert Client(server.url).records("job", ids=["0" * 32])[0].received == NOON


def test_records_are_sent_as_the_door_reads_them(server: Server) -> None:
    """Records of a class and mappings travel as NDJSON that the JSON door accepts."""
    server.answer({"queued": 2})
    one = job(1)
    two = {name: getattr(one, name) for name in one.__struct_fields__}
    assert Client(server.url, "t" * 32).send("job", [one, two]) == {"queued": 2}
    path, headers, body = server.asked[0]
    assert (path, headers["Content-Type"]) == ("/v1/records/job", "application/x-ndjson")
    assert headers["Authorization"] == f"Bearer {'t' * 32}"
    rows = [row_from_json(JOB, line, microseconds(NOON)) for line in body.splitlines()]
    assert rows[0] == rows[1]


def test_receipts_and_pipeline(server: Server) -> None:
    """Receipts and the pipeline's counters are given as they come."""
    server.answer({"id": "x"})
    client = Client(server.url)
    assert client.receipt("x") == client.pipeline() == {"id": "x"}
    assert [asked[0] for asked in server.asked] == ["/v1/receipts/x", "/v1/pipeline"]


@pytest.mark.parametrize(("status", "permanent"), [(400, True), (401, True), (422, True), (429, False), (503, False)])
def test_problems_are_errors(server: Server, status: int, permanent: bool) -> None:  # noqa: FBT001  # a table.
    """An error carries the problem's details, and says whether asking again can help."""
    server.answer({"title": "No", "status": status, "detail": "not that", "field": "site"}, status)
    with pytest.raises(ClientError, match=r"^not that$") as caught:
        Client(server.url).pipeline()
    assert (caught.value.status, caught.value.permanent) == (status, permanent)
    assert caught.value.problem["field"] == "site"


def test_other_errors_are_errors_too(server: Server) -> None:
    """An answer of something that is no Siteward is said to be one, whatever its status."""
    client = Client(server.url)
    server.body = b"<html>"
    for status, hint in ((502, "answers 502"), (200, "something else")):
        server.status = status
        with pytest.raises(ClientError, match=hint):
            client.pipeline()
    assert not client.alive()
    server.answer({"status": "live"})
    assert client.alive()


def test_token_does_not_follow_redirects(server: Server) -> None:
    """A redirect is an error: the token would go wherever it points."""
    server.answer({}, 307, Location="http://192.0.2.1/")
    with pytest.raises(ClientError, match="307"):
        Client(server.url, "t" * 32).pipeline()


def test_nobody_there() -> None:
    """No answer at all is a ClientError that can be tried again."""
    client = Client("http://127.0.0.1:1", timeout=1)
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1 does not answer") as caught:
        client.pipeline()
    assert not caught.value.permanent
    assert not client.alive()


@pytest.mark.parametrize("url", ["", "localhost:8080", "file:///etc/passwd", "http://"])
def test_urls_are_checked(url: str) -> None:
    """Only http and https are spoken."""
    with pytest.raises(ValueError, match="expected a URL"):
        Client(url)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://user:geheim@127.0.0.1:8080", ""),
        ("ftp://user:geheim@127.0.0.1", ""),
        ("http://127.0.0.1:po?token=geheim", ""),
        ("http://127.0.0.1:8080", "geheim\nsecond line"),
    ],
)
def test_secrets_that_cannot_be_sent_are_not_shown(url: str, token: str) -> None:
    """A password in the address, and a token that fits no header, are refused at once without being quoted."""
    with pytest.raises(ValueError, match="expected") as refused:
        Client(url, token)
    assert "geheim" not in f"{refused.value} {refused.value.__context__}"
