"""A plain computation of what records are under corrections, and of closed months; and a ledger that does the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from ledger_databases import clear
from usage_model import FIRST, SECOND, USE, Fields, batch, cells, newest, use
from viewers import answered

from accounting.corrections.correction import Action, Correction
from accounting.corrections.deciding import approve, propose, reverse
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.periods.closing import close, reopen
from accounting.periods.signatures import sign, verified_periods
from accounting.query.calendar import periods_of
from accounting.upkeep.month_sums import sum_months
from accounting.upkeep.months import month_name, parse_month
from accounting.upkeep.tiers import compact
from siteward.records import microseconds
from siteward.server.database import Database
from siteward.usage import OF_USAGE, AsOf, Attribution, Period, Quantity, UsageQuery, WantedUsage

DAY: Final = 86_400
LATER: Final = datetime(2026, 6, 1, tzinfo=UTC)
"""When every month of the records is over."""
WINDOW: Final = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
MONTHS: Final = ("2026-01", "2026-02", "2026-03")
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
        self.closed: dict[str, Cells] = {}
        """By-end figures of each closed month as of its closing."""

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

    def month(self, name: str) -> Cells:
        """By-end figures of one month."""
        return {
            cell: values
            for cell, values in computed(self.records, question(Attribution.BY_END)).items()
            if f"{cell[0]:%Y-%m}" == name
        }


Step = Callable[[Ledger, Model], None]


def _write(records: list[Fields]) -> Step:
    def act(ledger: Ledger, model: Model) -> None:
        assert not ledger.write(batch(records)).reasons
        model.arrived += records

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


def _close(month: str, *, is_signed: bool) -> Step:
    def act(ledger: Ledger, model: Model) -> None:
        if month in model.closed:
            reopen(ledger, "use", parse_month(month), "dora", "something came")
            del model.closed[month]
            return
        close(ledger, "use", parse_month(month), "dora")
        model.closed[month] = model.month(month)
        if is_signed:
            sign(ledger, "use", parse_month(month), "emil")

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
        st.builds(_close, st.sampled_from(MONTHS), is_signed=st.booleans()),
        st.builds(_compact, st.integers(0, 5)),
    )
    return st.lists(st.builds(_write, _records()) | corrections | st.one_of(*others), min_size=4, max_size=14)


def check(ledger: Ledger, model: Model) -> None:
    """Present figures in both attributions, figures as of closing, and signatures are those of the model."""
    for attribution in OF_USAGE:
        for changes in ({}, {"by": ("code", "simulated"), "period": Period.DAY}):
            query = question(attribution, **changes)
            assert asked(ledger, attribution, **changes) == computed(model.records, query)
    for month, due in model.closed.items():
        start = datetime.fromtimestamp(parse_month(month), UTC)
        window = {"start": start, "end": (start + timedelta(days=31)).replace(day=1)}
        assert asked(ledger, Attribution.BY_END, as_of=AsOf.CLOSING, **window) == due
        (noted,) = answered(ledger, question(Attribution.BY_END, **window)).closed
        # Changes of fields that nobody asked for adjust a month as well.
        assert noted.adjusted or model.month(month) == due
    assert all(each.is_right for each in verified_periods(ledger))


def sums(found: Iterable[tuple[Any, ...]]) -> tuple[int, ...]:
    """Column by column."""
    return tuple(map(sum, zip(*found, strict=True)))
