"""Every command and every task declares what it needs, and what changes anything is noted before it does."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import typer
from accounted import ran
from collected import collected
from examples import JOB, batch_of, job_rows
from typer.main import get_command

from accounting.opening import open_ledger
from collectors.database import database_path
from collectors.dead_letters import DeadLetters, Letter, Stage
from siteward.cli import command_of
from siteward.cli.verbs import changes, commands_below, declared, reads, tell_change, verb_of
from siteward.extensions import ExtensionError, found
from siteward.kinds import load_kinds
from siteward.records import Refused
from siteward.server.auth import Permission
from siteward.server.auth.audit import Audited
from siteward.server.resources import Resources
from siteward.server.schedule import Task, load_tasks
from siteward.settings import AccessSettings, Settings

DONE: list[str] = []


@changes(Permission.PLATFORM)
def paint(context: typer.Context, colour: str, fail: bool = False) -> None:  # noqa: FBT001, FBT002  # as below.
    """Change something that was something else."""
    tell_change(context, {"colour": "white"}, {"colour": colour})
    raise typer.Exit(int(fail))


@changes(Permission.PLATFORM)
def work(name: str, fail: bool = False, code: int = 0) -> None:  # noqa: FBT001, FBT002  # Typer's options.
    """Do something."""
    if fail:
        message = "it does not work"
        raise ValueError(message)
    DONE.append(name)
    raise typer.Exit(code)


def every() -> Iterator[tuple[str, object]]:
    for name, entry in found("siteward.commands").items():
        yield from commands_below(command_of(entry), name)


def noted(settings: Settings) -> list[Audited]:
    """The audit, the oldest first."""
    with closing(Resources(settings)) as resources:
        return resources.audit.find()[::-1]


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further command is installed."""
    DONE.clear()
    module = types.ModuleType("working")
    module.work = work  # type: ignore[attr-defined]
    single = typer.Typer()
    single.command("work")(work)
    entries = dict(found("siteward.commands"))
    monkeypatch.setattr("siteward.cli.found", lambda _group: entries)
    monkeypatch.setattr("siteward.cli.command_of", lambda _entry: declared(get_command(single), "kinds"))


def test_every_command_declares_its_permission() -> None:
    """Those of groups, too; what changes anything asks for more than to read."""
    verbs = {path: verb_of(command, path) for path, command in every()}
    assert len(verbs) > 50
    assert verbs["query"].permission is Permission.READ
    assert verbs["ledger close"].permission is verbs["ledger correct void"].permission is Permission.ACCOUNT
    assert {"audit", "audit verify"} <= verbs.keys()
    assert verbs["dead-letters messages discard"].is_noted
    weak = {Permission.PUBLIC, Permission.IDENTIFIED, Permission.READ, Permission.WATCH, Permission.NAMES}
    assert not [path for path, verb in verbs.items() if verb.is_noted and verb.permission in weak]


def test_a_command_that_declares_nothing_is_not_run() -> None:
    """Nor is any other one of its group."""
    group = typer.Typer()
    group.command("one")(reads(Permission.READ)(lambda: None))
    group.command("other")(lambda: None)
    with pytest.raises(ExtensionError, match="`siteward lamps other` declares no permission; give its function one"):
        declared(get_command(group), "lamps")


def test_every_task_declares_its_permission() -> None:
    """One cannot be made without."""
    assert {task.permission for task in load_tasks()} <= set(Permission)
    with pytest.raises(TypeError):
        Task(name="x", every=1.0, run=lambda _resources: None)  # type: ignore[call-arg]


@pytest.mark.usefixtures("working")
def test_a_change_is_noted_before_and_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its words, what it was given, and how it ended."""
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "kinds", "lamp") == 0
    assert ran(monkeypatch, settings, "kinds", "lamp", "--code", "3") == 3
    with pytest.raises(ValueError, match="does not work"):
        ran(monkeypatch, settings, "kinds", "bell", "--fail")
    assert DONE == ["lamp", "lamp"]
    entries = noted(settings)
    assert [(each.action, each.outcome) for each in entries] == [
        ("siteward kinds", "asked"),
        ("siteward kinds", "exit 0"),
        ("siteward kinds", "asked"),
        ("siteward kinds", "exit 3"),
        ("siteward kinds", "asked"),
        ("siteward kinds", "ValueError"),
    ]
    assert entries[-1].after == {"name": "bell", "fail": True, "code": 0}
    assert {(each.issuer, bool(each.subject)) for each in entries} == {("", True)}


@pytest.mark.parametrize("fails", [False, True])
def test_what_something_was_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: bool) -> None:  # noqa: FBT001
    """Beside what it became, and what the command was given; also where it ends with an error."""
    single = typer.Typer()
    single.command("paint")(paint)
    entries = dict(found("siteward.commands"))
    monkeypatch.setattr("siteward.cli.found", lambda _group: entries)
    monkeypatch.setattr("siteward.cli.command_of", lambda _entry: declared(get_command(single), "kinds"))
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "kinds", "red", *(["--fail"] if fails else [])) == int(fails)
    asked, ended = noted(settings)
    assert (asked.before, asked.after) == (None, None)
    assert ended.before == {"colour": "white"}
    assert ended.after == {"given": {"colour": "red", "fail": fails}, "became": {"colour": "red"}}


def test_what_decisions_change_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of periods, corrections and dead letters: what they were, and what they became."""
    settings = Settings(data=str(tmp_path))
    with closing(open_ledger(settings, load_kinds())) as ledger:
        ledger.write(batch_of(JOB, job_rows(3)))
    month = ("job", "2026-03")
    for words in (
        ("close", *month),
        ("sign", *month),
        ("reopen", *month, "--reason", "x"),
        ("correct", "void", "job", "--window", "2026-03", "--reason", "x", "--author", "anna"),
        ("approve", "1", "--by", "boris"),
        ("reverse", "1", "--by", "boris", "--reason", "x"),
    ):
        assert ran(monkeypatch, settings, "ledger", *words) == 0
    ended = [each for each in noted(settings) if each.of]
    states = [(each.before and each.before["state"], each.after["became"]["state"]) for each in ended]
    assert states == [
        (None, "closed"),
        ("closed", "signed"),
        ("signed", "reopened"),
        (None, "proposed"),
        ("proposed", "applied"),
        ("applied", "reversed"),
    ]
    assert {each.vos for each in noted(settings)} == {("*",), ()}
    with closing(DeadLetters(database_path(settings))) as letters:
        why = Refused("is wrong", field="site", value="x")
        letters.put([Letter("ledger", bytes(16), Stage.WRITE, "job", "v", "p", bytes(16), why, b"{}")], 1)
    assert ran(monkeypatch, settings, "dead-letters", "discard", "1") == 0
    last = noted(settings)[-1]
    assert (last.before, last.after["became"]) == ({"1": "open"}, {"1": "discarded"})


def test_a_command_notes_whose_it_is_and_nobodys_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before it is done, too, as far as it was said; the correction itself holds pseudonyms."""
    settings = Settings(data=str(tmp_path))
    with closing(open_ledger(settings, load_kinds())) as ledger:
        ledger.write(collected(batch_of(JOB, job_rows(3)), settings))
    who = ("--where", "user=user1", "--set", "user=jane", "--reason", "x", "--author", "anna")
    words = ("correct", "move", "job", "--window", "2026-03", "--where", "vo=example|other", *who)
    assert ran(monkeypatch, settings, "ledger", *words) == 0
    assert ran(monkeypatch, settings, "ledger", "approve", "1", "--by", "boris") == 0
    assert ran(monkeypatch, settings, "ledger", "close", "job", "2026-03", "--vo", "example") == 0
    assert ran(monkeypatch, settings, "token", "create", "carla", "--role", "reader", "--vo", "example") == 0
    entries = noted(settings)
    both = ("example", "other")
    assert [each.vos for each in entries] == [both, both, (), both, *[("example",)] * 4]
    assert not {"user1", "jane"} & set(re.findall(r"\w+", str(entries)))
    assert ran(monkeypatch, settings, "audit", "verify") == 0
    assert ran(monkeypatch, settings, "audit", "verify", "--number", "2", "--digest", "0" * 64) == 1


@pytest.mark.usefixtures("working")
def test_nothing_is_changed_unnoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the audit cannot be written, the command does not run."""
    settings = Settings(data=str(tmp_path), access=AccessSettings(url="postgresql://nobody@127.0.0.1:1/none"))
    assert ran(monkeypatch, settings, "kinds", "lamp") == 1
    assert "nothing is changed without it" in capsys.readouterr().err
    assert DONE == []
