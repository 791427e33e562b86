"""What is installed: the wheel's content, the base install's size, entry points, and the import rule."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest
from gateway_server import gateway_server
from servers import REPOSITORY, missing

from siteward import __version__
from siteward.extensions import GROUPS, found

PACKAGES: Final = ("accounting", "collectors", "dashboards", "monitoring", "siteward")
HEAVY: Final = (
    "alembic",
    "duckdb",
    "fastapi",
    "opensearchpy",
    "pika",
    "pyarrow",
    "pydantic",
    "psutil",
    "sqlalchemy",
    "starlette",
    "uvicorn",
)
"""What a pilot must not have to carry."""
NOT_SOURCE: Final = shutil.ignore_patterns(".git", ".venv", "build", "dist", "site", "var", "__pycache__", ".*_cache")
EMITS: Final = textwrap.dedent("""
    import json, sys
    from datetime import UTC, datetime, timedelta
    from pathlib import Path

    from siteward import Emitter, Job
    from siteward.broker.opening import open_declared
    from siteward.settings import load_settings

    settings = load_settings(environ={"SITEWARD_DATA": sys.argv[1]})
    with open_declared(settings) as broker:
        end = datetime.now(UTC)
        with Emitter(settings) as emitter:
            start = end - timedelta(hours=1)
            job = Job(vo="example", site="SITE", local_job_id="1", start=start, end=end, wall_time=3600)
            assert emitter.emit(job) is None
            assert emitter.flush(30)
        print(json.dumps([(queue.queue, queue.records) for queue in broker.status()]))
""")


SENDS: Final = textwrap.dedent("""
    import sys
    from datetime import UTC, datetime, timedelta

    from siteward import Emitter, Job

    end = datetime.now(UTC)
    with Emitter(sys.argv[1]) as emitter:
        start = end - timedelta(hours=1)
        emitter.emit(Job(vo="example", site="SITE", local_job_id="1", start=start, end=end, wall_time=3600))
        assert emitter.flush(30)
    print(*sys.modules)
""")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says."""
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and source distribution, built from a copy so that the tree stays clean."""
    tree = tmp_path_factory.mktemp("packaging") / "tree"
    shutil.copytree(REPOSITORY, tree, ignore=NOT_SOURCE)
    done = run(sys.executable, "-m", "hatchling", "build", "-d", tree.parent / "dist", cwd=tree)
    assert done.returncode == 0, done.stderr
    return tree.parent / "dist"


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """The wheel."""
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel and no extras, at the versions of the lock file."""
    folder = tmp_path_factory.mktemp("base")
    pins = re.findall(r"^\S+==\S+", (REPOSITORY / "requirements" / "run.lock").read_text(), re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(pins))
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    done = run(python, "-m", "pip", "install", "-q", "-c", folder / "constraints.txt", wheel)
    if done.returncode != 0 and re.search("connection|network|resolution|timed out", done.stderr, re.IGNORECASE):
        missing("a package index", f"connect to one; pip said: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return python


def test_wheel_has_exactly_our_packages(wheel: Path) -> None:
    """The wheel's top level is our import packages and its metadata: no tests, no stray folder."""
    with zipfile.ZipFile(wheel) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert top == {*PACKAGES, f"siteward-{__version__}.dist-info"}


def test_wheel_is_typed(wheel: Path) -> None:
    """Every import package tells type checkers that it is typed."""
    with zipfile.ZipFile(wheel) as archive:
        assert {f"{package}/py.typed" for package in PACKAGES} <= {*archive.namelist()}


def test_wheel_brings_every_file_of_the_packages(wheel: Path) -> None:
    """Whatever stands in a package's folder is in the wheel: templates, styles and scripts as well as modules."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {*archive.namelist()}
    standing = {
        path.relative_to(REPOSITORY).as_posix()
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert standing - inside == set()
    assert {Path(name).suffix for name in inside} >= {".html", ".css", ".js"}


def test_source_distribution_builds_and_tests_itself(built: Path) -> None:
    """The source distribution holds the packages, the tests and what is needed to build the wheel again."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", "Makefile", "siteward/__init__.py", "tests/conftest.py"}
    assert not {name for name in names if name.endswith((".duckdb", ".sqlite"))}


def test_base_install_emits(base_install: Path, tmp_path: Path) -> None:
    """Without extras a program can emit into the embedded broker."""
    done = run(base_install, "-I", "-W", "error", "-c", EMITS, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["monitoring", 1]]


def test_base_install_sends_to_an_application(
    base_install: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without extras a program can emit over HTTP, with a token that is found."""
    with gateway_server(tmp_path / "app") as server:
        monkeypatch.setenv("BEARER_TOKEN", server.token())
        monkeypatch.setenv("SITEWARD_DATA", str(tmp_path / "program"))
        done = run(base_install, "-I", "-W", "error", "-c", SENDS, server.url)
        assert done.returncode == 0, done.stderr
        assert {*done.stdout.split()}.isdisjoint({*HEAVY, "authlib"})
        assert [*server.jobs().values()] == ["1"]


def test_base_install_has_the_command(base_install: Path) -> None:
    """Without extras `siteward kinds` lists our own kinds, and a command that needs an extra says which."""
    done = run(base_install.with_name("siteward"), "kinds")
    assert done.returncode == 0, done.stderr
    assert {"job", "host", "downtime"} <= {*re.findall(r"[a-z-]+", done.stdout)}
    up = run(base_install.with_name("siteward"), "up", "--demo")
    assert up.returncode != 0
    assert "siteward[server]" in up.stderr
    assert "Traceback" not in up.stderr


def test_base_install_is_small(base_install: Path) -> None:
    """The base install carries no web framework, database or data frame into a pilot's environment."""
    done = run(base_install, "-m", "pip", "list", "--format", "json")
    names = {item["name"].lower() for item in json.loads(done.stdout)}
    assert names.isdisjoint(HEAVY)


def test_importing_for_emission_is_light() -> None:
    """A program that only emits imports none of the heavy libraries, even where they are installed."""
    program = "import sys, siteward; siteward.Emitter, siteward.Job, siteward.Client; print(*sys.modules)"
    done = run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert {*done.stdout.split()}.isdisjoint({*HEAVY, "pandas", "typer"})


@pytest.mark.parametrize("group", GROUPS)
def test_entry_points_load(group: str) -> None:
    """Every part of our own that is registered under an extension point exists and loads."""
    assert all(entry.load() is not None for entry in found(group).values())


def test_the_command_loads() -> None:
    """The console script `siteward` points at something that can be called."""
    (script,) = entry_points(group="console_scripts", name="siteward")
    assert callable(script.load())


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Ask import-linter about a tree."""
    return run(
        sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache", cwd=tree
    )


def test_packages_import_only_to_the_left() -> None:
    """The import rule of the data path holds: siteward ◂ collectors | monitoring | accounting ◂ dashboards."""
    done = lint_imports(REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("siteward", "collectors"),
        ("collectors", "monitoring"),
        ("monitoring", "collectors"),
        ("monitoring", "dashboards"),
        ("siteward", "accounting"),
        ("accounting", "monitoring"),
    ],
)
def test_the_import_rule_bites(importer: str, imported: str, tmp_path: Path) -> None:
    """An import against the direction of the data path is caught."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / importer / "wrong.py").write_text(f"import {imported}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert f"{importer}.wrong -> {imported}" in done.stdout
