"""Calendar periods of a window, in UTC; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from siteward.usage import Period
from siteward.usage_window import period_around


def periods_of(start: datetime, end: datetime, period: Period) -> Iterator[tuple[datetime, datetime]]:
    """The periods that meet a half-open window, cut to it, in order.

    Args:
        start: first instant, in UTC.
        end: first instant after it; later than the start.
        period: which.
    """
    while start < end:
        following = min(end, period_around(start, period)[1]) if period is not Period.WHOLE else end
        yield start, following
        start = following
