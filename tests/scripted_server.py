"""A server on loopback that answers what a test says, one answer after the other, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from listening import listening

PROBLEM = "application/problem+json"


class Said(NamedTuple):
    """One answer; its body is JSON unless it is bytes."""

    status: int
    body: Any = b""
    headers: Mapping[str, str] = {}
    hangs_up: bool = False


class Asked(NamedTuple):
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class ScriptedServer:
    """Gives its answers in order, the last one again and again.

    Attributes:
        answers: still to be given.
        asked: every request so far.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Said] = []
        self.asked: list[Asked] = []

    def next(self) -> Said:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def queued(count: int = 1) -> Said:
    """What the gateway says of records that it has taken."""
    return Said(200, {"records": [], "queued": count, "rejected": 0})


def problem(status: int, detail: str = "why", **more: str) -> Said:
    """What it says of what it has not."""
    headers = {"Content-Type": PROBLEM, **{name.replace("_", "-"): value for name, value in more.items()}}
    return Said(status, {"detail": detail, "status": status}, headers)


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A running one."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    http.daemon_threads = True
    server = ScriptedServer(f"http://127.0.0.1:{http.server_address[1]}")
    http.RequestHandlerClass = _handler(server)
    with listening(http):
        yield server


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.asked.append(Asked(self.path, dict(self.headers), body, self.client_address[1]))
            said = server.next()
            content = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in {"Content-Type": "application/json", **said.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            # As a server does that was idle for too long: without a word.
            self.close_connection = said.hangs_up

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
