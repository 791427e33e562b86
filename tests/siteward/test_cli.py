"""The command line: honest exit codes, data apart from messages, and a start that costs nothing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siteward import __version__
from siteward.broker.embedded import EmbeddedBroker
from siteward.cli import first_line
from siteward.cli.output import show
from siteward.extensions import found

PROGRAM = (sys.executable, "-c", "from siteward.cli import main; main()")
JOB = {
    "vo": "example",
    "site": "SITE-A",
    "submit_host": "submit.example.org",
    "local_job_id": "1",
    "start": "2026-03-02T10:00:00Z",
    "end": "2026-03-02T11:00:00Z",
    "wall_time": 3600,
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `siteward …` in a folder and with a data folder of its own."""

    def call(*arguments: str, data: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=data,
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=os.environ | {"SITEWARD_DATA": str(tmp_path / "data"), "SITEWARD_SERVER__PORT": "1"} | environment,
            check=False,
        )

    return call


def waiting(tmp_path: Path) -> int:
    """Records in the queue of the sink."""
    with EmbeddedBroker(tmp_path / "data" / "broker.sqlite") as broker:
        return {queue.queue: queue.records or 0 for queue in broker.status()}["monitoring"]


def test_version_and_help(run: Run) -> None:
    """The version is one line; the help lists every installed command with what it is for."""
    assert run("--version").stdout == f"siteward {__version__}\n"
    answer = run("--help")
    listed = answer.stdout.partition("Commands:")[2]
    assert answer.returncode == 0
    for name in found("siteward.commands"):
        assert any(line.split()[:1] == [name] for line in listed.splitlines()), name


def test_only_the_chosen_command_is_imported() -> None:
    """Neither the server nor a store is imported for help or for a list of kinds."""
    script = (
        "import sys\n"
        "from siteward.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["kinds"]):
        answer = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        loaded = {name.partition(".")[0] for name in answer.stderr.split()}
        assert not loaded & {"fastapi", "uvicorn", "duckdb", "pyarrow", "rich", "structlog", "collectors", "monitoring"}


def test_line_of_help_is_the_docstring() -> None:
    """A command's line is its function's docstring, or its module's; "" where there is no source."""
    assert first_line("siteward.cli.emit:emit").startswith("Emit records")
    assert first_line("siteward.cli.broker:commands").startswith("`siteward broker`")
    assert first_line("no.such:thing") == ""


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["kind"], "Did you mean 'kinds'"),
        (["--output", "xml", "kinds"], "not one of table, json, csv"),
        (["--config", "nowhere.toml", "kinds"], "nowhere.toml"),
        (["kinds", "show", "jobs"], "did you mean 'job'"),
        (["emit", "job"], "FIELD=VALUE or --file"),
        (["emit", "job", "--file", "nowhere"], "nowhere: No such file"),
        (["extensions", "plugins"], "there are kinds"),
        (["query", "job", "--where", "sit=X"], "did you mean 'site'"),
        (["query", "job", "--width", "1 fortnight"], "expected seconds"),
    ],
)
def test_wrong_usage_is_2(run: Run, arguments: list[str], hint: str) -> None:
    """Wrong usage and settings exit 2 with a sentence on standard error, and nothing on standard output."""
    answer = run(*arguments)
    assert answer.returncode == 2, answer
    assert hint in answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr


def test_wrong_settings_are_2(run: Run) -> None:
    """An unknown setting is one line that names the nearest known one."""
    answer = run("kinds", SITEWARD_BROKER__PREFECH="1")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "siteward: setting 'broker.prefech' is unknown; did you mean 'prefetch'?\n"


def test_kinds_in_three_forms(run: Run) -> None:
    """Kinds come as a table, as JSON and as CSV, with the same content."""
    table = run("kinds").stdout.splitlines()
    objects = json.loads(run("--output", "json", "kinds").stdout)
    lines = list(csv.DictReader(run("--output", "csv", "kinds").stdout.splitlines()))
    names = [kind["kind"] for kind in objects]
    assert "job" in names
    assert [line["kind"] for line in lines] == names
    assert [line.split()[0] for line in table[1:]] == names


def test_kind_is_shown_and_described(run: Run) -> None:
    """A kind is shown as JSON Schema, and described field by field with products."""
    assert json.loads(run("kinds", "show", "job").stdout)["title"] == "job"
    fields = {each["field"]: each for each in json.loads(run("--output", "json", "kinds", "describe", "job").stdout)}
    assert fields["wall_time"]["unit"] == "s"
    assert fields["core_time"]["role"] == "product"
    assert fields["user"]["personal"] is True


def test_kinds_of_the_settings_file_are_there(run: Run, tmp_path: Path) -> None:
    """A kind declared in TOML is listed like any other."""
    (tmp_path / "siteward.toml").write_text('[kinds.lamp]\ndoc = "A lamp."\nshape = "event"\n')
    assert "lamp" in run("kinds").stdout


def test_emit_fields(run: Run, tmp_path: Path) -> None:
    """A record given field by field is typed, checked, and waits in the broker when the command ends."""
    fields = [f"{name}={value}" for name, value in JOB.items() if name not in {"start", "end"}]
    answer = run("emit", "job", *fields, "start=-2h", "end=now", "exit_status=0", "simulated=true", "memory=", "--ids")
    assert answer.returncode == 0, answer.stderr
    assert "1 emitted, 0 refused" in answer.stderr
    assert len(answer.stdout.strip()) == 32
    assert waiting(tmp_path) == 1


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("wall_time=long", "job.wall_time: expected an integer (got 'long')"),
        ("simulated=maybe", "job.simulated: expected true or false"),
        ("end=tomorrow", "job.end: time 'tomorrow': expected now"),
        ("colour=red", "job.colour: is not a field of job"),
        ("site=SITE-B", "job.site: is given twice"),
        ("wall_time", "expected FIELD=VALUE"),
    ],
)
def test_emit_refuses_with_field_value_and_reason(run: Run, tmp_path: Path, field: str, hint: str) -> None:
    """A record that is refused exits 1, says why, and reaches no broker."""
    wrong = field.partition("=")[0]
    fields = [f"{name}={value}" for name, value in JOB.items() if name != wrong or wrong == "site"]
    answer = run("emit", "job", *fields, field)
    assert answer.returncode == 1
    assert hint in answer.stderr
    assert not (tmp_path / "data" / "broker.sqlite").exists() or waiting(tmp_path) == 0


def test_emit_reads_ndjson(run: Run, tmp_path: Path) -> None:
    """Of many records the good ones are emitted, and each refused one is told with its line."""
    lines = [JOB, JOB | {"local_job_id": "2"}, JOB | {"wall_time": -1}, JOB | {"local_job_id": "3"}]
    text = (
        "\n".join(json.dumps(line) for line in lines)
        + "\n\nnonsense\n"
        + '"'
        + "x" * 2**20
        + '"\n'
        + json.dumps(JOB | {"local_job_id": "4"})
    )
    answer = run("emit", "job", "--file", "-", data=text)
    assert answer.returncode == 1
    told = [line.partition(":")[0] for line in answer.stderr.splitlines() if line.startswith("line ")]
    assert told == ["line 3", "line 6", "line 7"]
    assert "4 emitted, 3 refused" in answer.stderr
    assert waiting(tmp_path) == 4
    (tmp_path / "more.ndjson").write_text(json.dumps(JOB))
    assert run("emit", "job", "--file", "more.ndjson").returncode == 0
    assert waiting(tmp_path) == 5


def test_broker_status_counts(run: Run) -> None:
    """The queue of the installed sink is shown with what waits in it."""
    run("emit", "job", "--file", "-", data=json.dumps(JOB))
    queues = json.loads(run("--output", "json", "broker", "status").stdout)
    assert [(queue["queue"], queue["records"], queue["ready"]) for queue in queues] == [("monitoring", 1, 1)]
    assert queues[0]["oldest_seconds"] >= 0


def test_config_check_says_where_settings_come_from(run: Run, tmp_path: Path) -> None:
    """Every setting is shown with its origin, and a secret is not."""
    (tmp_path / "siteward.toml").write_text(f'log_level = "error"\n[prometheus]\ntoken = "{"s" * 32}"\n')
    answer = run(
        "--output",
        "json",
        "config",
        "check",
        SITEWARD_BROKER__PREFETCH="7",
        SITEWARD_BROKER__URL="amqps://me:s3/cr@t@host/v",
    )
    shown = {each["setting"]: (each["value"], each["from"]) for each in json.loads(answer.stdout)}
    assert shown["log_level"] == ("error", "file")
    assert shown["broker.prefetch"] == (7, "environment (SITEWARD_BROKER__PREFETCH)")
    assert shown["prometheus.token"] == ("hidden", "file")
    assert shown["broker.url"][0] == "amqps://me:hidden@host/v"
    assert shown["collector.batch_records"][1] == "default"
    assert "siteward.toml" in answer.stderr
    assert "ssss" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("up",)])
def test_a_database_in_the_clear_is_refused_before_anything_starts(run: Run, command: tuple[str, ...]) -> None:
    """With its setting and what to write, and without the password."""
    for section in ("access", "accounting"):
        url = "postgresql://me:s3cret@db.example/x?sslmode=disable"
        answer = run(*command, **{f"SITEWARD_{section.upper()}__URL": url})
        assert answer.returncode == 2
        assert f"setting {section}.url: what the database on 'db.example'" in answer.stderr
        assert "s3cret" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("up",)])
@pytest.mark.parametrize(("name", "why"), [("jobs", "did you mean 'job'"), ("record-count", "not archived")])
def test_kinds_that_are_not_kept_are_refused_before_anything_starts(
    run: Run, tmp_path: Path, command: tuple[str, ...], name: str, why: str
) -> None:
    """A name in `[accounting.kinds.NAME]` that is none, or of a kind whose records never leave."""
    path = tmp_path / "kept.toml"
    path.write_text(f"[accounting.kinds.{name}]\nkeep_records = 5\n")
    answer = run(*command, SITEWARD_CONFIG=str(path))
    assert answer.returncode == 2
    assert why in answer.stderr


def test_extensions_lists_our_own(run: Run) -> None:
    """Siteward's own parts are listed as an extension's would be."""
    rows = json.loads(run("--output", "json", "extensions", "kinds").stdout)
    assert {"siteward.kinds", "siteward"} == {rows[0]["group"], rows[0]["distribution"]}


def test_closed_pipe_is_silent() -> None:
    """A reader that goes away ends the command without a word."""
    script = f"{sys.executable} -c 'from siteward.cli import main; main()'"
    for command, reader in (("kinds show job", "head -1"), ("kinds", "true")):
        answer = subprocess.run(
            ["bash", "-c", f"{script} {command} | {reader}"], capture_output=True, text=True, check=False
        )
        assert answer.stderr == ""


def test_question_to_a_dead_address_fails(run: Run) -> None:
    """With --url nobody else is asked: no answer there is exit code 1."""
    answer = run("query", "job", "--url", "http://127.0.0.1:1")
    assert answer.returncode == 1
    assert answer.stderr.startswith("siteward: http://127.0.0.1:1 does not answer")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("json", '[\n{"name":"a","value":1},\n{"name":"b","value":null}\n]\n'),
        ("csv", "name,value\na,1\nb,\n"),
        ("table", "name  value\na         1\nb\n"),
    ],
)
def test_show(capsys: pytest.CaptureFixture[str], output: str, text: str) -> None:
    """Rows are shown the same way by every command; numbers stand right, unknown is empty or null."""
    show(("name", "value"), iter([("a", 1), ("b", None)]), output)
    assert capsys.readouterr().out == text


def test_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """No rows are an empty list, still JSON."""
    show(("name",), [], "json")
    assert json.loads(capsys.readouterr().out) == []


def test_tables_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A value with control characters, which anyone may send, is shown without them."""
    show(("name",), [("\x1b[2Jgone",)], "table")
    assert "\x1b" not in capsys.readouterr().out


def test_tables_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal the same rows are drawn; values are never read as markup."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows: list[list[Any]] = [["[red]x[/red]", 2.5]]
    show(("name", "value"), rows, "table")
    assert "[red]x[/red]" in capsys.readouterr().out
