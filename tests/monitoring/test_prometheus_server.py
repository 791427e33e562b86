"""Towards a Prometheus server: PromQL as a source of facts, remote-write, and the rules that we ship."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import inf, isnan
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from examples import JOB, batch_of, job
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_server import PrometheusServer, program, running, until
from servers import REPOSITORY

from monitoring.prometheus import counters, remote_write
from monitoring.prometheus.connection import MOST_BYTES, PrometheusError
from monitoring.prometheus.families import families_of
from monitoring.prometheus.promql import PromQL, open_promql
from monitoring.prometheus.sink import PrometheusSink
from monitoring.prometheus.write_request import LITERAL, Sample, encoded, labels_of
from siteward.kinds import load_kinds
from siteward.settings import PrometheusSettings
from siteward.telemetry import METRICS

DEPLOY = REPOSITORY / "deploy" / "prometheus"
KINDS = load_kinds()
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """One server for the questions of this module."""
    with running(tmp_path_factory.mktemp("prometheus")) as started:
        yield started


@contextmanager
def answering(status: int, body: bytes, *, location: str = "") -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server with one answer; notes the headers of what it is asked."""
    asked: list[dict[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(dict(self.headers))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name.
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", asked
        listening.shutdown()
        thread.join()


def test_instant_and_range_questions(server: PrometheusServer) -> None:
    """Vectors, scalars and ranges come as typed series: labels, aware times to the millisecond, numbers."""
    ask = PromQL(server.url + "/")
    at = datetime(2026, 11, 1, 12, 0, 0, 250_000, UTC)
    (scalar,) = ask.instant("scalar(vector(1.5))", at).series
    assert (scalar.labels, scalar.last.time, scalar.last.value) == ({}, at, 1.5)
    (vector,) = ask.instant('label_replace(vector(2), "site", "S", "", "")', at).series
    assert (vector.labels, vector.last.value) == ({"site": "S"}, 2)
    assert ask.instant("vector(1) > 2").series == ()
    hour = timedelta(hours=1)
    (series,) = ask.range("vector(time())", at, at + hour, timedelta(minutes=10)).series
    assert [point.time for point in series.points] == [at + minutes * timedelta(minutes=10) for minutes in range(7)]
    assert [point.value for point in series.points] == [point.time.timestamp() for point in series.points]
    special = [ask.instant(f"vector({text})").series[0].last.value for text in ("NaN", "+Inf", "-Inf")]
    assert isnan(special[0])
    assert special[1:] == [inf, -inf]


@pytest.mark.parametrize("query", ["sum(", "up{", '"text"', "foo[", "sum by (a) (up) / on (", "rate(up)"])
def test_wrong_questions_are_permanent_errors(server: PrometheusServer, query: str) -> None:
    """What the server refuses to read would be refused again; the error has its words."""
    with pytest.raises(PrometheusError) as error:
        PromQL(server.url).instant(query)
    assert error.value.permanent


def test_too_many_points_are_refused_before_they_are_asked(server: PrometheusServer) -> None:
    """A range of more points than Prometheus answers says which step would do; so do times without a zone."""
    ask = PromQL(server.url)
    with pytest.raises(PrometheusError, match="ask with a step above") as error:
        ask.range("up", NOW - timedelta(days=365), NOW, timedelta(seconds=1))
    assert error.value.permanent
    assert ask.range("vector(1)", NOW, NOW + timedelta(seconds=10_999), timedelta(seconds=1)).series[0].points[10_999]
    with pytest.raises(PrometheusError, match="negative"):
        ask.range("up", NOW, NOW - timedelta(days=1), timedelta(seconds=1))
    with pytest.raises(PrometheusError, match="no time zone"):
        ask.instant("up", datetime(2026, 1, 1))  # noqa: DTZ001  # what is refused.


def test_a_server_that_is_away_or_slow_may_come_back() -> None:
    """No connection, and no answer within the timeout, are errors to try again after."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(PrometheusError, match="does not answer") as slow:
            PromQL(f"http://127.0.0.1:{port}", timeout=0.2).instant("up")
    with pytest.raises(PrometheusError, match="does not answer") as away:
        PromQL(f"http://127.0.0.1:{port}").instant("up")
    assert not slow.value.permanent
    assert not away.value.permanent


@contextmanager
def raw(first: bytes, drip: bytes = b"") -> Iterator[str]:
    """A server that sends these bytes whatever it is asked, and then others slowly, for ever."""
    done = Event()

    def serve() -> None:
        with listening.accept()[0] as asker:
            asker.recv(2**16)
            with suppress(OSError):
                asker.sendall(first)
                while drip and not done.wait(0.05):
                    asker.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
        (b"HTTP/1.1 503 No\r\nContent-Length: 9999\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", b""),
    ],
)
def test_a_server_that_drips_or_breaks_off_is_left_in_time(first: bytes, drip: bytes) -> None:
    """The timeout is for the whole answer, header and body, however busily it comes."""
    with raw(first, drip) as url:
        begun = time.monotonic()
        with pytest.raises(PrometheusError, match=r"does not answer|503") as error:
            PromQL(url, timeout=0.5).instant("up")
        assert time.monotonic() - begun < 3
    assert not error.value.permanent


def test_series_without_points_are_none() -> None:
    """A series of an answer always has a last point."""
    with answering(200, _vector('"values":[]').replace(b"vector", b"matrix")) as (url, _):
        assert PromQL(url).instant("up").series == ()


def test_a_token_of_the_settings_is_sent() -> None:
    """The server of `prometheus.url` is asked with `url_token`."""
    with answering(200, _vector('"value":[1,"1"]')) as (url, asked):
        ask = open_promql(PrometheusSettings(url=url, url_token="secret"))
        assert ask is not None
        assert ask.instant("up").series[0].last.value == 1
    assert asked[0]["Authorization"] == "Bearer secret"


def _error(kind: str) -> bytes:
    return json.dumps({"status": "error", "errorType": kind, "error": "because"}).encode()


def _vector(value: str) -> bytes:
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},{value}}}]}}}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "permanent", "said"),
    [
        (503, _error("timeout"), False, "timeout: because"),
        (422, _error("execution"), True, "execution: because"),
        (401, b"who are you", True, "401 Unauthorized: who are you"),
        (429, b"", False, "429"),
        (502, b"<html>", False, "502"),
        (200, b"<html>", True, "something else than Prometheus"),
        (200, _vector('"value":[1,"x"]'), True, "cannot be read"),
        (200, _vector('"value":' + "[" * 100_000 + "]" * 100_000), True, "cannot be read|something else"),
        (200, b"[" * 100_000, True, "something else than Prometheus"),
        (200, b" " * (MOST_BYTES + 1), True, "ask for less"),
        (200, _vector('"histogram":[1,{"count":"1"}]'), True, "histogram_quantile"),
    ],
)
def test_answers_that_are_none(status: int, body: bytes, permanent: bool, said: str) -> None:  # noqa: FBT001  # an example.
    """Each refusal and each strange answer is one error, which says whether to try again."""
    with answering(status, body) as (url, _), pytest.raises(PrometheusError, match=said) as error:
        PromQL(url).instant("up")
    assert error.value.permanent is permanent


def test_the_token_goes_to_its_server_only() -> None:
    """A bearer token is sent, a redirect is not followed with it, and warnings are passed on."""
    body = b'{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["half is missing"]}'
    with answering(200, body) as (url, asked):
        assert PromQL(url, token="secret").instant("up").warnings == ("half is missing",)
        assert asked[0]["Authorization"] == "Bearer secret"
        with answering(307, b"", location=url) as (other, _), pytest.raises(PrometheusError, match="307") as error:
            PromQL(other, token="secret").instant("up")
    assert len(asked) == 1
    assert error.value.permanent


def test_the_settings_name_the_server() -> None:
    """No url, nobody to ask; a wrong one is refused at once."""
    assert open_promql(PrometheusSettings()) is None
    assert open_promql(PrometheusSettings(url="http://127.0.0.1:9090")) is not None
    with pytest.raises(ValueError, match="expected a URL"):
        PromQL("127.0.0.1:9090")


def _unsnappy(block: bytes) -> bytes:
    length, at = _varint(block, 0)
    out = b""
    while at < len(block):
        assert block[at] & 3 == 0
        size = struct.unpack_from("<H", block, at + 1)[0] + 1
        out += block[at + 3 : at + 3 + size]
        at += 3 + size
    assert len(out) == length
    return out


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (body[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not body[at - 1] & 0x80:
            return number, at


def _fields(body: bytes) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        if tag & 7 == 2:
            size, at = _varint(body, at)
            found.append((tag >> 3, body[at : at + size]))
            at += size
        elif tag & 7 == 1:
            found.append((tag >> 3, struct.unpack_from("<d", body, at)[0]))
            at += 8
        else:
            number, at = _varint(body, at)
            found.append((tag >> 3, number))
    return found


@given(
    st.lists(st.tuples(st.dictionaries(st.text(max_size=9), st.text(max_size=400)), st.floats(allow_nan=False))),
    st.integers(0, 2**50),
)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_write_requests_can_be_read(series: list[tuple[dict[str, str], float]], time: int) -> None:
    """A Snappy block of literals holds the messages of remote-write 1.0: sorted labels, none empty, and samples."""
    samples = [Sample(labels_of("name", labels, {"job": "j"}), value) for labels, value in series]
    read = []
    for field, body in _fields(_unsnappy(encoded(samples, time))):
        assert field == 1
        parts = _fields(body)
        labels = [tuple(value.decode() for _, value in _fields(each)) for number, each in parts if number == 1]
        assert labels == sorted(labels)
        read.append((tuple(labels), _fields(next(each for number, each in parts if number == 2))))
    assert read == [(sample.labels, [(1, sample.value), (2, time)]) for sample in samples]
    assert all(value for sample in samples for _, value in sample.labels)


def test_long_write_requests_are_several_literals() -> None:
    """A block longer than one literal is read as it was written."""
    sample = Sample((("a", "x" * (3 * LITERAL)),), 1.0)
    assert len(_unsnappy(encoded([sample], 1))) > 3 * LITERAL


def test_remote_write_reaches_a_real_prometheus(server: PrometheusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series come with job and instance, grow, and end when the collector stops."""
    monkeypatch.setattr(counters, "SETTLE", 0)
    now = datetime.now(UTC)
    jobs = [job(n, start=now, end=now, wall_time=2**40, queue="é") for n in range(20)]
    rows = [JOB.row_of(each, int(now.timestamp() * 1e6) + 10**6) for each in jobs]
    target = f"{server.url}/api/v1/write"
    ask = PromQL(server.url)
    question = 'sum by (job) (siteward_job_wall_time_seconds_total{queue="é", vo="example"})'
    sink = PrometheusSink(PrometheusSettings(port=0, remote_write=target, remote_write_every=0.2), KINDS)
    try:
        sink.write(batch_of(JOB, rows))
        until(lambda: [each.last.value for each in ask.instant(question).series] == [20 * 2**40])
        (series,) = ask.instant(question).series
        assert series.labels == {"job": "siteward-collector"}
        (instance,) = ask.instant("count by (instance) (siteward_build_info)").series
        assert instance.labels == {"instance": f"{socket.gethostname()}:{sink.port}"}
        (quantile,) = ask.instant("histogram_quantile(0.5, sum by (le) (siteward_job_wall_time_seconds_bucket))").series
        assert quantile.last.value == 604_800
    finally:
        sink.close()
    assert ask.instant(question).series == ()


def test_a_server_that_takes_no_remote_write_disturbs_nothing() -> None:
    """The sink counts and answers scrapes whatever becomes of what it sends; the next sending holds all of it."""
    with answering(500, b"full") as (url, asked):
        sink = PrometheusSink(PrometheusSettings(port=0, remote_write=url, remote_write_every=0.05), KINDS)
        until(lambda: len(asked) > 2)
        sink.close()
    assert asked[0]["Content-Encoding"] == "snappy"
    assert asked[0]["X-Prometheus-Remote-Write-Version"] == "0.1.0"


def test_no_fault_ends_remote_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in one sending, the next one is tried."""
    tries: list[int] = []

    def fails(*_: object) -> bytes:
        tries.append(len(tries))
        if len(tries) < 3:
            raise ValueError
        return encoded([], 0)

    monkeypatch.setattr(remote_write, "encoded", fails)
    with answering(200, b"") as (url, asked):
        sink = PrometheusSink(PrometheusSettings(port=0, remote_write=url, remote_write_every=0.05), KINDS)
        until(lambda: len(asked) > 1)
        sink.close()


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_that_we_ship_is_valid(tmp_path: Path) -> None:
    """promtool takes prometheus.yml with its rules, and where its tokens are files of this machine."""
    text = (DEPLOY / "prometheus.yml").read_text()
    for name in ("siteward-token", "metrics-token"):
        (tmp_path / name).write_text("x" * 32)
    (tmp_path / "rules").symlink_to(DEPLOY / "rules")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets", str(tmp_path)))
    said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert "3 rule files found" in said
    assert "is valid prometheus config file syntax" in said


def test_the_rules_that_we_ship_do_what_they_say() -> None:
    """promtool runs the rules on made-up series: each alert fires when it should, and only then."""
    promtool("test", "rules", *sorted((DEPLOY / "tests").glob("*.yml")))


def test_the_rules_ask_for_series_that_there_are() -> None:
    """Each name in the rules is a family of a kind or a metric of our own, so that no alert sleeps for ever."""
    known = {metric.name for metric in METRICS}
    for each in families_of(KINDS, {}).values():
        known |= {family.name for family in each.values}
        known |= {f"{family.name}_bucket" for family in each.histograms}
    for path in sorted((DEPLOY / "rules").glob("*.yml")):
        expressions = re.sub(r"(?m)^\s*(#|-? ?(summary|description):).*$", "", path.read_text())
        named = set(re.findall(r"\bsiteward_[a-z0-9_]+", expressions))
        assert named <= known, path.name
