"""Files that hold secrets: for their owner, whole or not at all."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from at_once import all_at_once
from examples import JOB, batch_of, job_rows

from accounting.opening import open_ledger
from collectors.database import Database as CollectorsDatabase
from collectors.database import database_path
from monitoring.stores.duckdb.store import DuckStore
from siteward.broker.opening import open_declared
from siteward.private_files import begin_private, make_private, read_private, warn_of_others
from siteward.server.resources import Resources
from siteward.server.schedule import Leases
from siteward.settings import Settings, SettingsError


def mode_of(path: Path) -> int:
    """Its rights."""
    return stat.S_IMODE(path.stat().st_mode)


def test_they_are_for_their_owner_only(tmp_path: Path) -> None:
    """The file and the folder that is made for it, whatever the process's mask."""
    path = tmp_path / "folder" / "secret"
    make_private(path, b"secret")
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    assert read_private(path) == b"secret"
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_the_first_of_many_makers_is_everybodys(tmp_path: Path) -> None:
    """Sixteen processes that start together end with one key."""
    path = tmp_path / "secret"
    assert not all_at_once(partial(make_private, path, bytes([number])) for number in range(16))
    first = read_private(path)
    make_private(path, b"later")
    assert read_private(path) == first
    make_private(path, b"later", replacing=True)
    assert read_private(path) == b"later"
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620, 0o666, 0o777])
def test_one_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    """It may be no secret any more; the message says what to do."""
    path = tmp_path / "secret"
    make_private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_its_group_may_read_it(tmp_path: Path, mode: int) -> None:
    """So Kubernetes hands secrets out."""
    path = tmp_path / "secret"
    make_private(path, b"secret")
    path.chmod(mode)
    assert read_private(path) == b"secret"


def test_one_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    """Whoever reads says what to do about it."""
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "secret")


def test_every_database_is_for_its_owner_only(tmp_path: Path) -> None:
    """With what stands beside it while it is open, whatever the process's mask; its folder, too, where it is made."""
    folder = tmp_path / "data"
    settings = Settings(data=str(folder))
    before = os.umask(0)
    try:
        with ExitStack() as stack:
            resources = stack.enter_context(closing(Resources(settings)))
            resources.denied.deny("https://i", subject="anna", by="boris", reason="why")
            resources.audit.find()
            ledger = stack.enter_context(closing(open_ledger(settings, resources.kinds)))
            ledger.write(batch_of(JOB, job_rows(1)))
            stack.enter_context(closing(CollectorsDatabase(database_path(settings))))
            Leases(folder / "schedule.sqlite")
            stack.enter_context(closing(open_declared(settings)))
            stack.enter_context(closing(DuckStore(folder / "monitoring.duckdb", settings.monitoring, {})))
            modes = {each.name: mode_of(each) for each in folder.rglob("*.sqlite*")}
            assert mode_of(folder / "monitoring.duckdb") == 0o600
    finally:
        os.umask(before)
    assert {"access.sqlite", "accounting.sqlite", "collectors.sqlite", "schedule.sqlite"} <= set(modes)
    assert {"access.sqlite-wal", "access.sqlite-shm", "accounting.sqlite-wal", "accounting.sqlite-shm"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert mode_of(folder) == 0o700


def test_a_database_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    """Somebody may have let a group read it, for its backups."""
    path = tmp_path / "there.sqlite"
    path.touch()
    path.chmod(0o640)
    begin_private(path)
    assert mode_of(path) == 0o640


def test_a_database_that_is_there_keeps_its_locks(tmp_path: Path) -> None:
    """Else another process could write, or take away the log, beside who is writing here."""
    path = tmp_path / "there.sqlite"
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('CREATE TABLE other (a)')"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE one (a)")
        connection.execute("BEGIN EXCLUSIVE")
        begin_private(path)
        other = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr


@pytest.mark.parametrize(("mode", "is_said"), [(0o700, False), (0o750, False), (0o755, True), (0o711, True)])
def test_a_folder_into_which_others_may_look_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    mode: int,
    is_said: bool,  # noqa: FBT001  # a table of cases.
) -> None:
    """At the start, with what to do about it."""
    folder = tmp_path / "my data"
    folder.mkdir()
    folder.chmod(mode)
    warn_of_others(folder)
    assert (f"chmod -R o= '{folder}'" in capsys.readouterr().err) is is_said
