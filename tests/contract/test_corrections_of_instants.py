"""Corrections of snapshots and counters, on every database: totals are those of the records under them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import counter_model
import msgspec
import pytest
import snapshot_model
from corrected_model import Model
from counter_model import MACHINE, machine_batch
from hypothesis import given
from hypothesis import strategies as st
from ledger_databases import emptied
from searching import searched
from snapshot_model import LEVEL, after, level_batch
from usage_model import FIRST, LATER, SECOND, SOON, Fields
from viewers import EVERYTHING, answered, asking

from accounting.archive.archiving import archive
from accounting.archive.restoring import restore
from accounting.checks.verifying import Counts, Scope, verify
from accounting.corrections.correction import Action, Correction, CorrectionError, State
from accounting.corrections.deciding import approve, found_correction, preview, propose, reverse
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.query.calendar import periods_of
from accounting.trace.record_trace import trace_record
from accounting.upkeep.months import month_name
from accounting.upkeep.tiers import compact
from siteward.records import Kind, microseconds
from siteward.server.database import Database
from siteward.sinks import Batch, Outcome
from siteward.usage import OF_USAGE, Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.viewer import Viewer, Visible

DAY: Final = 86_400


class Sort(msgspec.Struct, frozen=True):
    """A kind, and how its records are made and added up by hand."""

    kind: Kind
    batch: Callable[[Sequence[Fields]], Batch]
    record: Callable[..., Fields]
    cells: Callable[..., dict[Any, tuple[Any, ...]]]
    attributions: tuple[Attribution, ...]
    measures: tuple[str, ...]
    more: tuple[WantedUsage, ...]
    given: tuple[Mapping[str, Any], ...]
    """What a change gives, and what a move does."""
    moved: tuple[Mapping[str, Any], ...]


def machine(number: int = 0, **changes: Any) -> Fields:
    """One record of one of three machines; its number tells which, and when."""
    name, time = number % 3, microseconds(FIRST) + (number * 61 % 40 * DAY + number * 7919) * SECOND
    fields: Fields = {
        "vo": "one",
        "time": time,
        "started": microseconds(FIRST) - DAY * SECOND,
        "producer": "p",
        "cycle_size": 1,
        "site": "S",
        "name": str(name),
        "wall_time": 1000 * number,
        "cpu_time": None,
        "processors": 4,
        "simulated": False,
        "revision": 0,
    } | changes
    fields.setdefault("_id", (time // 1000).to_bytes(6, "big") + number.to_bytes(10, "big"))
    return fields


def level(number: int = 0, **changes: Any) -> Fields:
    """One record; its number tells when."""
    time = microseconds(FIRST) + (number // 2 * 61 % 40 * DAY + number // 2 * 7919) * SECOND
    return snapshot_model.level(number, time=time, **changes)


SORTS: Final = {
    "snapshots": Sort(
        kind=LEVEL,
        batch=level_batch,
        record=level,
        cells=snapshot_model.cells,
        attributions=(Attribution.AT_INSTANT,),
        measures=("used", "files", "stored"),
        more=(
            WantedUsage(Quantity.LAST, "used"),
            WantedUsage(Quantity.MIN, "used"),
            WantedUsage(Quantity.MAX, "stored"),
            WantedUsage(Quantity.CYCLES),
            WantedUsage(Quantity.INCOMPLETE),
        ),
        given=({"used": 7}, {"files": None, "copies": 2}),
        moved=({"site": "T"}, {"site": "new", "user": "u"}, {"producer": "r"}, {"vo": "two", "name": "renamed"}),
    ),
    "counters": Sort(
        kind=MACHINE,
        batch=machine_batch,
        record=machine,
        cells=counter_model.cells,
        attributions=OF_USAGE,
        measures=("wall_time", "cpu_time", "core_time"),
        more=(),
        given=({"wall_time": 7}, {"processors": 2}, {"cpu_time": None}),
        moved=({"site": "T"}, {"site": "new", "simulated": True}),
    ),
}
CONDITIONS: Final[dict[tuple[str, ...], Callable[[Fields], bool]]] = {
    (): lambda _: True,
    ("site=S",): lambda record: record["site"] == "S",
    ("name~*1",): lambda record: record["name"].endswith("1"),
    ("site!=S", "vo=one"): lambda record: record["site"] != "S" and record["vo"] == "one",
}
Step = Callable[[Ledger, Model, Sort], None]


def corrected_by(ledger: Ledger, kind: Kind, action: Action, *where: str, **changes: Any) -> Correction:
    """A correction that ben has approved."""
    text: dict[str, Any] = {"window": "2026", "author": "anna", "reason": "it was wrong", "where": where} | changes
    draft = parse_draft(DraftText(kind=kind.name, action=str(action), **text), {kind.name: kind}, LATER)
    return approve(ledger, propose(ledger, draft).number, "ben")


def question(sort: Sort, attribution: Attribution, *, by: tuple[str, ...] = (), period: Period = Period.MONTH) -> Any:
    wanted = [WantedUsage(Quantity.SUM, name) for name in sort.measures]
    more = sort.more if by else ()
    start, end = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)
    return UsageQuery(
        kind=sort.kind.name,
        wanted=(*wanted, WantedUsage(Quantity.RECORDS), *more),
        start=start,
        end=end,
        attribution=attribution,
        by=by,
        period=period,
    )


def computed(sort: Sort, records: Iterable[Fields], query: UsageQuery) -> dict[Any, tuple[Any, ...]]:
    found = sort.cells(list(records), query, periods_of(query.start, query.end, query.period))
    return {cell: values for cell, values in found.items() if any(values)}


def asked(ledger: Ledger, query: UsageQuery) -> dict[Any, tuple[Any, ...]]:
    return {(row.start, row.group): row.values for row in answered(ledger, query).rows if any(row.values)}


def writing(records: list[dict[str, Any]]) -> Step:
    def act(ledger: Ledger, model: Model, sort: Sort) -> None:
        made = [
            sort.record(**{name: value for name, value in each.items() if name == "number" or name in sort.kind.names})
            for each in records
        ]
        assert not ledger.write(sort.batch(made)).reasons
        model.arrived += made

    return act


def correcting(action: Action, where: tuple[str, ...], place: int) -> Step:
    def act(ledger: Ledger, model: Model, sort: Sort) -> None:
        ids = model.select(CONDITIONS[where])
        if not ids:
            return
        values = {Action.CHANGE: sort.given, Action.MOVE: sort.moved, Action.VOID: ({},)}[action]
        new = values[place % len(values)]
        texts = tuple(
            f"{name}={'' if value is None else str(value).lower() if isinstance(value, bool) else value}"
            for name, value in new.items()
        )
        before = {each: computed(sort, model.records, question(sort, each)) for each in sort.attributions}
        done = corrected_by(ledger, sort.kind, action, *where, given=texts)
        model.layers[done.number] = (None if action is Action.VOID else new, ids)
        assert (done.state, done.figures.records) == (State.APPLIED, len(ids))
        for attribution in sort.attributions:
            after = computed(sort, model.records, question(sort, attribution))
            for place_of, measure in enumerate(sort.measures):
                told = dict.fromkeys({cell[0] for cell in (*before[attribution], *after)}, 0)
                for each in done.figures.changes:
                    if (each.attribution, each.measure) == (attribution, measure):
                        month = datetime.fromtimestamp(each.month, UTC)
                        told[month] = told.get(month, 0) + each.difference
                for month, difference in told.items():
                    due = [(found.get((month, ())) or (0,) * 4)[place_of] for found in (after, before[attribution])]
                    assert difference == due[0] - due[1], (measure, month_name(int(month.timestamp())))

    return act


def reversing(place: int) -> Step:
    def act(ledger: Ledger, model: Model, _: Sort) -> None:
        if model.layers:
            number = list(model.layers)[place % len(model.layers)]
            reverse(ledger, number, "carl", "it was right")
            del model.layers[number]

    return act


def ageing(days: int) -> Step:
    def act(ledger: Ledger, _: Model, __: Sort) -> None:
        now = ledger.clock() + days * DAY * SECOND
        ledger.clock = lambda: now
        compact(ledger)

    return act


records: Final = st.fixed_dictionaries(
    {
        "number": st.integers(0, 11),
        "site": st.sampled_from(["S", "T"]),
        "cycle_size": st.sampled_from([1, 2]),
        "used": st.integers(0, 10**6),
        "files": st.none() | st.integers(0, 9),
        "producer": st.sampled_from(["p", "q"]),
        "wall_time": st.integers(0, 10**6),
        "cpu_time": st.none() | st.integers(0, 10**6),
        "processors": st.sampled_from([1, 8]),
        "revision": st.integers(0, 3),
    }
)
steps: Final = st.lists(
    st.builds(writing, st.lists(records, min_size=1, max_size=4))
    | st.builds(correcting, st.sampled_from(Action), st.sampled_from(list(CONDITIONS)), st.integers(0, 5))
    | st.builds(reversing, st.integers(0, 5))
    | st.builds(ageing, st.integers(0, 9)),
    min_size=4,
    max_size=12,
)
few: Final = searched(5)


@pytest.mark.parametrize("name", list(SORTS))
@few
@given(first=st.lists(records, min_size=2, max_size=6), steps=steps)
def test_totals_are_those_of_the_records_under_corrections(
    database: Database, tmp_path: Path, name: str, first: list[dict[str, Any]], steps: list[Step]
) -> None:
    """Whatever arrives before, between and after, revisions of what is corrected among it; and all taken back."""
    sort, model = SORTS[name], Model()
    ledger = emptied(database, sort.kind, SOON)
    for step in [writing(first), *steps]:
        step(ledger, model, sort)
    _check(ledger, model, sort, tmp_path)
    for number in list(model.layers):
        reverse(ledger, number, "carl", "all of it was right")
        del model.layers[number]
    _check(ledger, model, sort, tmp_path)


def _check(ledger: Ledger, model: Model, sort: Sort, folder: Path) -> None:
    for attribution in sort.attributions:
        for by in ((), ("site", "vo")):
            query = question(sort, attribution, by=by)
            assert asked(ledger, query) == computed(sort, model.records, query)
    assert list(verify(ledger, Scope(folder), Counts())) == []


@pytest.mark.parametrize("name", list(SORTS))
def test_what_a_correction_would_change_is_told_before(database: Database, tmp_path: Path, name: str) -> None:
    """And nothing is written; a void record is told of, and comes back with its revision."""
    sort = SORTS[name]
    ledger = emptied(database, sort.kind, SOON)
    ledger.write(sort.batch([sort.record(number) for number in range(12)]))
    query = question(sort, sort.attributions[-1], by=("site",))
    before = asked(ledger, query)
    text = DraftText(
        kind=sort.kind.name, action="void", where=("name~*1",), window="2026", author="anna", reason="it was wrong"
    )
    draft = parse_draft(text, {sort.kind.name: sort.kind}, LATER)
    told = preview(ledger, draft)
    assert told.records > 0
    assert asked(ledger, query) == before
    done = corrected_by(ledger, sort.kind, Action.VOID, "name~*1")
    assert done.figures == told
    void = next(each for number in range(12) if (each := sort.record(number))["name"].endswith("1"))
    assert trace_record(asking(ledger), tmp_path, void["_id"], EVERYTHING).state == "void"
    ledger.write(sort.batch([void | {"revision": 5}]))
    assert asked(ledger, query) != before
    reverse(ledger, done.number, "carl", "it was right")
    found = trace_record(asking(ledger), tmp_path, void["_id"], EVERYTHING)
    assert (found.state, found.revision, found.corrections) == ("booked", 5, ())
    assert asked(ledger, query) == before


def test_what_tells_counters_apart_stays(database: Database) -> None:
    """A record of another machine's is no correction of it."""
    ledger = emptied(database, MACHINE, SOON)
    ledger.write(machine_batch([machine()]))
    for text in ("name=other", "vo=two"):
        with pytest.raises(CorrectionError, match="tells one counter of machine from another; void the records"):
            corrected_by(ledger, MACHINE, Action.MOVE, given=(text,))


def test_many_records_are_corrected_some_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day, and a machine, whose records are in several transactions: what was told before is what has changed."""
    monkeypatch.setattr("accounting.corrections.correcting.AT_ONCE", 7)
    for sort, given_ in ((SORTS["snapshots"], "used=1"), (SORTS["counters"], "wall_time=1")):
        ledger = emptied(database, sort.kind, SOON)
        records = [sort.record(number) for number in range(30)]
        ledger.write(sort.batch(records))
        text = DraftText(
            kind=sort.kind.name, action="change", window="2026", author="anna", reason="it was wrong", given=(given_,)
        )
        told = preview(ledger, parse_draft(text, {sort.kind.name: sort.kind}, LATER))
        done = corrected_by(ledger, sort.kind, Action.CHANGE, given=(given_,))
        assert done.figures == told
        name = sort.measures[0]
        query = question(sort, sort.attributions[-1])
        assert asked(ledger, query) == computed(sort, [record | {name: 1} for record in records], query)
        reverse(ledger, done.number, "carl", "it was right")
        assert asked(ledger, query) == computed(sort, records, query)


def test_records_around_one_that_passes_on_are_void_at_once(database: Database) -> None:
    """What goes behind a record that does not know its own processor time is not taken for what follows it."""
    ledger, sort = emptied(database, MACHINE, SOON), SORTS["counters"]
    first = microseconds(FIRST)
    records = [
        machine(3 * place, time=first + place * DAY * SECOND, cpu_time=cpu, site=site)
        for place, (cpu, site) in enumerate([(100, "T"), (None, "S"), (300, "T")])
    ]
    ledger.write(machine_batch(records))
    done = corrected_by(ledger, MACHINE, Action.VOID, "site=T")
    assert done.figures.records == 2
    query = question(sort, sort.attributions[-1])
    assert asked(ledger, query) == computed(sort, records[1:2], query)
    reverse(ledger, done.number, "carl", "it was right")
    assert asked(ledger, query) == computed(sort, records, query)


@pytest.fixture
def parted(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger of snapshots, the day of which is archived in part: two of four records."""
    ledger = emptied(database, LEVEL, LATER)
    ledger.write(level_batch([snapshot_model.level(number, used=number) for number in range(4)]))
    monkeypatch.setattr("accounting.archive.archiving.AT_ONCE", 2)
    next(archive(ledger, tmp_path, LATER))
    return ledger


def test_a_day_that_is_archived_in_part_is_not_corrected(parted: Ledger) -> None:
    """The error names the file; nothing is begun that could not be finished."""
    identifier = snapshot_model.level(3)["_id"].hex()
    with pytest.raises(CorrectionError, match=r"archived in level/.*restore FILE"):
        corrected_by(parted, LEVEL, Action.CHANGE, window="", ids=(identifier,), given=("used=7",))
    newer = level_batch([snapshot_model.level(3, used=7, revision=1), snapshot_model.level(4, time=after(days=1))])
    written = parted.write(newer)
    assert written.outcomes == [Outcome.REJECTED, Outcome.STORED]
    assert "archived in part" in str(written.reasons[0])


def test_a_void_snapshot_comes_back_before_its_day_is_archived(database: Database, tmp_path: Path) -> None:
    """Or when its file is restored: what is reversed is told to be impossible before it is begun."""
    ledger = emptied(database, LEVEL, LATER)
    ledger.write(level_batch([snapshot_model.level(number, used=number) for number in range(4)]))
    done = corrected_by(ledger, LEVEL, Action.VOID, "name=1")
    (file,) = archive(ledger, tmp_path, LATER)
    with pytest.raises(CorrectionError, match="restore FILE"):
        reverse(ledger, done.number, "carl", "it was right")
    assert found_correction(ledger, done.number).state is State.APPLIED
    restore(ledger, tmp_path, file.file)
    assert reverse(ledger, done.number, "carl", "it was right").state is State.REVERSED
    assert answered(ledger, question(SORTS["snapshots"], Attribution.AT_INSTANT)).totals[0] == 6


def test_a_corrected_record_is_shown_to_whom_it_belongs(database: Database, tmp_path: Path) -> None:
    """Wherever it is: in the database, in the archive, void; nobody else learns what it was."""
    ledger = emptied(database, LEVEL, LATER)
    ledger.write(level_batch([snapshot_model.level(number, user="u") for number in range(3)]))
    identifier = snapshot_model.level(1)["_id"]
    moved = corrected_by(ledger, LEVEL, Action.MOVE, "name=1", given=("vo=two",))
    one, two = (Viewer(visible=Visible.VO, vos=(vo,), names=True) for vo in ("one", "two"))

    def states() -> list[str]:
        return [trace_record(asking(ledger), tmp_path, identifier, each).state for each in (one, two)]

    assert states() == ["unknown", "booked"]
    (file,) = archive(ledger, tmp_path, LATER)
    found = trace_record(asking(ledger), tmp_path, identifier, two)
    assert (found.state, found.file, found.corrections) == ("archived", file.file, (moved.number,))
    assert states() == ["unknown", "archived"]
    restore(ledger, tmp_path, file.file)
    corrected_by(ledger, LEVEL, Action.VOID, "name=1")
    assert states() == ["unknown", "void"]
