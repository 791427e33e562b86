"""From rows of groups and buckets to a whole answer; the rows are the same, whichever store made them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from monitoring.stores.questions import MOST_ROWS, unit_of
from siteward.query import Answer, AnswerRow, Function, Query, QueryError, Value
from siteward.records import Kind, microseconds, moment

SECOND: Final = 1_000_000


def answer_of(
    kind: Kind,
    query: Query,
    rows: Sequence[tuple[Any, ...]],
    totals: tuple[Value, ...],
    incomplete: int = 0,
    errors: tuple[float, ...] = (),
) -> Answer:
    """Put an answer together.

    Args:
        kind: the kind asked.
        query: the checked question.
        rows: in the answer's order: the bucket's number (its start divided by the width) if the query has a width;
            place among the top groups (None is Other) and number of all groups if it has a top and dimensions; the
            group's values; the wanted values, sums where rates are wanted.
        totals: the wanted values over everything.
        incomplete: number of cycles left out.
        errors: see Answer.errors.

    Raises:
        QueryError: there are more rows than anybody reads.
    """
    if len(rows) > MOST_ROWS:
        message = (
            f"the answer has more than {MOST_ROWS} rows; ask for a wider bucket, fewer dimensions, a shorter window, "
            "or the top groups"
        )
        raise QueryError(message)
    ranked = bool(query.top and query.by)
    made = _ranked_rows(query, rows) if ranked else _plain_rows(query, rows)
    groups = (rows[0][1 if query.width else 0 :][1] if rows else 0) if ranked else len({row.group for row in made})
    return Answer(
        query=query,
        rows=tuple(made),
        totals=_rates(query, [totals], [None])[0],
        units=tuple(unit_of(kind, wanted) for wanted in query.wanted),
        groups=groups,
        incomplete=incomplete,
        errors=errors,
    )


def _plain_rows(query: Query, rows: Sequence[tuple[Any, ...]]) -> list[AnswerRow]:
    first = 1 if query.width else 0
    after = first + len(query.by)
    times = _times(query, rows)
    values = _rates(query, [row[after:] for row in rows], times)
    return [AnswerRow(time, row[first:after], found) for time, row, found in zip(times, rows, values, strict=True)]


def _ranked_rows(query: Query, rows: Sequence[tuple[Any, ...]]) -> list[AnswerRow]:
    place = 1 if query.width else 0
    first = place + 2
    after = first + len(query.by)
    times = _times(query, rows)
    values = _rates(query, [row[after:] for row in rows], times)
    return [
        AnswerRow(time, () if row[place] is None else row[first:after], found, other=row[place] is None)
        for time, row, found in zip(times, rows, values, strict=True)
    ]


def _times(query: Query, rows: Sequence[tuple[Any, ...]]) -> Sequence[datetime | None]:
    if not query.width:
        return [None] * len(rows)
    starts = {number: moment(number * query.width * SECOND) for number in {row[0] for row in rows}}
    return [starts[row[0]] for row in rows]


def _rates(
    query: Query, rows: Sequence[tuple[Value, ...]], times: Sequence[datetime | None]
) -> Sequence[tuple[Value, ...]]:
    """Sums of the columns that are rates, divided by the seconds of their bucket that lie within the window."""
    places = {i for i, wanted in enumerate(query.wanted) if wanted.function is Function.RATE}
    if not places:
        return rows
    window = microseconds(query.start), microseconds(query.end)

    def rated(row: tuple[Value, ...], time: datetime | None) -> tuple[Value, ...]:
        start, end = window
        if time is not None and query.width:
            start = max(start, microseconds(time))
            end = min(end, microseconds(time) + query.width * SECOND)
        return tuple(
            value * SECOND / (end - start) if place in places and value is not None else value
            for place, value in enumerate(row)
        )

    return [rated(row, time) for row, time in zip(rows, times, strict=True)]
