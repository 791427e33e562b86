"""`siteward token` and `siteward whoami`, beside a running app that asks for tokens."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from composition import running
from examples import job

from siteward.client import Client, ClientError

PROGRAM = (sys.executable, "-c", "from siteward.cli import main; main()")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the settings of an installation that trusts its own issuer."""
    made = tmp_path_factory.mktemp("installation")
    (made / "siteward.toml").write_text('[issuers.local]\nprofile = "local"\n')
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Runs `siteward …` there, without a token of whoever runs the tests."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("BEARER_TOKEN")}

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"SITEWARD_DATA": str(folder / "data"), "SITEWARD_SERVER__PORT": "0", "XDG_RUNTIME_DIR": str(folder)}
        return subprocess.run(
            [*PROGRAM, *arguments],
            capture_output=True,
            encoding="utf-8",
            cwd=folder,
            env=without | given | environment,
            check=False,
        )

    return call


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The address of the installation's app."""
    address = folder / "data" / "run" / "app.url"
    environment = {**os.environ, "SITEWARD_DATA": str(folder / "data"), "SITEWARD_SERVER__PORT": "0"}
    environment["SITEWARD_CONFIG"] = str(folder / "siteward.toml")
    command = [sys.executable, "-m", "siteward.server.service", "app"]

    def answers() -> bool:
        return address.exists() and Client(address.read_text()).alive()

    with running(command, folder / "app.log", answers, env=environment):
        yield address.read_text()


def made(run: Run, *arguments: str) -> str:
    """A new token."""
    answer = run("token", "create", *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_a_token_that_was_made_is_believed_by_the_app(run: Run, url: str) -> None:
    """And allows what its role allows, in its VO."""
    reporter = Client(url, made(run, "ce1", "--role", "reporter", "--vo", "example"))
    told = reporter.whoami()
    assert (told.subject, told.vos) == ("ce1", ("example",))
    assert [(each.role, each.allows) for each in told.grants] == [("reporter", ("report", "send"))]
    assert reporter.send("job", [job()])["queued"] == 1
    with pytest.raises(ClientError, match="takes one of the roles"):
        reporter.query("job")
    with pytest.raises(ClientError, match="needs a token"):
        Client(url).query("job")


def test_whoami_says_what_a_token_allows(run: Run, url: str) -> None:
    """That of the environment towards another app; towards one's own, whoever runs the installation."""
    token = made(run, "anna", "--role", "reader", "--vo", "example", "--vo", "all")
    told = run("--output", "json", "whoami", "--url", url, BEARER_TOKEN=token)
    assert told.returncode == 0, told.stderr
    (row,) = json.loads(told.stdout)
    assert (row["subject"], row["role"], row["vos"]) == ("anna", "reader", "example all")
    (own,) = json.loads(run("--output", "json", "whoami", BEARER_TOKEN=token).stdout)
    assert own["role"] == "platform-admin"
    assert "needs a token" in run("whoami", "--url", url).stderr


def test_questions_of_ones_own_installation_need_no_token(run: Run, url: str) -> None:
    """The command makes one for itself: who can read the issuer's key could do so anyhow."""
    assert url
    answer = run("query", "job", "--measures", "count")
    assert answer.returncode == 0, answer.stderr


def test_a_token_may_go_into_a_file(run: Run, url: str, folder: Path) -> None:
    """For its owner only, and not to the terminal; programs find it by BEARER_TOKEN_FILE."""
    file = folder / "mine.token"
    for _ in range(2):
        answer = run("token", "create", "anna", "--role", "reader", "--vo", "example", "--file", str(file))
        assert answer.returncode == 0, answer.stderr
    token = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in answer.stdout + answer.stderr
    assert json.loads(run("--output", "json", "whoami", "--url", url, BEARER_TOKEN_FILE=str(file)).stdout)
    gone = run("whoami", "--url", url, BEARER_TOKEN_FILE=str(folder / "none"))
    assert (gone.returncode, "BEARER_TOKEN_FILE" in gone.stderr) == (1, True)


def test_a_token_that_nobody_takes_says_so(run: Run, folder: Path) -> None:
    """Where the settings trust other issuers only, it is made, and told what is missing."""
    elsewhere = folder / "elsewhere.toml"
    elsewhere.write_text('[issuers.lab]\nurl = "https://lab.example"\nprofile = "wlcg"\naudiences = ["siteward"]\n')
    arguments = ("token", "create", "anna", "--role", "reader", "--vo", "example")
    told = run(*arguments, SITEWARD_CONFIG=str(elsewhere), SITEWARD_DATA=str(folder / "other"))
    assert told.returncode == 0, told.stderr
    assert "add [issuers.local]" in " ".join(told.stderr.split())
    assert "issuers.local" not in run(*arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--role", "reader"], "name them"),
        (["--role", "reeder", "--vo", "a"], "did you mean 'reader'"),
        (["--role", "platform-admin", "--vo", "a"], "name none"),
        (["--role", "reader", "--vo", "a", "--days", "400"], "366"),
        (["--role", "site-operator", "--vo", "a"], "needs sites"),
        ([], "--role"),
    ],
)
def test_a_token_that_means_nothing_is_not_made(run: Run, arguments: list[str], what: str) -> None:
    """The command says what is missing, and prints nothing else."""
    answer = run("token", "create", "anna", *arguments)
    assert answer.returncode != 0
    assert what in " ".join(answer.stderr.split())
    assert not answer.stdout


def test_what_is_denied_is_refused_within_seconds(run: Run, url: str) -> None:
    """By the running app too, with who and why; until it is allowed again."""
    client = Client(url, made(run, "stolen", "--role", "reader", "--vo", "example"))
    assert client.whoami()
    entry = ("local", "--subject", "stolen")
    assert run("token", "deny", *entry, "--reason", "it stood in a log").returncode == 0
    eventually(lambda: refusal(client) == "denied")
    (listed,) = json.loads(run("--output", "json", "token", "denied").stdout)
    assert (listed["subject"], listed["reason"]) == ("stolen", "it stood in a log")
    assert run("token", "allow", *entry).returncode == 0
    listed = json.loads(run("--output", "json", "audit", "--limit", "5", "--action", "siteward token").stdout)
    # That somebody has looked at the list is noted between the two.
    noted = [each for each in listed if each["action"] != "siteward token denied"]
    assert [(each["action"], each["outcome"]) for each in noted] == [
        ("siteward token allow", "done"),
        ("siteward token allow", "asked"),
        ("siteward token deny", "done"),
        ("siteward token deny", "asked"),
    ]
    assert "it stood in a log" in noted[2]["after"]
    eventually(lambda: refusal(client) == "")
    assert "nothing like that" in run("token", "allow", *entry).stderr


def test_who_makes_a_token_is_noted(run: Run, url: str) -> None:
    """With whom it names, what it allows and until when; not the token."""
    assert url
    token = made(run, "carla", "--role", "reader", "--vo", "example")
    done = json.loads(run("--output", "json", "audit", "--limit", "1", "--action", "siteward token").stdout)[0]
    assert (done["action"], done["outcome"]) == ("siteward token create", "done")
    assert all(word in done["after"] for word in ("carla", "reader", "example", "jti"))
    assert token.split(".")[2] not in done["after"]


def test_tokens_are_in_no_log(run: Run, url: str, folder: Path) -> None:
    """Neither good nor refused ones, nor any part of them that could be used."""
    tokens = [made(run, "anna", "--role", "reader", "--vo", "example") for _ in range(2)]
    broken = tokens[0][:-5] + "AAAAA"
    for token in (*tokens, broken, "Bearer x", tokens[1] + "."):
        with pytest.raises((ClientError, ValueError)):
            Client(url, token).send("job", [job()])
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for token in tokens:
        for part in token.split(".")[1:]:
            assert part.encode() not in kept


def refusal(client: Client) -> str:
    """By what reason a token is refused; "" where it is not."""
    try:
        client.whoami()
    except ClientError as error:
        return str(error.problem.get("reason"))
    return ""


def eventually(holds: Callable[[], Any]) -> None:
    """Look again and again until something holds."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)
