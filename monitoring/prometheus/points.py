"""The values that series have at a scrape, and what counting needs to know and tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from monitoring.prometheus.budget import Labels
from monitoring.prometheus.families import Family
from monitoring.prometheus.window import Why
from siteward.sinks import Batch


class Limits(msgspec.Struct, frozen=True):
    """What bounds the series of a kind.

    Attributes:
        late: length of the window of live records, microseconds.
        stale: after so many microseconds without growth a counter is dropped.
        series: most series, the buckets of histograms included.
    """

    late: int
    stale: int
    series: int


class Buckets(msgspec.Struct, frozen=True):
    """A histogram's state.

    Attributes:
        counts: how many values are at most each of families.BOUNDS, and how many there are.
        total: their sum.
    """

    counts: tuple[int, ...]
    total: float


class Point(msgspec.Struct, frozen=True):
    """One value of one family: a number, exact until it is exposed as a 64-bit float, or a histogram's buckets."""

    family: Family
    labels: Labels
    value: float | Buckets


class Counted(msgspec.Struct):
    """What became of a batch.

    Attributes:
        left_out: records that enter no series, by reason.
        over_budget: records counted under `other`, by the sort of series: counters, histograms or gauges.
        replayed: positions of the records that have been here already.
    """

    left_out: Counter[Why] = msgspec.field(default_factory=Counter)
    over_budget: Counter[str] = msgspec.field(default_factory=Counter)
    replayed: Sequence[int] = ()


class Counting(Protocol):
    """The series of one kind."""

    def write(self, batch: Batch, now: int) -> Counted:
        """Take a batch in; `now` is in microseconds since 1970 UTC."""

    def expire(self, now: int) -> Counted:
        """Let go of what time has passed by; says which records therefore enter no series any more."""

    def points(self, now: int) -> Iterator[Point]:
        """Every value, as a scrape sees it."""

    @property
    def series(self) -> int:
        """How many series there are, buckets included."""


def label_values(key: Sequence[Any]) -> Labels:
    """The values of dimensions as texts; "" for an unknown one, which for Prometheus is the same as no label."""
    return tuple(_text(value) for value in key)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            # Half a character could be in no answer, and would keep everything else out of it.
            return value if value.isascii() else value.encode(errors="replace").decode()
        case _:
            return str(value)
