"""A ledger of the time when counters were not archived: each record learns when the one before it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from counter_model import MACHINE, Machine, machine, machine_batch
from ledger_databases import prepared
from sqlalchemy import select, text
from usage_model import FIRST, LATER

from accounting import LedgerError
from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.checks.verifying import Counts, Scope, verify
from accounting.ledger import Ledger
from accounting.migrations import changing, revisions, standing
from accounting.migrations.differences import Step
from accounting.migrations.upgrade import prepare, upgrade
from accounting.tables import COUNTER, PREVIOUS
from siteward.records import Measure, Product, kind_of, microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome

Open = Callable[[], Database]
NOW = microseconds(LATER)


def links(ledger: Ledger) -> list[tuple[int, int, int | None]]:
    """Of each record the counter, the instant, and that of the one before."""
    records = ledger.tables["machine"].records
    columns = records.c[COUNTER], records.c.time, records.c[PREVIOUS]
    with ledger.database.read() as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(select(*columns).order_by(*columns[:2]))]


def make_old(ledger: Ledger) -> None:
    """Take everything out that came with the archiving of counters."""
    tables = ledger.tables["machine"]
    with ledger.database.write() as connection:
        for table in tables.of_records:
            connection.execute(text(f"ALTER TABLE {table.name} DROP COLUMN {PREVIOUS}"))
        connection.execute(text(f"DELETE FROM accounting_columns WHERE name = '{PREVIOUS}'"))
        connection.execute(standing.KINDS.update().values(digest=bytes(16)))
        connection.execute(text(f"UPDATE {revisions.VERSION_TABLE} SET version_num = 'r0004'"))


def filled(database: Database) -> Ledger:
    """Three machines, one of them started again, some records late."""
    ledger = prepared(database, MACHINE, NOW)
    again = machine(day=3.2)["time"]
    records = [machine(number, day=place / 2) for number in range(3) for place in range(1, 13)]
    records += [machine(3, day=place, started=again if place > 3 else machine(day=0)["time"]) for place in range(1, 7)]
    ledger.write(machine_batch(records[::2]))
    ledger.write(machine_batch(records[1::2]))
    return ledger


def test_records_of_before_are_linked_by_command(
    open_database: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody books until a person says so; then each record knows the one before, and the old ones are archived."""
    monkeypatch.setattr(changing, "AT_ONCE", 5)
    before = filled(open_database())
    due = links(before)
    assert sum(previous is None for _, _, previous in due) == 4
    make_old(before)
    with pytest.raises(LedgerError, match=f"machine records, {PREVIOUS}: there is nothing, wanted is instant of the"):
        prepare(open_database(), {"machine": MACHINE})
    (change,) = [each for each in upgrade(open_database(), {"machine": MACHINE}) if each.what == PREVIOUS]
    assert change.step is Step.BY_UPGRADE
    ledger = prepared(open_database(), MACHINE, NOW)
    assert links(ledger) == due
    assert len(list(archive(ledger, tmp_path, FIRST + timedelta(days=4)))) == 4
    assert list(verify(ledger, Scope(tmp_path), Counts())) == []
    assert ledger.write(machine_batch([machine(day=20)])).outcomes == [Outcome.STORED]


def test_killed_linking_is_taken_up_again(open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is done nobody books; whoever runs the command again ends it."""
    before = filled(open_database())
    due = links(before)
    make_old(before)
    monkeypatch.setattr(changing, "AT_ONCE", 5)
    with monkeypatch.context() as patch:
        patch.setattr(changing, "update", lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            upgrade(open_database(), {"machine": MACHINE})
    with pytest.raises(LedgerError, match=PREVIOUS):
        prepare(open_database(), {"machine": MACHINE})
    upgrade(open_database(), {"machine": MACHINE})
    assert links(prepared(open_database(), MACHINE, NOW)) == due


class More(Machine, kind="machine", identity=("name", "time"), since="started"):
    """A machine that also tells what its accelerators did."""

    gpu_time: Annotated[int | None, Measure("computed", unit="s", counter=True)] = None
    core_time = Product("wall_time", "processors", unit="s")


def test_files_of_before_a_counter_came_are_read_and_restored(open_database: Open, tmp_path: Path) -> None:
    """What was archived before the kind had a counter says nothing of it, in the file and back in the database."""
    before = filled(open_database())
    files = list(archive(before, tmp_path, FIRST + timedelta(days=4)))
    more = kind_of(More)
    ledger = prepared(open_database(), more, NOW)
    assert list(verify(ledger, Scope(tmp_path), Counts())) == []
    for file in files:
        assert restore(ledger, tmp_path, file.file) == file.records
    assert list(verify(ledger, Scope(tmp_path), Counts())) == []
    assert len(list(archive(ledger, tmp_path, FIRST + timedelta(days=4)))) == len(files)
    assert list(verify(ledger, Scope(tmp_path), Counts())) == []


def test_where_nothing_is_booked_nobody_is_asked(open_database: Open) -> None:
    """An empty ledger gets the column when it is opened."""
    make_old(prepared(open_database(), MACHINE, NOW))
    ledger = prepared(open_database(), MACHINE, NOW)
    assert ledger.write(machine_batch([machine(day=1), machine(day=2)])).outcomes == [Outcome.STORED] * 2
    assert [previous for _, _, previous in links(ledger)] == [None, machine(day=1)["time"]]
