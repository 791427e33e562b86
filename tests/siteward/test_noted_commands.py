"""Every command that changes anything leaves an entry of the audit, and so does every one that shows all VOs'."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from accounted import noted_long_ago, ran
from collected import collected
from examples import JOB, NOW, batch_of, job_rows
from filled import letters

from accounting.opening import open_ledger
from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from siteward.broker import Message
from siteward.broker.opening import open_broker
from siteward.cli import command_of
from siteward.cli.verbs import ALL_VOS, Verb, commands_below, verb_of
from siteward.envelope import as_json
from siteward.extensions import found
from siteward.kinds import load_kinds
from siteward.server.auth.audit import Audit, Audited
from siteward.server.database import Conflict
from siteward.server.resources import Resources
from siteward.settings import AccessSettings, BrokerSettings, IssuerSettings, Settings

OURS: Final = "example"
JANE: Final = "Jane Doe"
MONTH: Final = ("job", "2026-03")
CORRECT: Final = ("--window", "2026-03", "--where", f"vo={OURS}", "--reason", "x", "--author", "anna")
LOG: Final = "; Computer: A machine\n; UnixStartTime: 1772359200\n1 100 4 16 2 8 512 2 7200 -1 1 3 5 7 2 1 -1 -1\n"
TIMES: Final = ("start=2026-03-01T10:00:00Z", "end=2026-03-01T11:00:00Z", "wall_time=3600")
DENIED: Final = ("local", "--subject", "mallory")
ARCHIVED: Final = "the file"
"""Stands for the one that the call before has made."""
RECORD: Final = as_json(JOB, [getattr(job_rows(1)[0], name) for name in JOB.names]).decode()


class Done(msgspec.Struct, frozen=True):
    """A command that changes something, and what the audit is to say of it.

    Attributes:
        words: all of them.
        before: whether it was anything; what is added was nothing before.
        after: what its entry tells of what it became.
        vos: whose it is.
    """

    words: Sequence[str]
    before: bool = True
    after: str = ""
    vos: tuple[str, ...] = ()


def done(folder: Path) -> list[tuple[str, Done]]:
    """Each command that writes with a call of it, in an order in which all succeed."""
    ours = (OURS,)
    return [
        (
            "emit",
            Done(
                ("emit", "job", f"vo={OURS}", "site=S", "local_job_id=1", f"user={JANE}", *TIMES),
                before=False,
                after="'queued': {'job': {'example': 1}}, 'rejected': 0",
                vos=ours,
            ),
        ),
        (
            "import",
            Done(
                ("import", "swf", str(folder / "log.swf"), "--vo", OURS, "--site", "S"),
                before=False,
                after="'producer': 'import:swf', 'queued': {'job': {'example': 1}}",
                vos=ours,
            ),
        ),
        (
            "simulate",
            Done(
                ("simulate", "--sites", "1", "--vos", "1", "--days", "0.02", "--end", "2026-03-01"),
                before=False,
                after="'producer': 'simulate', 'queued': {'job': {'sim-aurora': 4}",
                vos=("sim-aurora",),
            ),
        ),
        ("ledger close", Done(("ledger", "close", *MONTH, "--vo", OURS), before=False, after="closed", vos=ours)),
        ("ledger sign", Done(("ledger", "sign", *MONTH, "--vo", OURS), after="signed", vos=ours)),
        (
            "ledger reopen",
            Done(("ledger", "reopen", *MONTH, "--vo", OURS, "--reason", "x"), after="reopened", vos=ours),
        ),
        (
            "ledger correct change",
            Done(
                ("ledger", "correct", "change", "job", *CORRECT, "--set", "wall_time=7"),
                before=False,
                after="proposed",
                vos=ours,
            ),
        ),
        (
            "ledger correct move",
            Done(
                ("ledger", "correct", "move", "job", *CORRECT, "--set", "site=T"),
                before=False,
                after="proposed",
                vos=ours,
            ),
        ),
        (
            "ledger correct void",
            Done(("ledger", "correct", "void", "job", *CORRECT), before=False, after="proposed", vos=ours),
        ),
        ("ledger reject", Done(("ledger", "reject", "1", "--by", "b", "--reason", "x"), after="rejected", vos=ours)),
        ("ledger approve", Done(("ledger", "approve", "2", "--by", "b"), after="applied", vos=ours)),
        ("ledger reverse", Done(("ledger", "reverse", "2", "--by", "b", "--reason", "x"), after="reversed", vos=ours)),
        ("ledger compact", Done(("ledger", "compact"))),
        ("ledger rebuild", Done(("ledger", "rebuild"))),
        ("ledger upgrade", Done(("ledger", "upgrade"))),
        ("ledger archive", Done(("ledger", "archive", "2026-04-01"), after="files")),
        ("ledger restore", Done(("ledger", "restore", ARCHIVED), after="records_in_ledger")),
        ("dead-letters discard", Done(("dead-letters", "discard", "1"), after="discarded")),
        ("dead-letters fix", Done(("dead-letters", "fix", "2", RECORD), after="fixed")),
        ("dead-letters replay", Done(("dead-letters", "replay", "3"), after="replayed")),
        ("dead-letters resume", Done(("dead-letters", "resume"), after="goes on")),
        ("dead-letters messages replay", Done(("dead-letters", "messages", "replay", "1"), after="'replayed': 1")),
        ("dead-letters messages discard", Done(("dead-letters", "messages", "discard", "2"), after="'discarded': 1")),
        # Of the days before the others.
        ("audit archive", Done(("audit", "archive", "--until", "-2d"), after="'number': 2", vos=("*",))),
        ("privacy export", Done(("privacy", "export", JANE), before=False, after="pseudonyms")),
        ("privacy erase", Done(("privacy", "erase", JANE), after="erased")),
        ("privacy allow", Done(("privacy", "allow", JANE), after="allowed")),
        (
            "token create",
            Done(("token", "create", "carla", "--role", "reader", "--vo", OURS), before=False, after="carla", vos=ours),
        ),
        ("token deny", Done(("token", "deny", *DENIED, "--reason", "lost"), before=False, after="lost")),
        ("token allow", Done(("token", "allow", *DENIED), after="mallory")),
        ("topology import", Done(("topology", "import", str(folder / "sites.csv")), after="CH")),
        ("broker remove", Done(("broker", "remove", "old", "--yes"), after="records_lost")),
        # With servers of other kinds they change something; here nothing, which is noted, too.
        ("broker check", Done(("broker", "check"), before=False)),
        ("stores upgrade", Done(("stores", "upgrade"), before=False)),
    ]


ELSEWHERE: Final = {
    "up": "starts what notes what it changes",
    "collect": "carries what others have sent, and were noted for",
    "login": "is about a file of the person's own",
    "logout": "is about a file of the person's own",
}
"""Commands that write and leave no entry, and why."""
UNSEEN: Final = {
    "account reports": "what may be asked, by name",
    "audit verify": "a count and digests",
    "broker status": "figures of the platform",
    "config check": "settings",
    "extensions": "what is installed",
    "kinds": "declarations",
    "kinds describe": "declarations",
    "kinds show": "declarations",
    "ledger archived": "files, each with a day of one kind",
    "spool": "how much this machine's programs have to send",
    "stores policy": "policies",
    "whoami": "the person's own roles",
}
"""Commands that only read, and why nobody has to be told that they show all VOs'."""


def verbs() -> dict[str, Verb]:
    """What every command declares."""
    return {
        path: verb_of(command, path)
        for name, entry in found("siteward.commands").items()
        for path, command in commands_below(command_of(entry), name)
    }


def entries(settings: Settings, after: int = 0) -> list[Audited]:
    """The audit beyond a number, the oldest first."""
    with closing(Resources(settings)) as resources:
        return [each for each in resources.audit.find(limit=1000)[::-1] if each.number > after]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation with something for each command to change."""
    made = Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})
    noted_long_ago(made)
    with closing(open_ledger(made, load_kinds())) as ledger:
        ledger.write(collected(batch_of(JOB, job_rows(3, user=JANE)), made))
    with DeadLetters(database_path(made)) as dead:
        dead.put([msgspec.structs.replace(each, original=RECORD.encode()) for each in letters(OURS, 3)], NOW)
        dead.stop("ledger", "a flood")
    with closing(open_broker(made)) as broker:
        broker.declare({"old": ("#",)})
        with closing(broker.publisher()) as publisher:
            publisher.publish([Message("example.job", b"unreadable", 1) for _ in range(2)])
        with closing(broker.consumer("old", "c", 10)) as consumer:
            for delivery in consumer.receive(5):
                consumer.park(delivery, "unreadable")
    (tmp_path / "log.swf").write_text(LOG)
    head = "dimension,value,attribute,attribute_value,valid_from,valid_to\n"
    (tmp_path / "sites.csv").write_text(f"{head}site,S,country,CH,,\n")
    return made


def test_every_command_that_writes_leaves_an_entry(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    """By whoever runs it, with what it was given, whose it is, what it was and became; none is without a call here."""
    writing = {path for path, verb in verbs().items() if verb.is_writing}
    calls = done(tmp_path)
    assert writing == {path for path, _ in calls} | set(ELSEWHERE)
    last, file = entries(settings)[-1].number, ""
    for path, each in calls:
        words = [file if word == ARCHIVED else word for word in each.words]
        assert ran(monkeypatch, settings, *words) == 0, path
        asked, *others = entries(settings, last)
        ended = others[-1]
        last = ended.number
        assert (asked.outcome, ended.of, ended.outcome in {"done", "exit 0"}) == ("asked", asked.number, True), path
        for entry in (asked, ended):
            # Nobody needs a token who has the files.
            assert (entry.subject, entry.issuer, entry.token) == (getpass.getuser(), "", ""), path
            assert entry.action == f"siteward {path}"
        assert (ended.before is not None) == each.before, (path, ended)
        assert each.after in str(ended.after), (path, ended.after)
        assert ended.vos == each.vos, path
        (file,) = ended.after["became"]["files"] if path == "ledger archive" else (file,)
    assert JANE not in str(entries(settings))


def test_what_is_sent_is_noted_also_where_it_ends_badly(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    """How many were taken, of which kinds and VOs, and how many were refused."""
    good = {"vo": OURS, "site": "S", "start": "2026-03-01T10:00:00Z", "end": "2026-03-01T11:00:00Z", "wall_time": 1}
    lines = [good | {"local_job_id": str(number), "vo": vo} for number, vo in enumerate((OURS, OURS, "other"))]
    file = tmp_path / "jobs.ndjson"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, [*lines, good | {"wall_time": -1}])))
    assert ran(monkeypatch, settings, "emit", "job", "--file", str(file)) == 1
    ended = entries(settings)[-1]
    assert (ended.outcome, ended.vos) == ("exit 1", (OURS, "other"))
    became: Mapping[str, Any] = ended.after["became"]
    assert (became["queued"], became["rejected"]) == ({"job": {OURS: 2, "other": 1}}, 1)
    assert became["producer"]
    (tmp_path / "log.swf").write_text(f"{LOG}2 100\n")
    words = ("import", "swf", str(tmp_path / "log.swf"), "--vo", OURS, "--site", "S")
    assert ran(monkeypatch, settings, *words) == 1
    ended = entries(settings)[-1]
    assert (ended.outcome, ended.after["given"]["file"]) == ("exit 1", str(tmp_path / "log.swf"))
    assert (ended.after["became"]["queued"], ended.after["became"]["rejected"]) == ({"job": {OURS: 1}}, 1)


def test_what_an_app_notes_is_not_noted_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who sends to another machine's app, or broker, has nothing of that installation's, and needs no database."""
    words = ("emit", "job", f"vo={OURS}", "site=S", "local_job_id=1", *TIMES)
    for url in ("http://127.0.0.1:9", "amqp://127.0.0.1:9"):
        away = Settings(data=str(tmp_path), broker=BrokerSettings(url=url))
        assert ran(monkeypatch, away, *words) == 0
    assert not list(tmp_path.glob("access*"))


def test_nothing_is_sent_unnoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the audit cannot be written, no record is queued, as over HTTP."""
    broken = Settings(data=str(tmp_path), access=AccessSettings(url="postgresql://nobody@127.0.0.1:1/none"))
    assert ran(monkeypatch, broken, "emit", "job", f"vo={OURS}", "site=S", "local_job_id=1", *TIMES) == 1
    assert "the audit cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "broker.sqlite").exists()


def test_what_is_sent_stays_sent_where_the_end_cannot_be_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """That it was asked for is noted, and the log has the rest: who is told of an error would send it again."""

    def away(*_: object, **__: object) -> None:
        message = "the database went away"
        raise Conflict(message)

    monkeypatch.setattr(Audit, "end", away)
    settings = Settings(data=str(tmp_path))
    assert ran(monkeypatch, settings, "emit", "job", f"vo={OURS}", "site=S", "local_job_id=1", *TIMES) == 0
    assert "the end of a change is not noted" in capsys.readouterr().err
    assert [each.outcome for each in entries(settings)] == ["asked"]


def test_without_the_library_it_is_said_that_nothing_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Programs that only send have the base install, which cannot write into the database of access."""
    monkeypatch.setattr("siteward.cli.verbs.find_spec", lambda _name: None)
    words = ("emit", "job", f"vo={OURS}", "site=S", "local_job_id=1", *TIMES)
    database, unnoted = tmp_path / "access.sqlite", "not noted in the audit: this needs sqlalchemy"
    assert ran(monkeypatch, Settings(data=str(tmp_path)), *words) == 0
    assert unnoted in capsys.readouterr().err
    assert not database.exists()
    away = Settings(data=str(tmp_path), broker=BrokerSettings(url="amqp://127.0.0.1:9"))
    assert ran(monkeypatch, away, *words) == 0
    assert unnoted not in capsys.readouterr().err
    database.touch()
    assert ran(monkeypatch, away, *words) == 0
    assert unnoted in capsys.readouterr().err
    assert not database.read_bytes()


LOOKS: Final[Mapping[str, Sequence[str]]] = {
    "query": ("query", "job", "--where", f"user={JANE}"),
    "account usage": ("account", "job", "--where", f"user={JANE}"),
    "account report": ("account", "report", "job/wall_time/sum", "--where", f"user={JANE}"),
    "audit": ("audit",),
    "dead-letters counts": ("dead-letters", "counts"),
    "dead-letters list": ("dead-letters", "list"),
    "dead-letters show": ("dead-letters", "show", "1"),
    "dead-letters messages list": ("dead-letters", "messages", "list"),
    "dead-letters messages show": ("dead-letters", "messages", "show", "1"),
    "ledger adjustments": ("ledger", "adjustments", *MONTH),
    "ledger completeness": ("ledger", "completeness"),
    "ledger corrections": ("ledger", "corrections"),
    "ledger periods": ("ledger", "periods"),
    "ledger trace": ("ledger", "trace", "job", "--window", "2026-03", "--where", f"user={JANE}"),
    "ledger verify": ("ledger", "verify"),
    "ledger verify-periods": ("ledger", "verify-periods"),
    "token denied": ("token", "denied"),
    "topology list": ("topology", "list"),
}
"""A call of each command that shows what is of every VO."""


def test_every_command_that_only_reads_is_told_apart() -> None:
    """Either it shows what is of VOs, which is said and noted, or it is said here what else it shows."""
    declared = verbs()
    assert {path for path, verb in declared.items() if verb.is_look} == set(LOOKS)
    assert {path for path, verb in declared.items() if not (verb.is_look or verb.is_writing)} == set(UNSEEN)


def test_who_sees_every_vo_is_told_and_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """On standard error, so that data stays data; by one entry, which has no name of a condition."""
    assert ran(monkeypatch, settings, "ledger", "close", *MONTH) == 0
    capsys.readouterr()
    last = entries(settings)[-1].number
    for path, words in LOOKS.items():
        assert ran(monkeypatch, settings, *words) == 0, path
        said = capsys.readouterr()
        assert (ALL_VOS in said.err, ALL_VOS in said.out) == (True, False), path
        (seen,) = entries(settings, last)
        last = seen.number
        assert (seen.subject, seen.issuer, seen.action) == (getpass.getuser(), "", f"siteward {path}")
        assert (seen.outcome, seen.vos) == ("seen", ("*",)), path
        assert JANE not in str(seen)


def test_who_sees_one_vo_is_noted_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """Nothing is said of all of them."""
    for words in (("audit", "--vo", OURS), ("ledger", "periods", "--vo", OURS), ("dead-letters", "list", "--vo", OURS)):
        assert ran(monkeypatch, settings, *words) == 0
        assert ALL_VOS not in capsys.readouterr().err
    assert [each.vos for each in entries(settings)[2:]] == [(OURS,)] * 3


def test_what_another_installation_shows_is_noted_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And not here, where nothing of it is."""
    for words in (("query", "job"), ("account", "job"), ("account", "report", "job/wall_time/sum")):
        assert ran(monkeypatch, Settings(data=str(tmp_path)), *words, "--url", "http://127.0.0.1:9") == 1
        assert ALL_VOS not in capsys.readouterr().err
    assert not (tmp_path / "access.sqlite").exists()


def test_nothing_is_shown_unnoted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the audit cannot be written, the rows of all VOs stay where they are."""
    broken = Settings(data=str(tmp_path), access=AccessSettings(url="postgresql://nobody@127.0.0.1:1/none"))
    assert ran(monkeypatch, broken, "query", "job") == 1
    assert "the audit cannot be written" in capsys.readouterr().err
