"""How busy a simulated site is at an hour: days, weeks and slow waves; pure."""

from __future__ import annotations

import math
from typing import Final

from collectors.simulator.grid import Site

SECOND: Final = 1_000_000
HOUR: Final = 3600 * SECOND
"""Microseconds."""
DAY: Final = 24 * HOUR
_PEAK: Final = 15
"""Local hour at which people have most jobs."""
_THURSDAY: Final = 3
"""1970-01-01 was one; weeks begin on Monday."""
_WORKDAYS: Final = 5
_FULLEST: Final = 0.97
_WAIT: Final = 120.0
"""Median queue wait at half load, seconds."""


def working(site: Site, hour: int) -> float:
    """Activity of people at an hour since 1970, 1 on average: the day's wave, and fewer at weekends."""
    local = hour + site.zone
    day = 1 + 0.45 * math.cos(2 * math.pi * (local % 24 - _PEAK) / 24)
    weekday = (local // 24 + _THURSDAY) % 7
    return day * (1.14 if weekday < _WORKDAYS else 0.65)


def activity(site: Site, hour: int) -> float:
    """Finished jobs relative to the site's mean rate: half follows people, half production, in slow waves."""
    days = hour / 24
    period = 6 + 10 * site.busy
    wave = 1 + 0.18 * math.sin(2 * math.pi * days / period + 40 * site.quality)
    return (0.5 * working(site, hour) + 0.5) * wave


def utilisation(site: Site, hour: int) -> float:
    """Share of the site's processors in use, 0 to below 1."""
    return min(site.busy * (0.6 + 0.4 * activity(site, hour)), _FULLEST)


def median_wait(site: Site, hour: int) -> float:
    """Median time in the queue, seconds: as in any queue, it grows without bound as the site fills."""
    used = utilisation(site, hour)
    return _WAIT * used / (1 - used)
