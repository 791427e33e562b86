"""What a viewer may not see leaves no trace in any answer of the ledger, on every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import searched
from sqlalchemy import Table, delete
from viewers import EVERYTHING, KEY, PEOPLE, answered, asking, without_names

from accounting.archive.archiving import archive
from accounting.ledger import Ledger
from accounting.query import record_sums
from accounting.topology.attributes import Entry
from accounting.topology.topology_table import write_topology
from accounting.trace.figure_trace import trace
from accounting.trace.record_trace import trace_record
from accounting.trace.traced import Page
from accounting.upkeep.tiers import compact
from siteward.pseudonyms import pseudonym
from siteward.query import Filter, QueryError
from siteward.records import kind_from_table, microseconds
from siteward.server.database import Database
from siteward.sinks import Batch
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageAnswer, UsageQuery, WantedUsage
from siteward.viewer import Viewer, Visible

Open = Callable[[], Database]
Fields = dict[str, Any]
FIRST: Final = datetime(2026, 1, 30, tzinfo=UTC)
SECOND: Final = 1_000_000
DAY: Final = 86_400
RUN: Final = kind_from_table(
    "run",
    {
        "doc": "Something that ran.",
        "shape": "interval",
        "identity": ["name", "end"],
        "longest_days": 40,
        "dimensions": {
            "site": {"doc": "where"},
            "user": {"doc": "whose", "personal": True, "optional": True},
            "group": {"doc": "of whom", "optional": True},
            "name": {"doc": "its own", "bucketed": False},
        },
        "measures": {"wall_time": {"doc": "elapsed", "unit": "s"}},
    },
)
NOBODY: Final = kind_from_table(
    "nobody", {"doc": "Of nobody.", "shape": "event", "dimensions": {"site": {"doc": "where"}}, "measures": {}}
)
TOPOLOGY: Final = [
    Entry("user", PEOPLE.meet("user", "u"), "institute", "I"),
    Entry("user", PEOPLE.meet("user", "v"), "institute", "I"),
    Entry("site", "S", "country", "CH"),
]


@pytest.fixture
def database(open_database: Open) -> Database:
    """With the ledger's tables, empty but for the topology."""
    opened = open_database()
    ledger = ledger_on(opened)
    ledger.metadata.create_all(opened.engine)
    write_topology(opened, ledger.common.topology, TOPOLOGY, int(FIRST.timestamp()))
    return opened


def ledger_on(database: Database, now: datetime = FIRST + timedelta(days=300)) -> Ledger:
    return Ledger(database, {"run": RUN, "nobody": NOBODY}, lambda: microseconds(now))


def filled(
    database: Database,
    records: list[Fields],
    now: datetime = FIRST + timedelta(days=300),
    late: timedelta = timedelta(0),
) -> Ledger:
    """A ledger that holds these records, and nothing else; those of odd numbers came so much later."""
    ledger = ledger_on(database, now)
    with database.write() as connection:
        for table in tables_of(ledger):
            connection.execute(delete(table))
    for parity in (0, 1):
        ledger.clock = partial(microseconds, now + parity * late)
        some = [record for record in records if int(record["name"]) % 2 == parity]
        columns = {name: [record[name] for record in some] for name in RUN.names}
        ids = [record["_id"] for record in some]
        batch = Batch(RUN, ids, columns, ["test"] * len(some), [bytes(16)] * len(some), 0)
        ledger.write(without_names(batch))
    return ledger


def tables_of(ledger: Ledger) -> list[Table]:
    """All but the topology, and those of the kind of which there are no records."""
    tables = ledger.metadata.sorted_tables
    return [table for table in tables if table.name != "accounting_topology" and "nobody" not in table.name]


def run(number: int = 0, **changes: Any) -> Fields:
    start = microseconds(FIRST) + 3600 * SECOND
    fields: Fields = {
        "vo": "one",
        "start": start,
        "end": start + 7200 * SECOND,
        "site": "S",
        "user": "u",
        "group": "g",
        "name": str(number),
        "wall_time": 7200,
        "simulated": False,
        "revision": 0,
    } | changes
    return fields | {"_id": (fields["end"] // 1000).to_bytes(6, "big") + number.to_bytes(10, "big")}


def ask(ledger: Ledger, viewer: Viewer, *wanted: str, **changes: Any) -> UsageAnswer:
    texts = [text.partition(":") for text in wanted or ("records",)]
    columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in texts)
    question: Fields = {"kind": "run", "start": FIRST, "end": FIRST + timedelta(days=30)} | changes
    return answered(ledger, UsageQuery(wanted=columns, **question), viewer)


def hidden_names(visible: Visible = Visible.ALL, **of: Any) -> Viewer:
    return Viewer(visible=visible, names=False, **of)


def sees(viewer: Viewer, record: Fields) -> bool:
    """The same rule, said once more."""
    in_vo = viewer.visible is Visible.ALL or record["vo"] in viewer.vos
    in_group = viewer.visible is not Visible.GROUP or record["group"] == viewer.group
    return in_vo and in_group and (viewer.visible is not Visible.OWN or record["user"] == viewer.person)


@st.composite
def runs(draw: st.DrawFn) -> list[Fields]:
    """Records as they arrive, some in several revisions that may be somebody else's."""
    arrived = []
    for number in range(draw(st.integers(1, 8))):
        end = microseconds(FIRST) + draw(st.integers(0, 2 * DAY)) * SECOND
        arrived += [
            run(
                number,
                end=end,
                start=end - draw(st.integers(0, 5 * 3600)) * SECOND,
                vo=draw(st.sampled_from(["one", "two"])),
                site=draw(st.sampled_from(["S", "T"])),
                user=draw(st.sampled_from(["", "u", "v"])),
                group=draw(st.sampled_from(["", "g", "h"])),
                wall_time=draw(st.integers(0, 10**6)),
                revision=draw(st.integers(0, 1)),
            )
            for _ in range(draw(st.integers(1, 2)))
        ]
    return draw(st.permutations(arrived))


@st.composite
def viewers(draw: st.DrawFn) -> Viewer:
    visible = draw(st.sampled_from([Visible.VO, Visible.GROUP, Visible.OWN]))
    vos = draw(st.sampled_from([("one",), ("one", "three"), ("three",)]))
    return Viewer(visible=visible, names=draw(st.booleans()), vos=vos, group="g", person="u")


@st.composite
def questions(draw: st.DrawFn) -> UsageQuery:
    attribution = draw(st.sampled_from(OF_USAGE))
    wanted = ["sum:wall_time", "rate:wall_time", "records"]
    wanted += ["p50:wall_time", "max:wall_time", "mean:wall_time"] if attribution is Attribution.BY_END else ["started"]
    texts = [text.partition(":") for text in draw(st.lists(st.sampled_from(wanted), min_size=1, max_size=3))]
    start = FIRST + timedelta(seconds=draw(st.sampled_from([0, DAY]) | st.integers(0, 2 * DAY)))
    known = pseudonym(KEY, "user", draw(st.sampled_from(["u", "v", "nobody"])))
    names = ["vo", "site", "user", "group", "site.country", "user.institute"]
    return UsageQuery(
        kind="run",
        wanted=tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in texts),
        start=start,
        end=start + timedelta(seconds=draw(st.sampled_from([DAY, 2 * DAY]) | st.integers(1, 2 * DAY))),
        attribution=attribution,
        by=tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=2))),
        filters=draw(
            st.sampled_from(
                [
                    (),
                    (Filter("vo", ("two", "one")),),
                    (Filter("user", (known, "u")),),
                    (Filter("user", ("v",), negated=True),),
                    (Filter("site.country", ("CH",), negated=True),),
                ]
            )
        ),
        period=draw(st.sampled_from([Period.WHOLE, Period.DAY, Period.HOUR])),
        top=draw(st.integers(0, 2)),
    )


def told(ledger: Ledger, query: UsageQuery, viewer: Viewer) -> UsageAnswer | str:
    """The answer, or why there is none."""
    try:
        return answered(ledger, query, viewer)
    except QueryError as error:
        return str(error)


@searched(6)
@given(
    arrived=runs(),
    viewer=viewers(),
    query=questions(),
    days=st.tuples(st.sampled_from([0, 3, 12]), st.sampled_from([0, 12]), st.booleans()),
    is_gone=st.booleans(),
    limits=st.fixed_dictionaries(
        {name: st.sampled_from([10**6, 10**6, 10**6, 1, 4]) for name in ("MOST_LOOKED_AT", "MOST_READ")}
    ),
)
def test_no_answer_depends_on_what_is_invisible(
    database: Database,
    arrived: list[Fields],
    viewer: Viewer,
    query: UsageQuery,
    days: tuple[int, int, bool],
    is_gone: bool,  # noqa: FBT001  # hypothesis names it.
    limits: dict[str, int],
) -> None:
    """Two ledgers that differ in invisible records only give one answer, or one refusal, to every question.

    Whatever buckets of others are wide, and whichever records of theirs are gone, or too many.
    """
    shown = {record["_id"] for record in arrived if sees(viewer, record)}
    answers = []
    for records in (arrived, [record for record in arrived if record["_id"] in shown]):
        ledger = filled(database, records, FIRST + timedelta(days=days[0]), timedelta(days=days[1]))
        if days[2]:
            compact(ledger)
        if is_gone:
            table = ledger.tables["run"].records
            lost = [record["_id"] for record in records if record["_id"] not in shown or record["_id"][-1] % 3 == 0]
            with database.write() as connection:
                connection.execute(delete(table).where(table.c["_id"].in_(lost)))
        with pytest.MonkeyPatch.context() as patch:
            for name, most in limits.items():
                patch.setattr(record_sums, name, most)
            answers.append(told(ledger, query, viewer))
    assert answers[0] == answers[1]


def test_the_width_of_others_buckets_tells_nothing(database: Database) -> None:
    """A window is cut where one's own buckets are cut, though somebody else's of that day is as wide as the day."""
    early, viewer = FIRST + timedelta(days=1), Viewer(visible=Visible.VO, names=True, vos=("one",))
    gone = run(2, start=microseconds(FIRST) + 20 * 3600 * SECOND, end=microseconds(FIRST) + 21 * 3600 * SECOND)
    own = [run(0), gone]
    for records in (own, [*own, run(1, vo="two")]):
        ledger = filled(database, records, early, timedelta(days=30))
        table = ledger.tables["run"].records
        with database.write() as connection:
            connection.execute(delete(table).where(table.c["_id"] == gone["_id"]))
        assert ask(ledger, viewer, "sum:wall_time", end=FIRST + timedelta(hours=2)).totals == (3600,)
    with pytest.raises(QueryError, match="within a bucket of 86400 s"):
        ask(ledger, EVERYTHING, "sum:wall_time", end=FIRST + timedelta(hours=2))


def test_the_number_of_others_records_tells_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One's own are counted before they are read; where those of all are too many, one's own may be few enough."""
    ledger = filled(database, [run(0), run(1), *(run(number, vo="two") for number in range(2, 9))])
    viewer = Viewer(visible=Visible.VO, names=True, vos=("one",))
    end = FIRST + timedelta(hours=2)
    for limit in ("MOST_LOOKED_AT", "MOST_READ"):
        with monkeypatch.context() as patch:
            patch.setattr(record_sums, limit, 2)
            assert ask(ledger, viewer, end=end).totals == (2,)
            with pytest.raises(QueryError, match="more than 2 records"):
                ask(ledger, EVERYTHING, end=end)
            patch.setattr(record_sums, limit, 1)
            with pytest.raises(QueryError, match="more than 1 records"):
                ask(ledger, viewer, end=end)


def test_each_sees_what_is_its_own(database: Database) -> None:
    """VO, group and person narrow every figure, and the answer says so; what nobody owns is nobody's."""
    records = [
        run(0),
        run(1, vo="two"),
        run(2, group="h"),
        run(3, user="v"),
        run(4, user="", group=""),
    ]
    ledger = filled(database, records)
    for visible, vos, due, said in [
        (Visible.ALL, (), 5, ()),
        (Visible.VO, ("one",), 4, ("vo=one",)),
        (Visible.VO, ("one", "two"), 5, ("vo=one|two",)),
        (Visible.GROUP, ("one",), 2, ("vo=one", "group=g")),
        (Visible.OWN, ("one",), 2, ("vo=one", "user=u")),
    ]:
        viewer = Viewer(visible=visible, names=True, vos=vos, group="g", person="u")
        for attribution in OF_USAGE:
            answer = ask(ledger, viewer, "records", "sum:wall_time", by=("vo", "user"), top=1, attribution=attribution)
            assert answer.totals == (due, due * 7200)
            assert sum(row.values[0] or 0 for row in answer.rows) == due
            assert answer.visible == said
        cut = ask(ledger, viewer, end=FIRST + timedelta(hours=2))
        percentile = ask(ledger, viewer, "p50:wall_time", "records", attribution=Attribution.BY_END)
        assert (cut.totals, percentile.totals) == ((due,), (7200, due))
    with pytest.raises(QueryError, match="of your group only, and those of nobody do not say whose they are"):
        ask(ledger, Viewer(visible=Visible.GROUP, names=True, vos=("one",), group="g"), kind="nobody")
    with pytest.raises(QueryError, match="of your own only, and those of nobody do not say whose they are"):
        ask(ledger, Viewer(visible=Visible.OWN, names=True, vos=("one",), person="u"), kind="nobody")


def test_people_have_pseudonyms(database: Database) -> None:
    """Stable, in their own order, unknown ones unknown; one's own name stays; figures are the same."""
    people = [f"person{number}" for number in range(9)]
    ledger = filled(database, [run(number, user=user) for number, user in enumerate([*people, ""])])
    viewer = hidden_names(person="person3")
    answer = ask(ledger, viewer, by=("user",))
    due = {pseudonym(KEY, "user", name) for name in people if name != "person3"}
    assert [row.group[0] for row in answer.rows] == sorted({*due, "person3", ""})
    assert answer.pseudonyms == ("user",)
    assert [row.group[0] for row in ask(ledger, EVERYTHING, by=("user",)).rows] == ["", *people]
    # Of equal groups the first ones are kept, and that is not by their names.
    kept = [row.group[0] for row in ask(ledger, viewer, by=("user",), top=4).rows if not row.other]
    by_pseudonym = sorted({*due, pseudonym(KEY, "user", "person3"), ""})[:4]
    assert set(kept) == {"person3" if each == pseudonym(KEY, "user", "person3") else each for each in by_pseudonym}


def test_names_cannot_be_tested(database: Database) -> None:
    """No condition answers whether somebody is in the ledger; pseudonyms from an answer can be asked for."""
    ledger = filled(database, [run(0), run(1, user="v", wall_time=1), run(2, user="")])
    viewer = hidden_names(person="v")
    code = pseudonym(KEY, "user", "u")
    for condition, due in [
        (Filter("user", (code,)), 7200),
        (Filter("user", (code, "v")), 7201),
        (Filter("user", ("v",)), 1),
        (Filter("user", (code,), negated=True), 7201),
        (Filter("user", ("",)), 7200),
        (Filter("user", (pseudonym(KEY, "user", "w"),)), 0),
        (Filter("user.institute", (pseudonym(KEY, "user.institute", "I"),)), 7201),
    ]:
        for attribution in OF_USAGE:
            answer = ask(ledger, viewer, "sum:wall_time", filters=(condition,), attribution=attribution)
            assert answer.totals == (due,)
    refusals = set()
    for condition in [
        Filter("user", ("u",)),
        Filter("user", ("w",)),
        Filter("user", ("v", "u")),
        Filter("user", ("u",), negated=True),
        Filter("user", ("*",), wildcard=True),
        Filter("user", ("v",), wildcard=True),
    ]:
        with pytest.raises(QueryError, match="names of user are not shown to you") as refused:
            ask(ledger, viewer, filters=(condition,))
        refusals.add(str(refused.value))
    assert len(refusals) == 1
    with pytest.raises(QueryError, match=r"names of user.institute are not shown to you"):
        ask(ledger, viewer, filters=(Filter("user.institute", ("I",)),))


def test_what_is_told_from_a_name_is_as_personal(database: Database) -> None:
    """Groups by institute are right, and the institutes have pseudonyms; those of sites are what they are."""
    ledger = filled(database, [run(0), run(1, user="v"), run(2, user="w", site="T")])
    answer = ask(ledger, hidden_names(), by=("user.institute", "site.country"))
    code = pseudonym(KEY, "user.institute", "I")
    assert [(row.group, row.values) for row in answer.rows] == [((None, None), (1,)), ((code, "CH"), (2,))]
    assert answer.pseudonyms == ("user.institute",)


@pytest.mark.parametrize(
    "parts",
    [
        {"visible": Visible.VO},
        {"visible": Visible.GROUP, "vos": ("one",)},
        {"visible": Visible.OWN, "vos": ("one",), "group": "g"},
        {"visible": Visible.OWN, "person": "u"},
        {"visible": Visible.VO, "vos": ("one", "")},
    ],
)
def test_a_viewer_of_nobodys_records_is_refused(parts: dict[str, Any]) -> None:
    """An empty name would match the records of which it is not known."""
    with pytest.raises(ValueError, match="a viewer of visible="):
        Viewer(names=False, **parts)


def test_a_trace_shows_what_its_viewer_may_see(database: Database, tmp_path: Path) -> None:
    """Records of others are in no figure, no list and no single record; names are pseudonyms also there."""
    ledger = filled(database, [run(0), run(1, user="v"), run(2, vo="two")])
    query = UsageQuery(
        kind="run", wanted=(WantedUsage(Quantity.SUM, "wall_time"),), start=FIRST, end=FIRST + timedelta(days=2)
    )
    mine = Viewer(visible=Visible.OWN, names=False, vos=("one",), person="v")
    found = trace(asking(ledger), query, Page(), mine)
    assert (found.figure, found.parts, found.complete) == ((7200,), (7200,), True)
    assert [each.id for each in found.records] == [run(1)["_id"].hex()]
    assert [each.series["user"] for each in found.buckets] == ["v"]
    of_vo = Viewer(visible=Visible.VO, names=False, vos=("one",))
    found = trace(asking(ledger), query, Page(), of_vo)
    assert found.figure == (14_400,)
    assert {each.series["user"] for each in found.buckets} == {pseudonym(KEY, "user", "u"), pseudonym(KEY, "user", "v")}
    by_pseudonym = msgspec.structs.replace(query, filters=(Filter("user", (pseudonym(KEY, "user", "u"),)),))
    found = trace(asking(ledger), by_pseudonym, Page(), of_vo)
    assert [each.id for each in found.records] == [run(0)["_id"].hex()]
    with pytest.raises(QueryError, match="names of user are not shown"):
        trace(asking(ledger), msgspec.structs.replace(query, filters=(Filter("user", ("u",)),)), Page(), of_vo)
    one = trace_record(asking(ledger), tmp_path, run(0)["_id"], of_vo)
    assert (one.state, one.fields["user"]) == ("booked", pseudonym(KEY, "user", "u"))
    list(archive(ledger, tmp_path, FIRST + timedelta(days=2)))
    for viewer, states in ((EVERYTHING, ["archived"] * 3), (of_vo, ["archived", "archived", "unknown"])):
        traced = [trace_record(asking(ledger), tmp_path, run(number)["_id"], viewer) for number in range(3)]
        assert [each.state for each in traced] == states
