"""Old entries of the audit leave for a file on every database; digests go on from one to the other."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from at_once import all_at_once
from issuer import Clock
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from siteward.server.auth.audit import ARCHIVED, Audit, Audited
from siteward.server.auth.audit_files import AuditFileError, digest_in, read_entries, verified
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.database import ADDED_ONLY, Database

WHO: Final = Caller(Identity(issuer="https://dteam.iam.example", subject="anna", token="t1", expires=0.0), ())
DAY: Final = 86_400.0
REFUSED: Final = ("DELETE FROM access_audit", "DELETE FROM access_audit_vos", "UPDATE access_audit SET subject = 'x'")


def act(audit: Audit, clock: Clock, count: int, first: int = 0) -> None:
    """A few changes, a day apart."""
    for number in range(first, first + count):
        clock.now += DAY
        asked = audit.ask(WHO, f"act {number}", ["dteam", "biomed"])
        audit.end(asked, "200", before={"was": "ümlaut", "share": 0.1}, after=[1e22, "\ud800"])


def before(clock: Clock, days: float) -> int:
    """An instant so many days ago."""
    return int((clock.now - days * DAY) * 1_000_000)


def test_old_entries_are_in_a_file_and_the_chain_goes_on(
    open_audit: Callable[[], Audit], clock: Clock, tmp_path: Path
) -> None:
    """With all that they said; what is young stays, and that some have left is an entry like others."""
    audit = open_audit()
    act(audit, clock, 5)
    every = audit.find()[::-1]
    digests = {each.number: audit.digest_at(each.number) for each in every}
    kept = audit.archive(tmp_path, before(clock, 1.5), WHO)
    assert kept is not None
    assert (kept.begin.number, kept.entries, kept.number, kept.digest, kept.wrong) == (0, 6, 6, digests[6], None)
    file = tmp_path / kept.file
    assert file.stat().st_mode & 0o077 == 0
    rows = list(read_entries(file))
    assert [(row["number"], row["action"], row["outcome"], row["vos"]) for row in rows] == [
        (each.number, each.action, each.outcome, list(each.vos)) for each in every[:6]
    ]
    assert {digest_in(file, number) == digests[number] for number in range(1, 7)} == {True}
    assert digest_in(file, 7) == audit.digest_at(1) == ""
    left = audit.find()[::-1]
    assert left[:-1] == every[6:]
    note = left[-1]
    assert (note.action, note.outcome, note.subject, note.token) == (ARCHIVED, "done", "anna", "t1")
    assert (note.before, note.after["file"], note.after["number"]) == ({"entries": 6}, kept.file, 6)
    assert [each.number for each in audit.find(vo="dteam")] == [11, 10, 9, 8, 7]
    found = open_audit().verify()
    assert (found.entries, found.number, found.wrong, found.begin.number) == (5, 11, None, 6)
    assert audit.archive(tmp_path, before(clock, 1.5), WHO) is None
    act(audit, clock, 3, 5)
    again = open_audit().archive(tmp_path, before(clock, 0.5), WHO)
    assert again is not None
    assert (again.begin.number, again.begin.digest, again.wrong) == (kept.number, kept.digest, None)
    assert audit.verify().wrong is None
    assert audit.verify().begin.digest == again.digest


def test_the_database_keeps_the_others_as_before(
    open_audit: Callable[[], Audit], open_database: Callable[[], Database], clock: Clock, tmp_path: Path
) -> None:
    """Nothing can be changed or taken away once some have left."""
    audit = open_audit()
    act(audit, clock, 3)
    audit.archive(tmp_path, before(clock, 1.5), WHO)
    for statement in REFUSED:
        with pytest.raises(DBAPIError) as refused, open_database().write() as connection:
            connection.exec_driver_sql(statement)
        assert ADDED_ONLY in str(refused.value), statement
    act(audit, clock, 1)
    assert audit.verify().wrong is None


def test_who_dies_on_the_way_does_it_again(
    open_audit: Callable[[], Audit],
    open_database: Callable[[], Database],
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Entries are in the database until they are out of it and noted to be; whoever opens it next keeps them there."""
    audit = open_audit()
    act(audit, clock, 3)
    every = audit.find()

    def dies(_audit: Audit, _connection: Connection, _entry: Audited) -> Audited:
        message = "killed"
        raise KeyboardInterrupt(message)

    with monkeypatch.context() as patch:
        patch.setattr(Audit, "_insert", dies)
        with pytest.raises(KeyboardInterrupt):
            audit.archive(tmp_path, before(clock, 1.5), WHO)
    after = open_audit()
    assert after.find() == every
    with pytest.raises(DBAPIError), open_database().write() as connection:
        connection.exec_driver_sql(REFUSED[0])
    (first,) = tmp_path.glob("audit-*")
    content = first.read_bytes()
    kept = after.archive(tmp_path, before(clock, 1.5), WHO)
    assert kept is not None
    assert (kept.file, first.read_bytes()) == (first.name, content)
    assert after.verify().wrong is None


def test_what_was_changed_is_not_taken_out(
    open_audit: Callable[[], Audit], open_database: Callable[[], Database], clock: Clock, tmp_path: Path
) -> None:
    """By somebody who may take triggers away: it stays, as it is to be looked into."""
    audit = open_audit()
    act(audit, clock, 3)
    database = open_database()
    with database.write() as connection:
        for table in audit._tables.entries, audit._tables.vos:
            database.dialect.let_take_away(connection, table)
        connection.exec_driver_sql("DELETE FROM access_audit WHERE number = 2")
    with pytest.raises(ValueError, match="from number 3 on; nothing is taken out"):
        audit.archive(tmp_path, before(clock, 0.5), WHO)
    assert len(audit.find()) == 5
    assert audit.verify().wrong == 3


def test_what_is_gone_without_a_file_is_found(
    open_audit: Callable[[], Audit], open_database: Callable[[], Database], clock: Clock, tmp_path: Path
) -> None:
    """The first entries, too, also where others have left before."""
    audit = open_audit()
    act(audit, clock, 3)
    audit.archive(tmp_path, before(clock, 1.5), WHO)
    act(audit, clock, 2)
    database = open_database()
    with database.write() as connection:
        for table in audit._tables.entries, audit._tables.vos:
            database.dialect.let_take_away(connection, table)
        connection.exec_driver_sql("DELETE FROM access_audit WHERE number = 3")
    assert audit.verify().wrong == 4


def test_a_file_with_other_entries_is_not_replaced(
    open_audit: Callable[[], Audit], clock: Clock, tmp_path: Path
) -> None:
    """Of a database that was there before, up to the same number: its entries may be nowhere else."""
    audit = open_audit()
    act(audit, clock, 3)
    file = tmp_path / "audit-1-6.jsonl.gz"
    file.write_bytes(b"of another one")
    every = audit.find()
    with pytest.raises(AuditFileError, match=r"audit-1-6\.jsonl\.gz is there and has other entries"):
        audit.archive(tmp_path, before(clock, -1), WHO)
    assert file.read_bytes() == b"of another one"
    assert (list(tmp_path.glob("*audit*")), audit.find()) == ([file], every)
    kept = audit.archive(tmp_path / "elsewhere", before(clock, -1), WHO)
    assert kept is not None
    assert kept.file == file.name


def test_entries_may_come_meanwhile(open_audit: Callable[[], Audit], clock: Clock, tmp_path: Path) -> None:
    """From other processes: none is lost, and the chain is one."""
    audit = open_audit()
    act(audit, clock, 4)
    others = [open_audit() for _ in range(3)]
    until = before(clock, 0.5)

    def more(other: Audit) -> None:
        for number in range(10):
            other.ask(WHO, f"meanwhile {number}")

    works = [lambda other=other: more(other) for other in others]
    assert not all_at_once([*works, lambda: audit.archive(tmp_path, until, WHO)])
    assert audit.verify().wrong is None
    assert len(audit.find(action="meanwhile", limit=1000)) == 30


def test_a_changed_file_is_found(open_audit: Callable[[], Audit], clock: Clock, tmp_path: Path) -> None:
    """At the entry that is another; and what is no such file is said to be none."""
    audit = open_audit()
    act(audit, clock, 3)
    kept = audit.archive(tmp_path, before(clock, 0.5), WHO)
    assert kept is not None
    file = tmp_path / kept.file
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join([*lines[:3], lines[3].replace(b"anna", b"adam"), *lines[4:]])))
    assert verified(file).wrong == 3
    file.write_bytes(gzip.compress(b"".join([*lines[:3], *lines[4:]])))
    assert verified(file).wrong == 4
    for content in (b"", b"{}", gzip.compress(b"{}\n"), gzip.compress(b"".join(lines))[:-9]):
        file.write_bytes(content)
        with pytest.raises(AuditFileError, match="is no file of the audit, or not a whole one"):
            verified(file)
