"""Secrets of the settings are seen by nobody: not in the list of processes, not in logs, not in any answer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import typer
from typer.main import get_command

from siteward.cli import application, command_of
from siteward.extensions import found
from siteward.hiding import without_password
from siteward.oauth.fetching import check_address
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.database import Database, DatabaseError
from siteward.settings import AccountingSettings, BrokerSettings, Settings, load_settings, told_passwords

LIMIT: Final = 60.0
PROGRAM: Final = (sys.executable, "-c", "from siteward.cli import main; main()")
MARK: Final = "geheim"
"""In every secret of these tests, and in nothing else."""
KEY: Final = f"{MARK}-pseudonyms-0123456789-0123456789"

ISSUERS: Final = f"""
[issuers.local]
profile = "local"

[issuers.dteam]
profile = "wlcg"
url = "https://127.0.0.1:1/iam"
vos = ["dteam"]
audiences = ["https://siteward.example.org"]
client = "siteward"
client_secret = "{MARK}-client"

[credentials]
issuer = "https://127.0.0.1:1/iam"
client = "emitter"
client_secret = "{MARK}-credentials"
"""
APART: Final = f"""
[broker]
password = "{MARK}-broker"

[monitoring]
url = "opensearch://me@127.0.0.1:1"
password = "{MARK}-store"

[accounting]
url = "postgresql://me@127.0.0.1:1/ledger"
password = "{MARK}-ledger"

[access]
pseudonym_key = "{KEY}"

[prometheus]
token = "{MARK}-scrapers-0123456789-0123456789"
url = "http://127.0.0.1:1"
url_token = "{MARK}-asked"
remote_write = "http://127.0.0.1:1/write"
remote_write_token = "{MARK}-written"
remote_write_every = 0.5
"""
WITHIN: Final = f"""
[monitoring]
url = "opensearch://me:{MARK}-store@127.0.0.1:1"

[accounting]
url = "mariadb://me:{MARK}-ledger@127.0.0.1:1/ledger"

[access]
pseudonym_key = "{KEY}"

[prometheus]
url = "http://127.0.0.1:1/?token={MARK}-asked"
remote_write = "http://127.0.0.1:1/write?token={MARK}-written"
remote_write_every = 0.5
"""
BROKER: Final = f"""
[broker]
url = "amqp://me:{MARK}-broker@127.0.0.1:1/v"
management = "http://127.0.0.1:1"
{WITHIN}"""
ACCESS: Final = f"""
[access]
url = "postgresql://me:{MARK}-access@127.0.0.1:1/access"
pseudonym_key = "{KEY}"
"""
STORES_TRIED: Final = ("Siteward is up:", "sink=ledger", "sink=monitoring", "remote-write failed")
TRIED: Final = {
    "apart": STORES_TRIED,
    "within": STORES_TRIED,
    "broker": ("Siteward is up:", "Connection refused"),
    "access": ("Siteward is up:", "the table of people does not answer"),
}
"""What is said once each server was tried: collectors wait for the broker before they open anything."""
TOLD: Final = {"access": "503"}
"""What answers have of it; by default of the store."""
WITHIN_URLS: Final = {
    "apart": (),
    "within": ("accounting", "monitoring"),
    "broker": ("accounting", "broker", "monitoring"),
    "access": ("access",),
}
SETTINGS: Final = {"apart": APART, "within": WITHIN, "broker": BROKER, "access": ACCESS}
"""Secrets in settings of their own, and within URLs. None of the servers is there, so that errors tell of each."""


def every_option(command: Any, path: str = "siteward") -> Iterator[tuple[str, str, Any]]:
    """Command, name and type of each option and argument of a command and all below it."""
    for each in command.params:
        for name in (*each.opts, *each.secondary_opts):
            yield path, name, each.type
    for name, below in getattr(command, "commands", {}).items():
        yield from every_option(below, f"{path} {name}")


SECRET_WORDS: Final = re.compile(r"pass|pwd|secret|token|cred|bearer|(^|[-_])(key|pin|auth)($|[-_])", re.IGNORECASE)
NO_SECRETS: Final = {
    ("siteward audit", "--token"): "a token's `jti`, which opens nothing",
    ("siteward token deny", "--token"): "a token's `jti`, which opens nothing",
    ("siteward token allow", "--token"): "a token's `jti`, which opens nothing",
}
"""Options that are called like secrets, and are none."""


def test_no_option_takes_a_secret() -> None:
    """Every user of a machine sees what stands behind a command; a secret's option takes the name of a file."""
    options = list(every_option(get_command(application)))
    for name, entry in found("siteward.commands").items():
        options += every_option(command_of(entry), f"siteward {name}")
    assert len(options) > 200
    suspects = {
        (path, name)
        for path, name, kind in options
        if SECRET_WORDS.search(name) and not isinstance(kind, typer.models.TyperPath)
    }
    assert suspects == set(NO_SECRETS)


def command_lines(root: int) -> dict[int, str]:
    """The command lines of a process and of all below it, as `ps` shows them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    lines: dict[int, str] = {}
    for pid in family:
        with suppress(OSError):
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return lines


class Up:
    """A running `siteward up`, all of whose servers are away."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        (folder / "siteward.toml").write_text(f'log_level = "debug"\n{ISSUERS}{SETTINGS[name]}')
        self.environment = os.environ | {
            "SITEWARD_DATA": str(folder / "data"),
            "SITEWARD_SERVER__PORT": "0",
            "SITEWARD_PROMETHEUS__PORT": "0",
            "SITEWARD_COLLECTOR__LEAVE_OUT": "",
            "BEARER_TOKEN": f"{MARK}-bearer",
        }
        self.settings = load_settings(folder / "siteward.toml", {"SITEWARD_DATA": str(folder / "data")})
        with (folder / "told").open("w") as told:
            self.process = subprocess.Popen(
                [*PROGRAM, "up"], stdout=told, stderr=told, cwd=folder, env=self.environment
            )

    @property
    def told(self) -> str:
        """All it said so far."""
        return (self.folder / "told").read_text()

    def until(self, *words: str) -> None:
        """Wait until it has said each of these."""
        deadline = time.monotonic() + LIMIT
        while missing := [word for word in words if word not in self.told]:
            assert self.process.poll() is None, self.told
            assert time.monotonic() < deadline, (missing, self.told)
            time.sleep(0.1)

    def siteward(self, *arguments: str) -> str:
        """All that a command says."""
        command = [*PROGRAM, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self.environment, check=False
        )
        return f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"

    def answers(self) -> str:
        """All that the app answers, to who may do all: what needs no more than a path."""
        address = self.told.partition("Siteward is up:")[2].split()[0]
        grants = (Grant(Role.PLATFORM_ADMIN, ("all",)), Grant(Role.ADMIN, ("all",)))
        token = LocalIssuer(self.settings.issuer_file).token("me", grants, 1)
        headers = {"Authorization": f"Bearer {token}", "Siteward-VO": "*"}

        def get(path: str) -> str:
            try:
                with urlopen(Request(f"{address}{path}", headers=headers), timeout=LIMIT) as answer:
                    return str(answer.read().decode(errors="replace"))
            except HTTPError as error:
                with error:
                    return f"{error.code} {error.read().decode(errors='replace')}"

        described = create_app(Settings(data=str(self.folder / "described"))).openapi()["paths"]
        paths = [path for path, verbs in described.items() if "get" in verbs and "{" not in path]
        assert {"/health/ready", "/v1/pipeline", "/v1/query"} <= set(paths)
        asked = {"/v1/query": "?kind=job", "/v1/accounting/usage": "?kind=job"}
        return "\n".join(
            f"{path}: {get(path + asked.get(path, ''))}"
            for path in (*paths, "/", "/explore", "/kinds", "/dead-letters")
        )


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """With secrets in settings of their own, or within URLs; it has tried all of its servers."""
    up = Up(tmp_path_factory.mktemp(request.param), request.param)
    try:
        up.until(*TRIED[request.param])
        yield up
    finally:
        up.process.send_signal(signal.SIGTERM)
        try:
            up.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            up.process.kill()
            up.process.wait()


def test_no_process_shows_a_secret(up: Up) -> None:
    """What `ps` shows of `siteward up` and of all that it has started."""
    lines = command_lines(up.process.pid)
    assert sum("siteward.server.service" in line for line in lines.values()) >= 3
    assert not [line for line in lines.values() if MARK in line]


def test_nobody_is_told_a_secret(up: Up) -> None:
    """Not in what is logged, nor in any answer, nor by commands, though errors tell of every server."""
    said = [up.answers()]
    said += [up.siteward("--output", form, "config", "check") for form in ("table", "json", "csv")]
    for command in ("broker check", "broker", "query job", "ledger check", "account job", "dead-letters", "whoami"):
        said.append(up.siteward(*command.split()))
    said += [path.read_text(errors="replace") for path in (up.folder / "data" / "run").iterdir() if path.is_file()]
    said += [up.told, repr(up.settings), f"{up.settings}"]
    assert "client_secret" in said[2]
    assert TOLD.get(up.name, "OpenSearch at 127.0.0.1:1 does not answer") in said[0]
    assert not [line[:500] for text in said for line in text.splitlines() if MARK in line]


def test_a_password_within_a_url_is_warned_of(up: Up) -> None:
    """At the start and by `config check`, which say where it belongs; one of its own is not."""
    warned = {f"setting {each}.url holds a password: keep it in a file of its own" for each in WITHIN_URLS[up.name]}
    for said in (up.told, up.siteward("config", "check")):
        assert {line.partition(",")[0] for line in said.splitlines() if "holds a password" in line} == warned


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("postgresql://me:geheim@h/n", True),
        ("postgresql://me:ge/h?e#i@m@h:5432/n", True),
        ("mariadb://me:1234@h/n", True),
        ("postgresql://me@h:5432/n?sslmode=verify-full&sslkey=/etc/key.pem&passfile=/etc/pass", False),
        ("mariadb://me@h/n?ssl_key=/etc/key.pem", False),
        ("postgresql://me@[::1]:5432/n?application_name=a@b", False),
        ("postgresql://me@h:5432/n?application_name=a:b@c", False),
        ("postgresql://me:@h/n", False),
        ("sqlite:////var/lib/a:b@c.sqlite", False),
        ("", False),
    ],
)
def test_only_a_password_is_told_of_as_one(url: str, is_told: bool) -> None:  # noqa: FBT001  # pytest names it.
    """Not a parameter that is called like a secret and names a file, nor an @ behind the host."""
    said = told_passwords(Settings(accounting=AccountingSettings(url=url)))
    assert [each.partition(" holds")[0] for each in said] == ["setting accounting.url"] * is_told


def test_a_port_before_an_at_is_no_password() -> None:
    """Of a broker whose virtual host has one."""
    assert not told_passwords(Settings(broker=BrokerSettings(url="amqps://h:5672/v@x")))
    assert told_passwords(Settings(broker=BrokerSettings(url="amqps://me:geheim@h:5672/v@x")))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:geheim@h/n?sslpassword=geheim&a=b", "postgresql://me:hidden@h/n?sslpassword=hidden&a=b"),
        ("https://h/write?sig=geheim&v=1#x", "https://h/write?sig=hidden&v=1#x"),
        ("https://h/write?Access-Token=geheim", "https://h/write?Access-Token=hidden"),
        ("https://h/path?by=site", "https://h/path?by=site"),
        ("what?token=is", "what?token=is"),
    ],
)
def test_a_parameter_that_is_called_like_a_secret_is_hidden(url: str, shown: str) -> None:
    """As a password before the host is."""
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@h/n?password=geheim",
        "mariadb://me@h/n?passwd=geheim",
        "postgresql://me@h/n?sslkey=k&sslpassword=geheim",
    ],
)
def test_no_parameter_is_a_databases_password(url: str) -> None:
    """It has a setting of its own, and drivers that quote their parameters would tell it."""
    with pytest.raises(DatabaseError, match=r"takes no (ssl)?passw") as refused:
        Database(url)
    assert MARK not in str(refused.value)


def test_an_issuers_address_is_not_quoted_with_its_password() -> None:
    """It is refused, since addresses are shown."""
    with pytest.raises(ValueError, match=r"https://me:hidden@iam\.example") as refused:
        check_address("https://me:geheim@iam.example", "issuer")
    assert MARK not in str(refused.value)
