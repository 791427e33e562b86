"""How to ask the ledger who used what: one typed question and one typed answer."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from siteward.query import Filter, Value

_PERCENTILE: Final = re.compile(r"p([1-9][0-9]?)", re.ASCII)


class ValueType(StrEnum):
    """What the values of a column are."""

    INTEGER = "integer"
    """Exact, whatever its size."""
    NUMBER = "number"
    """64 bits with a binary point."""


class Attribution(StrEnum):
    """To which time a record's usage belongs."""

    PRORATED = "prorated"
    """Spread over the time in which it ran: of a job across midnight both days have their part."""
    BY_END = "by-end"
    """Whole, in the period in which the record ended, as APEL and WLCG book it."""
    AT_INSTANT = "at-instant"
    """Of snapshots, and of them only: how much there was at instants; nothing was used that could be split."""


class AsOf(StrEnum):
    """Which figures of closed periods are asked for."""

    PRESENT = "present"
    """As everything is known now, adjustments included."""
    CLOSING = "closing"
    """By end only: as they were when each month of the window was closed."""


OF_USAGE: Final = (Attribution.PRORATED, Attribution.BY_END)
"""Those of whatever is used up; snapshots have the other one."""


class Period(StrEnum):
    """Calendar periods, in UTC."""

    WHOLE = "whole"
    """One row for the whole window."""
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """From Monday on."""
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Quantity(StrEnum):
    """What is computed of a measure; beside those that are listed, every whole percentile: `Quantity("p75")`."""

    SUM = "sum"
    RATE = "rate"
    """The sum divided by the seconds of the period within the window: of core time, the cores in use on average. By
    end also of `records`."""
    MEAN = "mean"
    """By end: the sum divided by the number of records that know the measure. Of snapshots: the mean over the cycles
    of each producer, in which a series that is absent is zero; producers added up."""
    MEAN_PRESENT = "mean-present"
    """Snapshots only, as up to `incomplete`: the mean of each series over the instants at which it was there, series
    added up."""
    LAST = "last"
    """What there was in each producer's last cycle; a series that is absent from it is zero."""
    LAST_KNOWN = "last-known"
    """What each series was when it was last there, series added up."""
    INSTANTS = "instants"
    """The instants at which a series was there, series added up."""
    CYCLES = "cycles"
    """How often the producers of a group looked, whatever they saw."""
    INCOMPLETE = "incomplete"
    """The cycles among them of which some records are missing, or more are there than were sent."""
    CUMULATIVE = "cumulative"
    """The sum from the start of the window to the end of the period. By end also of `records`."""
    RATIO = "ratio"
    """A ratio that the kind declares: the sums divided, over the records that know both."""
    RECORDS = "records"
    """By end: the records that ended. Prorated: the records that ran, for some time of the period at least. Of
    snapshots: all of the period."""
    STARTED = "started"
    """Prorated only: the records that started."""
    MIN = "min"
    """By end only, as all that follow: of the single records' values, also where they do not add up, or of their
    ratios. Of snapshots the least and most that one record says."""
    MAX = "max"
    P50 = "p50"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"
    """Percentile of the records' values, by linear interpolation between neighbours; so is any from `p1` on."""

    @classmethod
    def _missing_(cls, value: object) -> Quantity | None:
        """A percentile that is not listed: names of ninety more would hide what else there is."""
        if not isinstance(value, str) or not _PERCENTILE.fullmatch(value):
            return None
        made = str.__new__(cls, value)
        made._name_, made._value_ = value.upper(), value
        # One of each, whichever thread asks first.
        known = cls._value2member_map_.setdefault(value, made)
        assert isinstance(known, cls)
        return known

    @property
    def hundredths(self) -> int | None:
        """What single records tell, also of a ratio of each: how far through their ordered values it lies."""
        if self in {Quantity.MIN, Quantity.MAX}:
            return 0 if self is Quantity.MIN else 100
        found = _PERCENTILE.fullmatch(self)
        return int(found[1]) if found else None


OF_RECORDS: Final = (Quantity.RATE, Quantity.CUMULATIVE)
"""What is computed of the number of records, too, as if that were a measure: `rate:records`."""


class WantedUsage(msgspec.Struct, frozen=True):
    """One column of the answer: `sum:cpu_time`, `ratio:efficiency`, `records`."""

    quantity: Quantity
    measure: str = ""

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.quantity}:{self.measure}" if self.measure else str(self.quantity)


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question to the ledger. The window is half-open, in UTC, and means what it says.

    Attributes:
        kind: name of the kind.
        wanted: what to compute; at least one.
        start: first instant of the window.
        end: first instant after it.
        attribution: to which time usage belongs; AT_INSTANT for snapshots.
        by: dimensions to group by, or whole-number measures by their values. Of these, and of dimensions that are in
            no bucket, only records tell, which have to be there.
        filters: conditions on the same.
        period: one row for each calendar period within the window.
        as_of: which figures of closed periods; those of now by default.
        top: number of groups kept, by the first wanted column over the whole window; all others become one exact
            group, Other. 0 keeps all.
    """

    kind: str
    wanted: tuple[WantedUsage, ...]
    start: datetime
    end: datetime
    attribution: Attribution = Attribution.PRORATED
    by: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    period: Period = Period.WHOLE
    top: int = 0
    as_of: AsOf = AsOf.PRESENT


class ClosedPeriod(msgspec.Struct, frozen=True):
    """A closed month within the window of a question by end.

    Attributes:
        name: such as `2026-10`.
        state: `closed` or `signed`.
        adjusted: something has changed since in what was asked: the present figures are not those as of closing.
        vo: whose figures are closed; "*" of all VOs that have no period of their own for the month.
    """

    name: str
    state: str
    adjusted: bool
    vo: str = "*"


class UsageRow(msgspec.Struct, frozen=True):
    """One group in one period.

    Attributes:
        start: first instant of the period within the window.
        end: first instant after it.
        group: values of the dimensions grouped by; () in the row of Other.
        values: one per wanted column: whole numbers are exact; None where there is nothing to compute from.
        other: this row is every group beyond the top ones.
    """

    start: datetime
    end: datetime
    group: tuple[str | int | bool | None, ...]
    values: tuple[Value, ...]
    other: bool = False


class UsageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a UsageQuery.

    Attributes:
        query: the question as understood, its window in UTC.
        rows: ordered by period, then by group with Other last; only those that hold anything.
        totals: one row over all groups and the whole window.
        units: unit of each wanted column.
        groups: number of distinct groups, those within Other included.
        types: of each wanted column's values.
        visible: conditions that every record counted here met, beside the question's: what the viewer may see. ()
            where that is everything.
        pseudonyms: what was grouped by and has pseudonyms in place of people's names.
        closed: the closed months within the window of a question by end, by month and VO.
        unfinished: corrections of the kind that are half applied or half reversed: figures may hold a part of them.
        of_records: what was asked for, as groups or in conditions, that only records say: everything was computed
            from these.
    """

    query: UsageQuery
    rows: tuple[UsageRow, ...]
    totals: tuple[Value, ...]
    units: tuple[str, ...]
    groups: int
    types: tuple[ValueType, ...]
    visible: tuple[str, ...] = ()
    pseudonyms: tuple[str, ...] = ()
    closed: tuple[ClosedPeriod, ...] = ()
    unfinished: tuple[int, ...] = ()
    of_records: tuple[str, ...] = ()
