"""A plain computation of what records are under corrections, and of closed months; and a ledger that does the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from ledger_databases import clear
from usage_model import FIRST, SECOND, USE, Fields, batch, cells, newest, use
from viewers import answered

from accounting.booking.adjustments import ALL_VOS
from accounting.corrections.correction import Action, Correction
from accounting.corrections.deciding import approve, propose, reverse
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.periods.closed_months import PeriodError
from accounting.periods.closing import close, reopen
from accounting.periods.signatures import sign, verified_periods
from accounting.query.calendar import periods_of
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.months import month_name, parse_month
from accounting.upkeep.tiers import compact
from siteward.query import Filter, QueryError
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.usage import OF_USAGE, AsOf, Attribution, Period, Quantity, UsageQuery, WantedUsage

DAY: Final = 86_400
LATER: Final = datetime(2026, 6, 1, tzinfo=UTC)
"""When every month of the records is over."""
WINDOW: Final = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
MONTHS: Final = ("2026-01", "2026-02", "2026-03")
VOS: Final = ("one", "two")
WANTED: Final = tuple(WantedUsage(Quantity.SUM, name) for name in ("wall_time", "cpu_time", "processors", "core_time"))
Cells = dict[tuple[datetime, tuple[Any, ...]], tuple[Any, ...]]


def emptied(database: Database, now: datetime = LATER) -> Ledger:
    """A ledger of the kind `use` without anything in it, its tables made as in production."""
    made = Ledger(database, {"use": USE}, partial(microseconds, now), prepare(database, {"use": USE}))
    clear(made)
    return made


def draft_of(action: Action, *where: str, **changes: Any) -> Any:
    """A correction of the kind `use`, by anna."""
    text: dict[str, Any] = {"window": "2026", "author": "anna", "reason": "it was wrong", "where": where}
    text |= changes
    if text.get("ids"):
        text["window"] = ""
    return parse_draft(DraftText(kind="use", action=str(action), **text), {"use": USE}, LATER)


def corrected_by(ledger: Ledger, action: Action, *where: str, **changes: Any) -> Correction:
    """A correction that ben has approved."""
    return approve(ledger, propose(ledger, draft_of(action, *where, **changes)).number, "ben")


def asked(ledger: Ledger, attribution: Attribution, **changes: Any) -> Cells:
    """What the ledger answers, without cells of nothing."""
    rows = answered(ledger, question(attribution, **changes)).rows
    return {(row.start, row.group): row.values for row in rows if any(row.values)}


def question(attribution: Attribution, **changes: Any) -> UsageQuery:
    """All measures and the number of records, by site and VO, each month."""
    counted = Quantity.STARTED if attribution is Attribution.PRORATED else Quantity.RECORDS
    given: dict[str, Any] = {
        "wanted": (*WANTED, WantedUsage(counted)),
        "start": WINDOW[0],
        "end": WINDOW[1],
        "by": ("site", "vo"),
        "period": Period.MONTH,
    }
    return UsageQuery(kind="use", attribution=attribution, **given | changes)


def computed(records: Sequence[Fields], query: UsageQuery) -> Cells:
    """The same from the records."""
    found = cells(records, query, periods_of(query.start, query.end, query.period))
    return {cell: values for cell, values in found.items() if any(values)}


class Model:
    """What was received, and the corrections over it."""

    def __init__(self) -> None:
        self.arrived: list[Fields] = []
        self.layers: dict[int, tuple[Mapping[str, Any] | None, set[bytes]]] = {}
        """New values, None for a void, and the ids of each applied correction, in order."""
        self.vos: set[str] = set()
        """Of which there ever was a record."""
        self.own: dict[str, set[str]] = {month: set() for month in MONTHS}
        """VOs that have a period of their own in a month, in whatever state."""
        self.closed: dict[tuple[str, str], Cells] = {}
        """By-end figures of each closed period, by month and VO, as of its closing."""

    @property
    def records(self) -> list[Fields]:
        """Those that count, as they are."""
        found = []
        for record in newest(self.arrived):
            over = [given for given, ids in self.layers.values() if record["_id"] in ids]
            if None not in over:
                found.append({**record, **{name: value for given in over for name, value in (given or {}).items()}})
        return found

    def select(self, meets: Callable[[Fields], bool]) -> set[bytes]:
        """Ids of those that count and meet a condition."""
        return {record["_id"] for record in self.records if meets(record)}

    def month(self, name: str, vo: str) -> Cells:
        """By-end figures of one month, of a VO or of all that have no period of their own."""
        return {
            cell: values
            for cell, values in computed(self.records, question(Attribution.BY_END)).items()
            if f"{cell[0]:%Y-%m}" == name and self.covers(name, vo, cell[1][1])
        }

    def covers(self, month: str, vo: str, other: str) -> bool:
        """Whether a VO's figures are those of a period."""
        return other not in self.own[month] if vo == ALL_VOS else other == vo


Step = Callable[[Ledger, Model], None]


def _write(records: list[Fields]) -> Step:
    def act(ledger: Ledger, model: Model) -> None:
        assert not ledger.write(batch(records)).reasons
        model.arrived += records
        # Of a record that comes twice in one batch, only the newest revision is looked at.
        model.vos |= {record["vo"] for record in newest(records)}

    return act


CONDITIONS: Final[dict[tuple[str, ...], Callable[[Fields], bool]]] = {
    (): lambda _: True,
    ("site=S",): lambda record: record["site"] == "S",
    ("site!=S", "vo=two"): lambda record: record["site"] != "S" and record["vo"] == "two",
    ("name~*1",): lambda record: record["name"].endswith("1"),
    ("wall_time>=1000",): lambda record: record["wall_time"] >= 1000,
}
VALUES: Final[dict[Action, list[dict[str, Any]]]] = {
    Action.CHANGE: [{"processors": 3}, {"cpu_time": None}, {"wall_time": 1001, "cpu_time": 10}],
    Action.MOVE: [{"site": "T"}, {"vo": "two", "code": 7}, {"site": "new", "simulated": True, "name": "n1"}],
    Action.VOID: [{}],
}


def _correct(action: Action, where: tuple[str, ...], given: Mapping[str, Any]) -> Step:
    texts = tuple(
        f"{name}={'' if value is None else str(value).lower() if isinstance(value, bool) else value}"
        for name, value in given.items()
    )

    def act(ledger: Ledger, model: Model) -> None:
        ids = model.select(CONDITIONS[where])
        if not ids:
            return
        before = {each: computed(model.records, question(each, by=())) for each in OF_USAGE}
        done = corrected_by(ledger, action, *where, given=texts)
        model.layers[done.number] = (None if action is Action.VOID else given, ids)
        model.vos |= {given["vo"]} if "vo" in given else set()
        assert done.figures.records == len(ids)
        for attribution in OF_USAGE:
            _check_figures(done, attribution, before[attribution], model)

    return act


def _check_figures(done: Correction, attribution: Attribution, before: Cells, model: Model) -> None:
    after = computed(model.records, question(attribution, by=()))
    for place, name in enumerate(("wall_time", "cpu_time", "processors", "core_time")):
        for month in MONTHS:
            cell = (datetime.fromtimestamp(parse_month(month), UTC), ())
            due = (after.get(cell) or (0,) * 5)[place] - (before.get(cell) or (0,) * 5)[place]
            mine = [
                each
                for each in done.figures.changes
                if (each.attribution, month_name(each.month), each.measure) == (attribution, month, name)
            ]
            assert sum(each.difference for each in mine) == due


def _reverse(place: int) -> Step:
    def act(ledger: Ledger, model: Model) -> None:
        if model.layers:
            number = list(model.layers)[place % len(model.layers)]
            reverse(ledger, number, "carl", "it was right")
            del model.layers[number]

    return act


def _close(month: str, vo: str, *, is_signed: bool) -> Step:
    def act(ledger: Ledger, model: Model) -> None:
        if (month, vo) in model.closed:
            reopen(ledger, "use", parse_month(month), "dora", "something came", vo)
            del model.closed[month, vo]
            return
        is_own = vo != ALL_VOS
        if is_own and (vo not in model.vos or (vo not in model.own[month] and (month, ALL_VOS) in model.closed)):
            with pytest.raises(PeriodError):
                close(ledger, "use", parse_month(month), "dora", vo)
            return
        close(ledger, "use", parse_month(month), "dora", vo)
        model.own[month] |= {vo} if is_own else set()
        model.closed[month, vo] = model.month(month, vo)
        if is_signed:
            sign(ledger, "use", parse_month(month), "emil", vo)

    return act


def _compact(days: int) -> Step:
    def act(ledger: Ledger, _: Model) -> None:
        now = ledger.clock() + days * DAY * SECOND
        ledger.clock = lambda: now
        compact(ledger)
        sum_months(ledger)

    return act


@st.composite
def _records(draw: st.DrawFn) -> list[Fields]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, 11))
        # Of a record the end is always the same: it is in its id.
        end = microseconds(FIRST) + (number * 61 % 50 * DAY + number * 7919) * SECOND
        found.append(
            use(
                number,
                end=end,
                start=end - draw(st.sampled_from([0, 1, 3600, 3 * DAY, 30 * DAY])) * SECOND,
                vo=draw(st.sampled_from(["one", "two"])),
                site=draw(st.sampled_from(["S", "T"])),
                wall_time=draw(st.sampled_from([0, 999, 1000, 10**6 + 1])),
                cpu_time=draw(st.sampled_from([None, 0, 7, 10**6])),
                processors=draw(st.sampled_from([1, 8])),
                revision=draw(st.integers(0, 3)),
            )
        )
    return found


def steps() -> st.SearchStrategy[list[Step]]:
    """What people and producers do, in any order."""
    corrections = st.sampled_from(Action).flatmap(
        lambda action: st.builds(
            _correct, st.just(action), st.sampled_from(list(CONDITIONS)), st.sampled_from(VALUES[action])
        )
    )
    others = (
        st.builds(_reverse, st.integers(0, 5)),
        st.builds(_close, st.sampled_from(MONTHS), st.sampled_from((ALL_VOS, *VOS)), is_signed=st.booleans()),
        st.builds(_compact, st.integers(0, 5)),
    )
    return st.lists(st.builds(_write, _records()) | corrections | st.one_of(*others), min_size=4, max_size=14)


def check(ledger: Ledger, model: Model) -> None:
    """Present figures in both attributions, figures as of closing, and signatures are those of the model."""
    for attribution in OF_USAGE:
        for changes in ({}, {"by": ("code", "simulated"), "period": Period.DAY}):
            query = question(attribution, **changes)
            assert asked(ledger, attribution, **changes) == computed(model.records, query)
    for month in MONTHS:
        _check_month(ledger, model, month)
    assert all(each.is_right for each in verified_periods(ledger))


def _check_month(ledger: Ledger, model: Model, month: str) -> None:
    """Each closed period alone, and all of the month together where no VO's figures are open."""
    start = datetime.fromtimestamp(parse_month(month), UTC)
    window: dict[str, Any] = {"start": start, "end": (start + timedelta(days=31)).replace(day=1)}
    closed = {vo: due for (name, vo), due in model.closed.items() if name == month}
    for vo, due in closed.items():
        of_all = Filter("vo", tuple(sorted(model.own[month])), negated=True)
        filters = (of_all,) if vo == ALL_VOS and model.own[month] else () if vo == ALL_VOS else (Filter("vo", (vo,)),)
        assert asked(ledger, Attribution.BY_END, as_of=AsOf.CLOSING, filters=filters, **window) == due
        noted = answered(ledger, question(Attribution.BY_END, filters=filters, **window)).closed
        # Changes of fields that nobody asked for adjust a month as well.
        assert all(each.adjusted for each in noted) or model.month(month, vo) == due
    is_whole = all(any(model.covers(month, vo, each) for vo in closed) for each in model.vos)
    if closed and is_whole:
        due = {cell: values for part in closed.values() for cell, values in part.items()}
        assert asked(ledger, Attribution.BY_END, as_of=AsOf.CLOSING, **window) == due
    else:
        with pytest.raises(QueryError, match="is not closed, and has no figures as of closing"):
            answered(ledger, question(Attribution.BY_END, as_of=AsOf.CLOSING, **window))


def sums(found: Iterable[tuple[Any, ...]]) -> tuple[int, ...]:
    """Column by column."""
    return tuple(map(sum, zip(*found, strict=True)))
