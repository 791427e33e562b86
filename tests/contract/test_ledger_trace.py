"""From a figure to buckets, records and producers, and from a record to its buckets: on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_databases import emptied
from searching import searched
from snapshot_model import LEVEL, after, level, level_batch
from usage_model import FIRST, HOUR, LATER, SOON, USE, batch, many, sited
from viewers import EVERYTHING, answered, asking

from accounting.archive.archiving import archive
from accounting.ledger import Ledger
from accounting.topology.attributes import Entry
from accounting.topology.topology_table import write_topology
from accounting.trace.figure_trace import trace
from accounting.trace.record_trace import trace_record
from accounting.trace.traced import Page, Trace
from accounting.upkeep.tiers import compact
from siteward.query import Filter, QueryError
from siteward.records import Kind, Ratio, microseconds
from siteward.server.database import Database
from siteward.usage import OF_USAGE, Attribution, Quantity, UsageQuery, WantedUsage

Opens = Callable[[], Database]


def question(*wanted: str, **changes: Any) -> UsageQuery:
    texts = [text.partition(":") for text in wanted or ("sum:core_time", "records")]
    columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in texts)
    window = {"start": FIRST - timedelta(days=30), "end": FIRST + timedelta(days=60)}
    return UsageQuery(**{"kind": "use", "wanted": columns, **window, **changes})


def pages(ledger: Ledger, query: UsageQuery, limit: int) -> Iterator[Trace]:
    """All answers, one after the other, until nothing is left."""
    page = Page(limit=limit)
    while True:
        found = trace(asking(ledger), query, page, EVERYTHING)
        yield found
        if not (found.more_buckets or found.more_records):
            return
        page = Page(
            limit=limit,
            after_bucket=found.more_buckets or "9-0-0-0",
            after_record=found.more_records or f"9-{'0' * 32}",
        )


def test_a_figure_leads_to_its_records(open_database: Opens) -> None:
    """To the buckets with their series, the records with their parts, and who sent which when."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([sited(0, _producer="ce1"), sited(1), sited(3, wall_time=10)]))
    ledger.write(batch([sited(3, wall_time=20, revision=2)]))
    end = FIRST + timedelta(hours=2)
    found = trace(asking(ledger), question(end=end, filters=(Filter("site", ("S0",)),)), Page(), EVERYTHING)
    assert (found.figure, found.parts, found.complete, found.why) == ((14_440, 2), (14_440, 2), True, "")
    (bucket,) = found.buckets
    assert (bucket.start, bucket.width, bucket.series["site"]) == (FIRST + timedelta(hours=1), 3600, "S0")
    assert (bucket.amounts, bucket.whole) == ((14_440, 2), True)
    one, other = found.records
    assert (one.id, one.parts, one.producer) == (sited(0)["_id"].hex(), (14_400, 1), "ce1")
    assert (other.parts, other.revision, other.producer, other.received) == ((40, 1), 2, "test", SOON)
    assert (one.start, one.end, one.message) == (FIRST + timedelta(hours=1), FIRST + timedelta(hours=3), "0" * 32)
    assert one.entry != other.entry


def test_a_cut_bucket_is_said_to_be_cut(open_database: Opens) -> None:
    """The window takes half an hour of a day: the bucket is shown whole, the records with their part."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch([sited()]))
    found = trace(
        asking(ledger), question("sum:wall_time", end=FIRST + timedelta(hours=1, minutes=30)), Page(), EVERYTHING
    )
    assert (found.figure, found.complete) == ((1800,), True)
    assert [(each.amounts, each.whole) for each in found.buckets] == [((7200,), False)]
    assert [each.parts for each in found.records] == [(1800,)]


def test_buckets_that_are_not_the_records_are_told_of(open_database: Opens) -> None:
    """Where all records are there and do not add up to the figure, the answer says what compares both."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch([sited(), sited(1, end=microseconds(FIRST) + 30 * HOUR)]))
    buckets = ledger.tables["use"].by_end
    with ledger.database.write() as connection:
        connection.execute(buckets.update().values(core_time=buckets.c.core_time + 1))
    found = trace(asking(ledger), question(attribution=Attribution.BY_END), Page(), EVERYTHING)
    assert (found.figure, found.parts, found.complete) == ((57_602, 2), (57_600, 2), False)
    assert "siteward ledger verify" in found.why


def test_what_is_no_sum_is_led_to_its_sums(open_database: Opens) -> None:
    """A ratio to both of its sides, over the records that know the other; a rate and a mean to what they divide."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([sited(0, cpu_time=1_000), sited(1, cpu_time=None), sited(2, cpu_time=3_000)]))
    wanted = ("ratio:efficiency", "rate:core_time", "mean:cpu_time")
    asked = question(*wanted, attribution=Attribution.BY_END, end=FIRST + timedelta(days=1))
    found = trace(asking(ledger), asked, Page(), EVERYTHING)
    each = 4 * 7200
    sides = ("cpu_time", "core_time (cpu_time known)", "core_time", "records (cpu_time known)")
    assert (found.measures, found.figure) == (sides, (4_000, 2 * each, 3 * each, 2))
    assert (found.complete, found.parts) == (True, found.figure)
    assert [record.parts[1] for record in found.records] == [each, 0, each]
    told = answered(ledger, asked).totals
    assert [(figure.name, figure.value) for figure in found.figures] == list(zip(wanted, told, strict=True))
    days = 31
    assert [figure.formula for figure in found.figures] == [
        "cpu_time / core_time (cpu_time known)",
        f"core_time / {days * 86_400} s",
        "cpu_time / records (cpu_time known)",
    ]


def _with_ratios(kind: Kind, ratios: dict[str, Ratio]) -> Kind:
    return Kind(msgspec.structs.replace(kind.declaration, ratios=ratios))


def test_a_ratio_is_told_in_its_own_unit(open_database: Opens) -> None:
    """What the quotient is multiplied by, it is in every answer: of all, of single records, and told how."""
    permille = {"efficiency": Ratio("cpu_time", "core_time", unit="m1", times=1_000)}
    ledger = emptied(open_database(), _with_ratios(USE, permille), SOON)
    ledger.write(batch([sited(0, cpu_time=7_200), sited(1, cpu_time=14_400), sited(2, cpu_time=None)]))
    asked = question("ratio:efficiency", "p50:efficiency", "max:efficiency", attribution=Attribution.BY_END)
    found = trace(asking(ledger), asked, Page(), EVERYTHING)
    assert [figure.value for figure in found.figures] == [375.0, 375.0, 500.0]
    assert (answered(ledger, asked).totals, answered(ledger, asked).units) == ((375.0, 375.0, 500.0), ("m1",) * 3)
    assert found.figures[0].formula == "1000 * cpu_time / core_time (cpu_time known)"
    assert [record.value for record in found.figures[2].records] == [500.0]
    # Whichever is multiplied or divided first, the last digit is another.
    ledger.write(batch([sited(3, cpu_time=927_036, wall_time=4_439, processors=1)]))
    asked = question("max:efficiency", attribution=Attribution.BY_END)
    (figure,) = trace(asking(ledger), asked, Page(), EVERYTHING).figures
    assert [record.value for record in figure.records] == [figure.value] == [1_000 * 927_036 / 4_439]
    many_bytes = {"size": Ratio("used", "files", unit="B", times=1_000)}
    ledger = emptied(open_database(), _with_ratios(LEVEL, many_bytes), SOON)
    ledger.write(level_batch([level(0, used=3, files=2), level(1, used=1, files=2), level(2, used=9, files=None)]))
    asked = question("ratio:size", kind="level", attribution=Attribution.AT_INSTANT)
    assert answered(ledger, asked).totals == (1_000.0,)


def test_a_percentile_is_led_to_the_records_around_it(open_database: Opens) -> None:
    """Those between whose values it lies, by value; the smallest and the largest to the record that says it."""
    ledger = emptied(open_database(), USE, SOON)
    times = [500, 100, 400, 200, 300, 600]
    records = [sited(number, wall_time=wall) for number, wall in enumerate(times)]
    ledger.write(batch(records))
    asked = question("p50:wall_time", "p90:core_time", "min:wall_time", "max:wall_time", attribution=Attribution.BY_END)
    found = trace(asking(ledger), asked, Page(), EVERYTHING)
    told = answered(ledger, asked).totals
    half, ninety, least, most = found.figures
    assert tuple(figure.value for figure in found.figures) == told
    assert [record.value for record in half.records] == [300, 400]
    assert [record.id for record in half.records] == [records[4]["_id"].hex(), records[2]["_id"].hex()]
    assert [record.value for record in ninety.records] == [4 * 500, 4 * 600]
    assert [(record.id, record.value) for record in least.records] == [(records[1]["_id"].hex(), 100)]
    assert [(record.id, record.value) for record in most.records] == [(records[5]["_id"].hex(), 600)]
    assert half.formula == "the 50th percentile of wall_time over the records that know it"
    assert (found.measures, found.figure) == (("records", "wall_time", "core_time"), (6, 2_100, 8_400))
    nothing = trace(
        asking(ledger), msgspec.structs.replace(asked, filters=(Filter("site", ("X",)),)), Page(), EVERYTHING
    )
    assert [(figure.value, figure.records) for figure in nothing.figures] == [(None, ())] * 4


def test_what_is_wrong_with_a_question_is_said(open_database: Opens) -> None:
    """Also of one about parts of an answer."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([sited()]))
    with pytest.raises(QueryError, match="limit: expected 1 to 10000, got 0"):
        trace(asking(ledger), question(), Page(limit=0), EVERYTHING)
    with pytest.raises(QueryError, match="give what the answer before said"):
        trace(asking(ledger), question(), Page(after_record="x"), EVERYTHING)
    for page in (Page(after_bucket=f"0-{10**20}-1-1"), Page(after_record=f"0-{'f' * 40}")):
        with pytest.raises(QueryError, match="give what the answer before said"):
            trace(asking(ledger), question(), page, EVERYTHING)
    with pytest.raises(QueryError, match="kind 'uses' is not in the ledger"):
        trace(asking(ledger), question(kind="uses"), Page(), EVERYTHING)


def test_a_figure_of_snapshots_leads_to_its_records(open_database: Opens, tmp_path: Path) -> None:
    """To the buckets of its series and the records in them; sums are sums of parts, means are not."""
    ledger = emptied(open_database(), LEVEL, SOON)
    records = [
        level(0, used=7),
        level(1, used=9, time=after(hours=1)),
        level(2, used=30, time=after(hours=1), site="T"),
        level(3, used=5, time=after(days=3)),
    ]
    ledger.write(level_batch(records))
    asked = question(
        "sum:used",
        "records",
        kind="level",
        attribution=Attribution.AT_INSTANT,
        end=FIRST + timedelta(days=1),
        filters=(Filter("site", ("S",)),),
    )
    for now, widths in ((SOON, [3600, 3600]), (LATER, [86_400])):
        ledger.clock = lambda now=now: microseconds(now)  # type: ignore[misc]  # bound at once.
        compact(ledger)
        found = trace(asking(ledger), asked, Page(), EVERYTHING)
        assert (found.figure, found.parts, found.complete) == ((16, 2), (16, 2), True)
        assert [each.width for each in found.buckets] == widths
        assert {each.series["site"] for each in found.buckets} == {"S"}
        assert [(each.id, each.parts, each.producer) for each in found.records] == [
            (records[0]["_id"].hex(), (7, 1), "sender"),
            (records[1]["_id"].hex(), (9, 1), "sender"),
        ]
        one = trace_record(asking(ledger), tmp_path, records[1]["_id"], EVERYTHING)
        (part,) = one.buckets
        assert (one.state, part.attribution, part.width) == ("booked", "at-instant", widths[0])
        assert part.parts == {"records": 1, "used": 9, "files": 10, "copies": 2, "stored": 18}


def test_what_was_at_instants_is_led_to_its_records(open_database: Opens) -> None:
    """What was last and most, to the records that say so; a mean, to how often its producer looked."""
    ledger = emptied(open_database(), LEVEL, SOON)
    records = [
        level(0, used=7),
        level(1, used=9, time=after(hours=1)),
        level(2, used=30, time=after(hours=1), site="T"),
        level(3, used=5, site="U"),
    ]
    ledger.write(level_batch(records))
    wanted = ("mean:used", "last:used", "last-known:used", "min:used", "max:used", "cycles", "instants")
    asked = question(*wanted, kind="level", attribution=Attribution.AT_INSTANT)
    found = trace(asking(ledger), asked, Page(), EVERYTHING)
    named = [figure.records for figure in found.figures]
    told = answered(ledger, asked).totals
    assert tuple(figure.value for figure in found.figures) == told
    assert [[record.value for record in each] for each in named] == [[], [9, 30], [5, 9, 30], [5], [30], [], []]
    assert [sum(int(record.value or 0) for record in each) for each in named[1:3]] == list(told[1:3])
    (cycles,) = found.cycles
    assert (cycles.producer, cycles.cycles, cycles.last) == ("p", told[5], FIRST + timedelta(hours=1))
    assert (found.complete, found.measures[0], found.figure[0]) == (True, "used", 51)
    assert found.figures[0].formula.startswith("of each series used / the times at which its producer looked")


few: Final = searched(6)
instants: Final = st.integers(-10 * 24, 50 * 24).map(lambda hours: FIRST + timedelta(hours=hours))


@few
@given(
    seed=st.integers(0, 100),
    now=st.sampled_from([SOON, FIRST + timedelta(days=25), LATER]),
    window=st.tuples(instants, instants).filter(lambda pair: pair[0] != pair[1]).map(sorted),
    attribution=st.sampled_from(OF_USAGE),
    filters=st.sampled_from(
        [
            (),
            (Filter("site", ("S1",), negated=True),),
            (Filter("site.federation", ("A",)),),
            (Filter("code", (None,)), Filter("site.federation", ("A",))),
        ],
    ),
    limit=st.integers(4, 30),
)
def test_the_parts_add_up_to_the_figure(
    open_database: Opens,
    seed: int,
    now: datetime,
    window: list[datetime],
    attribution: Attribution,
    filters: tuple[Filter, ...],
    limit: int,
) -> None:
    """Whatever the window, tiers, filters, and portions in which they are listed; a site's move to a federation too."""
    ledger = emptied(open_database(), USE, now)
    move = int((FIRST + timedelta(days=12)).timestamp())
    entries = [
        Entry("site", "S0", "federation", "A", None, move),
        Entry("site", "S1", "federation", "A", move, None),
        Entry("site", "S2", "federation", "B", None, None),
    ]
    write_topology(ledger.database, ledger.common.topology, entries, int(FIRST.timestamp()))
    ledger.write(batch(many(40, seed)))
    compact(ledger)
    wanted = ["sum:core_time", "records"] + (["started"] if attribution is Attribution.PRORATED else [])
    query = question(*wanted, start=window[0], end=window[1], attribution=attribution, filters=filters)
    found = list(pages(ledger, query, limit))
    due = answered(ledger, query).totals
    assert {each.figure for each in found} == {due}
    assert all(each.complete for each in found)
    records = [record for each in found for record in each.records]
    assert tuple(sum(record.parts[place] for record in records) for place in range(len(wanted))) == due
    if "federation" not in str(filters):
        assert len({record.id for record in records}) == len(records)
    buckets = [bucket for each in found for bucket in each.buckets]
    keys = [(bucket.start, bucket.width, str(bucket.series)) for bucket in buckets]
    assert len(set(keys)) == len(keys)
    if all(bucket.whole for bucket in buckets):
        assert tuple(sum(bucket.amounts[place] for bucket in buckets) for place in range(len(wanted))) == due


def test_a_record_leads_to_its_buckets(open_database: Opens, tmp_path: Path) -> None:
    """With the part in each, of both attributions, also of a record in the archive; an unknown id is explained."""
    ledger = emptied(open_database(), USE, SOON)
    ledger.write(batch([sited(0, _producer="ce1"), sited(1)]))
    identifier = sited(0)["_id"]
    found = trace_record(asking(ledger), tmp_path, identifier, EVERYTHING)
    assert (found.state, found.kind, found.producer, found.received) == ("booked", "use", "ce1", SOON)
    assert (found.fields["site"], found.fields["simulated"]) == ("S0", False)
    assert found.fields["start"] == FIRST + timedelta(hours=1)
    prorated = [each for each in found.buckets if each.attribution == "prorated"]
    assert [(each.start.hour, each.width, each.parts["core_time"]) for each in prorated] == [
        (1, 3600, 14_400),
        (2, 3600, 14_400),
    ]
    assert [each.parts.get("started", 0) for each in prorated] == [1, 0]
    (by_end,) = [each for each in found.buckets if each.attribution == "by-end"]
    assert (by_end.start.hour, by_end.parts["core_time"], by_end.parts["records"]) == (3, 28_800, 1)
    ledger.clock = lambda: microseconds(LATER)
    compact(ledger)
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    archived = trace_record(asking(ledger), tmp_path, identifier, EVERYTHING)
    assert (archived.state, archived.file, archived.fields) == ("archived", file.file, found.fields)
    assert [(each.width, each.parts["core_time"]) for each in archived.buckets] == [(86_400, 28_800)] * 2
    assert msgspec.structs.replace(archived, state="booked", file="", buckets=()) == msgspec.structs.replace(
        found, buckets=()
    )
    without = trace_record(asking(ledger), tmp_path / "elsewhere", identifier, EVERYTHING)
    assert (without.state, without.file, without.fields) == ("archived", file.file, {})
    assert "cannot be read" in without.why
    unknown = trace_record(asking(ledger), tmp_path, b"\1" * 16, EVERYTHING)
    assert unknown.state == "unknown"
    assert "A duplicate leaves no trace of its own" in unknown.why
