"""The text form of a query: every text has one meaning, and every query a text."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from examples import JOB, NOON
from hypothesis import given
from hypothesis import strategies as st

from siteward.kinds.host import Host
from siteward.query import Filter, Function, Query, QueryError, Wanted
from siteward.query_text import (
    QueryText,
    format_filter,
    format_query,
    parse_filters,
    parse_query,
    split_list,
)
from siteward.query_window import AUTO_BUCKETS, auto_width, parse_time, parse_width
from siteward.records import kind_of
from siteward.records.shapes import EARLIEST, LATEST

KINDS = {"job": JOB, "host": kind_of(Host)}
MEASURES = ("wall_time", "cpu_time", "core_time", "memory")
DIMENSIONS = ("site", "state", "user", "exit_status", "simulated", "vo")

times = st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None), timezones=st.just(UTC))
int64 = st.integers(-(2**63), 2**63 - 1)
bounds = int64 | st.floats(allow_nan=False, allow_infinity=False)
texts = st.lists(st.text(max_size=8), min_size=1, max_size=3).map(tuple)
conditions = st.one_of(
    st.builds(Filter, st.sampled_from(["site", "user"]), texts, st.booleans(), st.booleans()),
    st.builds(
        Filter, st.just("exit_status"), st.lists(int64 | st.none(), min_size=1, max_size=3).map(tuple), st.booleans()
    ),
    st.builds(Filter, st.just("simulated"), st.booleans().map(lambda value: (value,)), st.booleans()),
    st.builds(Filter, st.just("state"), st.just(("failed", "completed")), st.booleans()),
)
ranges = st.dictionaries(
    st.sampled_from(["wall_time", "memory"]),
    st.one_of(st.tuples(bounds, bounds), st.tuples(bounds, st.none()), st.tuples(st.none(), bounds)),
).map(lambda found: [Filter(name, minimum=low, maximum=high) for name, (low, high) in found.items()])


@st.composite
def queries(draw: st.DrawFn) -> Query:
    """Any query that may be asked."""
    start, end = sorted(draw(st.lists(times, min_size=2, max_size=2, unique=True)))
    columns = st.builds(
        Wanted, st.sampled_from([each for each in Function if each is not Function.COUNT]), st.sampled_from(MEASURES)
    )
    coarse = int((end - start).total_seconds() // 1000) + 1
    return Query(
        kind="job",
        wanted=tuple(draw(st.lists(columns | st.just(Wanted(Function.COUNT)), min_size=1, max_size=4, unique=True))),
        start=start,
        end=end,
        by=tuple(draw(st.lists(st.sampled_from(DIMENSIONS), unique=True))),
        filters=tuple(draw(st.lists(conditions, max_size=3)) + draw(ranges)),
        width=draw(st.just(0) | st.integers(coarse, 999_999_999).filter(lambda width: width >= coarse)),
        top=draw(st.integers(0, 1000)),
    )


@given(queries())
def test_text_gives_the_query_back(query: Query) -> None:
    """Formatting a query and parsing its text gives the same query."""
    assert parse_query(format_query(query), KINDS, NOON) == query


def or_any(*usual: str) -> st.SearchStrategy[str]:
    """What is usual, and anything else."""
    return st.sampled_from(usual) | st.text(max_size=20)


typed = st.builds(
    QueryText,
    kind=or_any("job"),
    measures=st.lists(or_any("count", "sum:wall_time"), max_size=2).map(tuple),
    by=st.lists(or_any("site"), max_size=2).map(tuple),
    where=st.lists(or_any("site=", "wall_time>=") | st.text().map("site~{}".format), max_size=2).map(tuple),
    start=or_any("-24h") | st.from_regex(r"[+-]\d+[smhdw]", fullmatch=True),
    end=or_any("now"),
    width=or_any("auto", "1h") | st.from_regex(r"\d+[smhdw]?", fullmatch=True),
    top=st.just(0) | st.integers(),
)


@given(typed)
def test_any_text_is_understood_or_refused(text: QueryText) -> None:
    """Whatever is typed is a query that has a text, or a QueryError, and never anything else."""
    with suppress(QueryError):
        assert format_query(parse_query(text, KINDS, NOON)).kind == "job"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("state=completed|failed", Filter("state", ("completed", "failed"))),
        ("site!=X|Y", Filter("site", ("X", "Y"), negated=True)),
        ("site~LCG.*", Filter("site", ("LCG.*",), wildcard=True)),
        ("site!~T3*", Filter("site", ("T3*",), negated=True, wildcard=True)),
        ("wall_time>=3600", Filter("wall_time", minimum=3600)),
        ("wall_time<=0.5", Filter("wall_time", maximum=0.5)),
        ("wall_time>=-9999999999999999999", Filter("wall_time", minimum=-1e19)),
        ("user=", Filter("user", ("",))),
        ("user=a\\|b|c\\\\", Filter("user", ("a|b", "c\\"))),
        ("user=C:\\x", Filter("user", ("C:\\x",))),
        ("user==", Filter("user", ("=",))),
        ("exit_status=-1|0", Filter("exit_status", (-1, 0))),
        ("exit_status=", Filter("exit_status", (None,))),
        ("exit_status!=|1", Filter("exit_status", (None, 1), negated=True)),
        ("simulated=true", Filter("simulated", (True,))),
    ],
)
def test_conditions_read_as_they_look(text: str, found: Filter) -> None:
    """Every operator means what the manual says, and values have their field's type."""
    assert parse_filters([text], JOB) == (found,)


def test_bounds_of_one_field_are_one_filter() -> None:
    """Lower and upper bounds of a field join, the narrowest of each."""
    texts = ["wall_time>=1", "wall_time<=9", "wall_time>=3", "wall_time<=12"]
    assert parse_filters(texts, JOB) == (Filter("wall_time", minimum=3, maximum=9),)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sit=X", "did you mean 'site'"),
        ("state=complete", "did you mean 'completed'"),
        ("site", "= != ~ !~ >= <="),
        ("exit_status=one", "an integer"),
        ("exit_status=None", "an integer"),
        ("processors=", "an integer"),
        ("simulated=", "true or false"),
        ("exit_status=99999999999999999999", "64 bits"),
        ("exit_status~1*", "exit_status is an integer; patterns are for texts"),
        ("site>=A", "for integers and numbers"),
        ("wall_time>=nan", "expected a number"),
        ("wall_time>=1_000", "expected a number"),
        ("simulated=yes", "true or false"),
        ("start>=1", "not a field"),
    ],
)
def test_wrong_conditions_say_what_is_possible(text: str, hint: str) -> None:
    """A condition that cannot be meant is refused with what is at fault and what would be right."""
    with pytest.raises(QueryError, match=hint.replace("*", r"\*")):
        parse_filters([text], JOB)


def test_number_is_asked_by_range() -> None:
    """A field of floating-point numbers is compared by bounds only."""
    with pytest.raises(QueryError, match="ask for a range"):
        parse_filters(["cpu_used=0.5"], KINDS["host"])


def test_filter_without_condition_has_no_text() -> None:
    """A filter that says nothing is refused rather than written as something."""
    with pytest.raises(QueryError, match="neither"):
        format_filter(Filter("site"))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("now", NOON),
        ("-24h", NOON - timedelta(hours=24)),
        ("-15m", NOON - timedelta(minutes=15)),
        ("-2w", NOON - timedelta(weeks=2)),
        ("+1d", NOON + timedelta(days=1)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T10:00:00.000001+01:00", datetime(2026, 11, 22, 9, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_times_have_few_forms(text: str, time: datetime) -> None:
    """Times are absolute with an offset, or relative to a `now` that is given."""
    assert parse_time(text, NOON) == time


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "expected now"),
        ("yesterday", "expected now"),
        ("2026-11-22T10:00:00", "write an offset"),
        ("2026-11-22T10:00:00 01:00", "%2B"),
        ("-999999999w", "expected now"),
        ("1970-01-01", "lies outside"),
        ("9999-01-01", "lies outside"),
        ("2026-02-30", "expected now"),
    ],
)
def test_wrong_times_are_refused(text: str, hint: str) -> None:
    """Naive, impossible and implausible times are refused with the forms there are."""
    with pytest.raises(QueryError, match=hint):
        parse_time(text, NOON)


@given(st.integers(120, 3_000_000_000))
def test_auto_width_is_readable(seconds: int) -> None:
    """An automatic width gives between half of the buckets allowed and all of them."""
    width = auto_width(NOON, NOON + timedelta(seconds=seconds))
    assert AUTO_BUCKETS / 2 <= seconds / width <= AUTO_BUCKETS


@pytest.mark.parametrize(("span", "width"), [(1, 900), (30, 21_600), (365, 345_600)])
def test_auto_width_is_friendly(span: int, width: int) -> None:
    """A day is shown by the quarter of an hour, a month by the quarter of a day."""
    assert auto_width(NOON, NOON + timedelta(days=span)) == width


def test_widths() -> None:
    """Widths are seconds with a unit or without; one that makes too many buckets is refused with a better one."""
    end = NOON + timedelta(days=300)
    assert [parse_width(text, NOON, end) for text in ("0", "900", "15m", "1h", "1d", "2w")] == [
        0,
        900,
        900,
        3600,
        86_400,
        1_209_600,
    ]
    with pytest.raises(QueryError, match="at least 260 seconds"):
        parse_width("1s", NOON, end)
    with pytest.raises(QueryError, match="expected seconds"):
        parse_width("1 fortnight", NOON, end)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"kind": "jobs"}, "did you mean 'job'"),
        ({"measures": ("sum:walltime",)}, "did you mean 'wall_time'"),
        ({"measures": ("sum",)}, "of which measure"),
        ({"measures": ("count:site",)}, "takes no measure"),
        ({"measures": ("total:wall_time",)}, "not a function"),
        ({"measures": ("count", "count")}, "twice"),
        ({"measures": ()}, "at least one"),
        ({"by": ("sites",)}, "did you mean 'site'"),
        ({"by": ("site", "site")}, "twice"),
        ({"top": -1}, "top"),
        ({"start": "now", "end": "-1h"}, "before it starts"),
    ],
)
def test_wrong_questions_name_the_part(change: dict[str, object], hint: str) -> None:
    """A question that names what the kind does not have is refused before any store is asked."""
    with pytest.raises(QueryError, match=hint):
        parse_query(QueryText(**({"kind": "job"} | change)), KINDS, NOON)  # type: ignore[arg-type]  # wrong on purpose.


def test_lists_are_split_by_commas() -> None:
    """A list may have spaces, and an empty text is an empty list."""
    assert split_list("site, state") == ("site", "state")
    assert split_list(" ") == ()
