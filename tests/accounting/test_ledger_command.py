"""`siteward ledger upgrade`: shows what differs, makes what can be made, and ends as it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from ledger_databases import Place
from sqlalchemy import inspect, text

from accounting.sink import open_sink
from siteward.kinds import load_kinds
from siteward.kinds.booked import booked_kinds
from siteward.records import Kind
from siteward.server.database import Database
from siteward.settings import Settings, load_settings
from siteward.sinks import Batch, Outcome

PROGRAM: Final = (sys.executable, "-c", "from siteward.cli import main; main()")
KIND: Final = """
[kinds.render]
doc = "One frame rendered."
shape = "event"
identity = ["frame"]
[kinds.render.dimensions.frame]
doc = "its number"
type = "integer"
bucketed = false
[kinds.render.dimensions.farm]
doc = "where"
[kinds.render.measures.seconds]
doc = "elapsed"
unit = "s"
[kinds.render.measures.cores]
doc = "in use"
unit = "1"
"""
COLUMNS: Final = """
[kinds.render.dimensions.country]
doc = "of the farm"
optional = true
[kinds.render.measures.frames]
doc = "rendered"
unit = "1"
optional = true
"""
PRODUCT: Final = '[kinds.render.products.core_seconds]\nfactors = ["seconds", "cores"]\nunit = "s"\n'
TIME: Final = 1_790_000_000_000_000
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `siteward ledger upgrade …` with a kind as declared here."""

    def call(text: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "siteward.toml").write_text(text)
        return subprocess.run(
            [*PROGRAM, "--output", "json", "ledger", "upgrade", *arguments],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=os.environ | {"SITEWARD_DATA": str(tmp_path)} | environment,
            check=False,
        )

    return call


def shown(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], str]:
    """When each difference goes away."""
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return {(row["where"], row["what"]): row["changed"] for row in rows}


def book(folder: Path, first: int, count: int = 1, **environment: str) -> None:
    """Records, as the sink of an installation books them."""
    settings = load_settings(folder / "siteward.toml", {"SITEWARD_DATA": str(folder), **environment})
    kinds = load_kinds(settings.kinds)
    kind: Kind = kinds["render"]
    given = {"vo": "v", "time": TIME, "farm": "F", "seconds": 10, "cores": 3}
    columns = {name: [given.get(name, kind.column[name].default)] * count for name in kind.names}
    frames = range(first, first + count)
    columns["frame"] = [*frames]
    with closing(open_sink(settings, kinds)) as sink:
        ids = [(TIME // 1000).to_bytes(6, "big") + frame.to_bytes(10, "big") for frame in frames]
        batch = Batch(kind, ids, columns, ["p"] * count, [bytes(16)] * count, TIME)
        assert sink.write(batch).outcomes == [Outcome.STORED] * count


def test_dry_run_changes_nothing(run: Run, tmp_path: Path) -> None:
    """On an empty database everything is shown as missing, and stays so."""
    done = run(KIND, "--dry-run")
    assert done.returncode == 0, done.stderr
    booked = [*booked_kinds(Settings(), load_kinds()), "render"]
    assert shown(done) == dict.fromkeys([("ledger", "revision"), *((kind, "tables") for kind in booked)], "at start")
    with closing(Database(f"sqlite:///{tmp_path / 'accounting.sqlite'}")) as database:
        assert inspect(database.engine).get_table_names() == []


def test_upgrade_computes_a_new_product(run: Run, tmp_path: Path) -> None:
    """Shown first, made then, and nothing is left to do after that."""
    assert run(KIND).returncode == 0
    book(tmp_path, 1)
    assert shown(run(KIND + PRODUCT, "--dry-run")) == {("render sums", "core_seconds"): "by upgrade"}
    done = run(KIND + PRODUCT)
    assert (done.returncode, shown(done)) == (0, {("render sums", "core_seconds"): "by upgrade"})
    again = run(KIND + PRODUCT)
    assert (again.returncode, json.loads(again.stdout)) == (0, [])
    assert "as it should be" in again.stderr
    book(tmp_path, 2)


def test_what_cannot_be_changed_ends_with_one(run: Run, tmp_path: Path) -> None:
    """The kind is left alone, and the remedy is told."""
    assert run(KIND).returncode == 0
    book(tmp_path, 1)
    done = run(KIND.replace('doc = "where"', 'doc = "where"\nmax_length = 5'))
    assert (done.returncode, shown(done)) == (1, {("render series", "length of farm"): "never"})
    assert "new name" in done.stderr
    run(KIND)
    book(tmp_path, 2)


def test_killed_upgrades_are_run_again(ledger_place: Place, tmp_path: Path, tell_counts: Callable[[str], None]) -> None:
    """Whenever the command dies, the next one goes on; in the end every sum is that of the records."""
    place = {"SITEWARD_ACCOUNTING__URL": ledger_place.url, "SITEWARD_ACCOUNTING__PASSWORD": ledger_place.password}
    (tmp_path / "siteward.toml").write_text(KIND)
    book(tmp_path, 0, 20_000, **place)
    (tmp_path / "siteward.toml").write_text(KIND + COLUMNS + PRODUCT)
    environ = os.environ | {"SITEWARD_DATA": str(tmp_path)} | place
    # From before it has begun until it ends by itself, on a fast machine and on a slow one.
    kills, patience, code = 0, 0.2, -1
    while code != 0:
        process = subprocess.Popen(
            [*PROGRAM, "ledger", "upgrade"], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL
        )
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, patience = kills + 1, patience * 1.3
        assert code <= 0, "the command failed by itself"
    tell_counts(f"ledger upgrade on {ledger_place.sort}: {kills} kills")
    assert kills > 0
    book(tmp_path, 20_000, 10, **place)
    with closing(Database(ledger_place.url, ledger_place.password)) as database, database.read() as connection:
        for table in ("prorated", "by_end"):
            wanted = text(f"SELECT SUM(core_seconds), SUM(seconds) FROM accounting_render_{table}")
            assert [int(value) for value in connection.execute(wanted).one()] == [20_010 * 30, 20_010 * 10]


def test_a_database_that_is_away_is_one_line(run: Run) -> None:
    """No traceback and no password: what the driver says, and that it may be tried again."""
    url = "postgresql://somebody:very-secret@127.0.0.1:1/nowhere"
    done = run(KIND, SITEWARD_ACCOUNTING__URL=url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "very-secret" not in done.stderr + done.stdout
    assert "try again" in done.stderr
