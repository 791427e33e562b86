"""What is known by its number, on every database: changed or lost rows are found, and none is booked under."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ledger_databases import Place, emptied, prepared
from snapshot_model import LEVEL, level, level_batch
from sqlalchemy import Connection, Table, select
from usage_model import FIRST, SOON, USE, batch, many, use
from viewers import answered

from accounting.archive.archiving import archive
from accounting.booking.numbers import Lost
from accounting.checks.numbered import BadNumber
from accounting.checks.signing import sign_compared
from accounting.checks.verifying import Counts, Scope, verify
from accounting.ledger import Ledger
from accounting.periods.closed_months import PeriodError
from accounting.periods.closing import close
from accounting.tables import ENTRY
from accounting.upkeep.months import parse_month
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import Attribution, Quantity, UsageQuery, WantedUsage

Opens = Callable[[], Database]
JANUARY = parse_month("2026-01")


def found(ledger: Ledger, folder: Path, **scope: Any) -> list[Any]:
    return list(verify(ledger, Scope(folder, **scope), Counts()))


def by_site(ledger: Ledger) -> dict[object, object]:
    """Records of each site."""
    query = UsageQuery(
        kind="use",
        wanted=(WantedUsage(Quantity.RECORDS),),
        start=FIRST.replace(month=1, day=1),
        end=SOON,
        by=("site",),
        attribution=Attribution.BY_END,
    )
    return {row.group[0]: row.values[0] for row in answered(ledger, query).rows}


def put_back(ledger: Ledger, backup: dict[str, list[dict[str, Any]]]) -> None:
    """Everything as it was when it was read."""
    with ledger.database.write() as connection:
        for table in ledger.metadata.sorted_tables:
            connection.execute(table.delete())
            if backup[table.name]:
                connection.execute(table.insert(), backup[table.name])


def read(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Everything that a ledger holds."""
    with ledger.database.read() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in ledger.metadata.sorted_tables
        }


def test_a_changed_series_is_found(open_database: Opens, tmp_path: Path) -> None:
    """A row that says another site is named by its number and by what it says, and no month with it is signed."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([use(1, site="S"), use(2, site="T")]))
    close(ledger, "use", JANUARY, "dora")
    assert found(ledger, tmp_path) == []
    series = ledger.tables["use"].series
    with ledger.database.write() as connection:
        connection.execute(series.update().where(series.c.site == "S").values(site="OTHER"))
        number = connection.scalar(series.select().where(series.c.site == "OTHER"))
    for scope in ({}, {"start": microseconds(FIRST), "end": microseconds(SOON)}):
        (bad,) = found(ledger, tmp_path, **scope)
        assert isinstance(bad, BadNumber)
        assert (bad.kind, bad.table, bad.number) == ("use", "accounting_use_series", number)
        assert "site=OTHER" in bad.why
    assert found(ledger, tmp_path, end=microseconds(FIRST)) == []
    with pytest.raises(PeriodError, match="not what they were numbered as, 1 of them"):
        sign_compared(ledger, tmp_path, "use", JANUARY, "emil")
    with ledger.database.write() as connection:
        connection.execute(series.update().where(series.c.site == "OTHER").values(site="S"))
    assert found(ledger, tmp_path) == []
    sign_compared(ledger, tmp_path, "use", JANUARY, "emil")


def test_a_lost_row_is_found(open_database: Opens, tmp_path: Path) -> None:
    """What is counted under a number of which there is no row is named: of series and producers, also of snapshots."""
    ledger = Ledger(open_database(), {"use": USE, "level": LEVEL}, lambda: microseconds(SOON))
    ledger.metadata.create_all(ledger.database.engine)
    ledger.write(batch([use(1, site="S", _producer="ce1"), use(2, site="T", _producer="ce2")]))
    ledger.write(level_batch([level(1, producer="p"), level(2, producer="q", site="T")]))
    for table, column, value in (
        (ledger.tables["use"].series, "site", "T"),
        (ledger.common.producers, "name", "ce2"),
        (ledger.snapshots["level"].series, "site", "T"),
        (ledger.common.producers, "name", "q"),
    ):
        lost = _taken(ledger, table, column, value)
        (bad,) = (each for each in found(ledger, tmp_path) if isinstance(each, BadNumber))
        assert (bad.table, bad.number) == (table.name, lost[table.columns[0].name])
        assert "there is no such row" in bad.why
        with ledger.database.write() as connection:
            connection.execute(table.insert().values(lost))
        assert found(ledger, tmp_path) == []


def _taken(ledger: Ledger, table: Table, column: str, value: str) -> dict[str, Any]:
    with ledger.database.write() as connection:
        (row,) = connection.execute(table.select().where(table.c[column] == value)).mappings()
        connection.execute(table.delete().where(table.c[column] == value))
    return dict(row)


def test_every_series_of_many_records_is_what_was_numbered(open_database: Opens, tmp_path: Path) -> None:
    """Whatever is unknown, empty or at its default in it."""
    ledger = emptied(open_database(), USE, SOON)
    chosen = [
        record | {"code": number % 3 or None, "user": "" if number % 2 else "u", "simulated": number % 5 == 0}
        for number, record in enumerate(many(60))
    ]
    ledger.write(batch(chosen))
    assert found(ledger, tmp_path) == []


def put_back_beneath(open_database: Opens, *, is_booked: bool = True) -> tuple[Ledger, Ledger]:
    """A ledger whose database was put back to before it knew the site X, and one that has given X's number to Y."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([use(1, site="OLD")]))
    backup = read(ledger)
    if is_booked:
        ledger.write(batch([use(2, site="X")]))
    else:
        ledger.numbers.series_of(USE, batch([use(2, site="X")]).columns)
    put_back(ledger, backup)
    other = Ledger(open_database(), {"use": USE}, ledger.clock)
    other.write(batch([use(3, site="Y")]))
    return ledger, other


@pytest.mark.parametrize("is_booked", [True, False], ids=["booked", "only numbered"])
def test_a_database_that_was_put_back_is_noticed(open_database: Opens, tmp_path: Path, is_booked: bool) -> None:  # noqa: FBT001
    """A writer that goes on meanwhile does not book under numbers that are another's by now."""
    ledger, other = put_back_beneath(open_database, is_booked=is_booked)
    assert ledger.write(batch([use(4, site="X"), use(5, site="OLD")])).outcomes == [Outcome.STORED] * 2
    assert by_site(other) == {"OLD": 2, "X": 1, "Y": 1}
    assert found(other, tmp_path) == []


def test_what_one_thread_notices_no_other_books_over(open_database: Opens, tmp_path: Path) -> None:
    """A thread that has its numbers already is told as well, when another one has noticed the loss before it looks."""
    ledger, other = put_back_beneath(open_database)
    number = ledger.numbers.producers_of

    def meanwhile(names: Sequence[str]) -> list[int]:
        ledger.numbers.producers_of = number  # type: ignore[method-assign]  # once.
        noticing = Thread(target=ledger.write, args=(batch([use(6, site="OLD")]),))
        noticing.start()
        noticing.join()
        return number(names)

    ledger.numbers.producers_of = meanwhile  # type: ignore[method-assign]  # between numbers and transaction.
    ledger.write(batch([use(4, site="X"), use(5, site="OLD")]))
    assert by_site(other) == {"OLD": 3, "X": 1, "Y": 1}
    assert found(other, tmp_path) == []


def test_whoever_only_reads_notices_it_too(open_database: Opens, tmp_path: Path) -> None:
    """Else it would take archived records for those of other series, and refuse to have months signed."""
    ledger, other = put_back_beneath(open_database)
    other.write(batch([use(4, site="X")]))
    assert list(archive(other, tmp_path, SOON))
    assert found(other, tmp_path) == []
    assert found(ledger, tmp_path) == []


def test_a_writer_that_is_late_to_say_so_hides_no_loss(open_database: Opens) -> None:
    """Of several threads, the one that committed last need not be the last to know it."""
    ledger = emptied(open_database(), USE, SOON)
    entry = ledger.common.entries.c[ENTRY]
    ledger.write(batch([use(1)]))
    with ledger.database.read() as connection:
        first = connection.scalar(select(entry))
    ledger.write(batch([use(2)]))
    assert first is not None
    ledger.numbers.settle(first)
    with ledger.database.write() as connection:
        connection.execute(ledger.common.entries.delete().where(entry != first))
    with pytest.raises(Lost), ledger.database.read() as connection:
        ledger.check(connection, "use")


def test_whoever_changes_the_ledger_looks_first(open_database: Opens) -> None:
    """What a process has committed has to be there; afterwards it knows nothing any more, and goes on."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([use(1)]))
    with ledger.database.read() as connection:
        ledger.check(connection, "use")
    with ledger.database.write() as connection:
        connection.execute(ledger.common.entries.delete())
    with pytest.raises(Lost, match="put back"), ledger.database.read() as connection:
        ledger.check(connection, "use")
    with ledger.database.read() as connection:
        ledger.check(connection, "use")


def test_a_file_put_back_beneath_a_writer_is_noticed(tmp_path: Path) -> None:
    """SQLite's own backup, copied back in place while collectors have it open: numbers are given again, to others."""
    path, saved = tmp_path / "ledger.sqlite", tmp_path / "saved.sqlite"
    place = Place("sqlite", f"sqlite:///{path}")
    with closing(Database(place.url)) as database, closing(Database(place.url)) as second:
        ledger = prepared(database, USE, microseconds(SOON))
        ledger.write(batch([use(1, site="OLD")]))
        _copy(path, saved)
        ledger.write(batch([use(2, site="X")]))
        _copy(saved, path)
        other = prepared(second, USE, microseconds(SOON))
        other.write(batch([use(3, site="Y")]))
        ledger.write(batch([use(4, site="X")]))
        assert by_site(other) == {"OLD": 1, "X": 1, "Y": 1}
        assert found(other, tmp_path) == []


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def test_another_thread_may_number_meanwhile(open_database: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads while a transaction looks whether all is there, as to trace an archived record, is no loss."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.numbers.series_of(USE, batch([use(1, site="S")]).columns)
    series = ledger.numbers._series["use"]  # what it does inside.
    look = series._found_in  # as above.

    def meanwhile(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
        monkeypatch.setattr(series, "_found_in", look)
        found = look(connection, digests)
        series._recent[b"other"] = 99  # as above.
        return found

    monkeypatch.setattr(series, "_found_in", meanwhile)
    with ledger.database.read() as connection:
        ledger.check(connection, "use")
    ledger.numbers.settle(1)
    assert series._recent == {b"other": 99}, "it was not looked at"  # as above.


def test_numbers_are_read_again_only_where_they_are_new(open_database: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of series that are known asks for one row, the entry of the one before."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([use(1)]))
    asked: list[object] = []
    numbers = ledger.numbers
    for each in (numbers._producers, *numbers._series.values()):  # what it does inside.
        monkeypatch.setattr(each, "_found_in", lambda *_: asked.append(1))
    ledger.write(batch([use(2)]))
    assert not asked
