"""Publishing over HTTP: what each answer means, which token goes where, and that none is ever shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import uvicorn
from examples import JOB, NOW, job
from gateway_server import KINDS, LATER, GatewayServer, gateway_server
from proxy_server import proxy_server
from scripted_server import Said, ScriptedServer, problem, queued, scripted_server

from siteward.broker import BrokerError, BrokerUnavailable, Forbidden, Message, Rejected
from siteward.broker.gateway import GatewayBroker, OnlyPublishes, open_broker
from siteward.broker.gateway import answers as answers_module
from siteward.broker.gateway import connection as connection_module
from siteward.broker.gateway import publisher as publisher_module
from siteward.broker.gateway.publisher import GatewayPublisher
from siteward.broker.gateway.tokens import NoLibrary, token_source
from siteward.broker.opening import open_consumed
from siteward.broker.tls import WrongAddress
from siteward.compression import compress_zstd
from siteward.envelope import open_envelope, seal
from siteward.server.auth.roles import Grant, Role
from siteward.settings import BrokerSettings, CredentialsSettings, NetworkSettings, Settings

TOKEN = "never.shown.anywhere"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARER_TOKEN", TOKEN)


@pytest.fixture
def publisher(server: ScriptedServer) -> Iterator[GatewayPublisher]:
    with publishing(server.url) as opened:
        yield opened


AT: Final = "Wed, 21 Oct 2026 07:28:00 GMT"
"""What a server's clock shows."""


@contextmanager
def publishing(url: str, settings: Settings | None = None) -> Iterator[GatewayPublisher]:
    with closing(open_broker(url, settings or Settings()).publisher()) as opened:
        yield opened


def message(*numbers: int, vo: str = "example") -> Message:
    rows = [JOB.row_of(job(number, vo=vo), NOW) for number in numbers or (1,)]
    return Message(f"{vo}.job", seal(JOB, rows, "test@node", NOW), len(rows))


def rejected(*positions: int, of: int) -> Said:
    records = [{"position": each, "status": "rejected", "field": "site", "value": "'S'"} for each in positions]
    records = [each | {"reason": "your token reports for SITE-1 only"} for each in records]
    return Said(200, {"records": records, "queued": of - len(positions), "rejected": len(positions)})


def jobs_in(messages: Sequence[Message]) -> list[str]:
    parcels = [open_envelope(each.body, each.content_type, KINDS, LATER) for each in messages]
    return [name for parcel in parcels for name in parcel.columns["local_job_id"]]


def test_a_message_is_one_request_on_a_connection_that_stays(
    server: ScriptedServer, publisher: GatewayPublisher
) -> None:
    """With the token, the envelope as it is, and a wish for a short answer."""
    server.answers = [queued()]
    first, second = message(1), message(2)
    publisher.publish([first, second])
    assert [asked.body for asked in server.asked] == [first.body, second.body]
    assert len({asked.connection for asked in server.asked}) == 1
    asked = server.asked[0]
    assert asked.path == "/v1/records/job"
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["Content-Type"] == first.content_type
    assert asked.headers["Prefer"] == "return=minimal"


def test_an_address_may_have_a_path(server: ScriptedServer) -> None:
    """Of an application behind a proxy that serves others, too."""
    server.answers = [queued()]
    with publishing(f"{server.url}/monitoring/") as publisher:
        publisher.publish([message()])
    assert server.asked[0].path == "/monitoring/v1/records/job"


def test_a_connection_that_was_ended_is_opened_again(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """A server ends what was idle for a while; the message goes out once more, and nobody notices."""
    server.answers = [queued()._replace(hangs_up=True), queued()]
    publisher.publish([message(1)])
    publisher.publish([message(2)])
    assert len({asked.connection for asked in server.asked}) == 2


@pytest.mark.parametrize(
    ("said", "wait", "words"),
    [
        (problem(429, "slow down", Retry_After="7"), 7.0, "slow down"),
        (problem(503, "away", Retry_After="999999"), answers_module.LONGEST_WAIT, "away"),
        (problem(503, "away", Retry_After="Wed, 21 Oct 2026 07:28:40 GMT", Date=AT), 40.0, "away"),
        (problem(503, "away", Retry_After="Wednesday, 21-Oct-26 07:28:40 GMT", Date=AT), 40.0, "away"),
        (problem(503, "away", Retry_After="Wed, 21 Oct 2026 07:27:00 GMT", Date=AT), 0.0, "away"),
        (
            problem(503, "away", Retry_After="Thu, 22 Oct 2026 07:28:00 GMT", Date=AT),
            answers_module.LONGEST_WAIT,
            "away",
        ),
        (
            problem(503, "away", Retry_After="Wed, 21 Oct 9026 07:28:00 GMT", Date="x"),
            answers_module.LONGEST_WAIT,
            "away",
        ),
        (problem(503, "away", Retry_After="Wed, 99 Oct 2026 07:28:00 GMT"), 0.0, "away"),
        (problem(503, "away", Retry_After="in a while"), 0.0, "away"),
        (problem(500), 0.0, "500"),
        (problem(421, "only localhost"), 0.0, "only localhost"),
        (Said(502, b"<html>bad gateway"), 0.0, "502"),
        (Said(403, b"<html>a firewall"), 0.0, "403"),
        (Said(422, b"{}"), 0.0, "422"),
        (problem(404, "Not Found"), 0.0, "Not Found"),
        (Said(200, b"<html>a login page"), 0.0, "something else"),
        (Said(200, {"records": [], "queued": 0, "rejected": 0}), 0.0, "does not say"),
        (Said(200, {"records": [], "queued": 1, "rejected": 1}), 0.0, "does not say"),
        (Said(204), 0.0, "204"),
        (Said(307, b"", {"Location": "https://elsewhere.example/\x7f"}), 0.0, "elsewhere"),
        (problem(503, "\x1b[31m" + 5_000 * "x"), 0.0, "x1b"),
    ],
)
def test_whatever_is_no_confirm_may_be_tried_again(
    server: ScriptedServer, publisher: GatewayPublisher, said: Said, wait: float, words: str
) -> None:
    """After the time that the server asks for, within bounds; what others than Siteward say is no judgement."""
    server.answers = [queued(), said]
    with pytest.raises(BrokerUnavailable, match=words) as caught:
        publisher.publish([message(1), message(2), message(3)])
    assert (caught.value.wait, caught.value.stored) == (wait, 1)
    assert len(server.asked) == 2
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_a_redirect_is_not_followed(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """The token would go with it."""
    with scripted_server() as other:
        server.answers = [Said(308, b"", {"Location": f"{other.url}/v1/records/job"})]
        with pytest.raises(BrokerUnavailable):
            publisher.publish([message()])
        assert other.asked == []


def test_who_may_send_nothing_under_a_key_is_told_which(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """Of a VO that is not the token's, or a kind that is not known there."""
    unknown = problem(404)
    server.answers = [queued(), problem(403), unknown._replace(body={"detail": "no kind", "field": "kind"})]
    with pytest.raises(Forbidden, match="403") as caught:
        publisher.publish([message(1), message(2, vo="dteam")])
    assert (caught.value.key, caught.value.stored) == ("dteam.job", 1)
    with pytest.raises(Forbidden, match="no kind"):
        publisher.publish([message(3)])
    with pytest.raises(Forbidden, match="is not <vo>"):
        publisher.publish([Message("job", b"")])


def test_records_that_are_not_taken_are_given_back(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """And no others; what stands behind them was not sent."""
    server.answers = [queued(), rejected(1, 2, 4, of=5)]
    with pytest.raises(Rejected, match="rejects 3 of 5 records, the first for: site: your token") as caught:
        publisher.publish([message(9), message(*range(5)), message(10)])
    assert (caught.value.permanent, caught.value.stored) == (True, 1)
    assert jobs_in(caught.value.left) == ["1", "2", "4"]
    assert [each.count for each in caught.value.left] == [2, 1]
    assert len(server.asked) == 2


@pytest.mark.parametrize("said", [problem(400), problem(415), problem(422), rejected(0, 1, of=2)])
def test_a_message_that_is_not_taken_is_given_back_as_it_is(
    server: ScriptedServer, publisher: GatewayPublisher, said: Said
) -> None:
    """Whole: its sender is told that it knows it already."""
    server.answers, whole = [said], message(1, 2)
    with pytest.raises(Rejected) as caught:
        publisher.publish([whole])
    assert caught.value.left == [whole]


def test_what_is_too_large_is_cut(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """Whoever says so, the application or a proxy before it; the next one of the size is cut at once."""
    server.answers = [Said(413, b"<html>"), queued(2), rejected(1, of=2)]
    with pytest.raises(Rejected) as caught:
        publisher.publish([message(*range(4))])
    assert jobs_in(caught.value.left) == ["3"]
    server.answers = [queued(2)]
    publisher.publish([message(*range(4, 8))])
    assert len(server.asked) == 5


def test_one_record_that_is_too_large_is_given_back(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """It cannot be cut any further."""
    server.answers, single = [Said(413)], message(1)
    with pytest.raises(Rejected, match="413") as caught:
        publisher.publish([single])
    assert caught.value.left == [single]


def test_a_compressed_message_is_cut_too(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """And one of which nothing can be read is given back whole."""
    plain = message(1, 2)
    packed = Message(plain.key, compress_zstd(plain.body), 2, content_encoding="zstd")
    server.answers = [rejected(1, of=2)]
    with pytest.raises(Rejected) as caught:
        publisher.publish([packed])
    assert jobs_in(caught.value.left) == ["2"]
    assert server.asked[0].headers["Content-Encoding"] == "zstd"
    torn = Message(plain.key, b"torn", 2, content_encoding="zstd")
    with pytest.raises(Rejected) as caught:
        publisher.publish([torn])
    assert caught.value.left == [torn]


def test_a_token_that_was_exchanged_meanwhile_is_sent(
    server: ScriptedServer, publisher: GatewayPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked up for each message: whoever keeps it fresh does so behind our back."""
    server.answers = [queued()]
    publisher.publish([message(1)])
    monkeypatch.setenv("BEARER_TOKEN", "another")
    publisher.publish([message(2)])
    assert [asked.headers["Authorization"] for asked in server.asked] == [f"Bearer {TOKEN}", "Bearer another"]


def test_a_token_that_is_refused_is_tried_again_later(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """The same one is not sent twice, and nobody can read it in what is said."""
    server.answers = [problem(401, "The token is refused: expired.")]
    with pytest.raises(BrokerUnavailable, match="refused: expired") as caught:
        publisher.publish([message()])
    assert len(server.asked) == 1
    assert TOKEN not in repr(caught.value)


class Renewed:
    """Gives one token after the other, the next one when the last was refused."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> str:
        return f"token-{self.number}"

    def refused(self, token: str) -> None:
        assert token == self()
        self.number += 1


def test_a_token_that_is_refused_is_renewed_once(server: ScriptedServer) -> None:
    """In the middle of a call, and the message goes out with the new one; if that is refused too, it is an outage."""
    server.answers = [queued(), problem(401), queued(), problem(401), problem(401)]
    with closing(GatewayPublisher(server.url, None, Renewed(), 10)) as publisher:
        publisher.publish([message(1), message(2)])
        with pytest.raises(BrokerUnavailable, match="401"):
            publisher.publish([message(3)])
    sent = [asked.headers["Authorization"].removeprefix("Bearer ") for asked in server.asked]
    assert sent == ["token-0", "token-0", "token-1", "token-1", "token-2"]


def test_who_has_no_token_is_told_where_one_is_sought(
    server: ScriptedServer, publisher: GatewayPublisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the application asks for one; on one's own machine none is needed."""
    monkeypatch.delenv("BEARER_TOKEN")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server.answers = [queued(), problem(401)]
    publisher.publish([message()])
    assert "Authorization" not in server.asked[0].headers
    with pytest.raises(BrokerUnavailable, match="BEARER_TOKEN_FILE"):
        publisher.publish([message()])


@pytest.mark.parametrize("found", ["two words", "umläut", "line\nbreak"])
def test_what_no_header_can_carry_is_not_shown(
    server: ScriptedServer, publisher: GatewayPublisher, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """Nor sent."""
    monkeypatch.setenv("BEARER_TOKEN", found)
    with pytest.raises(BrokerUnavailable, match="no token") as caught:
        publisher.publish([message()])
    assert found not in str(caught.value)
    assert server.asked == []


def test_a_file_of_a_token_that_is_not_there_is_waited_for(
    server: ScriptedServer, publisher: GatewayPublisher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Records wait in the spool until somebody has put it there."""
    monkeypatch.delenv("BEARER_TOKEN")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    server.answers = [queued()]
    with pytest.raises(BrokerUnavailable, match="BEARER_TOKEN_FILE"):
        publisher.publish([message()])
    (tmp_path / "token").write_text("there\n")
    publisher.publish([message()])
    assert server.asked[0].headers["Authorization"] == "Bearer there"


def test_a_server_that_hangs_is_left_in_time(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All messages of a call together have a bounded time, so that a program that ends can spool them."""

    def late(_: ScriptedServer) -> Said:
        time.sleep(2)
        return queued()

    monkeypatch.setattr(ScriptedServer, "next", late)
    began = time.monotonic()
    with (
        publishing(server.url, Settings(broker=BrokerSettings(timeout=0.3))) as publisher,
        pytest.raises(BrokerUnavailable, match="timed out"),
    ):
        publisher.publish([message(1), message(2)])
    assert time.monotonic() - began < 1.5
    assert len(server.asked) == 1
    assert publisher_module.LONGEST < 30


def test_an_endless_answer_is_not_read(
    server: ScriptedServer, publisher: GatewayPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the connection is not used again, since the rest of it would be taken for the next answer."""
    monkeypatch.setattr(connection_module, "MOST_BYTES", 1_000)
    server.answers = [Said(200, b" " * 100_000), queued()]
    with pytest.raises(BrokerUnavailable, match="more than 1000 bytes"):
        publisher.publish([message(1)])
    publisher.publish([message(1)])
    assert len({asked.connection for asked in server.asked}) == 2


def test_nobody_at_the_address_is_an_outage() -> None:
    """The message names the address."""
    with (
        publishing("http://127.0.0.1:1") as publisher,
        pytest.raises(BrokerUnavailable, match=r"http://127\.0\.0\.1:1: "),
    ):
        publisher.publish([message()])


def test_who_wants_to_consume_is_told_what_to_write() -> None:
    """It is permanent: the address takes records, and gives none."""
    with open_broker("https://siteward.example.org", Settings()) as broker:
        broker.declare({"monitoring": ("#",)})
        for ask in (broker.status, lambda: broker.consumer("monitoring", "collector", 1)):
            with pytest.raises(OnlyPublishes, match=r"needs the broker itself, embedded://, amqp://") as caught:
                ask()
            assert caught.value.permanent


def test_what_only_takes_is_refused_to_consumers_at_once() -> None:
    """Nobody has to be reached for that."""
    with pytest.raises(OnlyPublishes, match=r"setting broker\.url"):
        open_consumed(Settings(broker=BrokerSettings(url="https://127.0.0.1:1")))


@pytest.mark.parametrize(
    "url",
    [
        "https://me:s3cret@siteward.example.org",
        "https://s3cret@siteward.example.org",
        "https://siteward.example.org/?token=s3cret",
        "https://siteward.example.org/#s3cret",
        "https://",
        "https://siteward.example.org:port",
        "https://siteward.example.org /",
        "http://siteward.example.org",
        "http://127.0.0.1.example.org",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    """Also one that would send the token in the clear; what may be a secret is not repeated."""
    with pytest.raises(WrongAddress, match=r"setting broker\.url") as caught:
        open_broker(url, Settings())
    assert caught.value.permanent
    assert "s3cret" not in str(caught.value)


def test_a_private_network_may_be_plain() -> None:
    """Where the settings name the host as one of those."""
    assert open_broker("http://app:8080", Settings(network=NetworkSettings(plain=("app",)))) is not None


@contextmanager
def over_tls(folder: Path, name: str) -> Iterator[GatewayServer]:
    """An application with a certificate for a name; `ca.pem` in the folder vouches for it."""
    authority = trustme.CA()
    pem = str(folder / "server.pem")
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    config = uvicorn.Config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn, "Config", lambda app, **given: config(app, ssl_certfile=pem, ssl_keyfile=pem, **given))
        with gateway_server(folder / "app") as server:
            patch.setenv("BEARER_TOKEN", server.token())
            yield server


def test_certificates_are_checked(tmp_path: Path) -> None:
    """One that nobody vouches for gets no token; one of the authorities that the settings name does."""
    with over_tls(tmp_path, "localhost") as server:
        url = f"https://localhost:{server.port}"
        with publishing(url) as publisher, pytest.raises(BrokerUnavailable, match="certificate verify failed"):
            publisher.publish([message()])
        trusting = Settings(broker=BrokerSettings(ca=str(tmp_path / "ca.pem")))
        with publishing(url, trusting) as publisher:
            publisher.publish([message(1), message(2)])
        with (
            publishing(f"https://127.0.0.1:{server.port}", trusting) as publisher,
            pytest.raises(BrokerUnavailable, match="certificate verify failed"),
        ):
            publisher.publish([message(3)])
        assert sorted(server.jobs().values()) == ["1", "2"]


@pytest.mark.parametrize(("account", "given"), [("", ""), ("me:p%40ss@", "Basic bWU6cEBzcw==")])
def test_a_proxy_is_asked_for_the_way_and_sees_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: str, given: str
) -> None:
    """The one that the environment names, by CONNECT: what goes through it is TLS to the application itself."""
    with over_tls(tmp_path, "siteward.example.org") as server, proxy_server(server.port) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{account}{proxy.url}")
        trusting = Settings(broker=BrokerSettings(ca=str(tmp_path / "ca.pem")))
        with publishing("https://siteward.example.org", trusting) as publisher:
            publisher.publish([message(1), message(2)])
        assert proxy.asked == [("siteward.example.org:443", given)]
        assert sorted(server.jobs().values()) == ["1", "2"]
        # One on this machine could not be reached by a proxy elsewhere.
        with publishing(f"https://localhost:{server.port}", trusting) as publisher, pytest.raises(BrokerUnavailable):
            publisher.publish([message()])
        assert len(proxy.asked) == 1


def test_a_long_answer_says_the_same(server: ScriptedServer, publisher: GatewayPublisher) -> None:
    """Where the wish for a short one is lost on the way, it tells of the records that were taken, too."""
    good = [{"position": each, "id": "0" * 32, "status": "queued"} for each in (0, 2)]
    bad = {"position": 1, "status": "rejected", "field": "site", "value": "", "reason": "no"}
    server.answers = [Said(200, {"records": good, "queued": 2, "rejected": 0})]
    publisher.publish([message(1, 2)])
    server.answers = [Said(200, {"records": [*good, bad], "queued": 2, "rejected": 1})]
    with pytest.raises(Rejected) as caught:
        publisher.publish([message(*range(3))])
    assert jobs_in(caught.value.left) == ["1"]


def test_a_body_that_nobody_reads_is_answered_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application says 401 before it has read anything; the answer is heard."""
    monkeypatch.setenv("BEARER_TOKEN", "no-token-of-anybody")
    with gateway_server(tmp_path) as server:
        large = Message("example.job", bytes(8 * 2**20), 1)
        with publishing(server.url) as publisher, pytest.raises(BrokerUnavailable, match="401"):
            publisher.publish([large])


def test_a_real_gateway_forbids_and_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the answers above stand for is what it says."""
    with gateway_server(tmp_path) as server, publishing(server.url) as publisher:
        monkeypatch.setenv("BEARER_TOKEN", server.token(Grant(Role.REPORTER, ("example",), ("SITE-1", "SITE-3"))))
        with pytest.raises(Rejected, match="reports for SITE-1, SITE-3 only") as rejected_error:
            publisher.publish([message(*range(5))])
        assert jobs_in(rejected_error.value.left) == ["0", "2", "4"]
        with pytest.raises(Forbidden, match="does not report for the VO 'dteam'"):
            publisher.publish([message(1, vo="dteam")])
        monkeypatch.setenv("BEARER_TOKEN", server.token(Grant(Role.READER, ("example",))))
        with pytest.raises(Forbidden, match="takes one of the roles"):
            publisher.publish([message(1)])
        unknown = Message("example.no-such-kind", b"", 1)
        monkeypatch.setenv("BEARER_TOKEN", server.token())
        with pytest.raises(Forbidden, match="no kind is called"):
            publisher.publish([unknown])
        assert sorted(server.jobs().values()) == ["1", "3"]


def test_without_what_asks_for_tokens_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install sends tokens that are found; asking an issuer takes an extra."""
    monkeypatch.setitem(sys.modules, "siteward.oauth.client", None)
    credentials = CredentialsSettings(issuer="https://iam.example", client="c", client_secret="hush-hush")
    with pytest.raises(NoLibrary, match=r"pip install 'siteward\[service\]'") as caught:
        GatewayBroker("https://siteward.example.org", Settings(credentials=credentials))
    assert isinstance(caught.value, BrokerError)
    assert "hush-hush" not in str(caught.value)


def test_a_file_of_authorities_that_cannot_be_read_is_named() -> None:
    """Of the issuer, and of the application."""
    credentials = CredentialsSettings(issuer="https://iam.example", client="c", client_secret="x", ca="/nowhere/ca.pem")
    with pytest.raises(WrongAddress, match=r"credentials\.ca: /nowhere/ca\.pem"):
        open_broker("https://siteward.example.org", Settings(credentials=credentials))
    with pytest.raises(WrongAddress, match=r"broker\.ca: /nowhere/ca\.pem"):
        open_broker("https://siteward.example.org", Settings(broker=BrokerSettings(ca="/nowhere/ca.pem")))


def test_credentials_are_asked_for_one_token_by_all() -> None:
    """A program that connects again and again while a server is away does not trouble the issuer each time."""
    credentials = CredentialsSettings(issuer="https://iam.example", client="c", client_secret="x")
    settings = Settings(credentials=credentials)
    first: Any = token_source("https://siteward.example.org", settings)
    assert token_source("https://siteward.example.org", settings) is first
    assert token_source("https://other.example.org", settings) is not first
