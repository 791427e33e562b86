"""Whatever the ledger asks a database finds its rows by an index: the statements themselves are explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from counter_model import MACHINE, machine, machine_batch
from ledger_databases import Place, prepared
from plans import analyze, recorded, unindexed
from snapshot_model import LEVEL, level, level_batch, wanted
from usage_model import FIRST as ANY_FIRST
from usage_model import HOUR, USE, Fields, batch
from usage_model import use as any_use
from viewers import EVERYTHING, answered, asking

from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.checks.signing import sign_compared
from accounting.checks.verifying import Counts, Scope, verify
from accounting.corrections.correction import Action, Draft, Selection
from accounting.corrections.deciding import approve, propose
from accounting.ledger import Ledger
from accounting.periods.closing import close
from accounting.trace.figure_trace import trace
from accounting.trace.traced import Page
from accounting.upkeep.months import parse_month
from accounting.upkeep.rebuild import rebuild
from accounting.upkeep.tiers import compact
from siteward.query import Filter
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageQuery, WantedUsage

FIRST: Final = datetime(2025, 1, 1, tzinfo=UTC)
NOW: Final = datetime(2025, 12, 31, tzinfo=UTC)
RECORDS: Final = 8_000
STEP: Final = (NOW - FIRST) // RECORDS
LARGE: Final = (
    *(
        f"accounting_{kind}_{name}"
        for kind in ("use", "machine")
        for name in ("records", "superseded", "originals", "prorated", "by_end", "adjustments")
    ),
    "later",
)
"""Tables that grow with what comes in, one of them by another name."""


def use(number: int, **changes: Any) -> Fields:
    end = microseconds(FIRST + number * STEP)
    mine = {"start": end - 2 * HOUR, "end": end, "site": f"S{number % 40}", "user": f"u{number % 7}"}
    return any_use(number, **mine | changes)


@pytest.fixture
def filled(open_database: Callable[[], Database]) -> Ledger:
    """A year of records, and what the database knows of its tables."""
    database = open_database()
    ledger = prepared(database, USE, microseconds(NOW))
    for first in range(0, RECORDS, 4_000):
        ledger.write(batch([use(number) for number in range(first, first + 4_000)]))
    compact(ledger)
    analyze(ledger.database, ledger.metadata)
    return ledger


def _questions() -> Iterator[UsageQuery]:
    for attribution in OF_USAGE:
        for start, end in (
            (datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)),
            # Cut within a bucket: records are read.
            (datetime(2025, 3, 1, 7, 11, tzinfo=UTC), datetime(2025, 3, 5, tzinfo=UTC)),
        ):
            yield UsageQuery(
                kind="use",
                wanted=(WantedUsage(Quantity.SUM, "core_time"), WantedUsage(Quantity.RECORDS)),
                start=start,
                end=end,
                by=("site",),
                period=Period.DAY,
                attribution=attribution,
            )


def test_every_statement_uses_an_index(filled: Ledger, ledger_place: Place, tmp_path: Path) -> None:
    """Booking, a duplicate, a revision, questions with whole and cut buckets, compaction, archiving."""
    database = filled.database
    with recorded(database) as statements:
        filled.write(batch([use(5_000), use(5_001, revision=1, site="S1"), use(9_000, name="new")]))
        for query in _questions():
            assert answered(filled, query).rows
        later = prepared(database, USE, microseconds(NOW + timedelta(days=2)))
        compact(later)
        assert list(archive(filled, tmp_path, FIRST + timedelta(days=2)))
        filled.write(batch([use(3)]))
    assert unindexed(database, ledger_place.sort, statements, LARGE) == {}
    whole = "SELECT sum(wall_time) FROM accounting_use_records WHERE wall_time > 5"
    assert unindexed(database, ledger_place.sort, [(whole, ())], LARGE), "one that has no index would be found"


def test_what_looks_at_a_month_uses_an_index(filled: Ledger, ledger_place: Place, tmp_path: Path) -> None:
    """Verifying, rebuilding, closing, signing, tracing and correcting it read it, and not all the others."""
    march = microseconds(datetime(2025, 3, 1, tzinfo=UTC)), microseconds(datetime(2025, 4, 1, tzinfo=UTC))
    scope = Scope(tmp_path, ("use",), *march)
    selection = Selection(where=("site=S1", "user=u1"), start=march[0], end=march[0] + 9 * 24 * HOUR)
    draft = Draft(
        kind="use", action=Action.CHANGE, selection=selection, given={"wall_time": 60}, author="anna", reason="a test"
    )
    traced = msgspec.structs.replace(next(_questions()), by=(), period=Period.WHOLE, filters=(Filter("site", ("S2",)),))
    with recorded(filled.database) as statements:
        assert list(verify(filled, scope, Counts())) == []
        assert sum(each.records for each in rebuild(filled, scope)) > 0
        close(filled, "use", parse_month("2025-03"), "dora")
        assert sign_compared(filled, tmp_path, "use", parse_month("2025-03"), "emil").untold == ()
        assert approve(filled, propose(filled, draft).number, "ben").figures
        assert trace(asking(filled), traced, Page(), EVERYTHING).records
        assert filled.write(batch([use(2_000, name="late", revision=1)])).outcomes
    assert unindexed(filled.database, ledger_place.sort, statements, LARGE) == {}


def test_archiving_counters_uses_an_index(
    open_database: Callable[[], Database], ledger_place: Place, tmp_path: Path
) -> None:
    """Which of a counter's records may leave, and whether a late one may come, is not asked of all others."""
    ledger = prepared(open_database(), MACHINE, microseconds(NOW))
    for place in range(1, 41):
        ledger.write(machine_batch([machine(number, day=place / 2) for number in range(100)]))
    analyze(ledger.database, ledger.metadata)
    with recorded(ledger.database) as statements:
        (first, *_) = archive(ledger, tmp_path, ANY_FIRST + timedelta(days=3))
        late = machine_batch([machine(1, day=1.6), machine(2, day=9.6)])
        assert ledger.write(late).outcomes == [Outcome.REJECTED, Outcome.STORED]
        restore(ledger, tmp_path, first.file)
    assert unindexed(ledger.database, ledger_place.sort, statements, LARGE) == {}


def test_snapshots_are_found_by_an_index(
    open_database: Callable[[], Database], ledger_place: Place, tmp_path: Path
) -> None:
    """Duplicates, revisions, late ones, questions, archiving and restoring, beside many cycles and what was seen."""
    ledger = prepared(open_database(), LEVEL, microseconds(NOW))
    for first in range(0, RECORDS, 4_000):
        ledger.write(level_batch([seen(number) for number in range(first, first + 4_000)]))
    compact(ledger)
    analyze(ledger.database, ledger.metadata)
    asked = [
        UsageQuery(
            kind="level",
            wanted=wanted("mean:used", "last:used", "last-known:used", "max:used", "cycles", "incomplete"),
            start=datetime(2025, 3, 1, hour, tzinfo=UTC),
            end=datetime(2025, 3, 5, tzinfo=UTC),
            by=("site",),
            attribution=Attribution.AT_INSTANT,
        )
        # Cut within a bucket: records are read.
        for hour in (0, 7)
    ]
    with recorded(ledger.database) as statements:
        newer = seen(900) | {"revision": 1, "used": 7}
        outcomes = ledger.write(level_batch([seen(5), newer, seen(7) | {"_id": seen(7)["_id"][:-1] + b"x"}])).outcomes
        assert outcomes == [Outcome.DUPLICATE, Outcome.REPLACED, Outcome.STORED]
        for query in asked:
            assert answered(ledger, query).rows
        (first_file, *_) = archive(ledger, tmp_path, FIRST + timedelta(days=2))
        assert ledger.write(level_batch([seen(0)])).outcomes == [Outcome.DUPLICATE]
        restore(ledger, tmp_path, first_file.file)
    large = [f"accounting_level_{name}" for name in ("records", "seen", "cycles", "superseded", "originals")]
    assert unindexed(ledger.database, ledger_place.sort, statements, large) == {}


def seen(number: int) -> Fields:
    """Forty storages every few hours."""
    time = microseconds(FIRST) + number // 40 * 42 * HOUR
    return level(number % 40, time=time, site=f"S{number % 40}", producer=f"p{number % 3}", cycle_size=13)
