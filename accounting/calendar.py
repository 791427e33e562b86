"""Calendar periods of a window, in UTC; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from siteward.usage import Period

_MONTHS = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}
_SPANS = {Period.HOUR: timedelta(hours=1), Period.DAY: timedelta(days=1), Period.WEEK: timedelta(weeks=1)}
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)


def periods_of(start: datetime, end: datetime, period: Period) -> Iterator[tuple[datetime, datetime]]:
    """The periods that meet a half-open window, cut to it, in order.

    Args:
        start: first instant, in UTC.
        end: first instant after it; later than the start.
        period: which.
    """
    while start < end:
        following = min(end, _next(start, period)) if period is not Period.WHOLE else end
        yield start, following
        start = following


def _next(moment: datetime, period: Period) -> datetime:
    """The start of the period after the one in which an instant lies."""
    months = _MONTHS.get(period)
    if months is None:
        span = _SPANS[period]
        return _MONDAY + ((moment - _MONDAY) // span + 1) * span
    number = (moment.year * 12 + moment.month - 1) // months * months + months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
