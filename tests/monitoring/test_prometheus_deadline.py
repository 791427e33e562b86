"""The timeout of a question holds before there is a connection: the look-up of a name, and all of its addresses."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from monitoring.prometheus.connection import PrometheusError
from monitoring.prometheus.promql import PromQL

NAME = "prometheus.example.org"
SILENT = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Of this machine's loopback, too."""
BODY = b'{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}'


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], None]:
    """Gives the name of the server its addresses."""
    numeric = socket.getaddrinfo

    def name(addresses: Sequence[str]) -> None:
        def look_up(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
            hosts = addresses if host == NAME else [host]
            return [found for each in hosts for found in numeric(each, port, *more, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return name


class Answer(BaseHTTPRequestHandler):
    """What a good server says."""

    def do_POST(self) -> None:
        """Seven."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name.
        """Nothing."""


@contextmanager
def answering() -> Iterator[int]:
    """The port of a server at 127.0.0.1 that answers."""
    with HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
        thread.join()


@contextmanager
def silent(port: int = 0) -> Iterator[int]:
    """A port that takes no connection and refuses none at SILENT: those who wait to be let in are as many as may."""
    with ExitStack() as opened:
        for host in SILENT:
            listening = opened.enter_context(socket.socket())
            listening.bind((host, port))
            listening.listen(0)
            port = listening.getsockname()[1]
            crowd = opened.enter_context(socket.socket())
            crowd.connect((host, port))
            late = opened.enter_context(socket.socket())
            late.settimeout(0.1)
            with pytest.raises(TimeoutError):
                late.connect((host, port))
        yield port


def test_all_addresses_of_a_name_share_the_timeout(named: Callable[[Sequence[str]], None]) -> None:
    """A name with several addresses that take no connection is left when the timeout is over, not once for each."""
    named(SILENT)
    with silent() as port:
        begun = time.monotonic()
        with pytest.raises(PrometheusError, match=r"does not answer: not within 2 s") as error:
            PromQL(f"http://{NAME}:{port}", timeout=2.0).instant("up")
        assert 1.9 < time.monotonic() - begun < 4
    assert not error.value.permanent


def test_a_good_address_behind_dead_ones_is_reached(named: Callable[[Sequence[str]], None]) -> None:
    """Addresses that take no connection leave those behind them their share of the time."""
    named([*SILENT, "127.0.0.1"])
    with answering() as port, silent(port):
        begun = time.monotonic()
        assert PromQL(f"http://{NAME}:{port}", timeout=6.0).instant("up").series[0].last.value == 7
        assert 4.4 < time.monotonic() - begun < 6


def test_an_address_that_refuses_costs_no_time(named: Callable[[Sequence[str]], None]) -> None:
    """A refusal is passed over at once; where all refuse, the error says so."""
    named([*SILENT, "127.0.0.1"])
    with answering() as port:
        assert PromQL(f"http://{NAME}:{port}", timeout=2.0).instant("up").series[0].last.value == 7
    begun = time.monotonic()
    with pytest.raises(PrometheusError, match=r"does not answer: .*refused") as error:
        PromQL(f"http://{NAME}:{port}", timeout=6.0).instant("up")
    assert time.monotonic() - begun < 1.5
    assert not error.value.permanent


def test_a_look_up_that_hangs_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that says nothing holds its caller no longer than the timeout."""
    done, called = Event(), Event()

    def hang(*_: object, **__: object) -> list[Any]:
        called.set()
        done.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begun = time.monotonic()
    with pytest.raises(PrometheusError, match=r"does not answer: not within 0\.5 s") as error:
        PromQL(f"http://{NAME}:9090", timeout=0.5).instant("up")
    assert called.is_set()
    assert 0.4 < time.monotonic() - begun < 2
    assert not error.value.permanent
    done.set()


def test_a_name_that_nobody_knows_may_be_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that fails is an error to try again after; so is one that finds no address."""

    def fail(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for look_up, said in ((fail, "not known"), (lambda *_, **__: [], "no address")):
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(PrometheusError, match=f"does not answer: .*{said}") as error:
            PromQL(f"http://{NAME}:9090", timeout=2.0).instant("up")
        assert not error.value.permanent


def test_a_proxy_that_drips_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialogue with a proxy, before there is any connection to the server, is within the timeout."""
    done = Event()

    def drip() -> None:
        with listening.accept()[0] as asker:
            asker.recv(2**16)
            with suppress(OSError):
                asker.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.05):
                    asker.sendall(b"A")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=drip)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(PrometheusError, match=r"does not answer: not within 0\.5 s"):
            PromQL(f"https://{NAME}", timeout=0.5).instant("up")
        assert time.monotonic() - begun < 3
        done.set()
        thread.join()
