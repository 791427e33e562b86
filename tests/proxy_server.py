"""A web proxy on loopback that leads every TLS connection to one port of this machine, whatever host is asked for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from listening import listening


class ProxyServer:
    """One proxy.

    Attributes:
        url: its own address.
        port: to where it leads.
        asked: each host that it was asked for, and the account that was given.
    """

    def __init__(self, url: str, port: int) -> None:
        self.url = url
        self.port = port
        self.asked: list[tuple[str, str]] = []


@contextmanager
def proxy_server(port: int) -> Iterator[ProxyServer]:
    """A running one."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    http.daemon_threads = True
    server = ProxyServer(f"127.0.0.1:{http.server_address[1]}", port)

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            server.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
            with socket.create_connection(("127.0.0.1", server.port)) as there:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pass_on, args=(there, self.connection))
                back.start()
                _pass_on(self.connection, there)
                back.join()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http.RequestHandlerClass = Handler
    with listening(http):
        yield server


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(2**16):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)
