"""The text form of a question to the ledger: every text has one meaning, and every question a text."""

from __future__ import annotations

import pickle
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usage_model import USE

from siteward.query import Filter, QueryError
from siteward.records.shapes import EARLIEST, LATEST
from siteward.usage import Attribution, Period, Quantity, UsageQuery, WantedUsage
from siteward.usage_text import ALONE, UsageText, format_usage, parse_usage, parse_wanted_usage
from siteward.usage_window import parse_calendar, parse_usage_window, parse_zone, period_around

KINDS = {"use": USE}
NOW = datetime(2026, 3, 2, 12, 30, 15, 7, tzinfo=UTC)

times = st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None), timezones=st.just(UTC))
columns = st.one_of(
    st.builds(WantedUsage, st.sampled_from(ALONE)),
    st.builds(WantedUsage, st.just(Quantity.RATIO), st.just("efficiency")),
    st.builds(
        WantedUsage,
        st.sampled_from([*{*Quantity, Quantity("p1"), Quantity("p75")} - {*ALONE, Quantity.RATIO}]),
        st.sampled_from(["wall_time", "core_time"]),
    ),
)
texts = st.lists(st.text(max_size=8), min_size=1, max_size=3).map(tuple)
conditions = st.one_of(
    st.builds(Filter, st.sampled_from(["site", "user"]), texts, st.booleans(), st.booleans()),
    st.builds(Filter, st.just("code"), st.just((0, 1)), st.booleans()),
    st.builds(Filter, st.just("simulated"), st.just((True,))),
)


@st.composite
def queries(draw: st.DrawFn) -> UsageQuery:
    """Any question that may be typed."""
    start, end = sorted(draw(st.lists(times, min_size=2, max_size=2, unique=True)))
    return UsageQuery(
        kind="use",
        wanted=tuple(draw(st.lists(columns, min_size=1, max_size=4, unique=True))),
        start=start,
        end=end,
        attribution=draw(st.sampled_from([Attribution.PRORATED, Attribution.BY_END])),
        by=tuple(draw(st.lists(st.sampled_from(["site", "vo", "code", "simulated"]), unique=True))),
        filters=tuple(draw(st.lists(conditions, max_size=3))),
        period=draw(st.sampled_from(Period)),
        top=draw(st.integers(0, 1000)),
    )


@given(queries())
def test_usage_text_gives_the_question_back(query: UsageQuery) -> None:
    """Formatting a question and parsing its text gives the same question."""
    assert parse_usage(format_usage(query), KINDS, NOW) == query


def or_any(*usual: str) -> st.SearchStrategy[str]:
    """What is usual, and anything else."""
    return st.sampled_from(usual) | st.text(max_size=20)


calendar_like = st.from_regex(r"\d{4}(-(Q\d|W\d\d|\d\d)(-\d\d)?)?", fullmatch=True)
typed = st.builds(
    UsageText,
    kind=or_any("use"),
    measures=st.lists(or_any("records", "wall_time", "efficiency"), max_size=2).map(tuple),
    by=st.lists(or_any("site"), max_size=2).map(tuple),
    where=st.lists(or_any("site="), max_size=2).map(tuple),
    window=st.just("") | calendar_like | st.text(max_size=8),
    start=or_any("-30d", "") | calendar_like,
    end=or_any("now", "") | calendar_like,
    attribution=or_any("by-end"),
    period=or_any("month"),
    top=st.just(0) | st.integers(),
)


@given(typed)
def test_any_usage_text_is_understood_or_refused(text: UsageText) -> None:
    """Whatever is typed is a question that has a text, or a QueryError, and never anything else."""
    with suppress(QueryError):
        assert format_usage(parse_usage(text, KINDS, NOW)).kind == "use"


@pytest.mark.parametrize(
    ("word", "start", "end"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-Q1", "2026-01-01", "2026-04-01"),
        ("2025-Q4", "2025-10-01", "2026-01-01"),
        ("2026-02", "2026-02-01", "2026-03-01"),
        ("2024-12", "2024-12-01", "2025-01-01"),
        ("2026-02-28", "2026-02-28", "2026-03-01"),
        ("2026-W01", "2025-12-29", "2026-01-05"),
        ("2020-W53", "2020-12-28", "2021-01-04"),
        ("today", "2026-03-02", "2026-03-03"),
        ("yesterday", "2026-03-01", "2026-03-02"),
        ("this-week", "2026-03-02", "2026-03-09"),
        ("last-week", "2026-02-23", "2026-03-02"),
        ("this-month", "2026-03-01", "2026-04-01"),
        ("last-month", "2026-02-01", "2026-03-01"),
        ("this-quarter", "2026-01-01", "2026-04-01"),
        ("last-quarter", "2025-10-01", "2026-01-01"),
        ("this-year", "2026-01-01", "2027-01-01"),
        ("last-year", "2025-01-01", "2026-01-01"),
        ("last-hour", "2026-03-02T11:00:00", "2026-03-02T12:00:00"),
    ],
)
def test_calendar_words_are_half_open_periods_in_utc(word: str, start: str, end: str) -> None:
    """A word is a whole calendar period, from its first instant to the first after it."""
    due = tuple(datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    assert parse_usage_window(word, "", "", NOW) == due
    # As a start or an end it is its first instant.
    assert parse_usage_window("", word, "2099", NOW)[0] == due[0]


@given(times, st.sampled_from([period for period in Period if period is not Period.WHOLE]))
def test_periods_follow_each_other(moment: datetime, period: Period) -> None:
    """Every instant lies in exactly one period, and the first after it is the next one's first."""
    start, end = period_around(moment, period)
    assert start <= moment < end
    if end < LATEST:
        assert period_around(end, period)[0] == end


def test_without_a_window_it_is_this_month_until_now() -> None:
    """Until the last whole second, so that the same text asked again within it means the same."""
    query = parse_usage(UsageText(kind="use"), KINDS, NOW)
    assert (query.start, query.end) == (datetime(2026, 3, 1, tzinfo=UTC), NOW.replace(microsecond=0))
    assert query.wanted == (WantedUsage(Quantity.RECORDS),)
    relative = parse_usage(UsageText(kind="use", start="-30d"), KINDS, NOW)
    assert relative.end - relative.start == timedelta(days=30)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cpu_time", WantedUsage(Quantity.SUM, "cpu_time")),
        ("sum:cpu_time", WantedUsage(Quantity.SUM, "cpu_time")),
        ("core_time", WantedUsage(Quantity.SUM, "core_time")),
        ("efficiency", WantedUsage(Quantity.RATIO, "efficiency")),
        ("ratio:efficiency", WantedUsage(Quantity.RATIO, "efficiency")),
        ("rate:core_time", WantedUsage(Quantity.RATE, "core_time")),
        ("cumulative:cpu_time", WantedUsage(Quantity.CUMULATIVE, "cpu_time")),
        ("p95:wall_time", WantedUsage(Quantity.P95, "wall_time")),
        ("p75:wall_time", WantedUsage(Quantity("p75"), "wall_time")),
        ("p1:efficiency", WantedUsage(Quantity("p1"), "efficiency")),
        ("records", WantedUsage(Quantity.RECORDS)),
        ("started", WantedUsage(Quantity.STARTED)),
        ("rate:records", WantedUsage(Quantity.RATE, "records")),
        ("cumulative:records", WantedUsage(Quantity.CUMULATIVE, "records")),
    ],
)
def test_measures_read_as_they_look(text: str, wanted: WantedUsage) -> None:
    """A measure alone is its sum, a ratio alone itself; everything else is said."""
    assert parse_wanted_usage(text, USE) == wanted


def test_every_whole_percentile_is_a_quantity() -> None:
    """There is one of each, with its name, whichever way it comes about; the others stay what is listed."""
    listed = list(Quantity)
    found = [Quantity(f"p{number}") for number in range(1, 100)]
    assert [each.hundredths for each in found] == list(range(1, 100))
    assert [each.name for each in found] == [f"P{number}" for number in range(1, 100)]
    assert found[49] is Quantity.P50
    for each in found:
        assert Quantity(str(each)) is each
        assert pickle.loads(pickle.dumps(each)) is each
        assert msgspec.json.decode(msgspec.json.encode(each), type=Quantity) is each
    assert list(Quantity) == listed
    for text in ("p0", "p100", "p01", "p", "p7.5", "p٣", "P75", " p75"):
        with pytest.raises(ValueError, match="is not a valid Quantity"):
            Quantity(text)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"kind": "user"}, "did you mean 'use'"),
        ({"measures": ("cpu_tim",)}, "did you mean 'cpu_time'"),
        ({"measures": ("record",)}, "did you mean 'records'"),
        ({"measures": ("sum:efficiency",)}, "'efficiency' is not a measure of use"),
        ({"measures": ("ratio:cpu_time",)}, "'cpu_time' is not a ratio of use; there are efficiency"),
        ({"measures": ("p75",)}, "of which measure? Write p75:MEASURE, such as p75:wall_time"),
        ({"measures": ("p0:wall_time",)}, "'p0' is not a percentile that can be asked for; there are p1 to p99"),
        ({"measures": ("p100:wall_time",)}, "there are p1 to p99, by whole numbers"),
        ({"measures": ("p99.9:wall_time",)}, "there are p1 to p99, by whole numbers"),
        ({"measures": ("p05:wall_time",)}, "there are p1 to p99, by whole numbers"),
        ({"measures": ("p75:nonsense",)}, "'nonsense' is not a measure of use"),
        ({"measures": ("mean",)}, "of which measure? Write mean:MEASURE, such as mean:wall_time"),
        ({"measures": ("records:cpu_time",)}, "records takes no measure"),
        ({"measures": ()}, "ask for at least one"),
        ({"measures": ("cpu_time", "sum:cpu_time")}, "a measure is asked for twice"),
        ({"by": ("nonsense",)}, "'nonsense' is not a dimension of use in the ledger; there are vo, site"),
        ({"where": ("nonsense=1",)}, "'nonsense' is not a field of use"),
        ({"where": ("efficiency>=3",)}, "'efficiency' is not a field of use"),
        ({"where": ("processors~4*",)}, "processors is an integer; patterns are for texts"),
        ({"where": ("processors>=many",)}, "processors"),
        ({"by": ("core_time",)}, "'core_time' is not a dimension of use in the ledger"),
        ({"attribution": "by-start"}, "not a known attribution"),
        ({"period": "fortnight"}, "there are whole, hour, day"),
        ({"window": "2026-Q5"}, "expected a year (2026), quarter (2026-Q1)"),
        ({"window": "2026-13"}, "there is no such day"),
        ({"window": "2026-W54"}, "there is no such day"),
        ({"window": "1812"}, "lies outside 1990 to 2100"),
        ({"window": "2026", "start": "-1d"}, "either a window, or start and end"),
        ({"end": "now"}, "give a window, such as last-month, or the start of one"),
        ({"start": "2026-03", "end": "2026-Q1"}, "not after its start"),
        ({"top": -1}, "expected 0 (all groups)"),
    ],
)
def test_what_is_wrong_with_a_usage_text_is_said(changes: dict[str, object], hint: str) -> None:
    """The error names the part at fault and what is possible."""
    with pytest.raises(QueryError) as caught:
        parse_usage(UsageText(**({"kind": "use"} | changes)), KINDS, NOW)  # type: ignore[arg-type]  # wrong on purpose.
    assert hint in str(caught.value)


def test_time_zones_are_known_by_name() -> None:
    """A zone is one of the usual names; the nearest is suggested."""
    assert str(parse_zone("Europe/Zurich")) == "Europe/Zurich"
    assert str(parse_zone("UTC")) == "UTC"
    with pytest.raises(QueryError, match="did you mean 'Europe/Zurich'"):
        parse_zone("Europe/Zurch")
    assert parse_calendar("nonsense", NOW) is None
