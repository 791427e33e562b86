"""How to ask: one typed question and one typed answer for every store, API, CLI and page."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec


class Function(StrEnum):
    """What is computed of a measure in every group and bucket."""

    SUM = "sum"
    MEAN = "mean"
    """Events and intervals: mean of the records that know the value. Snapshots of a measure that adds up: mean over
    complete cycles of the sum over series, per producer, producers added up."""
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    """Number of records; takes no measure."""
    LAST = "last"
    """Snapshots: the sum (or mean, as the measure combines) over the series of each producer's last complete cycle."""
    RATE = "rate"
    """Sum divided by the bucket's width (the part of it within the window), per second."""
    P50 = "p50"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"
    """Percentile of the records' values, by linear interpolation between neighbours."""


class Wanted(msgspec.Struct, frozen=True):
    """One column of the answer: a function of a measure or product, written `sum:wall_time` or `count`."""

    function: Function
    measure: str = ""

    @property
    def name(self) -> str:
        """Its name in the answer, as it is written."""
        return f"{self.function}:{self.measure}" if self.measure else str(self.function)


class Filter(msgspec.Struct, frozen=True):
    """A condition on one field; all conditions of a query hold together.

    Attributes:
        field: a dimension or measure.
        values: accepted values, None for what is not known; a text may contain the wildcards `*` and `?` where
            `wildcard` is set.
        negated: accept everything but these.
        wildcard: values are patterns.
        minimum: smallest accepted value, inclusive; numbers only.
        maximum: largest accepted value, inclusive; numbers only.
    """

    field: str
    values: tuple[str | int | bool | None, ...] = ()
    negated: bool = False
    wildcard: bool = False
    minimum: float | int | None = None
    maximum: float | int | None = None


def is_met(condition: Filter, value: str | int | None) -> bool:
    """Whether a value meets a condition without bounds; what is not known meets None, and negated ones without it."""
    if condition.wildcard:
        met = value is not None and any(_pattern(str(each)).fullmatch(str(value)) for each in condition.values)
    else:
        met = value in condition.values
    return met is not condition.negated


@lru_cache
def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if character == "*" else "." if character == "?" else re.escape(character) for character in text)
    return re.compile("".join(parts), re.DOTALL)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a store. Windows are half-open and in UTC; records count where their partition time lies.

    Attributes:
        kind: name of the kind.
        wanted: what to compute; at least one.
        start: first instant of the window.
        end: first instant after it.
        by: dimensions to group by.
        filters: conditions that records meet.
        width: bucket width in seconds, aligned to 1970 UTC (so that a day is a UTC day); 0 is one bucket for all.
        top: number of groups kept, by the first wanted column over the whole window; all others become one exact
            group, Other. 0 keeps all.
    """

    kind: str
    wanted: tuple[Wanted, ...]
    start: datetime
    end: datetime
    by: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    width: int = 0
    top: int = 0


Value = int | float | None
"""Integers stay integers: sums of integer measures are exact whatever their size."""


class AnswerRow(msgspec.Struct, frozen=True):
    """One group in one bucket.

    Attributes:
        time: start of the bucket; None where the query has one bucket for all.
        group: values of the dimensions grouped by, in the query's order; () in the row of Other.
        values: one per wanted column; None where there is nothing to compute from.
        other: this row sums up every group beyond the top ones.
    """

    time: datetime | None
    group: tuple[str | int | bool | None, ...]
    values: tuple[Value, ...]
    other: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a Query.

    Attributes:
        query: the question as understood, with its absolute window and width.
        rows: groups and buckets, ordered by time, then by group with Other last; only buckets that hold records.
        totals: one row over all groups and the whole window, computed by itself and not from the rows.
        units: unit of each wanted column.
        groups: number of distinct groups, those within Other included.
        incomplete: cycles of snapshots left out because they arrived in part; None before who sees some records only,
            since a cycle is of everybody who is in it.
        errors: () where every value is exact. Else one per wanted column: 0.0 where exact, or the largest relative
            error of a percentile. Such a value lies between the two neighbouring records' values that the exact one
            is interpolated between, each widened by this share of itself.
    """

    query: Query
    rows: tuple[AnswerRow, ...]
    totals: tuple[Value, ...]
    units: tuple[str, ...]
    groups: int
    incomplete: int | None = 0
    errors: tuple[float, ...] = ()


class QueryError(ValueError):
    """A question that cannot be answered; the message names the part at fault and what is possible."""

    permanent = True


class StoredRecord(msgspec.Struct, frozen=True):
    """One record as a store holds it, with where it came from.

    Attributes:
        id: 32 hexadecimal digits.
        fields: field names to values; times as aware datetimes.
        producer: who sent it.
        message: id of the envelope that brought it, 32 hexadecimal digits.
        received: when the store took it.
    """

    id: str
    fields: dict[str, Any]
    producer: str
    message: str
    received: datetime
