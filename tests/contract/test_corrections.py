"""Corrections and closed months on every database: whatever is done, totals are those of a plain computation."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import ledger_databases
import msgspec
import pytest
from corrected_model import (
    WANTED,
    WINDOW,
    Model,
    Step,
    asked,
    check,
    corrected_by,
    draft_of,
    emptied,
    question,
    steps,
)
from examples import JOB, NOON, batch_of, job_rows
from hypothesis import given
from searching import searched
from sqlalchemy import select
from usage_model import FIRST, USE, batch, use
from viewers import answered

from accounting.archive.archive_file import ArchiveError
from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.corrections import correcting, deciding
from accounting.corrections.correction import Action, CorrectionError, State
from accounting.corrections.deciding import approve, found_correction, preview, propose, reject, reverse
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.periods.adjusted import adjustments_of
from accounting.periods.closed_months import PeriodError
from accounting.periods.closing import close, reopen
from accounting.periods.signatures import sign, verified_periods
from accounting.upkeep.months import parse_month
from accounting.upkeep.tiers import compact
from siteward.query import Filter, QueryError
from siteward.records import Kind, Measure, microseconds
from siteward.server.database import Database
from siteward.sinks import Outcome
from siteward.usage import OF_USAGE, AsOf, Attribution, ClosedPeriod, Period, Quantity, UsageQuery, WantedUsage


@searched(6)
@given(done=steps())
def test_totals_are_those_of_the_records_under_corrections(database: Database, done: list[Step]) -> None:
    """Records, revisions, corrections, reversals, closings, compaction, in any order: present totals are exact.

    Figures as of closing never change afterwards, and a signature stays right.
    """
    ledger, model = emptied(database), Model()
    for step in done:
        step(ledger, model)
    check(ledger, model)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """An empty ledger, in June 2026."""
    return emptied(database)


def totals(ledger: Ledger, **changes: Any) -> dict[Attribution, Any]:
    """Wall time by site, all other sites left out, in both attributions, over January to March."""
    wanted = (WantedUsage(Quantity.SUM, "wall_time"),)
    parts = {"wanted": wanted, "by": ("site",), "period": Period.WHOLE} | changes
    return {
        each: {group[0]: values[0] for (_, group), values in asked(ledger, each, **parts).items()} for each in OF_USAGE
    }


def everywhere(**sites: int) -> dict[Attribution, dict[str, int]]:
    return dict.fromkeys(OF_USAGE, sites)


def kept(ledger: Ledger, name: str) -> list[tuple[Any, ...]]:
    """Revision and wall time of the records in a table of the kind's."""
    table = getattr(ledger.tables["use"], name)
    with ledger.database.read() as connection:
        return sorted(tuple(row) for row in connection.execute(select(table.c.revision, table.c.wall_time)))


def test_a_revision_that_moves_a_job_to_another_site_in_a_closed_period(ledger: Ledger) -> None:
    """Both sites show the adjustment, the signed digest stays right, present totals are right in both attributions."""
    january = parse_month("2026-01")
    ledger.write(batch([use(), use(1, site="T")]))
    close(ledger, "use", january, "dora")
    signed = sign(ledger, "use", january, "emil")
    ledger.write(batch([use(site="T", wall_time=7201, revision=1)]))

    assert totals(ledger) == everywhere(T=14401)
    of_closing = {"as_of": AsOf.CLOSING, "start": WINDOW[0], "end": WINDOW[0] + timedelta(days=31)}
    assert asked(ledger, Attribution.BY_END, by=("site",), wanted=WANTED[:1], **of_closing) == {
        (WINDOW[0], ("S",)): (7200,),
        (WINDOW[0], ("T",)): (7200,),
    }
    found = [
        (each.cause, each.action, each.group["site"], each.differences["wall_time"], each.differences["_records"])
        for each in adjustments_of(ledger, "use", january)
    ]
    assert sorted(found) == [
        ("newer revision", "received", "S", -7200, -1),
        ("newer revision", "received", "T", 7201, 1),
    ]
    (verified,) = verified_periods(ledger)
    assert (verified.is_right, verified.computed) == (True, signed.digest)
    answer = answered(ledger, question(Attribution.BY_END))
    assert answer.closed == (ClosedPeriod("2026-01", "signed", adjusted=True),)
    elsewhere = (Filter("user", ("nobody",)),)
    assert not answered(ledger, question(Attribution.BY_END, filters=elsewhere)).closed[0].adjusted
    assert answered(ledger, question(Attribution.PRORATED)).closed == ()


def test_a_job_whose_site_was_wrong_in_a_closed_month(database: Database) -> None:
    """Our own kind, whose id has the site in it: moved, it counts once, whatever its site sends of it afterwards."""
    ledger = ledger_databases.emptied(database, JOB, NOON + timedelta(days=40))
    month = parse_month(f"{NOON:%Y-%m}")
    ledger.write(batch_of(JOB, job_rows(2, site="WRONG")))
    close(ledger, "job", month, "dora")
    signed = sign(ledger, "job", month, "emil")
    text = DraftText(
        kind="job",
        action="move",
        window=f"{NOON:%Y-%m}",
        where=("local_job_id=1",),
        given=("site=RIGHT",),
        author="anna",
        reason="the name of another site",
    )
    approve(ledger, propose(ledger, parse_draft(text, {"job": JOB}, NOON)).number, "ben")
    again = ledger.write(batch_of(JOB, job_rows(2, site="WRONG")))
    newer = ledger.write(batch_of(JOB, job_rows(2, site="WRONG", revision=1, wall_time=3601)))
    assert (set(again.outcomes), set(newer.outcomes)) == ({Outcome.DUPLICATE}, {Outcome.REPLACED})

    for attribution in OF_USAGE:
        query = UsageQuery(
            kind="job",
            attribution=attribution,
            wanted=(WantedUsage(Quantity.SUM, "wall_time"),),
            start=NOON - timedelta(days=1),
            end=NOON + timedelta(days=1),
            by=("site",),
        )
        rows = answered(ledger, query).rows
        assert {row.group: row.values for row in rows} == {("RIGHT",): (3601,), ("WRONG",): (3601,)}
    differences: Counter[str] = Counter()
    for each in adjustments_of(ledger, "job", month):
        differences[str(each.group["site"])] += each.differences["wall_time"]
    assert differences == {"RIGHT": 3601, "WRONG": 1 - 3600}
    (verified,) = verified_periods(ledger)
    assert (verified.is_right, verified.computed) == (True, signed.digest)


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_digest_is_that_of_the_figures_alone(database: Database, is_compacted: bool) -> None:  # noqa: FBT001
    """In every database, whatever came first, came and went, or was put together."""
    ledger = emptied(database, FIRST + timedelta(days=3))
    records = [use(number, site=f"S{number % 3}", code=number % 2 or None) for number in range(6)]
    ledger.write(batch([*records[::-1], use(9, site="gone")] if is_compacted else records))
    if is_compacted:
        corrected_by(ledger, Action.VOID, "site=gone")
        ledger.clock = lambda: microseconds(FIRST + timedelta(days=90))
        assert compact(ledger) > 0
    close(ledger, "use", parse_month("2026-01"), "dora")
    assert sign(ledger, "use", parse_month("2026-01"), "emil").digest == DIGEST


DIGEST: Final = "74141b7dffdeafc5848ba32e1988a4d32e4b1ee34a6ed9214ff069b694ef58a3"


def test_what_was_replaced_is_kept(ledger: Ledger) -> None:
    """Every revision that ever counted stays as it came, whatever lies over it."""
    ledger.write(batch([use(wall_time=1)]))
    ledger.write(batch([use(wall_time=2, revision=1)]))
    number = corrected_by(ledger, Action.CHANGE, given=("wall_time=10",)).number
    ledger.write(batch([use(wall_time=3, revision=2), use(wall_time=4, revision=2)]))
    assert (kept(ledger, "records"), kept(ledger, "originals")) == ([(2, 10)], [(2, 3)])
    assert kept(ledger, "superseded") == [(0, 1), (1, 2)]
    reverse(ledger, number, "carl", "it was right")
    assert (kept(ledger, "records"), kept(ledger, "originals")) == ([(2, 3)], [])
    assert totals(ledger) == everywhere(S=3)


def test_a_void_record_counts_in_nothing_and_is_known(ledger: Ledger) -> None:
    """Not in sums, percentiles or windows within a bucket; again it is a duplicate, newer it replaces what is void."""
    ledger.write(batch([use(), use(1)]))
    number = corrected_by(ledger, Action.VOID, "name=0").number
    assert totals(ledger) == everywhere(S=7200)
    assert ledger.write(batch([use()])).outcomes == [Outcome.DUPLICATE]
    assert ledger.write(batch([use(wall_time=100, revision=1)])).outcomes == [Outcome.REPLACED]
    assert ledger.write(batch([use(), use(wall_time=100, revision=1)])).outcomes == [Outcome.DUPLICATE] * 2
    cut = {"end": FIRST + timedelta(hours=1, minutes=30), "wanted": WANTED[:1], "by": ()}
    assert list(asked(ledger, Attribution.PRORATED, **cut).values()) == [(1800,)]
    median = {"wanted": (WantedUsage(Quantity.P50, "wall_time"), WantedUsage(Quantity.RECORDS)), "by": ()}
    assert list(asked(ledger, Attribution.BY_END, **median).values()) == [(7200, 1)]
    with pytest.raises(CorrectionError, match=r"no record .* that counts: it never came, or is void"):
        propose(ledger, draft_of(Action.VOID, ids=(use()["_id"].hex(),)))
    reverse(ledger, number, "carl", "it was right")
    assert totals(ledger) == everywhere(S=7300)


def test_reversing_one_of_several_gives_what_would_be_without_it(ledger: Ledger) -> None:
    """The others lie over the record as before, in their order."""
    ledger.write(batch([use(), use(1, site="U")]))
    first = corrected_by(ledger, Action.MOVE, "site=S", given=("site=T",)).number
    second = corrected_by(ledger, Action.CHANGE, "site=T", given=("wall_time=5",)).number
    third = corrected_by(ledger, Action.MOVE, "site=T", given=("site=V",)).number
    assert totals(ledger) == everywhere(U=7200, V=5)
    reverse(ledger, first, "carl", "it was right")
    assert totals(ledger) == everywhere(U=7200, V=5)
    reverse(ledger, third, "carl", "it was right")
    assert totals(ledger) == everywhere(S=5, U=7200)
    with pytest.raises(CorrectionError, match=f"correction {third} is reversed, and cannot be reversed"):
        reverse(ledger, third, "anna", "again")
    # Who was interrupted behind the last step does it again: it is done.
    assert reverse(ledger, third, "carl", "it was right") == found_correction(ledger, third)
    assert totals(ledger) == everywhere(S=5, U=7200)
    reverse(ledger, second, "carl", "it was right")
    assert totals(ledger) == everywhere(S=7200, U=7200)


def test_a_correction_is_approved_by_another_person_as_it_was_proposed(ledger: Ledger) -> None:
    """Its author cannot, unless the settings say so; nor anybody, once it would change something else."""
    ledger.write(batch([use()]))
    draft = draft_of(Action.MOVE, "site=S", given=("site=T",))
    assert preview(ledger, draft).records == 1
    number = propose(ledger, draft).number
    assert totals(ledger) == everywhere(S=7200)
    with pytest.raises(CorrectionError, match="proposed by anna, and is to be approved by another person"):
        approve(ledger, number, "anna")
    ledger.write(batch([use(1)]))
    with pytest.raises(CorrectionError, match=r"would change something else by now .* approve it with --anew"):
        approve(ledger, number, "ben")
    done = approve(ledger, number, "anna", self_approval=True, anew=True)
    assert (done.state, done.decided_by, done.figures.records) == (State.APPLIED, "anna", 2)
    assert approve(ledger, number, "anna", self_approval=True) == done
    with pytest.raises(CorrectionError, match="is applied, and cannot be approved"):
        approve(ledger, number, "ben")
    rejected = propose(ledger, draft_of(Action.VOID)).number
    assert reject(ledger, rejected, "ben", "no").state is State.REJECTED
    with pytest.raises(CorrectionError, match="is rejected, and cannot be approved"):
        approve(ledger, rejected, "ben")
    assert totals(ledger) == everywhere(T=14400)


def test_differences_are_shown_before_anything_is_written(ledger: Ledger) -> None:
    """Of each measure by attribution, month and moved value; afterwards they are what has changed."""
    ledger.write(batch([use(start=microseconds(datetime(2025, 12, 31, 23, tzinfo=UTC)), wall_time=10**6)]))
    draft = draft_of(Action.MOVE, "site=S", given=("site=T",))
    figures = preview(ledger, draft)
    shown = [
        (each.attribution, each.month, *each.group, each.difference)
        for each in figures.changes
        if each.measure == "wall_time"
    ]
    december, january = parse_month("2025-12"), parse_month("2026-01")
    lasting = use()["end"] - microseconds(datetime(2025, 12, 31, 23, tzinfo=UTC))
    part = 10**6 * 3600 * 1_000_000 // lasting
    assert shown == [
        (Attribution.PRORATED, december, "S", -part),
        (Attribution.PRORATED, december, "T", part),
        (Attribution.BY_END, january, "S", -(10**6)),
        (Attribution.PRORATED, january, "S", part - 10**6),
        (Attribution.BY_END, january, "T", 10**6),
        (Attribution.PRORATED, january, "T", 10**6 - part),
    ]
    assert approve(ledger, propose(ledger, draft).number, "ben").figures == figures


def test_archived_records_are_corrected_once_they_are_back(ledger: Ledger, tmp_path: Path) -> None:
    """Neither a correction nor its reversal leaves archived records out in silence: the file is named."""
    ledger.write(batch([use(), use(1)]))
    draft = draft_of(Action.MOVE, "site=S", given=("site=T",))
    number = propose(ledger, draft).number
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    attempts: list[Callable[[], Any]] = [lambda: approve(ledger, number, "ben"), lambda: propose(ledger, draft)]
    for attempt in attempts:
        with pytest.raises(
            CorrectionError, match=f"archived in {file.file}; bring them back with `siteward ledger restore"
        ):
            attempt()
    single = draft_of(Action.VOID, ids=(use()["_id"].hex(),))
    with pytest.raises(CorrectionError, match=f"archived in {file.file}"):
        propose(ledger, single)
    restore(ledger, tmp_path, file.file)
    approve(ledger, number, "ben")
    (file,) = archive(ledger, tmp_path, FIRST + timedelta(days=1))
    assert totals(ledger) == everywhere(T=14400)
    assert ledger.write(batch([use(), use(1, revision=1)])).outcomes == [Outcome.DUPLICATE, Outcome.REJECTED]
    with pytest.raises(CorrectionError, match=f"archived in {file.file}"):
        reverse(ledger, number, "carl", "it was right")
    restore(ledger, tmp_path, file.file)
    reverse(ledger, number, "carl", "it was right")
    assert totals(ledger) == everywhere(S=14400)


def test_a_revision_beyond_limits_under_a_correction_is_set_aside(ledger: Ledger) -> None:
    """The reason names the correction; a correction that would make such a record is refused before it is kept."""
    ledger.write(batch([use()]))
    with pytest.raises(CorrectionError, match=r"would not be booked so: use.wall_time: is beyond 1000000000"):
        propose(ledger, draft_of(Action.CHANGE, given=("wall_time=1000000001",)))
    number = corrected_by(ledger, Action.CHANGE, given=("processors=10000000000000",)).number
    written = ledger.write(batch([use(wall_time=10**6, revision=1)]))
    assert written.outcomes == [Outcome.REJECTED]
    assert f"under correction {number} that lies over it" in written.reasons[0].reason
    assert (kept(ledger, "records"), kept(ledger, "superseded")) == ([(0, 7200)], [])


def test_what_was_booked_before_its_limit_is_corrected_all_the_same(ledger: Ledger) -> None:
    """A limit that has become lower since stops only what would be made beyond it now."""
    ledger.write(batch([use(wall_time=10**9)]))
    columns = [
        msgspec.structs.replace(each, role=Measure("elapsed", unit="s", limit=10**6))
        if each.name == "wall_time"
        else each
        for each in USE.columns
    ]
    lower = Kind(msgspec.structs.replace(USE.declaration, columns=tuple(columns)))
    later = Ledger(ledger.database, {"use": lower}, ledger.clock)
    corrected_by(later, Action.MOVE, given=("site=T",))
    with pytest.raises(CorrectionError, match=r"would not be booked so: use.wall_time: is beyond 1000000"):
        propose(later, draft_of(Action.CHANGE, given=("wall_time=1000001",)))
    number = corrected_by(later, Action.CHANGE, given=("wall_time=7200",)).number
    assert totals(later) == everywhere(T=7200)
    reverse(later, number, "carl", "it was right")
    assert totals(later) == everywhere(T=10**9)


def test_closed_months_are_guarded(ledger: Ledger) -> None:
    """What is not over, closed already, or not closed is refused with what to do; a reopened month adjusts nothing."""
    january = parse_month("2026-01")
    with pytest.raises(PeriodError, match="2026-06 is not over"):
        close(ledger, "use", parse_month("2026-06"), "dora")
    with pytest.raises(PeriodError, match="2026-01 of use is open; close it first"):
        sign(ledger, "use", january, "emil")
    ledger.write(batch([use()]))
    close(ledger, "use", january, "dora")
    with pytest.raises(PeriodError, match="2026-01 of use is closed already"):
        close(ledger, "use", january, "dora")
    ledger.write(batch([use(1)]))
    assert [each.cause for each in adjustments_of(ledger, "use", january)] == ["late record"]
    with pytest.raises(PeriodError, match="reason: give one"):
        reopen(ledger, "use", january, "dora", " ")
    reopen(ledger, "use", january, "dora", "a site was late")
    ledger.write(batch([use(2)]))
    close(ledger, "use", january, "dora")
    assert adjustments_of(ledger, "use", january) == []
    assert answered(ledger, question(Attribution.BY_END)).closed == (ClosedPeriod("2026-01", "closed", adjusted=False),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attribution": Attribution.PRORATED}, "closed by end; ask as of closing with attribution by-end"),
        ({"wanted": (WantedUsage(Quantity.P50, "wall_time"),)}, "for sums, means, ratios and records"),
        ({"start": WINDOW[0] + timedelta(hours=1)}, "a window and periods of whole days"),
        ({}, "2026-02 of use is not closed, and has no figures as of closing"),
    ],
)
def test_what_is_not_known_as_of_closing_is_refused(ledger: Ledger, changes: dict[str, Any], message: str) -> None:
    """No figure is made up: the error says what may be asked."""
    close(ledger, "use", parse_month("2026-01"), "dora")
    parts = {"attribution": Attribution.BY_END, "as_of": AsOf.CLOSING} | changes
    with pytest.raises(QueryError, match=message):
        answered(ledger, question(**parts))


def test_half_of_a_correction_is_seen_and_finished(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is finished answers name it, nobody closes, archives or applies another one; the next run goes on."""
    monkeypatch.setattr(correcting, "AT_ONCE", 2)
    monkeypatch.setattr(deciding, "AT_ONCE", 2)
    ledger.write(batch([use(number) for number in range(5)]))
    number, other = (propose(ledger, draft_of(action, given=given)).number for action, given in HALVES)
    step = correcting._step
    done: list[Any] = []

    def dies(*arguments: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(step(*arguments))
        return done[0]

    with monkeypatch.context() as patch:
        patch.setattr(correcting, "_step", dies)
        with pytest.raises(KeyboardInterrupt):
            approve(ledger, number, "ben")
    assert totals(ledger) == everywhere(S=3 * 7200, T=2 * 7200)
    assert answered(ledger, question(Attribution.BY_END)).unfinished == (number,)
    with pytest.raises(PeriodError, match=f"correction {number} of use is not finished"):
        close(ledger, "use", parse_month("2026-01"), "dora")
    with pytest.raises(ArchiveError, match=f"correction {number} of use is not finished"):
        list(archive(ledger, Path("nowhere"), FIRST + timedelta(days=1)))
    with pytest.raises(CorrectionError, match=f"correction {number} of use is not finished"):
        approve(ledger, other, "ben", anew=True)
    applied = approve(ledger, number, "ben")
    assert (applied.state, applied.figures.records) == (State.APPLIED, 5)
    assert totals(ledger) == everywhere(T=5 * 7200)
    assert answered(ledger, question(Attribution.BY_END)).unfinished == ()


HALVES: Final = ((Action.MOVE, ("site=T",)), (Action.CHANGE, ("wall_time=1",)))


def test_closing_and_corrections_race_with_writers(database: Database) -> None:
    """Each record is in the figures as of closing or an adjustment; each correction lies over what it selected."""
    ledger = emptied(database)
    records = [use(number, site=f"S{number % 3}") for number in range(240)]
    ledger.write(batch(records[:20]))
    failed: list[BaseException] = []
    began = threading.Barrier(4)

    def write(place: int) -> None:
        mine = Ledger(database, {"use": USE}, ledger.clock, ledger.digests)
        began.wait()
        for first in range(0, 240, 20):
            chosen = records[first : first + 20]
            mine.write(batch(chosen if place else [{**each, "wall_time": 1, "revision": 1} for each in chosen]))

    def decide() -> None:
        mine = Ledger(database, {"use": USE}, ledger.clock, ledger.digests)
        began.wait()
        move = propose(mine, draft_of(Action.MOVE, "site=S1", given=("site=S2",))).number
        approve(mine, move, "ben", anew=True)
        close(mine, "use", parse_month("2026-01"), "dora")
        void = propose(mine, draft_of(Action.VOID, "site=S0")).number
        approve(mine, void, "ben", anew=True)
        reverse(mine, void, "carl", "it was right")
        sign(mine, "use", parse_month("2026-01"), "emil")

    def caught(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  # told below.
            failed.append(error)

    tasks = [decide, *(partial(write, place) for place in range(3))]
    threads = [threading.Thread(target=caught, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sum(totals(ledger)[Attribution.BY_END].values()) == 240
    counted = {"wanted": (WantedUsage(Quantity.RECORDS),), "by": ()}
    month = {"start": WINDOW[0], "end": WINDOW[0] + timedelta(days=31)}
    ((now,),) = asked(ledger, Attribution.BY_END, **counted, **month).values()
    ((closed,),) = asked(ledger, Attribution.BY_END, **counted, **month, as_of=AsOf.CLOSING).values()
    adjusted = sum(
        each.differences.get("_records", 0) for each in adjustments_of(ledger, "use", parse_month("2026-01"))
    )
    assert (now, closed + adjusted) == (240, 240)
    assert all(each.is_right for each in verified_periods(ledger))
