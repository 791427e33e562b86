"""The ledger's tables follow the kinds: by themselves where nothing is at stake, else by command, else not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ledger_databases import prepared
from sqlalchemy import MetaData, event, inspect, select, text
from viewers import answered

from accounting import LedgerError
from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.corrections.correction import Action, Draft, Selection
from accounting.corrections.deciding import approve, propose, reverse
from accounting.ledger import Ledger
from accounting.migrations import changing, filling, revisions, standing
from accounting.migrations.differences import Step
from accounting.migrations.upgrade import prepare, upgrade
from accounting.periods.closing import close, reopen
from accounting.periods.signatures import sign, verified_periods
from accounting.tables import ENTRY, ID, SERIES, CommonTables, KindTables
from accounting.upkeep.months import parse_month
from siteward.kinds import load_kinds
from siteward.query import Filter, QueryError
from siteward.records import (
    Combine,
    Dimension,
    Former,
    Interval,
    Kind,
    Measure,
    kind_from_table,
    kind_of,
    microseconds,
)
from siteward.server.database import Conflict, Database
from siteward.sinks import Batch, Outcome, SinkUnavailable
from siteward.usage import AsOf, Attribution, Quantity, UsageQuery, WantedUsage

FIRST: Final = datetime(2026, 1, 30, tzinfo=UTC)
NOW: Final = microseconds(FIRST + timedelta(days=2))
LATER: Final = microseconds(FIRST + timedelta(days=34))
JANUARY: Final = parse_month("2026-01")
SECOND: Final = 1_000_000
Open = Callable[[], Database]
DIMENSIONS: Final[dict[str, Any]] = {
    "site": {"doc": "where"},
    "user": {"doc": "who", "optional": True},
    "name": {"doc": "its own", "bucketed": False},
}
MEASURES: Final[dict[str, Any]] = {
    "wall_time": {"doc": "elapsed", "unit": "s"},
    "cpu_time": {"doc": "used", "unit": "s", "optional": True},
    "processors": {"doc": "allocated", "unit": "1"},
}
CORE_TIME: Final = {"core_time": {"factors": ["wall_time", "processors"], "unit": "s"}}
EFFICIENCY: Final = {"efficiency": {"numerator": "cpu_time", "denominator": "core_time", "unit": "1"}}
ITS_OWN: Final = {"name": {"doc": "its own"}}
COUNTRY: Final = {"country": {"doc": "of the site", "optional": True}}
MEMORY: Final = {"memory": {"doc": "used", "unit": "B", "optional": True}}


def kind(
    dimensions: dict[str, Any] | None = None, measures: dict[str, Any] | None = None, **more: dict[str, Any]
) -> Kind:
    """The kind `thing`, with these beside or instead of its usual fields; None takes one away."""
    fields = {
        "dimensions": {key: each for key, each in (DIMENSIONS | (dimensions or {})).items() if each is not None},
        "measures": {key: each for key, each in (MEASURES | (measures or {})).items() if each is not None},
    }
    return kind_from_table(
        "thing", {"doc": "A thing.", "shape": "interval", "identity": ["name", "end"], **fields, **more}
    )


OLD: Final = kind()


def things(of: Kind, *numbers: int, **values: Any) -> Batch:
    """Records of the kind, named by number; four hours from midnight, on 2 and 4 processors in turn."""
    start, end = microseconds(FIRST), microseconds(FIRST) + 4 * 3600 * SECOND
    given = {"vo": "v", "start": start, "end": end, "site": "S", "wall_time": 100, "cpu_time": 90}
    given |= {"simulated": False, "revision": 0, **values}
    columns = {column.name: [given.get(column.name, column.default)] * len(numbers) for column in of.columns}
    columns["name"] = [f"n{number}" for number in numbers]
    if "processors" in columns:
        columns["processors"] = [2 + number % 2 * 2 for number in numbers]
    ids = [(end // 1000).to_bytes(6, "big") + number.to_bytes(10, "big") for number in numbers]
    return Batch(of, ids, columns, ["p"] * len(numbers), [bytes(16)] * len(numbers), NOW)


def question(wanted: tuple[WantedUsage, ...], attribution: Attribution, by: tuple[str, ...] = ()) -> UsageQuery:
    """About the day of all records."""
    end = FIRST + timedelta(days=1)
    return UsageQuery(kind="thing", wanted=wanted, start=FIRST, end=end, attribution=attribution, by=by)


def totals(ledger: Ledger, *wanted: str, by: tuple[str, ...] = ()) -> Any:
    """The same totals in both attributions, or rows where there are groups."""
    parts = [each.partition(":") for each in wanted]
    columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in parts)
    found = []
    for attribution in (Attribution.PRORATED, Attribution.BY_END):
        answer = answered(ledger, question(columns, attribution, by))
        found.append([(*row.group, *row.values) for row in answer.rows] if by else answer.totals)
    assert found[0] == found[1]
    return found[0]


def steps(database: Database, new: Kind) -> dict[str, Step]:
    """What a dry run shows."""
    return {change.what: change.step for change in upgrade(database, {"thing": new}, dry_run=True)}


def test_revisions_make_the_tables_that_the_code_declares(open_database: Open) -> None:
    """Alembic's revisions, from an empty database on, end where the declarations are: nothing is left to generate."""
    database = open_database()
    prepare(database, {})
    metadata = MetaData()
    CommonTables(metadata)
    for table in (standing.KINDS, standing.COLUMNS):
        table.to_metadata(metadata)
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, type_, _: type_ != "table" or name in metadata.tables}
        )
        assert compare_metadata(context, metadata) == []
        assert revisions.present(connection) == revisions.newest()


def test_preparing_again_changes_nothing(open_database: Open) -> None:
    """Whoever comes second finds everything as it should be, and books at once."""
    first, second = (prepared(open_database(), OLD, NOW) for _ in range(2))
    assert first.write(things(OLD, 1)).outcomes == [Outcome.STORED]
    assert second.write(things(OLD, 1, 2)).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    assert upgrade(first.database, {"thing": OLD}) == []


def test_many_prepare_at_once(open_database: Open) -> None:
    """Six processes that start on an empty database all get their tables, and none an error."""
    databases = [open_database() for _ in range(6)]
    errors: list[BaseException] = []

    def start(database: Database, number: int) -> None:
        try:
            assert prepared(database, OLD, NOW).write(things(OLD, number)).outcomes == [Outcome.STORED]
        except BaseException as error:  # noqa: BLE001  # told below.
            errors.append(error)

    threads = [threading.Thread(target=start, args=(each, number)) for number, each in enumerate(databases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert totals(prepared(open_database(), OLD, NOW), "sum:wall_time", "records") == (600, 6)


def test_gained_dimension_leaves_series_as_they_are(open_database: Open) -> None:
    """Records of before have the default; a new one that has it too is of the same series as they are."""
    prepared(open_database(), OLD, NOW).write(things(OLD, 1))
    new = kind(COUNTRY)
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 2))
    ledger.write(things(new, 3, country="CH"))
    assert totals(ledger, "records", by=("country",)) == [("", 2), ("CH", 1)]
    series = ledger.tables["thing"].series
    with ledger.database.read() as connection:
        assert sorted(row.country for row in connection.execute(select(series))) == ["", "CH"]


def test_gained_measure_is_unknown_to_records_of_before(open_database: Open) -> None:
    """A mean is that of the records that know it; a revision of an old one takes away just what that had booked."""
    prepared(open_database(), OLD, NOW).write(things(OLD, 1, 2))
    new = kind(measures=MEMORY, products={"memory_time": {"factors": ["memory", "wall_time"], "unit": "1"}})
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 3, memory=7))
    assert totals(ledger, "sum:memory", "sum:memory_time", "sum:wall_time", "records") == (7, 700, 300, 3)
    assert ledger.write(things(new, 1, memory=5, wall_time=10, revision=1)).outcomes == [Outcome.REPLACED]
    assert totals(ledger, "sum:memory", "sum:memory_time", "sum:wall_time", "records") == (12, 750, 210, 3)


def test_gained_product_waits_for_a_person_and_is_then_that_of_all_records(open_database: Open) -> None:
    """What has to be computed for records of before is refused with the command, which computes it for each."""
    writer = prepared(open_database(), OLD, NOW)
    writer.write(things(OLD, 1, 2, 3))
    writer.write(things(OLD, 4, cpu_time=None))
    new = kind(products=CORE_TIME, ratios=EFFICIENCY)
    with pytest.raises(LedgerError, match=r"core_time: there is nothing, wanted is wall_time \* processors.*upgrade"):
        prepare(open_database(), {"thing": new})
    assert writer.write(things(OLD, 5)).outcomes == [Outcome.STORED]
    assert steps(open_database(), new) == {
        "core_time": Step.BY_UPGRADE,
        "_of_efficiency": Step.BY_UPGRADE,
    }
    upgrade(open_database(), {"thing": new})
    ledger = prepared(open_database(), new, NOW)
    assert totals(ledger, "sum:core_time", "ratio:efficiency", "records") == (1600, 360 / 1400, 5)
    ledger.write(things(new, 6))
    assert totals(ledger, "sum:core_time", "records") == (1800, 6)


def test_product_over_nothing_booked_comes_by_itself(open_database: Open) -> None:
    """Where there are no records nobody is asked."""
    prepare(open_database(), {"thing": OLD})
    new = kind(products=CORE_TIME)
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 1))
    assert totals(ledger, "sum:core_time") == (400,)


def test_changed_product_is_computed_anew(open_database: Open) -> None:
    """The same name for another product is shown as such, and after the command the old figures are gone."""
    old = kind(products=CORE_TIME)
    prepared(open_database(), old, NOW).write(things(old, 1))
    new = kind(products={"core_time": {"factors": ["cpu_time", "processors"], "unit": "s"}})
    (change,) = [each for each in upgrade(open_database(), {"thing": new}) if each.what == "core_time"]
    assert (change.present, change.wanted) == ("wall_time * processors", "cpu_time * processors")
    assert totals(prepared(open_database(), new, NOW), "sum:core_time", "records") == (360, 1)


SCORE: Final = {"score": {"doc": "of a processor", "unit": "m1", "combine": "mean", "optional": True}}
DELAY: Final = {"delay": {"doc": "took", "unit": "s", "type": "number", "combine": "mean", "optional": True}}
LATENCY: Final = {
    "latency": {
        "doc": "took",
        "unit": "us",
        "combine": "mean",
        "optional": True,
        "former": {"name": "delay", "times": 10**6},
    }
}


def mean_of(ledger: Ledger, measure: str, by: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    """The mean of a measure by end, in groups."""
    answer = answered(ledger, question((WantedUsage(Quantity.MEAN, measure),), Attribution.BY_END, by))
    return [(*row.group, *row.values) for row in answer.rows]


def test_means_are_held_from_an_upgrade_on(open_database: Open) -> None:
    """Of records of before, too: of those that know the measure."""
    old = kind(measures={"score": SCORE["score"] | {"averaged": False}})
    ledger = prepared(open_database(), old, NOW)
    ledger.write(things(old, 1, score=10))
    ledger.write(things(old, 2, score=15))
    ledger.write(things(old, 3))
    new = kind(measures=SCORE)
    assert steps(open_database(), new) == {"score": Step.BY_UPGRADE, "_known_score": Step.BY_UPGRADE}
    upgrade(open_database(), {"thing": new})
    assert mean_of(prepared(open_database(), new, NOW), "score") == [(12.5,)]


def test_a_measure_takes_another_ones_place(open_database: Open) -> None:
    """Records of before say in its unit what they said in the former field, and are in its mean."""
    old = kind(measures=DELAY)
    ledger = prepared(open_database(), old, NOW)
    ledger.write(things(old, 1, delay=0.0123455))
    ledger.write(things(old, 2, delay=None))
    new = kind(measures=LATENCY)
    with pytest.raises(LedgerError, match="latency: there is in records as delay, wanted is integer or unknown"):
        prepare(open_database(), {"thing": new})
    upgrade(open_database(), {"thing": new})
    after = prepared(open_database(), new, NOW)
    after.write(things(new, 3, latency=20_001))
    assert mean_of(after, "latency") == [((20_001 + 12_346) / 2,)]


TOOK: Final = {"took": {"doc": "took", "unit": "s", "type": "integer"}}
LASTED: Final = {"lasted": {"doc": "took", "unit": "us", "type": "integer", "former": {"name": "took", "times": 10**6}}}


def test_whole_numbers_are_taken_over_as_they_are(open_database: Open) -> None:
    """Sums are those of the finer unit from then on."""
    old, new = kind(measures=TOOK), kind(measures=LASTED)
    prepared(open_database(), old, NOW).write(things(old, 1, 2, took=3))
    upgrade(open_database(), {"thing": new})
    after = prepared(open_database(), new, NOW)
    after.write(things(new, 3, lasted=1))
    assert totals(after, "sum:lasted", "records") == (6_000_001, 3)


def test_what_no_whole_number_holds_is_named_before_anything_is_changed(open_database: Open) -> None:
    """In place of whatever each database would make of it; the ledger is as it was."""
    old, new = kind(measures=TOOK), kind(measures=LASTED)
    prepared(open_database(), old, NOW).write(things(old, 1, took=10**13))
    with pytest.raises(LedgerError, match="thing: a record says 10000000000000 in took: no whole number holds 1000000"):
        upgrade(open_database(), {"thing": new})
    assert totals(prepared(open_database(), old, NOW), "sum:took") == (10**13,)


FINER: Final = Measure("took", unit="us", combine=Combine.MEAN, former=Former("delay", 10**6))


@pytest.mark.parametrize("is_archived", [False, True])
def test_a_measure_with_a_default_takes_another_ones_place(
    open_database: Open, tmp_path: Path, *, is_archived: bool
) -> None:
    """Records of before say what they said, and the default where they said nothing; in the database and in files."""

    class Coarse(Interval, kind="thing", identity=("name", "end")):
        """A thing."""

        name: Annotated[str, Dimension("its own", bucketed=False)]
        delay: Annotated[float | None, Measure("took", unit="s", combine=Combine.MEAN)] = None

    class Finer(Interval, kind="thing", identity=("name", "end")):
        """A thing."""

        name: Annotated[str, Dimension("its own", bucketed=False)]
        latency: Annotated[int, FINER] = 8

    class Unaveraged(Interval, kind="thing", identity=("name", "end")):
        """A thing, of which nothing has to be computed from records that are not there."""

        name: Annotated[str, Dimension("its own", bucketed=False)]
        latency: Annotated[int, msgspec.structs.replace(FINER, averaged=False)] = 8

    old, new = kind_of(Coarse), kind_of(Unaveraged if is_archived else Finer)
    ledger = prepared(open_database(), old, NOW)
    ledger.write(things(old, 1, delay=0.5))
    ledger.write(things(old, 2))
    files = list(archive(ledger, tmp_path, FIRST + timedelta(days=2))) if is_archived else []
    upgrade(open_database(), {"thing": new})
    after = prepared(open_database(), new, NOW)
    for each in files:
        restore(after, tmp_path, each.file)
    assert mean_of(after, "latency") == [(250_004.0,)]
    after.write(things(new, 3, latency=100_000))
    assert mean_of(after, "latency") == [(600_008 / 3,)]


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize(
    ("before", "now"), [("max", "sum"), ("mean", "sum"), ("last", "sum"), ("sum", "max"), ("sum", "mean")]
)
def test_a_measure_that_combines_otherwise_is_booked_anew(
    open_database: Open, before: str, now: str, *, optional: bool
) -> None:
    """It is a difference, and after the command sums and means are those of all records."""
    of = {
        each: kind(measures={"memory": MEMORY["memory"] | {"optional": optional, "combine": each}})
        for each in (before, now)
    }
    old, new = of[before], of[now]
    prepared(open_database(), old, NOW).write(things(old, 1, 2, memory=7))
    with pytest.raises(LedgerError, match=r"memory: there is memory.*wanted is memory.*siteward ledger upgrade"):
        prepare(open_database(), {"thing": new})
    upgrade(open_database(), {"thing": new})
    ledger = prepared(open_database(), new, NOW)
    assert ledger.write(things(new, 3, memory=10)).outcomes == [Outcome.STORED]
    assert mean_of(ledger, "memory") == [(8.0,)]
    if now == "sum":
        assert totals(ledger, "sum:memory", "records") == (24, 3)
    assert upgrade(open_database(), {"thing": new}) == []
    # And back, with what the other declaration has left in its columns.
    upgrade(open_database(), {"thing": old})
    back = prepared(open_database(), old, NOW)
    back.write(things(old, 4, memory=12))
    assert mean_of(back, "memory") == [(9.0,)]
    if before == "sum":
        assert totals(back, "sum:memory", "records") == (36, 4)


def test_intervals_hold_the_same_of_a_peak_and_of_a_mean(open_database: Open) -> None:
    """Nothing has to be computed where nothing else is booked, so archived records may stay where they are."""
    old, new = (kind(measures={"memory": MEMORY["memory"] | {"combine": each}}) for each in ("max", "mean"))
    prepared(open_database(), old, NOW).write(things(old, 1, 2, memory=7))
    assert steps(open_database(), new) == {}
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 3, memory=10))
    assert mean_of(ledger, "memory") == [(8.0,)]


def test_a_file_of_before_says_what_the_former_field_said(open_database: Open, tmp_path: Path) -> None:
    """Restored after the upgrade, its records have the measure that took that field's place."""
    old = kind(measures=DELAY)
    ledger = prepared(open_database(), old, NOW)
    ledger.write(things(old, 1, delay=0.5))
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=2))
    new = kind(measures={"latency": LATENCY["latency"] | {"averaged": False}})
    upgrade(open_database(), {"thing": new})
    after = prepared(open_database(), new, NOW)
    restore(after, tmp_path, file.file)
    assert mean_of(after, "latency") == [(500_000.0,)]


def test_a_dimension_of_records_enters_the_buckets(open_database: Open) -> None:
    """Records of before are in groups by it after the command, also those that were revised since."""
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1, 2))
    new = kind({"name": {"doc": "its own"}})
    with pytest.raises(LedgerError, match="name: there is in records as name, wanted is string"):
        prepare(open_database(), {"thing": new})
    upgrade(open_database(), {"thing": new})
    after = prepared(open_database(), new, NOW)
    after.write(things(new, 2, revision=1, wall_time=7))
    after.write(things(new, 3, wall_time=50))
    assert totals(after, "sum:wall_time", "records", by=("name",)) == [("n1", 100, 1), ("n2", 7, 1), ("n3", 50, 1)]
    assert totals(after, "sum:wall_time", "records") == (157, 3)


def test_a_dimension_enters_in_portions(open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records and values there are: each record is written once, by its key, older revisions too."""
    monkeypatch.setattr(filling, "AT_ONCE", 20)
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, *range(50)))
    for revision in range(1, 4):
        ledger.write(things(OLD, *range(15), revision=revision, wall_time=100 + revision))
    new, database = kind({"name": {"doc": "its own"}}), open_database()
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    upgrade(database, {"thing": new})
    # For each portion one, not for each value: of fifty records and 45 older revisions.
    assert len([each for each in statements if each.startswith("UPDATE accounting_thing_")]) == 3 + 3
    after = prepared(open_database(), new, NOW)
    assert sorted(totals(after, "sum:wall_time", "records", by=("name",))) == sorted(
        (f"n{number}", 103 if number < 15 else 100, 1) for number in range(50)
    )
    tables = after.tables["thing"]
    chosen = select(tables.superseded.c[ID], tables.series.c.name).join_from(
        tables.superseded, tables.series, tables.superseded.c[SERIES] == tables.series.c[SERIES]
    )
    with after.database.read() as connection:
        found = sorted((int.from_bytes(row[0][6:]), row[1]) for row in connection.execute(chosen))
    assert found == [(number, f"n{number}") for number in range(15) for _ in range(3)]


def signed(database: Database) -> Ledger:
    """A ledger of OLD whose only month is closed and signed, with an adjustment since."""
    ledger = prepared(database, OLD, LATER)
    ledger.write(things(OLD, 1, 2))
    close(ledger, "thing", JANUARY, "dora")
    sign(ledger, "thing", JANUARY, "emil")
    ledger.write(things(OLD, 5))
    return ledger


def test_signed_sums_of_a_lost_measure_keep_a_dimension_out(open_database: Open) -> None:
    """Buckets made anew would be without them: refused, and nothing is changed; by two upgrades it goes."""
    ledger = signed(open_database())
    entered, both = kind(ITS_OWN), kind(ITS_OWN, measures={"processors": None})
    with pytest.raises(LedgerError, match=r"2026-01 closed with sums that the kind no longer has: processors; .*still"):
        upgrade(open_database(), {"thing": both})
    assert [each.is_right for each in verified_periods(ledger)] == [True]
    assert ledger.write(things(OLD, 6)).outcomes == [Outcome.STORED]
    for new in (entered, both):
        upgrade(open_database(), {"thing": new})
        after = prepared(open_database(), new, LATER)
        assert [each.is_right for each in verified_periods(after)] == [True]
    assert totals(after, "sum:wall_time", "records") == (400, 4)


def test_signed_sums_of_a_measure_that_was_lost_before_keep_a_dimension_out(open_database: Open) -> None:
    """Until it is declared again; then all figures come from the records."""
    signed(open_database())
    less = kind(measures={"processors": None})
    upgrade(open_database(), {"thing": less})
    with pytest.raises(LedgerError, match="no longer has: processors"):
        upgrade(open_database(), {"thing": kind(ITS_OWN, measures={"processors": None})})
    assert [each.is_right for each in verified_periods(prepared(open_database(), less, LATER))] == [True]
    again = kind(ITS_OWN, measures={"processors": MEASURES["processors"] | {"optional": True}})
    upgrade(open_database(), {"thing": again})
    assert [each.is_right for each in verified_periods(prepared(open_database(), again, LATER))] == [True]


def test_a_reopened_month_keeps_no_dimension_out(open_database: Open) -> None:
    """Its figures are nobody's any more."""
    ledger = signed(open_database())
    reopen(ledger, "thing", JANUARY, "dora", "measures change")
    new = kind(ITS_OWN, measures={"processors": None})
    upgrade(open_database(), {"thing": new})
    assert totals(prepared(open_database(), new, LATER), "records", by=("name",)) == [("n1", 1), ("n2", 1), ("n5", 1)]


def test_lost_fields_stay_and_come_back(open_database: Open) -> None:
    """A kind loses a dimension, a measure and a product by command; when they come back, totals are the records'."""
    old = kind(COUNTRY, products=CORE_TIME)
    ledger = prepared(open_database(), old, NOW)
    ledger.write(things(old, 1, country="CH"))
    less = kind(measures={"processors": None})
    with pytest.raises(LedgerError, match="processors: there is integer, wanted is nothing"):
        prepare(open_database(), {"thing": less})
    upgrade(open_database(), {"thing": less})
    meanwhile = prepared(open_database(), less, NOW)
    meanwhile.write(things(less, 2))
    assert totals(meanwhile, "sum:wall_time", "records") == (200, 2)
    back = kind(COUNTRY, measures={"processors": MEASURES["processors"] | {"optional": True}}, products=CORE_TIME)
    with pytest.raises(LedgerError, match="core_time: there is left"):
        prepare(open_database(), {"thing": back})
    upgrade(open_database(), {"thing": back})
    again = prepared(open_database(), back, NOW)
    assert totals(again, "sum:core_time", "sum:processors", "records", by=("country",)) == [
        ("", 0, 0, 1),
        ("CH", 400, 4, 1),
    ]


@pytest.mark.parametrize(
    ("new", "hint"),
    [
        (
            kind(measures={"wall_time": None}, dimensions={"wall_time": {"doc": "text", "bucketed": False}}),
            "type of wall",
        ),
        (kind({"site": {"doc": "where", "max_length": 10}}), "length of site: there is 255, wanted is 10"),
        (kind({"user": {"doc": "who"}}), "default of user: there is ''"),
        (kind(measures={"cpu_time": {"doc": "used", "unit": "s"}}), "knowledge of cpu_time: there is maybe unknown"),
        (kind({"group": {"doc": "of the user"}}), "group: there is nothing, wanted is string of 255 without a default"),
    ],
)
def test_what_would_change_the_past_is_refused(open_database: Open, new: Kind, hint: str) -> None:
    """Another type, a shorter text, another default, a certainty that old records do not have: refused by name."""
    writer = prepared(open_database(), OLD, NOW)
    writer.write(things(OLD, 1))
    with pytest.raises(LedgerError, match=f"(?s){hint}.*cannot be changed"):
        prepare(open_database(), {"thing": new})
    assert Step.NEVER in steps(open_database(), new).values()
    upgrade(open_database(), {"thing": new})
    assert writer.write(things(OLD, 2)).outcomes == [Outcome.STORED]


def test_a_certainty_that_the_former_field_did_not_have_is_refused(open_database: Open) -> None:
    """Records of before that said nothing there would have nothing in a measure that is always known."""
    writer = prepared(open_database(), OLD, NOW)
    writer.write(things(OLD, 1))
    used = {"doc": "used", "unit": "ms", "former": {"name": "cpu_time", "times": 1000}}
    new = kind(measures={"cpu_time": None, "used": used})
    hint = "used: there is in records as cpu_time, wanted is integer without a default"
    with pytest.raises(LedgerError, match=f"(?s){hint}.*cannot be changed"):
        prepare(open_database(), {"thing": new})
    (refused,) = (each for each in upgrade(open_database(), {"thing": new}) if each.step is Step.NEVER)
    assert refused.what == "used"
    assert writer.write(things(OLD, 2)).outcomes == [Outcome.STORED]
    maybe = kind(measures={"cpu_time": None, "used": used | {"optional": True}})
    upgrade(open_database(), {"thing": maybe})
    assert totals(prepared(open_database(), maybe, NOW), "sum:used", "records") == (180_000, 2)


def test_longer_texts_find_room(open_database: Open) -> None:
    """A dimension may get longer; what fits now is stored to the last character."""
    prepared(open_database(), OLD, NOW).write(things(OLD, 1))
    new = kind(
        {"site": {"doc": "where", "max_length": 3000}, "name": {"doc": "n", "max_length": 900, "bucketed": False}}
    )
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 2, site="é" * 3000))
    assert totals(ledger, "records", by=("site",)) == [("S", 1), ("é" * 3000, 1)]


def test_required_becomes_optional(open_database: Open) -> None:
    """A measure may become one that records lack; those that know it are counted after the command."""
    prepared(open_database(), OLD, NOW).write(things(OLD, 1, 2))
    new = kind(measures={"wall_time": MEASURES["wall_time"] | {"optional": True}})
    upgrade(open_database(), {"thing": new})
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 3, wall_time=None))
    mean = (WantedUsage(Quantity.MEAN, "wall_time"),)
    assert answered(ledger, question(mean, Attribution.BY_END)).totals == (100.0,)


def test_writer_of_an_older_declaration_waits(open_database: Open) -> None:
    """A process that does not know a new product would leave it out of sums: it books nothing, and says why."""
    writer = prepared(open_database(), OLD, NOW)
    writer.write(things(OLD, 1))
    new = kind(products=CORE_TIME)
    upgrade(open_database(), {"thing": new})
    with pytest.raises(SinkUnavailable, match="start this process again"):
        writer.write(things(OLD, 2))
    assert totals(prepared(open_database(), new, NOW), "sum:core_time", "records") == (400, 1)


def test_killed_upgrade_is_taken_up_again(open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that dies between the columns and their sums leaves no half-computed figure, and is repeated."""
    writer = prepared(open_database(), OLD, NOW)
    writer.write(things(OLD, 1, 2))
    new = kind(COUNTRY, MEMORY, products=CORE_TIME)

    def die(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("accounting.migrations.upgrade.recompute", die)
        with pytest.raises(KeyboardInterrupt):
            upgrade(open_database(), {"thing": new})
    if "memory" in {
        column["name"] for column in inspect(open_database().engine).get_columns("accounting_thing_records")
    }:
        with pytest.raises(SinkUnavailable, match="being changed"):
            writer.write(things(OLD, 3))
    else:
        assert writer.write(things(OLD, 3)).outcomes == [Outcome.STORED]
    upgrade(open_database(), {"thing": new})
    ledger = prepared(open_database(), new, NOW)
    ledger.write(things(new, 3, 4))
    assert totals(ledger, "sum:core_time", "sum:wall_time", "records") == (1200, 400, 4)


def test_killed_upgrade_leaves_the_older_declaration_its_ledger(
    open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes back to the declaration of before opens the ledger and books as if nothing had been."""
    prepared(open_database(), OLD, NOW).write(things(OLD, 1))
    with monkeypatch.context() as patch:
        patch.setattr("accounting.migrations.upgrade.recompute", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            upgrade(open_database(), {"thing": kind(COUNTRY, products=CORE_TIME)})
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 2))
    assert totals(ledger, "sum:wall_time", "records") == (200, 2)


def test_sums_are_not_made_up_from_a_part_of_the_records(open_database: Open) -> None:
    """Where records were archived a new product cannot be computed; the command says so and changes nothing."""
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1, 2))
    with ledger.database.write() as connection:
        connection.execute(ledger.tables["thing"].records.delete().where(text("name = 'n1'")))
    with pytest.raises(LedgerError, match="2 records are booked and 1 are in the database"):
        upgrade(open_database(), {"thing": kind(products=CORE_TIME)})
    with pytest.raises(LedgerError, match="siteward ledger upgrade"):
        prepare(open_database(), {"thing": kind(products=CORE_TIME)})


@pytest.mark.parametrize("new", [kind(products=CORE_TIME), kind({"name": {"doc": "its own"}})])
def test_what_was_archived_is_restored_by_the_version_before(open_database: Open, tmp_path: Path, new: Kind) -> None:
    """A refused upgrade, or start, changes nothing on any database: writers go on, and restoring is possible."""
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1, 2))
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=2))
    former = revisions._scripts().get_revision(revisions.newest()).down_revision
    with ledger.database.write() as connection:
        connection.execute(text(f"UPDATE {revisions.VERSION_TABLE} SET version_num = '{former}'"))
    with pytest.raises(LedgerError, match="the Siteward and the declaration of before, then upgrade"):
        upgrade(open_database(), {"thing": new})
    with pytest.raises(LedgerError, match="siteward ledger upgrade"):
        prepare(open_database(), {"thing": new, "level": level(USED)})
    with ledger.database.read() as connection:
        assert revisions.present(connection) == former
        assert not inspect(connection).has_table("accounting_level_records")
    assert ledger.write(things(OLD, 3)).outcomes == [Outcome.STORED]
    assert restore(ledger, tmp_path, file.file) == 2
    upgrade(open_database(), {"thing": new})
    assert totals(prepared(open_database(), new, NOW), "sum:wall_time", "records") == (300, 3)


def test_product_too_large_for_a_bucket_is_refused_by_record(open_database: Open) -> None:
    """A record whose new product exceeds what a bucket holds is named, and nothing is changed."""
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1, wall_time=2**52, cpu_time=2**52))
    new = kind(products={"odd": {"factors": ["wall_time", "cpu_time"], "unit": "1"}})
    with pytest.raises(LedgerError, match=r"record 0[0-9a-f]{31}: .*odd"):
        upgrade(open_database(), {"thing": new})


def test_many_records_are_computed_in_portions(open_database: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records there are, some are in memory at a time, and each counts once."""
    monkeypatch.setattr(changing, "AT_ONCE", 7)
    prepared(open_database(), OLD, NOW).write(things(OLD, *range(50)))
    new = kind(products=CORE_TIME)
    upgrade(open_database(), {"thing": new})
    assert totals(prepared(open_database(), new, NOW), "sum:core_time", "records") == (15_000, 50)


def test_database_of_a_newer_siteward_is_refused(open_database: Open) -> None:
    """A revision that nobody knows here is named, and nothing is touched."""
    database = open_database()
    prepare(database, {"thing": OLD})
    with database.write() as connection:
        connection.execute(text(f"UPDATE {revisions.VERSION_TABLE} SET version_num = 'r9999'"))
    for attempt in (prepare, upgrade):
        with pytest.raises(LedgerError, match=r"newer Siteward.*r9999"):
            attempt(open_database(), {"thing": OLD})


def test_one_at_a_time(open_database: Open) -> None:
    """While one process prepares, another one waits; in the end it says that it should come again."""
    first, second = open_database(), open_database()
    second.dialect = type(second.dialect)()
    second.dialect.longest_wait = 1
    if second.engine.dialect.name == "sqlite":
        second.engine.dispose()
        second = open_database()
        with second.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 200")
    with first.alone("x") as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(Conflict), second.alone("x") as other:
            other.execute(text("SELECT 1"))
    with second.alone("x") as other:
        assert other.execute(text("SELECT 1")).scalar() == 1


def test_entries_say_when_records_came(open_database: Open) -> None:
    """Tables made by revisions take what the ledger writes into them."""
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1))
    with ledger.database.read() as connection:
        (entry,) = connection.execute(select(ledger.common.entries)).mappings()
        records = KindTables(OLD, MetaData()).records
        assert [row[ENTRY] for row in connection.execute(select(records)).mappings()] == [entry[ENTRY]]
    assert (entry["kind"], entry["action"], entry["at"]) == ("thing", "received", NOW)


def test_ledger_of_before_arrivals_were_counted_counts_them(open_database: Open) -> None:
    """A database that was made before is brought up when it is opened, keeps its totals, and books on."""
    before = prepared(open_database(), OLD, NOW)
    before.write(things(OLD, 1))
    former = revisions._scripts().get_revision("r0003").down_revision
    with before.database.write() as connection:
        for table in (before.common.arrivals, before.common.rebuilds):
            table.drop(connection)
        connection.execute(text(f"UPDATE {revisions.VERSION_TABLE} SET version_num = '{former}'"))
    ledger = prepared(open_database(), OLD, NOW)
    assert ledger.write(things(OLD, 1, 2)).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    with ledger.database.read() as connection:
        assert connection.execute(select(ledger.common.arrivals.c.records)).scalars().all() == [1]


def test_a_ledger_from_before_corrections_gets_their_tables(open_database: Open) -> None:
    """What is booked stays; who still writes as before, and would keep no revision, waits and says so."""
    old, former = prepared(open_database(), OLD, NOW), bytes(range(16))
    old.write(things(OLD, 1, 2))
    tables = old.tables["thing"]
    with old.database.write() as connection:
        mine = [tables.originals, tables.superseded, tables.corrected, tables.adjustments]
        old.metadata.drop_all(connection, [*mine, old.common.corrections, old.common.periods])
        connection.execute(text(f"UPDATE {revisions.VERSION_TABLE} SET version_num = 'r0001'"))
        connection.execute(standing.KINDS.update().values(digest=former))
    writer = Ledger(open_database(), {"thing": OLD}, lambda: NOW, {"thing": former})
    new = prepared(open_database(), OLD, NOW)
    assert totals(new, "sum:wall_time", "records") == (200, 2)
    with pytest.raises(SinkUnavailable, match="start this process again with the declaration in force"):
        writer.write(things(OLD, 3))
    assert new.write(things(OLD, 1, wall_time=5, revision=1)).outcomes == [Outcome.REPLACED]
    with new.database.read() as connection:
        assert [row.wall_time for row in connection.execute(select(tables.superseded))] == [100]
        assert [index["column_names"] for index in inspect(connection).get_indexes(tables.corrected.name)] == [[ID]]


def of_closing(measure: str) -> UsageQuery:
    """The sum of a measure as of closing."""
    return UsageQuery(
        kind="thing",
        wanted=(WantedUsage(Quantity.SUM, measure),),
        start=FIRST,
        end=FIRST + timedelta(days=1),
        attribution=Attribution.BY_END,
        as_of=AsOf.CLOSING,
    )


def test_what_a_kind_gains_is_no_part_of_what_was_signed(open_database: Open) -> None:
    """The digest stays right, corrections of before can be taken back, new measures have no figure as of closing."""
    january = parse_month("2026-01")
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1, 2))
    draft = Draft(
        kind="thing",
        action=Action.MOVE,
        selection=Selection(where=("name=n1",), start=NOW - 10**12, end=NOW),
        given={"site": "T"},
        author="anna",
        reason="why",
    )
    number = approve(ledger, propose(ledger, draft).number, "ben").number
    close(ledger, "thing", january, "dora")
    sign(ledger, "thing", january, "emil")
    new = kind(COUNTRY | {"name": {"doc": "its own", "bucketed": False, "max_length": 500}}, MEMORY)
    after = prepared(open_database(), new, NOW)
    after.write(things(new, 2, memory=7, country="CH", revision=1))
    after.write(things(new, 1, revision=1))
    assert totals(after, "records", "sum:memory", by=("site",)) == [("S", 1, 7), ("T", 1, 0)]
    reverse(after, number, "carl", "it was right")
    assert totals(after, "records", "sum:memory", by=("site",)) == [("S", 2, 7)]
    assert [each.is_right for each in verified_periods(after)] == [True]
    with pytest.raises(QueryError, match="memory of thing was declared after 2026-01 was closed"):
        answered(after, of_closing("memory"))


def test_figures_as_of_closing_are_not_told_apart_by_what_came_into_buckets_since(open_database: Open) -> None:
    """Adjustments of before do not know that dimension: by it, a change would be taken from the wrong group."""
    ledger = prepared(open_database(), OLD, NOW)
    ledger.write(things(OLD, 1, 2))
    close(ledger, "thing", parse_month("2026-01"), "dora")
    ledger.write(things(OLD, 1, revision=1, wall_time=40))
    new = kind({"name": {"doc": "its own", "max_length": 500}})
    upgrade(open_database(), {"thing": new})
    after = prepared(open_database(), new, NOW)
    asked = of_closing("wall_time")
    assert answered(after, asked).totals == (200,)
    one = (Filter(field="name", values=("n1",)),)
    for by_name in (msgspec.structs.replace(asked, by=("name",)), msgspec.structs.replace(asked, filters=one)):
        with pytest.raises(QueryError, match="name of thing was declared after 2026-01 was closed"):
            answered(after, by_name)


USED: Final[dict[str, Any]] = {"used": {"doc": "taken", "unit": "B"}}
FILES: Final = {"files": {"doc": "stored", "unit": "1", "optional": True}}
COPIES: Final = {"copies": {"doc": "of each", "unit": "1", "optional": True}}


def level(measures: dict[str, Any], **more: Any) -> Kind:
    """A kind of snapshots with these measures."""
    dimensions = {"site": {"doc": "where"}}
    return kind_from_table(
        "level", {"doc": "A level.", "shape": "snapshot", "dimensions": dimensions, "measures": measures, **more}
    )


def levels(of: Kind, *hours: int, **values: Any) -> Batch:
    """Records of the kind, one for each hour of the day."""
    given: dict[str, Any] = {"vo": "v", "producer": "p", "cycle_size": 1, "site": "S", "used": 100, "simulated": False}
    given |= {"revision": 0, **values}
    columns = {column.name: [given.get(column.name, column.default)] * len(hours) for column in of.columns}
    times = [microseconds(FIRST) + hour * 3600 * SECOND for hour in hours]
    columns["time"] = [*times]
    ids = [(time // 1000).to_bytes(6, "big") + bytes(10) for time in times]
    return Batch(of, ids, columns, ["p"] * len(hours), [bytes(16)] * len(hours), NOW)


def level_totals(ledger: Ledger, *wanted: str) -> Any:
    """Totals over the day of all records."""
    parts = [each.partition(":") for each in wanted]
    columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in parts)
    asked = question(columns, Attribution.AT_INSTANT)
    return answered(ledger, msgspec.structs.replace(asked, kind="level")).totals


def test_a_ledger_without_snapshots_gets_their_tables(open_database: Open) -> None:
    """One that was made when snapshots were left aside is brought up at the start, and goes on with what it has."""
    prepared(open_database(), OLD, NOW).write(things(OLD, 1))
    kinds = {"thing": OLD, "level": level(USED)}
    database = open_database()
    ledger = Ledger(database, kinds, lambda: NOW, prepare(database, kinds))
    assert ledger.write(levels(kinds["level"], 0, 1)).outcomes == [Outcome.STORED] * 2
    assert level_totals(ledger, "mean:used", "cycles") == (100.0, 2)
    assert totals(ledger, "sum:wall_time", "records") == (100, 1)


def test_a_ledger_whose_snapshots_were_not_corrected_gets_what_that_needs(
    open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers of before wait until they are started anew: they would not look for corrections."""
    kind = level(USED)
    monkeypatch.setattr("accounting.migrations.meaning.PRACTICE", 2)
    before = prepared(open_database(), kind, NOW)
    before.write(levels(kind, 0))
    tables = before.snapshots["level"]
    with before.database.write() as connection:
        for table in (tables.originals, tables.corrected):
            table.drop(connection)
    monkeypatch.undo()
    ledger = prepared(open_database(), kind, NOW)
    with ledger.database.read() as connection:
        there = set(inspect(connection).get_table_names())
    assert {tables.originals.name, tables.corrected.name} <= there
    assert ledger.write(levels(kind, 0, 1)).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    with pytest.raises(SinkUnavailable, match="start this process again"):
        before.write(levels(kind, 2))


def test_a_gained_measure_of_snapshots_was_unknown(open_database: Open) -> None:
    """It comes by itself, and least and last are those of the records that know it."""
    prepared(open_database(), level(USED), NOW).write(levels(level(USED), 0, 1))
    new = level(USED | FILES)
    ledger = prepared(open_database(), new, NOW)
    ledger.write(levels(new, 2, files=7))
    asked = ("min:files", "last:files", "mean:files", "max:used", "cycles")
    assert level_totals(ledger, *asked) == (7, 7, 7.0, 100, 3)


def test_a_gained_product_of_snapshots_is_computed_anew(open_database: Open) -> None:
    """By command, from all records: what was least, most and last goes with the sums."""
    old = level(USED | COPIES)
    writer = prepared(open_database(), old, NOW)
    writer.write(levels(old, 0, copies=3))
    writer.write(levels(old, 1, copies=2))
    new = level(USED | COPIES, products={"stored": {"factors": ["used", "copies"], "unit": "B"}})
    with pytest.raises(LedgerError, match="stored: there is nothing, wanted is used"):
        prepare(open_database(), {"level": new})
    upgrade(open_database(), {"level": new})
    ledger = prepared(open_database(), new, NOW)
    asked = ("min:stored", "max:stored", "last:stored", "sum:stored", "min:used", "records", "cycles")
    assert level_totals(ledger, *asked) == (200, 300, 200, 500, 100, 2, 2)


@pytest.mark.parametrize(("before", "now"), [*permutations(("sum", "mean", "max", "last"), 2)])
def test_a_measure_of_snapshots_that_combines_otherwise_is_booked_anew(
    open_database: Open, before: str, now: str
) -> None:
    """What was last of series is what they come to by the new declaration, of records of before and of new ones."""

    def both(combine: str) -> Kind:
        return level({name: each | {"combine": combine} for name, each in (USED | FILES).items()})

    def write(ledger: Ledger, of: Kind, hour: int, *values: int) -> None:
        for number, value in enumerate(values):
            batch = levels(of, hour, used=value, files=value)
            batch = msgspec.structs.replace(batch, ids=[each[:6] + number.to_bytes(10, "big") for each in batch.ids])
            assert ledger.write(batch).outcomes == [Outcome.STORED]

    old, new = both(before), both(now)
    writer = prepared(open_database(), old, NOW)
    write(writer, old, 0, 8)
    write(writer, old, 1, 20, 16)
    with pytest.raises(LedgerError, match=r"used: there is used.*wanted is used.*siteward ledger upgrade"):
        prepare(open_database(), {"level": new})
    upgrade(open_database(), {"level": new})
    ledger = prepared(open_database(), new, NOW)
    last = {"sum": 36, "mean": 18.0, "max": 20, "last": 20}[now]
    mean = 44 / 2 if now == "sum" else 44 / 3
    for name in ("used", "files"):
        asked = [f"{quantity}:{name}" for quantity in ("last", "mean", "min", "max")]
        assert level_totals(ledger, *asked) == (last, mean, 8, 20)
    write(ledger, new, 2, 4, 2)
    last = {"sum": 6, "mean": 3.0, "max": 4, "last": 4}[now]
    mean = 50 / 3 if now == "sum" else 50 / 5
    for name in ("used", "files"):
        asked = [f"{quantity}:{name}" for quantity in ("last", "mean", "min", "max")]
        assert level_totals(ledger, *asked) == (last, mean, 2, 20)
    assert upgrade(open_database(), {"level": new}) == []


def test_a_measure_never_becomes_a_counter(open_database: Open) -> None:
    """What was added up would be taken for differences: it is refused by name."""
    old = level(USED, identity=["site", "time"])
    prepared(open_database(), old, NOW).write(levels(old, 0))
    counting = {"used": USED["used"] | {"counter": True}}
    new = level(counting, identity=["site", "time"], since="started")
    with pytest.raises(LedgerError, match="type of used: there is integer, wanted is integer counter"):
        prepare(open_database(), {"level": new})


def test_what_counters_gain_is_that_of_their_differences(open_database: Open) -> None:
    """A new product is computed anew from what each record counted; a new counter was unknown, and counts from zero."""

    def meter(measures: dict[str, Any], **more: Any) -> Kind:
        counting = {"used": USED["used"] | {"counter": True}, "price": {"doc": "each", "unit": "1"}}
        return level(counting | measures, identity=["site", "time"], since="started", **more)

    def metered(of: Kind, hour: int, used: int, **values: Any) -> Batch:
        return levels(of, hour, started=microseconds(FIRST), used=used, price=hour, **values)

    def asked(ledger: Ledger, *wanted: str) -> Any:
        parts = [each.partition(":") for each in wanted]
        columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in parts)
        asking = msgspec.structs.replace(question(columns, Attribution.BY_END), kind="level")
        return answered(ledger, asking).totals

    old = meter({})
    writer = prepared(open_database(), old, NOW)
    for hour, used in ((1, 10), (3, 40), (2, 20)):
        writer.write(metered(old, hour, used))
    new = meter(
        {"heat": {"doc": "given", "unit": "J", "optional": True, "counter": True}},
        products={"cost": {"factors": ["used", "price"], "unit": "B"}},
    )
    upgrade(open_database(), {"level": new})
    ledger = prepared(open_database(), new, NOW)
    assert asked(ledger, "sum:used", "sum:cost", "sum:heat") == (40, 10 * 1 + 10 * 2 + 20 * 3, 0)
    ledger.write(metered(new, 4, 41, heat=7))
    assert asked(ledger, "sum:used", "sum:cost", "sum:heat", "records") == (41, 90 + 4, 7, 4)


SINCE_THEN: Final[dict[str, frozenset[str]]] = {
    "job": frozenset({"energy_method"}),
    "pilot": frozenset(
        {"gpu_model", "gpu_fraction", "gpu_time", "energy_method", "energy", "power"}
        | {"hs06", "hs23", "si2k", "core_hs06", "core_hs23", "core_si2k"}
    ),
    "cloud-vm": frozenset({"energy_method", "energy", "si2k", "core_si2k", "power"}),
}
"""Fields, products and ratios that our own kinds gained after the first ledgers."""


@pytest.mark.parametrize("name", SINCE_THEN)
def test_our_own_kinds_gain_fields_without_a_new_id_or_series(open_database: Open, name: str) -> None:
    """By themselves but for GPU time, of which records of before have some; what they booked is still a duplicate."""
    new, gained = load_kinds()[name], SINCE_THEN[name]
    declared = new.declaration
    former = Kind(
        msgspec.structs.replace(
            declared,
            columns=tuple(column for column in declared.columns if column.name not in gained),
            products={key: each for key, each in declared.products.items() if key not in gained},
            ratios={key: each for key, each in declared.ratios.items() if key not in gained},
            record=None,
        )
    )
    given = {"vo": "v", "start": NOW - 7200 * SECOND, "end": NOW, "time": NOW, "started": NOW - 7200 * SECOND}
    given |= {"site": "S", "wall_time": 7200, "gpus": 2, "local_job_id": "1", "reference": "1", "vm": "1"}
    given |= {"state": "started" if new.since else "unknown", "producer": "p"}

    def booked(ledger: Ledger, kind: Kind) -> tuple[Outcome, int, int]:
        row = kind.checked([given.get(column.name, column.default) for column in kind.columns], NOW)
        columns = {column.name: [getattr(row, column.name)] for column in kind.columns}
        outcome = ledger.write(Batch(kind, [kind.id_of(row)], columns, ["p"], [bytes(16)], NOW)).outcomes[0]
        tables = ledger.tables[name]
        with ledger.database.read() as connection:
            counts = [len(connection.execute(select(table)).all()) for table in (tables.records, tables.series)]
        return outcome, counts[0], counts[1]

    database = open_database()
    assert booked(prepared(database, former, NOW), former) == (Outcome.STORED, 1, 1)
    changes = upgrade(database, {name: new}, dry_run=True)
    assert {change.what.rpartition(" ")[2] for change in changes} >= gained - new.ratios.keys()
    waiting = [change.what for change in changes if change.step is not Step.AT_START]
    assert waiting == (["gpu_time"] if name == "pilot" else [])
    upgrade(database, {name: new})
    ledger = prepared(database, new, NOW)
    assert booked(ledger, new) == (Outcome.DUPLICATE, 1, 1)
    if name == "pilot":
        with database.read() as connection:
            rows = connection.scalars(select(ledger.tables[name].of_sums[1].c.gpu_time)).all()
        assert sum(rows) == 7200 * 2 * 1000
