"""What happens to the ledger after records came in: compaction, archive, and records that come back."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from accounted import ran
from examples import JOB, batch_of, job

from accounting.opening import open_ledger
from accounting.tasks import compaction, run_compaction
from siteward import extensions
from siteward.kinds import load_kinds
from siteward.records import microseconds
from siteward.server.resources import Resources
from siteward.settings import CollectorSettings, Settings

NOW = datetime.now(UTC)
OLD = NOW.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=20)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation that feeds a ledger, with five jobs of five hours that ended twenty days ago."""
    made = Settings(data=str(tmp_path), collector=CollectorSettings(leave_out=()))
    with closing(open_ledger(made, load_kinds())) as ledger:
        ledger.clock = lambda: microseconds(OLD)
        jobs = [job(number, start=OLD - timedelta(hours=5), end=OLD) for number in range(5)]
        ledger.write(batch_of(JOB, [JOB.row_of(each, microseconds(NOW)) for each in jobs]))
    return made


def test_old_buckets_are_put_together_by_themselves(settings: Settings) -> None:
    """The task is installed; it makes days of hours, once, and leaves an installation without a ledger alone."""
    assert extensions.load("siteward.tasks", "compaction") is compaction
    with closing(Resources(settings)) as resources:
        run_compaction(resources)
        ledger = resources.shared("ledger", lambda: open_ledger(settings, load_kinds()))
        with ledger.database.read() as connection:
            widths = connection.exec_driver_sql("SELECT DISTINCT _width FROM accounting_job_prorated").scalars().all()
        assert widths == [86_400]
    empty = Settings(data=str(settings.folder / "empty"))
    with closing(Resources(empty)) as resources:
        run_compaction(resources)
    assert not (empty.folder / "accounting.sqlite").exists()


def test_records_leave_and_come_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """Archived, listed, asked for, restored: the totals are the same throughout."""

    def told(*arguments: str) -> str:
        assert ran(monkeypatch, settings, *arguments) == 0
        return capsys.readouterr().out

    def total() -> object:
        account = ("account", "job", "--measures", "wall_time,records", "--start=-40d", "--attribution", "by-end")
        return json.loads(told("--output", "json", *account, "--format", "json"))["totals"]

    before = total()
    assert before == [5 * 3600, 5]
    (file,) = json.loads(told("--output", "json", "ledger", "archive", "--", "-10d"))
    assert (file["kind"], file["day"], file["records"]) == ("job", f"{OLD:%Y-%m-%d}", 5)
    assert (settings.folder / "archive" / file["file"]).is_file()
    assert json.loads(told("--output", "json", "ledger", "archived")) == [file]
    assert total() == before
    told("ledger", "restore", file["file"])
    assert json.loads(told("--output", "json", "ledger", "archived")) == []
    assert total() == before
    told("ledger", "compact")
    assert total() == before
