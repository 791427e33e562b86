"""A figure is followed beyond the database's buckets and records: into the archive, without buckets, as of closing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from corrected_model import WINDOW, corrected_by
from corrected_model import emptied as emptied_in_june
from ledger_databases import emptied
from snapshot_model import LEVEL, after, level, level_batch
from usage_model import FIRST, HOUR, LATER, USE, batch, many, measured, sited, use
from viewers import EVERYTHING, answered, asking

from accounting.archive.archiving import archive
from accounting.corrections.correction import Action
from accounting.corrections.deciding import reverse
from accounting.ledger import Ledger
from accounting.periods.closing import close
from accounting.trace.figure_trace import trace
from accounting.trace.traced import Page, Trace, TracedAdjustment, TracedRecord
from accounting.upkeep.months import parse_month
from siteward.query import Filter, QueryError
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.usage import OF_USAGE, AsOf, Attribution, Quantity, UsageQuery, WantedUsage

Opens = Callable[[], Database]
DAY: Final = 24 * HOUR
JANUARY: Final[dict[str, Any]] = {"start": WINDOW[0], "end": datetime(2026, 2, 1, tzinfo=FIRST.tzinfo)}


def question(*wanted: str, **changes: Any) -> UsageQuery:
    """By end, of all days of the model's records."""
    texts = [text.partition(":") for text in wanted or ("sum:core_time", "records")]
    columns = tuple(WantedUsage(Quantity(quantity), measure) for quantity, _, measure in texts)
    window = {"start": FIRST - timedelta(days=30), "end": FIRST + timedelta(days=60)}
    parts = {"kind": "use", "wanted": columns, "attribution": Attribution.BY_END, **window, **changes}
    return UsageQuery(**parts)


def traces(ledger: Ledger, query: UsageQuery, folder: Path | None = None, limit: int = 100) -> Iterator[Trace]:
    """All answers, one after the other, until no record and no adjustment is left."""
    page = Page(limit=limit)
    while True:
        found = trace(asking(ledger, folder), query, page, EVERYTHING)
        yield found
        if not (found.more_records or found.more_adjustments):
            return
        page = Page(
            limit=limit,
            after_record=found.more_records or f"9-{'0' * 32}",
            after_adjustment=found.more_adjustments or "9-0-0-0-0",
        )


def records_of(found: Iterator[Trace]) -> list[TracedRecord]:
    return [record for each in found for record in each.records]


def days(count: int) -> list[dict[str, Any]]:
    """A record that ends on each of some days, at one of three sites by turns."""
    ends = [microseconds(FIRST) + number * DAY + 3 * HOUR for number in range(count)]
    return [
        sited(number, start=end - 2 * HOUR, end=end, wall_time=100 * (number + 1)) for number, end in enumerate(ends)
    ]


@pytest.mark.parametrize("attribution", OF_USAGE)
def test_archived_records_are_listed_from_their_files(
    open_database: Opens, tmp_path: Path, attribution: Attribution
) -> None:
    """Each with its part, its origin and its file, among those of the database, in portions of any size."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(many(40)))
    query = question(attribution=attribution, start=FIRST + timedelta(days=2), filters=(Filter("site", ("S1", "S2")),))
    before = records_of(traces(ledger, query))
    files = {file.file for file in archive(ledger, tmp_path, FIRST + timedelta(days=20))}
    for limit in (1_000, 3):
        answers = list(traces(ledger, query, tmp_path, limit))
        assert all(each.complete and each.parts == each.figure for each in answers)
        listed = records_of(iter(answers))
        assert [msgspec.structs.replace(each, file="") for each in listed] == before
        named = {each.file for each in listed}
        assert "" in named
        assert named - {""} <= files
        assert len(named) > 5


def test_a_missing_file_is_named_if_it_can_hold_such_records(open_database: Opens, tmp_path: Path) -> None:
    """It alone, and to be brought back; what other files hold is listed, and nobody's other records are told of."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(days(6)))
    files = [each.file for each in archive(ledger, tmp_path, FIRST + timedelta(days=5))]
    for place in (0, 1):
        (tmp_path / files[place]).unlink()
    (tmp_path / files[2]).write_bytes(b"other")
    of_first = question(filters=(Filter("site", ("S0",)),))
    found = trace(asking(ledger, tmp_path), of_first, Page(), EVERYTHING)
    assert (found.figure, found.parts, found.complete) == ((2_000, 2), (1_600, 1), False)
    assert [(each.parts, each.file) for each in found.records] == [((1_600, 1), files[3])]
    assert files[0] in found.why
    assert "bring back into the archive's folder" in found.why
    assert not any(other in found.why for other in files[1:])
    of_third = question(filters=(Filter("site", ("S2",)),))
    found = trace(asking(ledger, tmp_path), of_third, Page(), EVERYTHING)
    assert files[2] in found.why
    assert not any(other in found.why for other in files[:2])
    found = trace(asking(ledger), of_first, Page(), EVERYTHING)
    assert (found.parts, found.records) == ((0, 0), ())
    assert all((files[place] in found.why) is (place in {0, 3}) for place in range(5))


def test_archived_snapshots_are_listed_from_their_files(open_database: Opens, tmp_path: Path) -> None:
    """Of a mean, a sum and a largest value; the record that says the largest is named."""
    ledger = emptied(open_database(), LEVEL, LATER)
    ledger.write(level_batch([level(number, used=10 - number, time=after(days=number)) for number in range(4)]))
    wanted = ("sum:used", "mean:used", "max:used")
    query = question(*wanted, kind="level", attribution=Attribution.AT_INSTANT)
    before = trace(asking(ledger), query, Page(), EVERYTHING)
    assert list(archive(ledger, tmp_path, FIRST + timedelta(days=2)))
    after_it = trace(asking(ledger, tmp_path), query, Page(), EVERYTHING)
    assert [bool(each.file) for each in after_it.records] == [True, True, False, False]
    listed = tuple(msgspec.structs.replace(each, file="") for each in after_it.records)
    assert msgspec.structs.replace(after_it, records=listed) == before
    assert [record.value for record in before.figures[2].records] == [10]


def test_an_archived_record_is_named_by_its_percentile(open_database: Opens, tmp_path: Path) -> None:
    """The neighbours are those of all records, wherever they are; so are the smallest and the largest."""
    ledger = emptied(open_database(), USE, LATER)
    records = days(6)
    ledger.write(batch(records))
    wanted = ("p50:wall_time", "min:wall_time", "max:wall_time", "p90:efficiency")
    before = trace(asking(ledger), question(*wanted), Page(), EVERYTHING).figures
    assert [record.value for record in before[0].records] == [300, 400]
    assert list(archive(ledger, tmp_path, FIRST + timedelta(days=3)))
    assert trace(asking(ledger, tmp_path), question(*wanted), Page(), EVERYTHING).figures == before


@pytest.mark.parametrize("attribution", OF_USAGE)
def test_what_is_in_no_bucket_is_followed_to_its_records(
    open_database: Opens, tmp_path: Path, attribution: Attribution
) -> None:
    """Without buckets, which the answer says; in the database and in the archive."""
    ledger = emptied(open_database(), USE, LATER)
    records = days(6)
    ledger.write(batch(records))
    assert list(archive(ledger, tmp_path, FIRST + timedelta(days=3)))
    for number in (1, 5):
        query = question(attribution=attribution, filters=(Filter("name", (str(number),)),))
        found = trace(asking(ledger, tmp_path), query, Page(), EVERYTHING)
        assert (found.of_records, found.buckets, found.more_buckets) == (("name",), (), "")
        assert found.figure == answered(ledger, query, archive=tmp_path).totals
        assert found.figure == found.parts == (measured(records[number], "core_time"), 1)
        (record,) = found.records
        assert (record.id, record.producer, bool(record.file)) == (records[number]["_id"].hex(), "test", number == 1)
    with pytest.raises(QueryError, match="only records say name"):
        trace(asking(ledger), question(filters=(Filter("name", ("1",)),)), Page(), EVERYTHING)


def test_a_figure_as_of_closing_is_the_present_one_less_its_changes(open_database: Opens) -> None:
    """Each change with its date, cause and entry; all of them are exactly the difference, whoever's figure it is."""
    ledger = emptied_in_june(open_database())
    ledger.write(batch([use(number, vo=vo, cpu_time=50) for number, vo in enumerate(("one", "two", "one", "two"))]))
    close(ledger, "use", parse_month("2026-01"), "anna")
    ledger.write(batch([use(7, wall_time=3, site="LATE")]))
    ledger.write(batch([use(1, vo="two", revision=1, wall_time=7)]))
    moved = corrected_by(ledger, Action.MOVE, "vo=one", given=("site=MOVED",))
    reverse(ledger, corrected_by(ledger, Action.VOID, "vo=two").number, "ben", "not so")
    asked = question("sum:wall_time", "ratio:efficiency", "records", as_of=AsOf.CLOSING, **JANUARY)
    for filters in ((), (Filter("vo", ("one",)),), (Filter("site", ("S",)),), (Filter("site", ("MOVED",)),)):
        query = msgspec.structs.replace(asked, filters=filters)
        due = answered(ledger, query)
        now = answered(ledger, msgspec.structs.replace(query, as_of=AsOf.PRESENT))
        for limit in (100, 1):
            answers = list(traces(ledger, query, limit=limit))
            first = answers[0]
            assert all(each.complete for each in answers), first.why
            assert tuple(figure.value for figure in first.figures) == due.totals
            places = (first.measures.index("wall_time"), first.measures.index("records"))
            assert [first.figure[place] for place in places] == [due.totals[0], due.totals[2]]
            assert [first.present[place] for place in places] == [now.totals[0], now.totals[2]]
            changes = [change for each in answers for change in each.adjustments]
            summed = tuple(map(sum, zip(*(change.amounts for change in changes), strict=True))) or (0,) * len(
                first.figure
            )
            assert summed == first.changes
            assert tuple(a - b for a, b in zip(first.present, summed, strict=True)) == first.figure
    whole = trace(asking(ledger), asked, Page(), EVERYTHING)
    assert {change.cause for change in whole.adjustments} == {
        "late record",
        "newer revision",
        "correction",
        "reversal",
    }
    entries = [change.entry for change in whole.adjustments]
    assert entries == sorted(entries)
    assert _of_cause(whole, "late record").series["site"] == "LATE"
    assert _of_cause(whole, "late record").at == datetime(2026, 6, 1, tzinfo=FIRST.tzinfo)
    assert f"move {moved.number}" in {change.action for change in whole.adjustments}


def _of_cause(found: Trace, cause: str) -> TracedAdjustment:
    return next(change for change in found.adjustments if change.cause == cause)


def test_what_is_not_known_as_of_closing_is_not_followed_either(open_database: Opens) -> None:
    """The refusals are those of the question; and so is one of a place at which no answer said to go on."""
    ledger = emptied_in_june(open_database())
    ledger.write(batch([use()]))
    closing = question(as_of=AsOf.CLOSING, **JANUARY)
    with pytest.raises(QueryError, match="2026-01 of use for the VO one is not closed"):
        trace(asking(ledger), closing, Page(), EVERYTHING)
    close(ledger, "use", parse_month("2026-01"), "anna")
    prorated = msgspec.structs.replace(closing, attribution=Attribution.PRORATED)
    with pytest.raises(QueryError, match="ask as of closing with attribution by-end"):
        trace(asking(ledger), prorated, Page(), EVERYTHING)
    for place in ("x", "0-1", "0-1-99-0-0", f"0-{2**63}-0-0-0"):
        with pytest.raises(QueryError, match=r"after_adjustment .*: give what the answer before said"):
            trace(asking(ledger), closing, Page(after_adjustment=place), EVERYTHING)
