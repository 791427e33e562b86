"""The window and the buckets of a query as texts: `-24h`, `now`, `2026-11-22`, `15m`, `auto`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Final

from siteward.query import QueryError
from siteward.records.shapes import EARLIEST, LATEST

MOST_BUCKETS: Final = 100_000
"""Buckets of one window; a finer question is refused, since nobody reads its answer."""
AUTO_BUCKETS: Final = 120
"""An automatic width gives at most this many buckets, and no fewer than half of it where the window allows."""
SECOND: Final = timedelta(seconds=1)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WIDTHS: Final = tuple(
    count * _UNITS[unit]
    for unit, counts in (
        ("s", (1, 2, 3, 5, 10, 15, 30)),
        ("m", (1, 2, 3, 5, 10, 15, 30)),
        ("h", (1, 2, 3, 6, 12)),
        ("d", (1, 2, 4, 7, 14, 28, 56, 112, 224, 448)),
    )
    for count in counts
)
"""Widths that people read easily; none is more than twice the one before."""
_RELATIVE: Final = re.compile(r"([+-])(\d{1,9})([smhdw])", re.ASCII)
_WIDTH: Final = re.compile(r"(\d{1,9})([smhdw]?)", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def parse_window(start: str, end: str, now: datetime) -> tuple[datetime, datetime]:
    """The first instant of a window and the first after it.

    Raises:
        QueryError: not times, or the window holds nothing.
    """
    window = parse_time(start, now), parse_time(end, now)
    if window[0] >= window[1]:
        message = f"the window ends ({format_time(window[1])}) before it starts ({format_time(window[0])})"
        raise QueryError(message)
    return window


def parse_time(text: str, now: datetime) -> datetime:
    """An instant in UTC: `now`, `-24h` (units s, m, h, d, w), a date, or RFC 3339 with its offset.

    Raises:
        QueryError: saying which forms there are.
    """
    try:
        time = _time(text.strip(), now)
    except (ValueError, OverflowError):
        time = None
    if time is None or time.tzinfo is None:
        # A plus sign that was not percent-encoded arrives as a space.
        hint = "; write an offset, such as Z" if time else "; write + as %2B in a URL" if " " in text.strip() else ""
        message = (
            f"time {text[:80]!r}: expected now, -24h (s, m, h, d, w), a date such as 2026-11-22, "
            f"or RFC 3339 such as 2026-11-22T10:00:00Z{hint}"
        )
        raise QueryError(message)
    if not EARLIEST <= time <= LATEST:
        message = f"time {text[:80]!r} lies outside {EARLIEST.year} to {LATEST.year}"
        raise QueryError(message)
    return time.astimezone(UTC)


def _time(text: str, now: datetime) -> datetime | None:
    """The instant, naive where the text gives no offset, None where it is none of the forms."""
    if text == "now":
        return now
    relative = _RELATIVE.fullmatch(text)
    if relative:
        span = timedelta(seconds=int(relative[2]) * _UNITS[relative[3]])
        return now - span if relative[1] == "-" else now + span
    if _DATE.fullmatch(text):
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    return datetime.fromisoformat(text)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_width(text: str, start: datetime, end: datetime) -> int:
    """A bucket's width in seconds; 0 is one bucket for all.

    Raises:
        QueryError: not a width, or the window would have more than MOST_BUCKETS buckets.
    """
    text = text.strip()
    if text == "auto":
        return auto_width(start, end)
    match = _WIDTH.fullmatch(text)
    if match is None:
        message = f"width {text[:80]!r}: expected seconds, 15m, 1h, 1d, auto, or 0 for one bucket"
        raise QueryError(message)
    width = int(match[1]) * _UNITS[match[2] or "s"]
    if width and (end - start) / SECOND / width > MOST_BUCKETS:
        message = (
            f"width {text!r} gives more than {MOST_BUCKETS} buckets in this window; "
            f"take at least {ceil((end - start) / SECOND / MOST_BUCKETS)} seconds, or auto"
        )
        raise QueryError(message)
    return width


def auto_width(start: datetime, end: datetime) -> int:
    """The smallest width that people read easily and that gives no more than AUTO_BUCKETS buckets, in seconds."""
    seconds = (end - start) / SECOND
    return next((width for width in _WIDTHS if seconds <= width * AUTO_BUCKETS), _WIDTHS[-1])
