"""`siteward audit archive` and `verify`: old entries leave for files, which are verified with the database."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from accounted import noted_long_ago, ran

from siteward.server.auth.audit import Audit
from siteward.server.database import Conflict
from siteward.server.resources import Resources
from siteward.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation in which something was done ten days ago."""
    made = Settings(data=str(tmp_path))
    noted_long_ago(made)
    return made


def test_files_of_the_audit_are_verified_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    """They go on from one another, up to the database; a digest that was noted before is found in them."""
    with closing(Resources(settings)) as resources:
        digest = resources.audit.digest_at(1)
    assert ran(monkeypatch, settings, "audit", "archive", "--until", "-2d") == 0
    said = capsys.readouterr().err
    file = tmp_path / "audit" / "audit-1-2.jsonl.gz"
    assert f"{file}: 2 entries, up to number 2, digest " in said
    words = ("audit", "verify", "--file", str(file))
    assert ran(monkeypatch, settings, *words, "--number", "1", "--digest", digest) == 0
    assert ran(monkeypatch, settings, *words, "--number", "2", "--digest", digest) == 1
    assert ran(monkeypatch, settings, "audit", "verify") == 0
    assert "entries up to number 2, digest " in capsys.readouterr().err
    with gzip.open(file, "rb") as opened:
        first, *rest = opened.read().splitlines(keepends=True)
    file.write_bytes(gzip.compress(first + rest[0]))
    assert ran(monkeypatch, settings, *words) == 1
    assert f"the database does not go on where {file.name} ends" in capsys.readouterr().err
    file.write_bytes(gzip.compress(first + rest[0].replace(b"lamp", b"bell") + rest[1]))
    assert ran(monkeypatch, settings, *words) == 1
    assert "from number 1 on, something was changed" in capsys.readouterr().err
    file.write_bytes(b"nothing")
    assert ran(monkeypatch, settings, *words) == 1
    assert "is no file of the audit" in capsys.readouterr().err


def test_what_was_noted_before_a_file_is_asked_of_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    """Without it nothing is proved, and nobody is accused; where the database begins is known without it, too."""
    with closing(Resources(settings)) as resources:
        first, last = resources.audit.digest_at(1), resources.audit.digest_at(2)
    assert ran(monkeypatch, settings, "audit", "archive", "--until", "-2d") == 0
    file = ("--file", str(tmp_path / "audit" / "audit-1-2.jsonl.gz"))
    others = "is not the one that was noted: entries up to it are others"
    for number, digest, files, code, told in (
        ("2", last, (), 0, ""),
        ("2", first, (), 1, others),
        ("1", first, (), 1, "number 1 is in a file; give it with --file"),
        ("1", first, file, 0, ""),
        ("1", last, file, 1, others),
    ):
        capsys.readouterr()
        assert ran(monkeypatch, settings, "audit", "verify", "--number", number, "--digest", digest, *files) == code
        said = capsys.readouterr().err
        assert told in said
        assert (others in said) == (told == others)
    assert ran(monkeypatch, settings, "audit", "verify", "--number", "1") == 2
    assert ran(monkeypatch, settings, "audit", "verify", "--digest", first) == 2


def test_what_is_young_stays_in_the_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    """Nothing of today is put away; where nothing is old enough there is no file."""
    assert ran(monkeypatch, settings, "audit", "archive", "--until", "-1h") == 2
    assert "less than a day ago" in capsys.readouterr().err
    assert ran(monkeypatch, settings, "audit", "archive", "--until", "-11d") == 0
    assert "no entry is that old" in capsys.readouterr().err
    assert not (tmp_path / "audit").exists()


def test_nothing_of_old_entries_is_left_in_the_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    """Who deletes the file has deleted them; where somebody held the tables, the next run does what was left.

    That they are out nevertheless, and that it is to be run, is said.
    """

    def held(_audit: Audit) -> None:
        message = "others read the file"
        raise Conflict(message)

    def holding() -> set[str]:
        return {each.name for each in tmp_path.glob("access.sqlite*") if b"siteward lamp" in each.read_bytes()}

    assert holding()
    with monkeypatch.context() as patch:
        patch.setattr(Audit, "scrub", held)
        assert ran(patch, settings, "audit", "archive", "--until", "-2d") == 1
    said = capsys.readouterr().err
    assert "entries that were taken out are safe in their files" in said
    assert "(others read the file); run the same command again" in said
    assert ran(monkeypatch, settings, "audit", "archive", "--until", "-2d") == 0
    assert not holding()
    assert ran(monkeypatch, settings, "audit", "verify") == 0


def test_what_was_changed_is_not_put_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """It is told in a line, from which number on it is another, and stays where it is."""
    with closing(sqlite3.connect(settings.folder / "access.sqlite")) as database:
        database.execute("DROP TRIGGER access_audit_update")
        database.execute("UPDATE access_audit SET subject = 'nobody' WHERE number = 2")
        database.commit()
    assert ran(monkeypatch, settings, "audit", "archive", "--until", "-2d") == 1
    assert "from number 2 on; nothing is taken out" in capsys.readouterr().err
