"""The README and the manual are true: their examples run, their recipes give what they say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from servers import REPOSITORY

from siteward.client import Client
from siteward.envelope import JSON, open_envelope
from siteward.kinds import load_kinds
from siteward.records import kind_from_table, kind_of
from siteward.records.shapes import Record

BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE: Final = 60.0
SITEWARD: Final = str(Path(sys.executable).with_name("siteward"))


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Language and text of a page's code blocks, in order."""
    return [
        (language, text)
        for language, text in BLOCK.findall((REPOSITORY / page).read_text(encoding="utf-8"))
        if language in languages
    ]


def environment(data: Path) -> dict[str, str]:
    """The environment that a reader has: the virtual environment's commands, and a data folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SITEWARD_DATA": str(data), "SITEWARD_SERVER__PORT": "0"}


def run(language: str, text: str, environ: dict[str, str]) -> str:
    """Run one block and give what it prints."""
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def eventually(process: subprocess.Popen[bytes], look: Callable[[], object], wanted: object) -> None:
    """Look again and again until what is wanted is there, while a process lives that is to bring it about."""
    end = time.monotonic() + PATIENCE
    seen = look()
    while seen != wanted and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.2)
        seen = look()
    assert seen == wanted


@contextmanager
def running(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until it is told to stop."""
    process = subprocess.Popen([SITEWARD, *arguments], env=environ, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_readme_examples_arrive(tmp_path: Path) -> None:
    """What the README emits from Python, from the shell and with curl is what its query then counts: three jobs.

    With the ledger switched on as it says, the commands of accounting answer.
    """
    environ = {**environment(tmp_path), "SITEWARD_COLLECTOR__LEAVE_OUT": "prometheus"}
    *emitting, (_, asking), (_, accounting) = blocks("README.md", "python", "bash")
    assert [language for language, _ in emitting] == ["python", "bash", "bash"]
    with running(environ, "up") as process:
        address = tmp_path / "run" / "app.url"
        eventually(
            process, lambda: address.is_file() and Client(address.read_text(encoding="utf-8")).alive(), wanted=True
        )
        for language, text in emitting:
            run(language, text.replace("http://127.0.0.1:8080", address.read_text(encoding="utf-8")), environ)
        as_json = asking.replace("siteward ", "siteward --output json ")
        eventually(process, lambda: json.loads(run("bash", as_json, environ))["totals"], [7200 + 60 + 60, 3])
        assert "job/core_time/rate" in run("bash", accounting, environ)
        booked = "siteward --output json account job --measures records --where vo=example --start=-1d"
        eventually(process, lambda: json.loads(run("bash", booked, environ))["totals"], [3])


def test_tutorial_runs(tmp_path: Path) -> None:
    """The tutorial's blocks run in order; its job is found, and a second sending of it changes nothing."""
    environ = environment(tmp_path)
    shown = [
        (language, text) for language, text in blocks("docs/tutorial.md", "python", "bash") if "mktemp" not in text
    ]
    (_, kinds), (_, first), (_, status), (_, asking), (_, mistake) = shown
    assert "core_time" in run("bash", kinds, environ)
    # The same instant in both runs, as the tutorial asks for.
    again = first.replace("datetime.now(UTC)", "datetime.fromtimestamp(1_790_000_000, UTC)")
    run("python", again, environ)
    assert "monitoring" in run("bash", status, environ)
    as_json = asking.replace("siteward ", "siteward --output json ").replace("--start=-1d", "--start=2026-09-01")
    with running(environ, "collect") as process:
        eventually(process, lambda: json.loads(run("bash", as_json, environ))["totals"], [7200, 28800, 1])
        run("python", again, environ)
        eventually(
            process, lambda: json.loads(run("bash", "siteward --output json broker status", environ))[0]["records"], 0
        )
        assert json.loads(run("bash", as_json, environ))["totals"] == [7200, 28800, 1]
        assert "ends before it starts" in run("python", f"{first}\n{mistake}", environ)


def test_kind_in_toml_compiles() -> None:
    """The kind that the manual declares in the settings file is one."""
    *tables, _ = (text for _, text in blocks("docs/how-to/add-a-kind.md", "toml"))
    table = tomllib.loads("\n".join(tables))["kinds"]["licence-use"]
    compiled = kind_from_table("licence-use", table)
    assert compiled.identity == ("time", "producer", "product", "server")
    assert ([*compiled.products], [*compiled.ratios]) == (["worth_used"], ["worth_in_use"])
    assert compiled.tiers == ((3 * 86_400, 900), (None, 3600))


def test_kind_as_class_compiles() -> None:
    """The kind that the manual declares as a class is one."""
    ((_, text),) = blocks("docs/how-to/add-a-kind.md", "python")
    names: dict[str, type[Record]] = {}
    exec(compile(text, "alarm.py", "exec", dont_inherit=True), names)
    assert kind_of(names["Alarm"]).identity == ("time", "sensor")


def test_envelope_page_names_records_as_we_do() -> None:
    """The recipe for record ids gives, without any library, the id that collectors compute and the page shows."""
    ((_, recipe),) = blocks("docs/reference/envelope.md", "python")
    ((_, envelope),) = blocks("docs/reference/envelope.md", "json")
    ((_, shown),) = blocks("docs/reference/envelope.md", "text")
    printed = subprocess.run([sys.executable, "-I", "-S", "-c", recipe], capture_output=True, text=True, check=True)
    now = json.loads(envelope)["sent"]
    parcel = open_envelope(envelope.encode(), JSON, load_kinds(), now, routed_vo="example")
    assert [identifier.hex() for identifier in parcel.ids] == [printed.stdout.strip()] == [shown.strip()]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every link and picture of the pages outside the manual names a file of the repository or a web address."""
    targets = re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text(encoding="utf-8"))
    files = [target.partition("#")[0] for target in targets if not target.startswith("https://")]
    assert [target for target in files if target and not (REPOSITORY / target).exists()] == []


def test_manual_builds_strictly(tmp_path: Path) -> None:
    """The manual builds without a warning: no broken link, no page that nothing leads to."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("kinds", "settings", "metrics", "extension-points", "command-line", "http-api", "python", "envelope"):
        assert (tmp_path / "site" / "reference" / name / "index.html").is_file()


def test_make_help_names_every_target() -> None:
    """`make help` tells what each target is for."""
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = {*re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()}
    assert {line.split()[1] for line in done.stdout.splitlines()} == targets
