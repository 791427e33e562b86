"""Every command and every task declares what it needs, and what changes anything is noted before it does."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

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
from siteward.settings import AccessSettings, IssuerSettings, Settings

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


def every() -> Iterator[tuple[str, Any]]:
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
    assert not [path for path, verb in verbs.items() if verb.is_noted and not verb.is_look and verb.permission in weak]


NOTHING_BEFORE: Final = {
    "collect": "records say who sent them",
    "emit": "adds to what is there",
    "import": "adds to what is there",
    "simulate": "adds to what is there",
    "up": "runs what others change things with",
    "login": "is about a file of the person's own",
    "logout": "is about a file of the person's own",
    "token create": "there was none, and its claims are noted before anybody has it",
    "privacy export": "shows what is kept, and that it was shown is noted",
}
"""Commands that write, and why none of them says what was before."""


def tells(function: Any, seen: set[Any]) -> bool:
    """Whether a function, or one of its module that it calls, says what was before a change."""
    function = inspect.unwrap(function)
    if function in seen:
        return False
    seen.add(function)
    nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    targets = [target for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    if "tell_change" in called or any(isinstance(each, ast.Attribute) and each.attr == "before" for each in targets):
        return True
    near = (function.__globals__.get(name) for name in called)
    mine = [each for each in near if inspect.isfunction(each) and each.__module__ == function.__module__]
    return any(tells(each, seen) for each in mine)


def test_every_command_that_writes_says_what_was_before() -> None:
    """In the audit, beside what it became; the few that have nothing to say give a reason here."""
    writing = {path: command.callback for path, command in every() if verb_of(command, path).is_writing}
    silent = {path for path, function in writing.items() if not tells(function, set())}
    assert silent == set(NOTHING_BEFORE)
    assert len(writing) > 25


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


def test_what_upkeep_changes_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the topology, the archive, the deny-list, stopped queues and names: what was, and what became of it."""
    settings = Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})
    with closing(open_ledger(settings, load_kinds())) as ledger:
        ledger.write(batch_of(JOB, job_rows(3)))
    with closing(DeadLetters(database_path(settings))) as letters:
        letters.stop("ledger", "a flood")
    file = tmp_path / "sites.csv"
    head = "dimension,value,attribute,attribute_value,valid_from,valid_to\n"

    def ended(*words: str) -> Audited:
        assert ran(monkeypatch, settings, *words) == 0
        last = noted(settings)[-1]
        assert (last.action, bool(last.of)) == (f"siteward {' '.join(words[:2])}", True)
        return last

    file.write_text(f"{head}site,SITE-1,country,CH,,\n")
    first = ended("topology", "import", str(file))
    assert (first.before, [each["attribute_value"] for each in first.after["became"]]) == ([], ["CH"])
    file.write_text(f"{head}site,SITE-1,country,FR,,\n")
    second = ended("topology", "import", str(file), "--rewrite-past")
    assert [each["attribute_value"] for each in (*second.before, *second.after["became"])] == ["CH", "FR"]
    away = ended("ledger", "archive", "2026-04-01")
    (name,) = away.after["became"]["files"]
    assert away.before == {"records_in_ledger": 3}
    back = ended("ledger", "restore", name)
    assert (back.before, back.after["became"]) == ({"file": name}, {"records_in_ledger": 3})
    entry = ("local", "--subject", "anna")
    assert ended("token", "deny", *entry, "--reason", "lost").before is None
    assert ended("token", "deny", *entry, "--reason", "lost again").before["reason"] == "lost"
    assert ended("token", "allow", *entry).before["subject"] == "anna"
    resumed = ended("dead-letters", "resume")
    assert (resumed.before, resumed.after["became"]) == ({"ledger": "a flood"}, {"ledger": "goes on"})
    assert ended("privacy", "erase", "Jane Doe").before == {}
    allowed = ended("privacy", "allow", "Jane Doe")
    assert (set(allowed.before.values()), allowed.after["allowed"]) == ({"erased"}, len(allowed.before))


def test_what_is_sought_or_mended_names_nobody_in_the_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A record that was refused may hold names, and so may what finds it: the audit is never rewritten."""
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "dead-letters", "list", "--reason", "Jane Doe", "--vo", "example") == 0
    assert ran(monkeypatch, settings, "dead-letters", "fix", "7", '{"user": "Jane Doe"}', "--note", "misspelt") == 1
    entries = noted(settings)
    assert [each.action for each in entries] == ["siteward dead-letters list"] + ["siteward dead-letters fix"] * 2
    assert "Jane" not in str(entries)


@pytest.mark.parametrize("words", [("list",), ("counts",), ("messages", "list")])
def test_who_looks_at_what_was_refused_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """It is of every VO, and as it came: whoever runs the command stands in the audit, as over HTTP."""
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "dead-letters", *words) == 0
    (seen,) = noted(settings)
    assert (seen.action, seen.outcome, seen.vos) == (f"siteward dead-letters {' '.join(words)}", "seen", ("*",))


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


def test_an_import_for_no_vo_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Line by line, as every record that is wrong, and noted as nobody's."""
    settings = Settings(data=str(tmp_path))
    (tmp_path / "log.swf").write_text("; Computer: A machine\n; UnixStartTime: 1772359200\n1" + " 100" * 17 + "\n")
    words = ("import", "swf", str(tmp_path / "log.swf"), "--vo", "", "--site", "S")
    assert ran(monkeypatch, settings, *words) == 1
    assert "line 3: " in capsys.readouterr().err
    ended = noted(settings)[-1]
    assert (ended.outcome, ended.vos, ended.after["became"]["rejected"]) == ("exit 1", (), 1)


@pytest.mark.usefixtures("working")
def test_nothing_is_changed_unnoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the audit cannot be written, the command does not run."""
    settings = Settings(data=str(tmp_path), access=AccessSettings(url="postgresql://nobody@127.0.0.1:1/none"))
    assert ran(monkeypatch, settings, "kinds", "lamp") == 1
    assert "nothing is changed or shown without it" in capsys.readouterr().err
    assert DONE == []
