"""`siteward login`: a device's code at an issuer that answers, tokens renewed and kept for their owner only."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from accounted import ran
from issuer import AUDIENCE
from oidc_server import COMMAND_LINE, SECRET, SERVICE, SUBJECT, OidcServer, oidc_server
from served import served

from siteward.cli.login import renewed
from siteward.cli.query import asked_app
from siteward.client import Client
from siteward.oauth import logins as module
from siteward.oauth.client import IssuerClient, IssuerRefuses
from siteward.oauth.fetching import FetchError
from siteward.oauth.logins import FileKeeper, Login, keeper, kept_token
from siteward.oauth.service import MARGIN, ServiceToken
from siteward.server.app import create_app
from siteward.settings import GrantSettings, IssuerSettings, Settings, SettingsError

HOUR = 3600.0


@pytest.fixture
def issuer() -> Iterator[OidcServer]:
    with oidc_server() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has no keyring and no token from elsewhere."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "safe_ring", lambda: None)
    monkeypatch.setattr("siteward.oauth.client.time.sleep", lambda _seconds: None)
    return tmp_path


@pytest.fixture
def settings(home: Path, issuer: OidcServer) -> Settings:
    given = issuer.issuer.settings(GrantSettings(when="group:/dteam", role="reader"), device_client=COMMAND_LINE)
    return Settings(data=str(home / "data"), issuers={"dteam": given, "local": IssuerSettings(profile="local")})


@pytest.fixture
def app(settings: Settings) -> Iterator[str]:
    """A running app; its address."""
    with served(create_app(settings, routers=[])) as url:
        yield url


def test_a_person_logs_in_on_a_command_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    home: Path,
    settings: Settings,
    issuer: OidcServer,
    app: str,
) -> None:
    """With a code for any browser; commands then send the token, renew it once it is over, and forget it at the end."""
    issuer.pending = ["authorization_pending", "slow_down", "authorization_pending"]
    assert ran(monkeypatch, settings, "login", app, "--audience", AUDIENCE) == 0
    told = capsys.readouterr().err
    assert f"open {issuer.issuer.url}/allow in a browser, and allow the code WDJB-MJHT" in told
    assert f"as {SUBJECT} of {issuer.issuer.url}: reader" in told
    file = home / "config" / "siteward" / "logins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = FileKeeper(file).find(app)
    assert first is not None
    assert first.access not in told
    assert first.access not in repr(first)

    assert ran(monkeypatch, settings, "whoami", "--url", app) == 0
    assert SUBJECT in capsys.readouterr().out
    FileKeeper(file).keep(app, msgspec.structs.replace(first, access="x", ends=1.0))
    assert ran(monkeypatch, settings, "whoami", "--url", f"{app}/") == 0
    second = FileKeeper(file).find(app)
    assert second is not None
    assert second.refresh != first.refresh
    assert issuer.asked[-1] == "refresh_token"

    assert ran(monkeypatch, settings, "logout", app) == 0
    assert issuer.revoked == [second.refresh]
    assert FileKeeper(file).find(app) is None
    assert ran(monkeypatch, settings, "whoami", "--url", app) == 1
    assert ran(monkeypatch, settings, "logout", app) == 0
    assert "nobody is logged in" in capsys.readouterr().err


def test_what_lies_about_is_not_sent_in_place_of_a_log_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a tool left for another service comes after the log-in there, and what is named before it."""
    url, settings = "https://app.example", Settings(data=str(home / "data"))

    def sent(to: str = url) -> str:
        client = asked_app(settings, to)
        assert client is not None
        return client._headers["Authorization"].removeprefix("Bearer ")

    (home / "run").mkdir()
    (home / "run" / f"bt_u{os.geteuid()}").write_text("of-a-tool")
    assert sent() == "of-a-tool"
    FileKeeper(home / "config" / "siteward" / "logins.json").keep(url, Login("https://i", "c", "of-the-log-in", "", 0))
    assert sent() == sent(f"{url}/") == "of-the-log-in"
    assert sent("https://other.example") == "of-a-tool"
    (home / "named").write_text("of-the-file")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(home / "named"))
    assert sent() == "of-the-file"
    monkeypatch.setenv("BEARER_TOKEN", "of-the-variable")
    assert sent() == "of-the-variable"


@pytest.mark.parametrize(
    ("answers", "said"), [(["access_denied"], "access_denied"), (["expired_token"], "expired_token")]
)
def test_who_is_refused_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: Settings,
    issuer: OidcServer,
    app: str,
    answers: list[str],
    said: str,
) -> None:
    """In the issuer's words, and nothing is kept."""
    issuer.pending = answers
    assert ran(monkeypatch, settings, "login", app, "--audience", AUDIENCE) == 1
    assert f"refuses: {said}" in capsys.readouterr().err
    assert keeper().find(app) is None


def test_a_wrong_issuer_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, app: str
) -> None:
    """With those that there are."""
    assert ran(monkeypatch, settings, "login", app, "--issuer", "other", "--audience", AUDIENCE) == 2
    assert "there is no issuer 'other' for this; there are dteam" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "login", app) == 2
    assert f"wants tokens made out to '{AUDIENCE}', which is not its address" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "login", "http://siteward.example.org") == 2
    assert "would be readable on their way" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "login") == 2
    assert "no app of this installation runs" in capsys.readouterr().err


def test_one_of_many_commands_renews(home: Path) -> None:
    """A refresh token that is good for one use is used once; the others send what it got."""
    old = Login("https://iam.example", "cli", "old", "once", 1.0)
    keeper().keep("https://app", old)
    uses, sent = [], []
    at_once = threading.Barrier(8)

    def renew(login: Login) -> Login:
        uses.append(login.refresh)
        return msgspec.structs.replace(login, access="new", refresh="twice", ends=4e9)

    def command() -> None:
        at_once.wait(10)
        sent.append(kept_token("https://app", renew))

    threads = [threading.Thread(target=command) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (uses, sent) == (["once"], ["new"] * 8)
    assert kept_token("https://elsewhere", renew) == ""
    assert stat.S_IMODE((home / "config" / "siteward").stat().st_mode) == 0o700


def test_a_login_without_refresh_ends(issuer: OidcServer) -> None:
    """And says what to do; so does one that the issuer took back."""
    with pytest.raises(IssuerRefuses, match="run `siteward login` again"):
        renewed(Login(issuer.issuer.url, COMMAND_LINE, "a", "", 1.0))
    with pytest.raises(IssuerRefuses, match="invalid_grant: the refresh token is not good"):
        renewed(Login(issuer.issuer.url, COMMAND_LINE, "a", "gone", 1.0))


def test_a_file_that_others_may_read_is_not_used(home: Path) -> None:
    """Neither is one that is not ours."""
    file = home / "config" / "siteward" / "logins.json"
    keeper().keep("https://app", Login("https://iam.example", "cli", "a", "", 0.0))
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="others may read or change it"):
        keeper().find("https://app")
    file.chmod(0o600)
    file.write_bytes(b"{")
    with pytest.raises(SettingsError, match="not what was written there"):
        keeper().find("https://app")


def test_a_service_gets_its_own_token(issuer: OidcServer) -> None:
    """By its name and secret; with another one none, and no error holds it."""
    tokens = IssuerClient(issuer.issuer.url, SERVICE, SECRET).of_service(("siteward.report",), "https://app")
    assert tokens.lasting == issuer.lasting
    assert tokens.refresh == ""
    with pytest.raises(IssuerRefuses, match="invalid_client") as refused:
        IssuerClient(issuer.issuer.url, SERVICE, "guessed-secret").of_service(())
    assert "guessed-secret" not in str(refused.value)


def test_a_service_sends_a_token_that_is_always_good(issuer: OidcServer, settings: Settings, app: str) -> None:
    """It is renewed before its end, and sent to its end while the issuer is away."""
    assert settings.issuers
    now = [1_000.0]
    source = ServiceToken(IssuerClient(issuer.issuer.url, SERVICE, SECRET), ("siteward.report",), clock=lambda: now[0])
    assert Client(app, source).whoami().subject == SERVICE
    first = source()
    assert source() == first
    now[0] += issuer.lasting - MARGIN + 1
    second = source()
    assert second != first
    assert issuer.asked == ["client_credentials"] * 2
    issuer.answers["token"] = (503, {"error": "down"})
    now[0] += issuer.lasting - MARGIN + 1
    assert source() == second
    now[0] += MARGIN
    with pytest.raises(IssuerRefuses):
        source()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"token_type": "Bearer"}), "something else than tokens"),
        ((200, {"access_token": "a", "token_type": "mac"}), "nobody can bear"),
        ((200, []), "something else than tokens"),
        ((500, {"error": "down"}), "something else than tokens"),
        ((400, {"error": 1}), "refuses"),
        ((400, {"error": "x" * 5_000, "error_description": "\x1b[31m"}), "something else than tokens"),
    ],
)
def test_whatever_an_issuer_answers_is_told(issuer: OidcServer, answer: tuple[int, Any], said: str) -> None:
    """As one error, in bounded and printable words."""
    issuer.answers["token"] = answer
    with pytest.raises(IssuerRefuses, match=said) as refused:
        IssuerClient(issuer.issuer.url, SERVICE, SECRET).of_service(())
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


def test_an_issuer_that_cannot_is_told(issuer: OidcServer) -> None:
    """Without an address for it, with one that nobody should be sent to, or not there at all."""
    client = IssuerClient(issuer.issuer.url, COMMAND_LINE)
    issuer.answers["device"] = (
        200,
        {"device_code": "d", "user_code": "u", "verification_uri": "http://evil.example/", "expires_in": 1},
    )
    with pytest.raises(IssuerRefuses, match="does not say how to allow a device"):
        client.begin_device(())
    with pytest.raises(IssuerRefuses, match="its description has no other_endpoint"):
        client.address("other_endpoint")
    with pytest.raises(FetchError):
        IssuerClient("http://127.0.0.1:1", COMMAND_LINE).begin_device(())
