"""Usage by what single records measure, such as their processors: from the records, and from archived ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from ledger_databases import emptied
from usage_model import FIRST, LATER, USE, Fields, batch, cells, many
from viewers import EVERYTHING, answered, asking

from accounting.archive.archiving import archive
from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from accounting.trace.figure_trace import trace
from accounting.trace.traced import Page
from siteward.query import Filter, QueryError
from siteward.server.database import Database
from siteward.usage import OF_USAGE, AsOf, Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer, Visible

Opens = Callable[[], Database]
WANTED: Final = (WantedUsage(Quantity.SUM, "core_time"), WantedUsage(Quantity.RECORDS))


def question(**changes: Any) -> UsageQuery:
    """Month by month, by processors."""
    window = {"start": FIRST - timedelta(days=9), "end": FIRST + timedelta(days=60)}
    parts = {"kind": "use", "wanted": WANTED, "by": ("processors",), "period": Period.MONTH, **window, **changes}
    return UsageQuery(**parts)


def sized(count: int = 60) -> list[Fields]:
    """Records of a few sizes of two VOs, whose processor time some do not know."""
    chance = random.Random(7)
    return [
        each
        | {
            "vo": chance.choice(["one", "two"]),
            "processors": chance.choice([1, 1, 2, 8, 64]),
            "cpu_time": chance.choice([None, 0, 5]),
            "memory": chance.choice([0, 2**40]),
        }
        for each in many(count)
    ]


@pytest.mark.parametrize("attribution", OF_USAGE)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"by": ("site", "processors")},
        {"by": ("cpu_time", "name", "vo")},
        {"by": ("memory",), "filters": (Filter("processors", minimum=2, maximum=8),)},
        {"by": ("vo",), "filters": (Filter("processors", (1, 64)), Filter("cpu_time", (None,), negated=True))},
        {"by": (), "filters": (Filter("cpu_time", (None, 5)),)},
        {"by": ("processors",), "filters": (Filter("wall_time", maximum=500_000), Filter("site", ("S1", "S2")))},
    ],
)
def test_every_group_has_the_records_of_that_value(
    open_database: Opens, tmp_path: Path, changes: dict[str, Any], attribution: Attribution
) -> None:
    """Grouped by values and met by conditions as every other field, in the database and in the archive."""
    ledger = emptied(open_database(), USE, LATER)
    records = sized()
    ledger.write(batch(records))
    query = question(attribution=attribution, **changes)
    due = cells(records, query, periods_of(query.start, query.end, query.period))
    answer = answered(ledger, query)
    assert {(row.start, row.group): row.values for row in answer.rows} == due
    assert set(answer.of_records) <= {"processors", "cpu_time", "memory", "wall_time", "name"}
    assert answer.of_records
    assert len(list(archive(ledger, tmp_path, FIRST + timedelta(days=25)))) > 5
    assert answered(ledger, query, archive=tmp_path) == answer


def test_percentiles_and_ranks_are_of_groups_by_value(open_database: Opens) -> None:
    """The largest groups stay, the others become one, and each has its own percentiles."""
    ledger = emptied(open_database(), USE, LATER)
    records = sized()
    ledger.write(batch(records))
    wanted = (WantedUsage(Quantity.RECORDS), WantedUsage(Quantity("p75"), "wall_time"))
    query = question(wanted=wanted, attribution=Attribution.BY_END, period=Period.WHOLE, top=1)
    due = cells(records, query, periods_of(query.start, query.end, query.period))
    most = max(due, key=lambda cell: due[cell])
    first, other = answered(ledger, query).rows
    assert (first.group, first.values, other.other) == (most[1], due[most], True)
    assert other.values[0] == len(records) - due[most][0]


def test_groups_by_value_are_of_what_is_visible(open_database: Opens) -> None:
    """Whoever sees one VO finds the groups and numbers of that one alone."""
    ledger = emptied(open_database(), USE, LATER)
    records = sized()
    ledger.write(batch(records))
    viewer = Viewer(visible=Visible.VO, vos=("one",), names=True)
    query = question(attribution=Attribution.BY_END)
    due = cells(
        [each for each in records if each["vo"] == "one"], query, periods_of(query.start, query.end, query.period)
    )
    assert {(row.start, row.group): row.values for row in answered(ledger, query, viewer).rows} == due


def _total(ledger: Ledger, query: UsageQuery, folder: Path | None) -> tuple[Any, ...]:
    found = trace(asking(ledger, folder), query, Page(), EVERYTHING)
    assert (found.complete, found.of_records, found.buckets) == (True, ("processors",), ())
    return tuple(map(sum, zip(*(record.parts for record in found.records), strict=True)))


def test_a_group_by_value_is_followed_to_its_records(open_database: Opens, tmp_path: Path) -> None:
    """By a condition on it, as every group is."""
    ledger = emptied(open_database(), USE, LATER)
    ledger.write(batch(sized()))
    query = question(by=(), filters=(Filter("processors", minimum=8),), attribution=Attribution.BY_END)
    due = answered(ledger, query).totals
    assert _total(ledger, query, None) == due
    assert list(archive(ledger, tmp_path, FIRST + timedelta(days=25)))
    assert _total(ledger, query, tmp_path) == due


def test_what_values_do_not_tell_is_refused(open_database: Opens) -> None:
    """Products, which no record says, and figures as of closing, which buckets tell."""
    ledger = emptied(open_database(), USE, LATER)
    with pytest.raises(QueryError, match="'core_time' is not a dimension of use"):
        answered(ledger, question(by=("core_time",)))
    with pytest.raises(QueryError, match="only records say processors, and what has changed since closing"):
        answered(ledger, question(attribution=Attribution.BY_END, as_of=AsOf.CLOSING, period=Period.WHOLE))
