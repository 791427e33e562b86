"""Approximate figures: whoever reads an answer is told how far it may be off."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import msgspec
import pytest

from siteward.query import Answer, AnswerRow, Function, Query, Wanted
from siteward.query_json import AnswerDocument, document

ERROR = 0.001


def answer(*errors: float) -> Answer:
    """Two columns, of which the second may be approximate."""
    query = Query(
        kind="job",
        wanted=(Wanted(Function.COUNT), Wanted(Function.P90, "wall_time")),
        start=datetime(2026, 3, 1, tzinfo=UTC),
        end=datetime(2026, 3, 2, tzinfo=UTC),
    )
    row = AnswerRow(None, (), (5, 3600.5))
    return Answer(query=query, rows=(row,), totals=(5, 3600.5), units=("1", "s"), groups=1, errors=errors)


class App(BaseHTTPRequestHandler):
    """Gives the server's `answer` to every question."""

    def do_GET(self) -> None:
        body = msgspec.json.encode(document(self.server.answer, 1.0))  # type: ignore[attr-defined]  # set by the test.
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the standard library's name.
        """Say nothing."""


@pytest.fixture
def app() -> Iterator[HTTPServer]:
    """An app that gives one answer."""
    with HTTPServer(("127.0.0.1", 0), App) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def said(app: HTTPServer, output: str) -> subprocess.CompletedProcess[str]:
    """`siteward query`, asked of the app."""
    program = (sys.executable, "-c", "from siteward.cli import main; main()", "--output", output, "query", "job")
    return subprocess.run(
        [*program, "--url", f"http://127.0.0.1:{app.server_port}"],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=True,
    )


def test_the_command_line_tells_the_error(app: HTTPServer) -> None:
    """The line of totals has the error beside what is approximate and nothing beside what is exact."""
    app.answer = answer(0.0, ERROR)  # type: ignore[attr-defined]  # read by App.
    assert "total: count 5, p90:wall_time 3600.5 s (≈ ±0.1 %); 1 group" in said(app, "table").stderr
    assert msgspec.json.decode(said(app, "json").stdout, type=AnswerDocument).errors == (0.0, ERROR)


def test_the_command_line_is_silent_about_exact_figures(app: HTTPServer) -> None:
    """No error, no mark."""
    app.answer = answer()  # type: ignore[attr-defined]  # read by App.
    assert "total: count 5, p90:wall_time 3600.5 s; 1 group" in said(app, "table").stderr
    assert msgspec.json.decode(said(app, "json").stdout, type=AnswerDocument).errors == ()
