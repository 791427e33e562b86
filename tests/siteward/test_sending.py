"""Emitting to the application's own address: nothing lost, nothing twice, what is not taken stays and is told."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
from examples import job
from gateway_server import REPORTER, GatewayServer, gateway_server
from oidc_server import SECRET, SERVICE, OidcServer, oidc_server
from structlog.testing import capture_logs

from siteward.broker import BrokerUnavailable, Message
from siteward.broker.gateway.publisher import GatewayPublisher
from siteward.emit import AsyncEmitter, Emitter
from siteward.emit import sender as sender_module
from siteward.emit.spool import Spool
from siteward.oauth.client import IssuerClient
from siteward.oauth.service import ServiceToken
from siteward.server.auth.roles import Grant, Role
from siteward.settings import (
    BrokerSettings,
    CredentialsSettings,
    GatewaySettings,
    GrantSettings,
    Settings,
    SettingsError,
    load_settings,
)
from siteward.telemetry import ASIDE, CONFIRMED, telemetry

PATIENCE: Final = 30.0
AUDIENCE: Final = "https://siteward.example.org"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GatewayServer]:
    with gateway_server(tmp_path / "app") as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools are looked at often, and outages are short."""
    monkeypatch.setattr(sender_module, "REPLAY_SECONDS", 0.05)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE", 0.2)


@pytest.fixture
def program(server: GatewayServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a program with a token of its own."""
    monkeypatch.setenv("BEARER_TOKEN", server.token())
    return server.program(tmp_path / "program")


def numbers(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def arrived(server: GatewayServer, count: int) -> list[str]:
    """The jobs that came, each once however often its message did, when there are so many."""
    found: dict[str, str] = {}

    def are_there() -> bool:
        found.update(server.jobs())
        return len(found) >= count

    eventually(are_there)
    return sorted(found.values(), key=int)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def aside(settings: Settings) -> list[tuple[str, str]]:
    """Routing keys and reasons of what the spool has set aside."""
    spool = Spool(settings.spool, 2**30)
    found = [(each.message.key, each.reason) for each in spool._file.parked()] if spool._path.exists() else []
    spool.close()
    return found


def waiting(settings: Settings) -> int:
    """Messages in the spool."""
    spool = Spool(settings.spool, 2**30)
    found = sum(status.ready + (status.unacked or 0) for status in spool._file.status())
    spool.close()
    return found


def test_an_address_is_enough(server: GatewayServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Emitter("https://…")`: everything else is as the settings have it, and the token is found."""
    monkeypatch.setenv("BEARER_TOKEN", server.token())
    monkeypatch.setenv("SITEWARD_DATA", str(tmp_path / "program"))
    with Emitter(server.url) as emitter:
        for number in range(100):
            assert emitter.emit(job(number)) is None
        assert emitter.flush(PATIENCE)
        assert arrived(server, 100) == numbers(100)
    assert not (tmp_path / "program" / "spool").exists()

    async def program() -> None:
        async with AsyncEmitter(server.url) as emitter:
            assert await emitter.emit(job(100)) is None

    asyncio.run(program())
    assert arrived(server, 1) == ["100"]


def test_an_address_that_would_show_the_token_is_refused_at_once() -> None:
    """Where the emitter is made, and not by its thread."""
    with pytest.raises(SettingsError, match="would leave this machine unencrypted"):
        Emitter("http://siteward.example.org")


def test_the_command_sends_to_the_application(server: GatewayServer, tmp_path: Path) -> None:
    """`siteward emit` with nothing but an address and a token in its environment."""
    environ = {"SITEWARD_DATA": str(tmp_path / "program"), "SITEWARD_BROKER__URL": server.url}
    environ |= {"BEARER_TOKEN": server.token(), **os.environ}
    fields = ["vo=example", "site=SITE-A", "local_job_id=4713", "start=-1h", "end=now", "wall_time=3600"]
    done = subprocess.run(
        [sys.executable, "-m", "siteward", "emit", "job", *fields],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 emitted, 0 refused" in done.stderr
    assert arrived(server, 1) == ["4713"]


def test_an_outage_is_bridged_by_the_spool(server: GatewayServer, program: Settings) -> None:
    """While the application is away records go to disk; when it is back at its address they arrive, all and once."""
    before = telemetry.value(CONFIRMED, "job")
    with Emitter(program) as emitter:
        for number in range(600):
            assert emitter.emit(job(number)) is None
            if number % 100 == 99:
                assert emitter.flush(PATIENCE)
            if number == 199:
                server.stop()
            if number == 399:
                server.start()
        assert arrived(server, 600) == numbers(600)
        eventually(lambda: telemetry.value(CONFIRMED, "job") - before == 600)
    assert server.take() == []


def test_a_lost_answer_costs_nothing(server: GatewayServer, program: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not know whether it was taken sends again, and every record is the one that is there."""
    real, lost = GatewayPublisher.publish, iter([True, True, True])

    def publish(publisher: GatewayPublisher, messages: list[Message]) -> None:
        real(publisher, messages)
        if next(lost, False):
            reason = "the connection was cut before the answer came"
            raise BrokerUnavailable(reason)

    monkeypatch.setattr(GatewayPublisher, "publish", publish)
    with Emitter(program) as emitter:
        for number in range(50):
            emitter.emit(job(number))
        eventually(lambda: next(lost, None) is None)
        assert emitter.flush(PATIENCE)
        eventually(lambda: not waiting(program))
    assert arrived(server, 50) == numbers(50)


def test_who_is_told_to_wait_waits(server: GatewayServer, program: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """429: what waits goes on as the limit allows, one envelope after the other, and nobody asks all the time."""
    server.stop()
    server.start(GatewaySettings(producer_rate=10.0))
    asked: list[int] = []
    real = GatewayPublisher._asked

    def count(publisher: GatewayPublisher, message: Message, deadline: float) -> object:
        asked.append(message.count)
        return real(publisher, message, deadline)

    monkeypatch.setattr(GatewayPublisher, "_asked", count)
    with Emitter(program) as emitter:
        for number in range(240):
            assert emitter.emit(job(number)) is None
            if number % 60 == 59:
                assert emitter.flush(PATIENCE)
        # A hundred come at once, and what is beyond has to be waited for: two seconds, then six.
        assert arrived(server, 240) == numbers(240)
    assert len(asked) < 10


def test_another_vo_is_refused_aloud_and_holds_up_no_other(
    server: GatewayServer, program: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the token does not speak for stays on disk with the reason, is refused from then on, and comes later."""
    with capture_logs() as said, Emitter(program) as emitter:
        assert emitter.emit(job(0, vo="dteam")) is None
        assert emitter.flush(PATIENCE)
        eventually(lambda: emitter.emit(job(1, vo="dteam")) is not None)
        refused = emitter.emit(job(1, vo="dteam"))
        assert refused is not None
        assert (refused.field, refused.value) == ("vo", "'dteam'")
        for number in range(2, 20):
            assert emitter.emit(job(number)) is None
        eventually(lambda: bool(aside(program)))
    assert arrived(server, 18) == numbers(18, 2)
    ((key, reason),) = aside(program)
    assert key == "dteam.job"
    assert "does not report for the VO 'dteam'" in reason
    assert any("records may not be published" in each["event"] for each in said)
    token = server.token(REPORTER, Grant(Role.REPORTER, ("dteam",)))
    monkeypatch.setenv("BEARER_TOKEN", token)
    with Emitter(program) as emitter:
        assert emitter.emit(job(20)) is None
        assert arrived(server, 2) == ["0", "20"]
    assert token not in f"{reason}{said}"


def test_records_of_other_sites_stay_with_the_reason(
    server: GatewayServer, program: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those, and no others; told aloud, and sent when the token speaks for them."""
    site = Grant(Role.REPORTER, ("example",), ("SITE-1", "SITE-2"))
    monkeypatch.setenv("BEARER_TOKEN", server.token(site))
    with capture_logs() as said, Emitter(program) as emitter:
        for number in range(14):
            assert emitter.emit(job(number)) is None
        assert emitter.flush(PATIENCE)
        # Numbers are spread over seven sites; side by side stand 0, 3 to 7, and 10 to 13.
        eventually(lambda: len(aside(program)) == 3)
    assert arrived(server, 4) == ["1", "2", "8", "9"]
    assert any("records are rejected, they stay in the spool" in each["event"] for each in said)
    assert all("your token reports for SITE-1, SITE-2 only" in reason for _, reason in aside(program))
    monkeypatch.setenv("BEARER_TOKEN", server.token())
    with Emitter(program) as emitter:
        assert emitter.emit(job(14)) is None
        assert arrived(server, 11) == ["0", *numbers(5, 3), *numbers(5, 10)]
        eventually(lambda: not waiting(program))
    assert aside(program) == []


def shown(settings: Settings) -> list[dict[str, object]]:
    """What `siteward spool` says."""
    environ = os.environ | {"SITEWARD_DATA": settings.data, "SITEWARD_BROKER__URL": settings.broker.url}
    command = [sys.executable, "-m", "siteward", "--output", "json", "spool"]
    done = subprocess.run(command, env=environ, capture_output=True, check=True, timeout=60)
    found: list[dict[str, object]] = msgspec.json.decode(done.stdout)
    return found


def test_a_command_shows_what_is_not_taken(server: GatewayServer, program: Settings) -> None:
    """What waits, and what was set aside with the reason; nothing where nothing was ever spooled."""
    assert shown(program) == []
    with Emitter(program) as emitter:
        emitter.emit(job(0, vo="dteam"))
        assert emitter.flush(PATIENCE)
        eventually(lambda: bool(aside(program)))
        server.stop()
        emitter.emit(job(1))
        emitter.emit(job(2))
        assert emitter.flush(PATIENCE)
    waits, kept = shown(program)
    assert [waits[name] for name in ("state", "vo", "kind", "records", "reason")] == ["waits", "example", "job", 2, ""]
    assert [kept[name] for name in ("state", "vo", "kind", "messages", "records")] == ["aside", "dteam", "job", 1, 1]
    assert "does not report for the VO 'dteam'" in str(kept["reason"])
    assert str(kept["since"]).endswith("+00:00")


def test_how_many_records_were_set_aside_is_counted(server: GatewayServer, program: Settings) -> None:
    """By a metric while a program runs, and in a sentence of the command."""
    telemetry.reset()
    with Emitter(program) as emitter:
        for number in range(3):
            emitter.emit(job(number, vo="dteam"))
        emitter.emit(job(7))
        assert emitter.flush(PATIENCE)
        eventually(lambda: telemetry.value(ASIDE) == 3)
    environ = os.environ | {"SITEWARD_DATA": program.data, "SITEWARD_BROKER__URL": program.broker.url}
    command = [sys.executable, "-m", "siteward", "spool"]
    done = subprocess.run(command, env=environ, capture_output=True, check=True, timeout=60, text=True)
    assert "0 records wait, 3 are set aside" in done.stderr
    assert list(server.jobs().values()) == ["7"]


def test_nobody_else_sends_what_waits_for_an_application(server: GatewayServer, program: Settings) -> None:
    """Programs of a user share a spool by broker, and by who they are there: others would send it to their own."""
    server.stop()
    with Emitter(program) as emitter:
        emitter.emit(job(1))
        assert emitter.flush(PATIENCE)
    assert waiting(program) == 1
    here = msgspec.structs.replace(program, broker=BrokerSettings())
    credentials = CredentialsSettings(issuer="https://iam.example", client="c", client_secret="x")
    spools = {here.spool, program.spool, msgspec.structs.replace(program, credentials=credentials).spool}
    assert len(spools) == 3
    environ = {"SITEWARD_DATA": program.data, "SITEWARD_BROKER__URL": f"{server.url}/"}
    assert load_settings(environ=environ).spool == program.spool
    with Emitter(here) as emitter:
        emitter.emit(job(2))
        assert emitter.flush(PATIENCE)
        time.sleep(0.5)
    assert waiting(program) == 1
    assert server.take() == []


def test_what_is_set_aside_counts_among_what_the_spool_holds(
    server: GatewayServer, program: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that goes on with what is not taken does not fill the disk: it is refused, as whenever all is full."""
    monkeypatch.setenv("BEARER_TOKEN", server.token(Grant(Role.REPORTER, ("example",), ("SITE-X",))))
    small = {"spool_bytes": 20_000, "memory_bytes": 20_000, "batch_records": 10, "batch_age": 0.01}
    settings = msgspec.structs.replace(program, emitter=msgspec.convert(small, type(program.emitter)))
    emitter = Emitter(settings)
    deadline, number = time.monotonic() + PATIENCE, 0
    while emitter.emit(job(number)) is None:
        assert time.monotonic() < deadline
        number += 1
        time.sleep(0.002)
    emitter.close(1)
    assert sum(path.stat().st_size for path in settings.spool.iterdir()) < 2_000_000


class Trusting:
    """An application that believes an issuer over the network, and a program with its own name and secret there."""

    def __init__(self, issuer: OidcServer, folder: Path) -> None:
        grants = GrantSettings(when="scope:siteward.report", role="reporter", vos=("example",))
        trusted = issuer.issuer.settings(grants, vos=("example",))
        self.issuer = issuer
        self.server = GatewayServer(folder / "app", {"example": trusted})
        credentials = CredentialsSettings(
            issuer=issuer.issuer.url, client=SERVICE, client_secret=SECRET, audience=AUDIENCE
        )
        self.program = msgspec.structs.replace(self.server.program(folder / "program"), credentials=credentials)


@pytest.fixture
def trusting(tmp_path: Path) -> Iterator[Trusting]:
    with oidc_server() as issuer:
        made = Trusting(issuer, tmp_path)
        made.server.start()
        yield made
        made.server.stop()


def test_a_program_has_a_name_and_a_secret(trusting: Trusting) -> None:
    """It asks its issuer for a token once, and again when that is about to end: in mid-stream, and nothing is lost."""
    trusting.issuer.lasting = 4
    began = time.monotonic()
    with Emitter(trusting.program) as emitter:
        for number in range(120):
            assert emitter.emit(job(number)) is None
            assert emitter.flush(PATIENCE)
            time.sleep(0.05)
        assert arrived(trusting.server, 120) == numbers(120)
    # A short one is renewed after half of its time.
    assert 3 <= len(trusting.issuer.asked) <= 2 + (time.monotonic() - began) / 2
    assert set(trusting.issuer.asked) == {"client_credentials"}
    assert not trusting.program.spool.exists()


def test_a_token_that_is_refused_before_its_end_is_renewed(trusting: Trusting) -> None:
    """Such as one that was denied after an incident: the next one is asked for at once."""
    issuer = trusting.issuer
    source = ServiceToken(IssuerClient(issuer.issuer.url, SERVICE, SECRET), ("siteward.report",), AUDIENCE)
    first = source()
    source.refused("another")
    assert source() == first
    source.refused(first)
    assert source() != first
    assert issuer.asked == ["client_credentials"] * 2


def test_an_issuer_that_is_down_is_an_outage(trusting: Trusting) -> None:
    """Records wait on disk until it gives a token."""
    trusting.issuer.answers["token"] = (503, {"error": "down"})
    with Emitter(trusting.program) as emitter:
        for number in range(10):
            assert emitter.emit(job(number)) is None
        assert emitter.flush(PATIENCE)
        assert trusting.server.take() == []
        trusting.issuer.answers.clear()
        assert arrived(trusting.server, 10) == numbers(10)


def test_nothing_of_a_secret_is_ever_said(trusting: Trusting, tmp_path: Path) -> None:
    """Whatever goes wrong: refused as token and as VO, issuer and application away, and the log at its most."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    program = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from examples import job
        from siteward import Emitter
        from siteward.log import configure_logging

        configure_logging("json", "debug")
        with Emitter() as emitter:
            print(emitter.settings)
            emitter.emit(job(1, vo="dteam"))
            emitter.emit(job(2))
            emitter.flush(20)
            print("ready", flush=True)
            sys.stdin.readline()
            emitter.emit(job(3))
            emitter.flush(20)
        """
    environ = os.environ | {
        "SITEWARD_DATA": str(tmp_path / "program"),
        "SITEWARD_BROKER__URL": trusting.server.url,
        "SITEWARD_CREDENTIALS__ISSUER": trusting.issuer.issuer.url,
        "SITEWARD_CREDENTIALS__CLIENT": SERVICE,
        "SITEWARD_CREDENTIALS__CLIENT_SECRET_FILE": str(secret_file),
        "SITEWARD_CREDENTIALS__AUDIENCE": AUDIENCE,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(Path(__file__).parent.parent)],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    while "ready\n" not in said:
        said += process.stdout.readline()
    trusting.server.stop()
    trusting.issuer.issuer.rotate()
    trusting.issuer.answers["token"] = (400, {"error": "invalid_client"})
    said += process.communicate("\n", timeout=60)[0]
    assert process.returncode == 0
    assert "does not report for the VO 'dteam'" in said
    assert "broker is away" in said
    assert trusting.issuer.given
    for secret in (SECRET, *trusting.issuer.given):
        assert secret not in said


@pytest.mark.parametrize("missing", ["ISSUER", "CLIENT", "CLIENT_SECRET"])
def test_half_of_credentials_is_refused(missing: str) -> None:
    """At start, naming what is missing."""
    given = {f"SITEWARD_CREDENTIALS__{name}": "https://x" for name in ("ISSUER", "CLIENT", "CLIENT_SECRET")}
    assert load_settings(environ=given).credentials.issuer == "https://x"
    del given[f"SITEWARD_CREDENTIALS__{missing}"]
    with pytest.raises(SettingsError, match=f"credentials.{missing.lower()} is missing"):
        load_settings(environ=given)


def test_a_forked_child_asks_for_a_token_of_its_own(trusting: Trusting) -> None:
    """What its parent was in the middle of, it does not wait for."""
    with Emitter(trusting.program) as emitter:
        emitter.emit(job(1))
        assert emitter.flush(PATIENCE)
        child = os.fork()
        if child == 0:
            emitter.emit(job(2))
            os._exit(0 if emitter.close(PATIENCE) else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert arrived(trusting.server, 2) == ["1", "2"]
    assert trusting.issuer.asked == ["client_credentials"] * 2
