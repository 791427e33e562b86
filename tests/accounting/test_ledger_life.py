"""What happens to the ledger after records came in: compaction, archive, and records that come back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from accounted import ran
from examples import JOB, batch_of, job

from accounting.archive.archive_file import ArchiveError, File
from accounting.archive.archiving import archive, files
from accounting.ledger import Ledger
from accounting.opening import kept_days, open_ledger
from accounting.tasks import archiving, compaction, run_archiving, run_compaction
from siteward import extensions
from siteward.cli.verbs import ALL_VOS
from siteward.kinds import load_kinds
from siteward.records import microseconds
from siteward.server.database import Conflict
from siteward.server.resources import Resources
from siteward.settings import AccountingSettings, CollectorSettings, Settings
from siteward.settings_sections import BookedKindSettings
from siteward.sinks import SinkUnavailable

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
        run_compaction(resources)
        (noted,) = resources.audit.find()
        assert (noted.action, noted.after["buckets"] > 0) == ("task compaction", True)
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
    with closing(open_ledger(settings, load_kinds())) as ledger, ledger.database.read() as connection:
        series = connection.exec_driver_sql("SELECT count(*) FROM accounting_job_series").scalar()
    assert series == 5, "what comes back belongs to the series that it had"
    told("ledger", "verify")
    assert json.loads(told("--output", "json", "ledger", "archived")) == []
    assert total() == before
    told("ledger", "compact")
    assert total() == before


def test_old_records_are_archived_by_themselves(settings: Settings, tmp_path: Path) -> None:
    """The task is installed; it moves what is older than the settings say to where they say, and nothing by default."""
    assert extensions.load("siteward.tasks", "archiving") is archiving
    for days, moved in ((0, 0), (21, 0), (19, 5)):
        accounting = AccountingSettings(keep_records=days, archive=str(tmp_path / "files"))
        with closing(Resources(msgspec.structs.replace(settings, accounting=accounting))) as resources:
            run_archiving(resources)
            run_archiving(resources)
            noted = [each.after["records"] for each in resources.audit.find(action="task archiving")]
        assert noted == [5][: bool(moved)]
        with closing(open_ledger(settings, load_kinds())) as ledger:
            found = files(ledger)
        assert sum(file.records for file in found) == moved
        assert all((tmp_path / "files" / file.file).is_file() for file in found)


@pytest.mark.parametrize("error", [ArchiveError, Conflict, SinkUnavailable])
def test_a_kind_that_cannot_be_archived_now_keeps_no_other(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Such as one with an unfinished correction: the task fails and says of which, when the others are archived."""

    def refusing(ledger: Ledger, folder: Path, until: datetime, kinds: Sequence[str]) -> Iterator[File]:
        if kinds == ("cloud-vm",):
            message = "correction 7 is unfinished"
            raise error(message)
        return archive(ledger, folder, until, kinds)

    monkeypatch.setattr("accounting.tasks.archive", refusing)
    accounting = AccountingSettings(keep_records=19, archive=str(tmp_path / "files"))
    with closing(Resources(msgspec.structs.replace(settings, accounting=accounting))) as resources:
        names = list(kept_days(resources.settings, resources.kinds))
        assert names.index("cloud-vm") < names.index("job")
        with pytest.raises(ArchiveError, match=r"^cloud-vm: correction 7 is unfinished$"):
            run_archiving(resources)
        assert [each.after["records"] for each in resources.audit.find(action="task archiving")] == [5]


def test_kinds_are_kept_for_times_of_their_own(settings: Settings) -> None:
    """What the settings say of a kind goes before what they say of all, in both directions."""
    for days, own, moved in ((19, 0, 0), (19, 21, 0), (0, 19, 5)):
        kinds = {"job": BookedKindSettings(keep_records=own), "pilot": BookedKindSettings(keep_records=1)}
        accounting = AccountingSettings(keep_records=days, kinds=kinds)
        with closing(Resources(msgspec.structs.replace(settings, accounting=accounting))) as resources:
            run_archiving(resources)
        with closing(open_ledger(settings, load_kinds())) as ledger:
            assert sum(file.records for file in files(ledger)) == moved
    assert kept_days(Settings(accounting=AccountingSettings(keep_records=9)), load_kinds()).keys() & {
        "job",
        "record-count",
    } == {"job"}


def test_only_some_kinds_are_archived(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """Those that are named; a name that is wrong, or of a kind that stays, is refused before anything moves."""

    def told(*kinds: str) -> tuple[int, str]:
        named = [part for kind in kinds for part in ("--kind", kind)]
        code = ran(monkeypatch, settings, "--output", "json", "ledger", "archive", *named, "--", "-10d")
        printed = capsys.readouterr()
        return code, printed.err if code else str(len(json.loads(printed.out)))

    assert told("pilot", "cloud-vm") == (0, "0")
    code, error = told("job", "jobs")
    assert (code, "did you mean 'job'" in error) == (2, True)
    code, error = told("job", "record-count")
    assert (code, "records of record-count are not archived" in error) == (1, True)
    assert told("pilot", "job") == (0, "1")


def test_a_ledger_is_verified_and_rebuilt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """All is well; one damaged bucket is shown and ends with 1; rebuilt, all is well again."""

    def told(code: int, *arguments: str) -> list[dict[str, object]]:
        assert ran(monkeypatch, settings, "--output", "json", "ledger", *arguments) == code
        rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
        return rows

    assert told(0, "verify") == []
    with closing(open_ledger(settings, load_kinds())) as ledger, ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE accounting_job_by_end SET wall_time = wall_time + 1")
    wrong = told(1, "verify", "job")
    # The jobs are of several sites: one bucket each.
    assert {(row["what"], row["measure"]) for row in wrong} == {("by-end", "wall_time")}
    assert {int(str(row["booked"])) - int(str(row["computed"])) for row in wrong} == {1}
    assert told(0, "verify", "pilot") == []
    assert told(0, "verify", "job", "--end=-30d") == []
    rebuilt = told(0, "rebuild", "job")
    assert sum(int(str(row["changed"])) for row in rebuilt) == len(wrong)
    assert told(0, "verify") == []


def test_what_cannot_be_told_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    """Without the archive's files their days are shown, verify ends with 1 for the files, and rebuild changes none."""
    assert ran(monkeypatch, settings, "ledger", "archive", "--", "-10d") == 0
    assert ran(monkeypatch, settings, "ledger", "verify") == 0
    assert "1 files with 5 records: no differences" in capsys.readouterr().err
    elsewhere = str(tmp_path / "elsewhere")
    assert ran(monkeypatch, settings, "ledger", "verify", "--folder", elsewhere) == 1
    printed = capsys.readouterr()
    assert "cannot be read: No such file or directory" in printed.out
    assert "1 files are not as they should be; 1 days cannot be told" in printed.err
    assert "rebuild" not in printed.err
    assert ran(monkeypatch, settings, "ledger", "rebuild", "--folder", elsewhere) == 0
    assert f"job: left alone from {OLD:%Y-%m-%d} to {OLD:%Y-%m-%d}" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "ledger", "verify") == 0


def test_a_kind_that_is_not_booked_cannot_be_verified(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """The command says which kinds there are, or which one is near."""
    assert ran(monkeypatch, settings, "ledger", "verify", "jobs") == 2
    assert "did you mean 'job'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "rebuild", "completeness", "archived", "compact"])
def test_a_database_that_is_away_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """No command shows a trace of ours where nobody listens; it ends with 1."""
    away = Settings(data=str(tmp_path), accounting=AccountingSettings(url="postgresql://nobody@127.0.0.1:9/none"))
    assert ran(monkeypatch, away, "ledger", command) == 1
    (line,) = (each for each in capsys.readouterr().err.splitlines() if each != ALL_VOS)
    assert "does not answer as it should; try again: " in line
