"""What the benchmark makes of its figures: shares of the real limit, and what makes a run fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import pytest
from servers import missing

from bench import __main__ as program
from bench import servers
from bench.asked import Asked
from bench.bulk import WAYS, Way, bare_loop

PLAIN, DOUBLE = WAYS


def speeds(rate: float, helper: float = 10_000) -> servers.Speeds:
    """The path at a rate, where the faster bare loop sends 50,000 records/s."""
    return servers.Speeds({PLAIN: (29_000, 31_000), DOUBLE: (40_000, 60_000)}, helper, {1: rate, 2: 1.0})


def failures(asked: Asked) -> list[str]:
    """Why a full run fails."""
    return [*asked.failures(full=True)]


def test_the_bare_loop_is_also_sent_as_our_store_sends() -> None:
    """One request of 5,000 at a time, and two of 2,500."""
    assert (Way(1, 5_000), Way(2, 2_500)) == WAYS


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_bare_loop_sends_all_records_its_way(way: Way) -> None:
    """Every record is sent once, and as many requests are on the way at once as the loop's name says."""
    together, sizes, connections = Barrier(way.at_once), list[int](), set[int]()

    class Bulk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sizes.append(self.rfile.read(int(self.headers["Content-Length"])).count(b"\n") // 2)
            connections.add(self.client_address[1])
            together.wait(30)
            self.send_response(200)
            self.send_header("Content-Length", "16")
            self.end_headers()
            self.wfile.write(b'{"errors":false}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name.
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Bulk) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        rate = bare_loop(f"opensearch://127.0.0.1:{listening.server_address[1]}", "bench", 10_000, way)
        listening.shutdown()
        thread.join()
    assert rate > 0
    assert sizes == [way.size] * (10_000 // way.size)
    assert len(connections) == way.at_once


def test_shares_are_of_the_faster_bare_loop() -> None:
    """Both bare loops are printed, and every other figure beside the faster one."""
    lines = [*servers.speed_lines(speeds(30_000), Asked())]
    assert "| … one request of 5,000 at a time | 29,000, 31,000 | 0.60 | |" in lines
    assert "| … 2 requests of 2,500 at a time | 40,000, 60,000 | 1.00 | |" in lines
    assert "| opensearch-py `streaming_bulk`, prebuilt dictionaries | 10,000 | 0.20 | |" in lines
    assert "| the whole path, one collector | 30,000 | 0.60 | at least 0.6 (aim 0.8), and `streaming_bulk` |" in lines


@pytest.mark.parametrize(("rate", "helper", "short"), [(30_000, 30_000, 0), (29_999, 1, 1), (31_000, 31_001, 1)])
def test_a_slow_path_is_missed(rate: float, helper: float, short: int) -> None:
    """One collector below 0.6 of the faster bare loop, or below `streaming_bulk`, is short of what is asked."""
    asked = Asked()
    lines = [*servers.speed_lines(speeds(rate, helper), asked)]
    assert len(failures(asked)) == short == sum("**missed**" in line for line in lines)


def test_other_bounds_are_the_issues() -> None:
    """Confirmed publishing, memory and visibility are missed just beyond their bounds."""
    asked = Asked()
    servers.confirmed_asked(250_000, asked)
    servers.memory_asked("its memory", 299.9, asked)
    servers.visible_asked(3.0, asked)
    assert failures(asked) == []
    servers.confirmed_asked(249_999, asked)
    servers.memory_asked("its memory", 300.0, asked)
    servers.visible_asked(3.01, asked)
    assert failures(asked) == [
        "missed: confirmed publishing: at least 250,000 records/s",
        "missed: backlog, its memory: under 300 MB",
        "missed: visible, 99th percentile: at most 3 s",
    ]
    assert [*asked.failures(full=False)] == []


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, size: str) -> int:
    """The exit code of the program, with the figures of real servers only."""
    monkeypatch.setattr(sys, "argv", ["bench", size, "engines"])
    monkeypatch.setattr(program, "RESULTS", folder / "RESULTS.md")
    (folder / "RESULTS.md").write_text("# Figures\n")
    return program.main()


@pytest.mark.parametrize(("size", "code"), [("full", 1), ("short", 0)])
def test_a_full_run_that_is_short_of_what_is_asked_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str, code: int
) -> None:
    """The full run writes its figures down and exits with 1; a short one only shows what is missed."""

    def measured(_: object, asked: Asked) -> Iterator[str]:
        yield from servers.speed_lines(speeds(1.0), asked)

    monkeypatch.setattr(servers, "_measured", measured)
    assert run(monkeypatch, tmp_path, size) == code
    assert ("missed: the whole path, one collector" in capsys.readouterr().err) is bool(code)
    assert ("**missed**" in (tmp_path / "RESULTS.md").read_text()) is bool(code)


@pytest.mark.parametrize("size", ["full", "short"])
@pytest.mark.parametrize(("in_ci", "code"), [(True, 1), (False, 0)])
def test_a_missing_server_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: str,
    code: int,
    *,
    in_ci: bool,
) -> None:
    """Where tests would skip a server at home, figures are left out with a reason; in CI every run fails."""

    @contextmanager
    def nodes() -> Iterator[None]:
        missing("OpenSearch")
        yield

    monkeypatch.setattr("servers.IN_CI", in_ci)
    monkeypatch.setattr(servers, "_nodes", nodes)
    assert run(monkeypatch, tmp_path, size) == code
    said = capsys.readouterr()
    assert "Not measured: OpenSearch is missing" in said.out
    assert ("not measured: OpenSearch is missing" in said.err) is bool(code)
