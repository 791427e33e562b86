"""Months in UTC by their first second and by name; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Final

from siteward.usage import Period
from siteward.usage_window import period_around

_NAME: Final = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_LAST: Final = 12


def month_of(second: int) -> int:
    """First second of the month in which a second since 1970 lies."""
    return int(_around(second)[0].timestamp())


def month_end(month: int) -> int:
    """First second after a month."""
    return int(_around(month)[1].timestamp())


def months_within(start: int, end: int) -> Iterator[int]:
    """First seconds of the months that meet a half-open stretch of seconds."""
    month = month_of(start)
    while month < end:
        yield month
        month = month_end(month)


def month_name(month: int) -> str:
    """Such as `2026-10`."""
    return f"{datetime.fromtimestamp(month, UTC):%Y-%m}"


def parse_month(text: str) -> int:
    """First second of a month that is written as `2026-10`.

    Raises:
        ValueError: it is not written so.
    """
    match = _NAME.fullmatch(text)
    # The end of a month has to be an instant, too.
    if match is None or not 1 <= int(match[2]) <= _LAST or not MINYEAR <= int(match[1]) < MAXYEAR:
        message = f"{text[:80]!r} is not a month; write one as 2026-10"
        raise ValueError(message)
    return int(datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC).timestamp())


def _around(second: int) -> tuple[datetime, datetime]:
    return period_around(datetime.fromtimestamp(second, UTC), Period.MONTH)
