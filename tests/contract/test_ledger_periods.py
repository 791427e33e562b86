"""Months closed for single VOs on every database: each VO's figures stand by themselves, whatever others do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from corrected_model import WINDOW, asked, corrected_by, emptied, question
from ledger_databases import Place, prepared
from sqlalchemy import MetaData, Table, inspect, select, text
from usage_model import USE, batch, use
from viewers import answered

from accounting.booking.adjustments import ALL_VOS
from accounting.checks.signing import sign_compared
from accounting.checks.verify_sums import wrong_signatures
from accounting.corrections.correction import Action
from accounting.corrections.deciding import reverse
from accounting.ledger import Ledger
from accounting.migrations import revisions, standing
from accounting.periods.adjusted import Portion, adjustments_of
from accounting.periods.closed_months import PeriodError, PeriodStateError, find_period, periods_in
from accounting.periods.closing import close, reopen
from accounting.periods.signatures import has_figures, sign, verified_periods
from accounting.tables import BY_KEY
from accounting.upkeep.months import parse_month
from siteward.query import Filter, QueryError
from siteward.server.database import Database
from siteward.server.database.columns import text_column
from siteward.usage import AsOf, Attribution, ClosedPeriod, Period, Quantity, WantedUsage
from siteward.viewer import Viewer, Visible

Open = Callable[[], Database]
JANUARY: Final = parse_month("2026-01")
MONTH: Final[dict[str, Any]] = {"start": WINDOW[0], "end": WINDOW[0] + timedelta(days=31)}
NOWHERE: Final = Path("nowhere")
"""Of an archive without files."""
ONLY_ONE: Final = (Filter("vo", ("one",)),)
ONLY_TWO: Final = (Filter("vo", ("two",)),)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """In June 2026, with a record of either VO in January, of 7200 s each."""
    made = emptied(database)
    made.write(batch([use(), use(1, vo="two")]))
    return made


def told(ledger: Ledger, vo: str = ALL_VOS) -> list[tuple[Any, ...]]:
    """VO, cause, number of records and wall time of each adjustment of January."""
    found = adjustments_of(ledger, "use", JANUARY, vo)
    return [(each.group["vo"], each.cause, each.shown.get("records", 0), each.shown["wall_time"]) for each in found]


def figures(ledger: Ledger, as_of: AsOf = AsOf.CLOSING, viewer: Viewer | None = None, **changes: Any) -> dict[str, int]:
    """Wall time of January by VO."""
    wanted = (WantedUsage(Quantity.SUM, "wall_time"),)
    parts = {"by": ("vo",), "wanted": wanted, "as_of": as_of, "period": Period.WHOLE} | MONTH | changes
    asking = question(Attribution.BY_END, **parts)
    answer = answered(ledger, asking, viewer) if viewer else answered(ledger, asking)
    return {str(row.group[0]): int(row.values[0] or 0) for row in answer.rows if row.values[0]}


def everything_happens(ledger: Ledger) -> None:
    """A late record, a newer revision, a correction of a value, one that moves to the other VO, and a void, of each."""
    ledger.write(batch([use(2, wall_time=10), use(3, vo="two", wall_time=20)]))
    ledger.write(batch([use(wall_time=7300, revision=1), use(1, vo="two", wall_time=7400, revision=1)]))
    corrected_by(ledger, Action.MOVE, "name=2", given=("vo=two",))
    corrected_by(ledger, Action.MOVE, "name=3", given=("vo=one",))
    corrected_by(ledger, Action.VOID, "name=0")


OF_ONE: Final = [
    ("one", "late record", 1, 10),
    ("one", "newer revision", 0, 100),
    ("one", "correction", -1, -10),
    ("one", "correction", 1, 20),
    ("one", "correction", -1, -7300),
]
OF_TWO: Final = [
    ("two", "late record", 1, 20),
    ("two", "newer revision", 0, 200),
    ("two", "correction", 1, 10),
    ("two", "correction", -1, -20),
]


def test_a_month_closed_for_one_vo(ledger: Ledger) -> None:
    """Only what changes that VO's figures is an adjustment, of a move its own part; nothing is kept of the other VO."""
    close(ledger, "use", JANUARY, "dora", "one")
    signed = sign(ledger, "use", JANUARY, "emil", "one")
    everything_happens(ledger)
    assert told(ledger, "one") == OF_ONE
    assert figures(ledger, filters=ONLY_ONE) == {"one": 7200}
    assert figures(ledger, AsOf.PRESENT) == {"one": 20, "two": 7410}
    (verified,) = verified_periods(ledger)
    assert (verified.vo, verified.is_right, verified.computed) == ("one", True, signed.digest)
    with pytest.raises(PeriodError, match="2026-01 of use was never closed"):
        told(ledger)
    with pytest.raises(PeriodError, match="2026-01 of use for the VO two was never closed"):
        told(ledger, "two")


def test_what_is_open_for_a_vo_has_no_figures_as_of_closing(ledger: Ledger) -> None:
    """Of all VOs together there are none while one is open; a viewer of one VO is not told of the other one's."""
    close(ledger, "use", JANUARY, "dora", "one")
    ledger.write(batch([use(2, wall_time=10)]))
    message = "2026-01 of use for the VO two is not closed, and has no figures as of closing"
    with pytest.raises(QueryError, match=message):
        figures(ledger)
    with pytest.raises(QueryError, match=message):
        figures(ledger, filters=ONLY_TWO)
    one, two = (Viewer(visible=Visible.VO, names=True, vos=(vo,)) for vo in ("one", "two"))
    assert figures(ledger, viewer=one) == {"one": 7200}
    period = ClosedPeriod("2026-01", "closed", adjusted=True, vo="one")
    noted = [answered(ledger, question(Attribution.BY_END, **MONTH), viewer).closed for viewer in (one, two)]
    assert noted == [(period,), ()]
    negated = (Filter("vo", ("two",), negated=True),)
    assert answered(ledger, question(Attribution.BY_END, filters=negated, **MONTH)).closed == (period,)


def test_a_month_closed_for_both_vos(ledger: Ledger) -> None:
    """Each has its own adjustments and its own digest; together they add up to what both were."""
    for vo in ("one", "two"):
        close(ledger, "use", JANUARY, "dora", vo)
        sign(ledger, "use", JANUARY, "emil", vo)
    everything_happens(ledger)
    assert (told(ledger, "one"), told(ledger, "two")) == (OF_ONE, OF_TWO)
    assert figures(ledger) == {"one": 7200, "two": 7200}
    assert [each.is_right for each in verified_periods(ledger)] == [True, True]
    assert len({each.digest for each in periods_in(ledger)}) == 2
    # What comes of a third one is in no period, and so there are no figures of all VOs.
    ledger.write(batch([use(9, vo="three")]))
    with pytest.raises(QueryError, match="2026-01 of use for the VO three is not closed"):
        figures(ledger)
    assert figures(ledger, filters=(Filter("vo", ("one", "two")),)) == {"one": 7200, "two": 7200}


def test_a_month_closed_for_all_vos(ledger: Ledger) -> None:
    """All changes are its adjustments, also of VOs that were not there; no VO is closed by itself meanwhile."""
    close(ledger, "use", JANUARY, "dora")
    sign(ledger, "use", JANUARY, "emil")
    everything_happens(ledger)
    ledger.write(batch([use(9, vo="three", wall_time=5)]))
    assert sorted(told(ledger)) == sorted([*OF_ONE, *OF_TWO, ("three", "late record", 1, 5)])
    assert figures(ledger) == {"one": 7200, "two": 7200}
    assert figures(ledger, filters=ONLY_ONE) == {"one": 7200}
    assert [each.is_right for each in verified_periods(ledger)] == [True]
    with pytest.raises(PeriodStateError, match="for the VO one is signed already, with all VOs that have no period of"):
        close(ledger, "use", JANUARY, "dora", "one")


def test_closing_for_all_is_closing_for_the_rest(ledger: Ledger) -> None:
    """A VO that was closed by itself stays so: each change is in one period, whichever is opened or closed."""
    ledger.write(batch([use(4, vo="three", wall_time=1)]))
    close(ledger, "use", JANUARY, "dora", "one")
    rest = close(ledger, "use", JANUARY, "dora")
    assert (rest.vo, rest.without, rest.covers("two"), rest.covers("one")) == (ALL_VOS, ("one",), True, False)
    for vo in (ALL_VOS, "one"):
        sign(ledger, "use", JANUARY, "emil", vo)
    everything_happens(ledger)
    assert (told(ledger, "one"), told(ledger)) == (OF_ONE, OF_TWO)
    assert figures(ledger) == {"one": 7200, "two": 7200, "three": 1}
    assert [each.is_right for each in verified_periods(ledger)] == [True, True]
    noted = answered(ledger, question(Attribution.BY_END, **MONTH)).closed
    assert [(each.vo, each.adjusted) for each in noted] == [(ALL_VOS, True), ("one", True)]

    reopen(ledger, "use", JANUARY, "dora", "a site was late", "one")
    ledger.write(batch([use(5, wall_time=3)]))
    assert told(ledger) == OF_TWO
    with pytest.raises(QueryError, match="2026-01 of use for the VO one is not closed"):
        figures(ledger)
    assert [(each.vo, each.is_right) for each in verified_periods(ledger)] == [(ALL_VOS, True)]
    close(ledger, "use", JANUARY, "dora", "one")
    assert told(ledger, "one") == []
    assert figures(ledger) == {"one": 23, "two": 7200, "three": 1}


def test_a_reversal_of_a_move_between_vos_takes_both_parts_back(ledger: Ledger) -> None:
    """Each period has its part of the move and of the way back, and nothing else."""
    for vo in ("one", "two"):
        close(ledger, "use", JANUARY, "dora", vo)
    number = corrected_by(ledger, Action.MOVE, "name=0", given=("vo=two",)).number
    reverse(ledger, number, "carl", "it was right")
    assert told(ledger, "one") == [("one", "correction", -1, -7200), ("one", "reversal", 1, 7200)]
    assert told(ledger, "two") == [("two", "correction", 1, 7200), ("two", "reversal", -1, -7200)]
    assert figures(ledger) == figures(ledger, AsOf.PRESENT) == {"one": 7200, "two": 7200}


def test_several_months_of_vos_closed_differently(ledger: Ledger) -> None:
    """As of closing takes each month's own periods: January by VO, February of all."""
    february, days = parse_month("2026-02"), 10 * 86_400 * 1_000_000
    ledger.write(batch([use(20, start=use()["start"] + days, end=use()["end"] + days, wall_time=100)]))
    close(ledger, "use", february, "dora")
    for vo in ("one", "two"):
        close(ledger, "use", JANUARY, "dora", vo)
    everything_happens(ledger)
    late = use(21, vo="two", start=use()["start"] + days, end=use()["end"] + days)
    ledger.write(batch([late]))
    both: dict[str, Any] = {"start": WINDOW[0], "end": WINDOW[0] + timedelta(days=59)}
    assert figures(ledger, **both) == {"one": 7300, "two": 7200}
    assert figures(ledger, **both, filters=ONLY_TWO) == {"two": 7200}


def test_a_digest_is_that_of_one_vos_figures(ledger: Ledger) -> None:
    """What another VO's buckets say makes no difference; what its own say does, and verifying names the VO."""
    close(ledger, "use", JANUARY, "dora", "one")
    signed = sign_compared(ledger, NOWHERE, "use", JANUARY, "emil", "one").period
    other = emptied(ledger.database)
    other.write(batch([use(), *(use(number, vo="two") for number in range(5, 9))]))
    close(other, "use", JANUARY, "dora", "one")
    assert sign(other, "use", JANUARY, "emil", "one").digest == signed.digest
    series = other.tables["use"].series
    buckets = other.tables["use"].by_end

    def damage(vo: str) -> None:
        mine = buckets.c["_series"].in_(select(series.c["_series"]).where(series.c["vo"] == vo))
        with other.database.write() as connection:
            connection.execute(buckets.update().where(mine).values(wall_time=buckets.c["wall_time"] + 1))

    damage("two")
    assert list(wrong_signatures(other, ())) == []
    # Nor does it keep the VO's own accountants from signing.
    sign_compared(other, NOWHERE, "use", JANUARY, "emil", "one")
    damage("one")
    (wrong,) = wrong_signatures(other, ())
    assert "not those that emil signed for the VO one" in wrong.why
    with pytest.raises(PeriodError, match="1 sums of the month are not what its records say"):
        sign_compared(other, NOWHERE, "use", JANUARY, "emil", "one")


def test_a_month_from_which_everything_was_moved_has_no_figures(ledger: Ledger) -> None:
    """Nor has one of a VO that has none in it; rows of buckets stay, with nothing in them."""
    corrected_by(ledger, Action.MOVE, "name=0", given=("vo=two",))
    held = {vo: has_figures(ledger, close(ledger, "use", JANUARY, "dora", vo)) for vo in ("one", "two")}
    assert held == {"one": False, "two": True}
    assert has_figures(ledger, close(ledger, "use", parse_month("2026-02"), "dora")) is False
    ledger.write(batch([use(9, vo="three")]))
    assert has_figures(ledger, close(ledger, "use", JANUARY, "dora")) is True


def test_periods_of_vos_are_guarded(ledger: Ledger) -> None:
    """A VO that is not there, and what is closed or open already, is refused with what to do."""
    with pytest.raises(PeriodError, match="use has no record of the VO 'ome'"):
        close(ledger, "use", JANUARY, "dora", "ome")
    with pytest.raises(PeriodStateError, match="2026-01 of use for the VO one is open; close it first"):
        sign(ledger, "use", JANUARY, "emil", "one")
    close(ledger, "use", JANUARY, "dora", "one")
    with pytest.raises(PeriodStateError, match="2026-01 of use for the VO one is closed already"):
        close(ledger, "use", JANUARY, "dora", "one")
    with pytest.raises(PeriodStateError, match="2026-01 of use is open; close it first"):
        reopen(ledger, "use", JANUARY, "dora", "why")
    entries = ledger.common.entries
    with ledger.database.read() as connection:
        noted = connection.execute(select(entries.c.action, entries.c.vo).where(entries.c.vo != "")).all()
    assert [tuple(each) for each in noted] == [("close 2026-01", "one")]


def test_adjustments_are_listed_in_portions_of_what_is_visible(ledger: Ledger) -> None:
    """One portion after the other is all of them; conditions leave out what a viewer does not see."""
    close(ledger, "use", JANUARY, "dora")
    everything_happens(ledger)
    everything = adjustments_of(ledger, "use", JANUARY)
    found, after = [], None
    while some := adjustments_of(ledger, "use", JANUARY, portion=Portion(after=after, most=2)):
        assert len(some) <= 2
        found += some
        after = some[-1].place
    assert found == everything
    assert len(found) == len(OF_ONE) + len(OF_TWO)
    mine = adjustments_of(ledger, "use", JANUARY, portion=Portion(visible=ONLY_ONE))
    assert mine == [each for each in everything if each.group["vo"] == "one"]


def test_closing_vos_races_with_writers(database: Database) -> None:
    """Each record is in its VO's figures as of closing, or an adjustment of its VO's period."""
    ledger = emptied(database)
    vos = ("one", "two")
    records = [use(number, vo=vos[number % 2]) for number in range(160)]
    ledger.write(batch(records[:10]))
    began, failed = threading.Barrier(3), list[BaseException]()

    def write(place: int) -> None:
        mine = Ledger(database, {"use": USE}, ledger.clock, ledger.digests)
        began.wait()
        for first in range(place * 80, place * 80 + 80, 10):
            mine.write(batch(records[first : first + 10]))

    def decide() -> None:
        mine = Ledger(database, {"use": USE}, ledger.clock, ledger.digests)
        began.wait()
        for vo in (*vos, ALL_VOS):
            close(mine, "use", JANUARY, "dora", vo)
            sign(mine, "use", JANUARY, "emil", vo)

    def caught(act: Callable[..., None], *arguments: int) -> None:
        try:
            act(*arguments)
        except BaseException as error:  # noqa: BLE001  # told below.
            failed.append(error)

    threads = [threading.Thread(target=caught, args=args) for args in ((write, 0), (write, 1), (decide,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    counted = {"wanted": (WantedUsage(Quantity.RECORDS),), "by": ("vo",)} | MONTH
    closed = asked(ledger, Attribution.BY_END, as_of=AsOf.CLOSING, **counted)
    for vo in vos:
        adjusted = sum(each.shown["records"] for each in adjustments_of(ledger, "use", JANUARY, vo))
        assert closed[WINDOW[0], (vo,)][0] + adjusted == 80
    assert adjustments_of(ledger, "use", JANUARY) == []
    assert all(each.is_right for each in verified_periods(ledger))


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_ledger_whose_months_were_closed_for_all(open_database: Open, ledger_place: Place, done: int) -> None:
    """Its periods stay what they were, signatures and adjustments too, wherever an earlier upgrade was killed."""
    now = emptied(open_database()).clock()
    before = prepared(open_database(), USE, now)
    before.write(batch([use(), use(1, vo="two")]))
    close(before, "use", JANUARY, "dora")
    signed = sign(before, "use", JANUARY, "emil")
    before.write(batch([use(2, wall_time=10)]))
    made_old(before, () if ledger_place.sort == "sqlite" else ("entries", "periods")[:done])
    ledger = prepared(open_database(), USE, now)
    (kept,) = periods_in(ledger)
    assert kept == signed
    assert (kept.vo, kept.without) == (ALL_VOS, ())
    with ledger.database.read() as connection:
        key = inspect(connection).get_pk_constraint("accounting_periods")["constrained_columns"]
    assert key == ["kind", "month", "vo"]
    ledger.write(batch([use(3, vo="two", wall_time=20)]))
    assert told(ledger) == [("one", "late record", 1, 10), ("two", "late record", 1, 20)]
    assert figures(ledger) == {"one": 7200, "two": 7200}
    assert [each.is_right for each in verified_periods(ledger)] == [True]
    reopen(ledger, "use", JANUARY, "dora", "by VO from now on")
    close(ledger, "use", JANUARY, "dora", "one")
    close(ledger, "use", JANUARY, "dora")
    assert figures(ledger) == {"one": 7210, "two": 7220}
    assert find_period(ledger, "use", JANUARY).without == ("one",)


def made_old(ledger: Ledger, done: tuple[str, ...]) -> None:
    """Make the shared tables what they were before there were periods of VOs, but for what is done already."""
    periods = ledger.common.periods
    with ledger.database.write() as connection:
        columns = [column._copy() for column in periods.columns if column.name != "vo"]
        old = Table("accounting_periods_of_before", MetaData(), *columns, **BY_KEY)
        old.create(connection)
        names = [column.name for column in old.columns]
        connection.execute(old.insert().from_select(names, select(*(periods.c[name] for name in names))))
        periods.drop(connection)
        connection.execute(text(f"ALTER TABLE {old.name} RENAME TO {periods.name}"))
        if "periods" in done:
            operations = Operations(MigrationContext.configure(connection))
            operations.add_column("accounting_periods", text_column("vo", 255, default="*"))
        if "entries" not in done:
            connection.execute(text("ALTER TABLE accounting_entries DROP COLUMN vo"))
        connection.execute(text(f"UPDATE {revisions.VERSION_TABLE} SET version_num = 'r0004'"))
        connection.execute(standing.KINDS.update().values(digest=bytes(range(16))))
