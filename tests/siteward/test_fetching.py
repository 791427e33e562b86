"""How issuers are asked: over TLS or on this machine, bounded in size and time, and never somewhere else."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from siteward.oauth import fetching
from siteward.oauth.fetching import FetchError, HttpFetch, check_address

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer, certificate: trustme.LeafCert | None = None) -> Iterator[str]:
    """A server on this machine; its address. With a certificate it speaks TLS."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of callers that break off: that is what some of them are to do."""

    with Quiet(("127.0.0.1", 0), Answering) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def answering(body: bytes, status: int = 200, **headers: str) -> Answer:
    """Answers always the same."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_good_answer_is_whole_and_says_how_long_it_holds() -> None:
    """Body and max-age; other directives mean nothing here."""
    with serving(answering(b"{}", Cache_Control="public, Max-Age=7200, must-revalidate")) as url:
        found = HttpFetch()(url, {})
    assert (found.body, found.lasting) == (b"{}", 7200.0)


def test_an_issuer_is_asked_over_tls_that_is_checked(tmp_path: Path) -> None:
    """By the authority that the settings name, and for the name that was asked; nothing is said to anybody else."""
    authority, heard = trustme.CA(), []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        heard.append(handler.headers["Authorization"])
        answering(b"{}")(handler)

    ca, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(ca)
    trustme.CA().cert_pem.write_to_path(other)
    token = {"Authorization": "Bearer x"}
    with serving(answer, authority.issue_cert("127.0.0.1")) as url:
        assert HttpFetch(str(ca))(url, token).body == b"{}"
        for believed in (str(other), ""):
            with pytest.raises(FetchError, match="certificate verify failed"):
                HttpFetch(believed)(url, token)
    with (
        serving(answer, authority.issue_cert("issuer.example.org")) as url,
        pytest.raises(FetchError, match="IP address mismatch"),
    ):
        HttpFetch(str(ca))(url, token)
    assert heard == ["Bearer x"]


@pytest.mark.parametrize("header", ["", "no-store", "max-age=-1", "max-age=x", "max-age=", "max-age=٣"])
def test_a_life_that_is_none_is_none(header: str) -> None:
    """Whatever the server writes."""
    with serving(answering(b"{}", Cache_Control=header.encode().decode("latin-1"))) as url:
        assert HttpFetch()(url, {}).lasting is None


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 404, 500, 503])
def test_anything_but_200_is_no_answer(status: int) -> None:
    """The message names the address."""
    with serving(answering(b"", status)) as url, pytest.raises(FetchError, match=r"127\.0\.0\.1"):
        HttpFetch()(f"{url}/keys", {})


def test_no_redirect_is_followed() -> None:
    """It could lead anywhere, with the token that was sent along."""
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.path)
        answering(b"", 302, Location="/other")(handler)

    with serving(answer) as url, pytest.raises(FetchError, match="302"):
        HttpFetch()(f"{url}/userinfo", {"Authorization": "Bearer secret"})
    assert seen == ["/userinfo"]


def test_an_answer_without_end_is_given_up() -> None:
    """After a megabyte."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" " * 2**16)
        except OSError:
            handler.close_connection = True

    with serving(answer) as url, pytest.raises(FetchError, match="more than 1048576 bytes"):
        HttpFetch()(url, {})


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte alone would be in time."""
    monkeypatch.setattr(fetching, "SECONDS", 0.5)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            handler.close_connection = True

    began = time.monotonic()
    with serving(answer) as url:
        with pytest.raises(FetchError, match="not whole"):
            HttpFetch()(url, {})
        assert time.monotonic() - began < 4


def test_what_is_no_http_is_no_answer() -> None:
    """Somebody else may listen there."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"220 mail.example ESMTP\r\n\r\n")

    with serving(answer) as url, pytest.raises(FetchError):
        HttpFetch()(url, {})


def test_nobody_there_is_no_answer() -> None:
    """The same error as all others."""
    with serving(answering(b"")) as url:
        pass
    with pytest.raises(FetchError, match="refused"):
        HttpFetch()(url, {})


@pytest.mark.parametrize(
    "url",
    [
        "http://iam.example/keys",
        "ftp://iam.example/keys",
        "file:///etc/passwd",
        "https://",
        "https:///keys",
        "https://user:password@iam.example",
        "https://user@iam.example",
        "http://user@127.0.0.1/",
        "http://127.0.0.1.example.org/",
        "http://[::2]/",
        "//iam.example",
        "iam.example",
        "",
        "http://[",
    ],
)
def test_only_tls_and_this_machine_are_believed(url: str) -> None:
    """Keys that came over an open line could be anybody's."""
    with pytest.raises(ValueError, match=r"expected https|Invalid"):
        check_address(url, "address")
    with pytest.raises(FetchError):
        HttpFetch()(url, {})


@pytest.mark.parametrize(
    "url", ["https://iam.example/", "https://iam.example:8443/x", "http://127.0.0.1:1", "http://[::1]/"]
)
def test_these_are_believed(url: str) -> None:
    """With any port and path."""
    check_address(url, "address")
