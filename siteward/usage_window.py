"""The window of a question to the ledger as texts: `2026-Q1`, `2026-03`, `last-month`, and the times of a query."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from siteward.query import QueryError
from siteward.query_window import format_time, parse_time
from siteward.records.shapes import EARLIEST, LATEST
from siteward.usage import Period

_MONTHS: Final = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}
_SPANS: Final = {Period.HOUR: timedelta(hours=1), Period.DAY: timedelta(days=1), Period.WEEK: timedelta(weeks=1)}
_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)
_CALENDAR: Final = re.compile(r"(\d{4})(?:-(?:Q([1-4])|W(\d\d)|(\d\d)(?:-(\d\d))?))?", re.ASCII)
_NAMED: Final = re.compile(r"(this|last)-(hour|day|week|month|quarter|year)", re.ASCII)
_DAYS: Final = {"today": "this-day", "yesterday": "last-day"}

Window = tuple[datetime, datetime]
"""First instant and first after it, in UTC."""


def period_around(moment: datetime, period: Period) -> Window:
    """The calendar period in which an instant lies.

    Args:
        moment: in UTC.
        period: any but the whole.
    """
    months = _MONTHS.get(period)
    if months is None:
        span = _SPANS[period]
        start = _MONDAY + (moment - _MONDAY) // span * span
        return start, start + span
    number = (moment.year * 12 + moment.month - 1) // months * months
    return _month(number), _month(number + months)


def _month(number: int) -> datetime:
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def parse_usage_window(window: str, start: str, end: str, now: datetime) -> Window:
    """The window of a question: all of a calendar period, or from one instant to another.

    Args:
        window: a calendar word; "" where start or end are given.
        start: first instant; of a calendar word its own first one.
        end: first instant after the window; of a calendar word its first one too. "" is now.
        now: what relative times mean; aware. A fraction of a second is left out.

    Raises:
        QueryError: not times, both forms at once, or the window holds nothing.
    """
    now = now.astimezone(UTC).replace(microsecond=0)
    if window and (start or end):
        message = f"window {window[:80]!r}: give either a window, or start and end"
        raise QueryError(message)
    if window:
        found = parse_calendar(window, now)
        if found is None:
            message = f"window {window[:80]!r}: expected {_WORDS}; or give start and end"
            raise QueryError(message)
        return found
    if not start:
        message = "start: give a window, such as last-month, or the start of one"
        raise QueryError(message)
    first, last = (parse_instant(text, now) for text in (start, end or "now"))
    if first >= last:
        message = f"the window ends ({format_time(last)}) not after its start ({format_time(first)})"
        raise QueryError(message)
    return first, last


_WORDS: Final = (
    "a year (2026), quarter (2026-Q1), month (2026-03), week (2026-W09), day (2026-03-01), today, yesterday, "
    "or this- or last- with hour, day, week, month, quarter or year"
)


def parse_instant(text: str, now: datetime) -> datetime:
    """An instant in UTC: as `siteward.query_window.parse_time`, or the first of a calendar word.

    Raises:
        QueryError: it is none.
    """
    found = parse_calendar(text, now)
    return found[0] if found else parse_time(text, now)


def parse_calendar(text: str, now: datetime) -> Window | None:
    """The calendar period that a word names, in UTC; None where it names none.

    Raises:
        QueryError: it has the form of one, but there is none of that number, or it lies outside what records may say.
    """
    text = text.strip()
    named = _NAMED.fullmatch(_DAYS.get(text, text))
    if named:
        found = period_around(now, Period(named[2]))
        return found if named[1] == "this" else period_around(found[0] - timedelta(microseconds=1), Period(named[2]))
    match = _CALENDAR.fullmatch(text)
    if match is None:
        return None
    try:
        found = _numbered(*match.groups())
    except (ValueError, OverflowError) as error:
        message = f"time {text!r}: there is no such day, week or month"
        raise QueryError(message) from error
    if not (found[0] >= EARLIEST and found[1] <= LATEST):
        message = f"time {text!r} lies outside {EARLIEST.year} to {LATEST.year}"
        raise QueryError(message)
    return found


def _numbered(year: str, quarter: str | None, week: str | None, month: str | None, day: str | None) -> Window:
    if week:
        monday = datetime.fromisocalendar(int(year), int(week), 1).replace(tzinfo=UTC)
        return period_around(monday, Period.WEEK)
    number = int(quarter) * 3 - 2 if quarter else int(month or 1)
    first = datetime(int(year), number, int(day or 1), tzinfo=UTC)
    period = Period.DAY if day else Period.MONTH if month else Period.QUARTER if quarter else Period.YEAR
    return period_around(first, period)


def parse_zone(text: str) -> tzinfo:
    """The time zone in which instants are shown.

    Raises:
        QueryError: there is none of that name.
    """
    if text == "UTC":
        # Known also where a machine has no list of zones.
        return UTC
    known = available_timezones()
    if text not in known:
        close = get_close_matches(text, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "write a name such as UTC or Europe/Zurich"
        message = f"{text[:80]!r} is not a time zone; {hint}"
        raise QueryError(message)
    return ZoneInfo(text)
