"""House rules that a program can check."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from servers import REPOSITORY

PACKAGES: Final = ("siteward", "collectors", "monitoring", "accounting", "resource_status", "dashboards")
LONGEST: Final = 400
REGISTRY_HOSTS: Final = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("maven", "apache", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
    )
)
MACHINE_PATHS: Final = re.compile(r"(?<![\w./-])/(?:home|root|work|farm|Users)/\w")
INDEX_OPTIONS: Final = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host", re.IGNORECASE)


@cache
def tree() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git work tree, so that nobody knows which files are tracked")
    paths = (REPOSITORY / name.decode() for name in listed.stdout.split(b"\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def texts() -> list[tuple[str, str]]:
    """Name and content of every file that is text."""
    found = []
    for path in tree():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path.relative_to(REPOSITORY).as_posix(), content.decode()))
    return found


def sources(*folders: str) -> list[Path]:
    """Python files under top-level folders."""
    return [path for path in tree() if path.suffix == ".py" and path.relative_to(REPOSITORY).parts[0] in {*folders}]


def test_modules_say_what_they_are_for() -> None:
    """Every module starts with a docstring whose first line is a sentence."""
    silent = []
    for path in sources(*PACKAGES, "tests", "bench", "docs"):
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
        if not first.endswith((".", ":", "!", "?")):
            silent.append(path.relative_to(REPOSITORY).as_posix())
    assert silent == []


def test_files_are_rooms_not_halls() -> None:
    """No source file is longer than 400 lines."""
    long = {
        path.relative_to(REPOSITORY).as_posix(): lines
        for path in sources(*PACKAGES)
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }
    assert long == {}


def test_every_test_has_a_sentence() -> None:
    """The first line of each test's docstring is its promise, so that the suite reads as the specification."""
    without = [
        f"{path.relative_to(REPOSITORY).as_posix()}::{node.name}"
        for path in sources("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert without == []


def test_test_files_have_names_of_their_own() -> None:
    """No two test files share a name, since test folders are not packages."""
    names = [path.name for path in sources("tests") if path.name.startswith("test_")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_suppressions_give_reasons() -> None:
    """The first time that a file suppresses a rule, it says why."""
    suppression = re.compile(
        r"# (noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|type: ignore\[[a-z, -]+\])(?:  # (?!noqa|type:)(\S.*))?"
    )
    unexplained = []
    for path in sources(*PACKAGES):
        reasons: dict[str, str] = {}
        for code, reason in suppression.findall(path.read_text()):
            reasons[code] = reasons.get(code) or reason
        unexplained += [
            f"{path.relative_to(REPOSITORY).as_posix()}: {code}" for code, reason in reasons.items() if not reason
        ]
    assert unexplained == []


def test_no_package_registry_is_named() -> None:
    """Installing goes through whatever index a machine is set up for; no file names one."""
    named = [(name, host) for name, text in texts() for host in REGISTRY_HOSTS if host in text]
    assert named == []


def test_no_file_knows_a_machine() -> None:
    """No tracked file holds an absolute path of somebody's machine."""
    assert [(name, hit.group()) for name, text in texts() if (hit := MACHINE_PATHS.search(text))] == []


def test_locks_are_hashed_and_name_no_index() -> None:
    """Every pin carries hashes, and no option says where to fetch it."""
    for lock in sorted((REPOSITORY / "requirements").glob("*.lock")):
        text = lock.read_text()
        pins = re.findall(r"^\S+==\S+ \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
        assert pins
        assert len(pins) == len(re.findall(r"^[a-z0-9]\S*==", text, re.MULTILINE))
        assert not INDEX_OPTIONS.search(text)


def test_locks_agree() -> None:
    """What both lock files pin, they pin to the same version."""
    run, dev = (
        dict(re.findall(r"^(\S+)==(\S+)", (REPOSITORY / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("run.lock", "dev.lock")
    )
    assert {name: (run[name], dev[name]) for name in run.keys() & dev.keys() if run[name] != dev[name]} == {}
