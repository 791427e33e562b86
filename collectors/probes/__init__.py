"""Probes: what looks at a machine or a service again and again and emits what it saw.

A Probe is registered under the entry-point group `siteward.probes`. It is started once and then asked at intervals;
what it must remember between two looks (counters, processes seen) lives in its Watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from siteward.records import Record
from siteward.settings import Settings


class Watch(Protocol):
    """One probe at work. One thread at a time uses it."""

    @property
    def interval(self) -> float:
        """Seconds between two looks."""

    def look(self, now: datetime) -> Sequence[Record]:
        """What is to be told since the look before; often nothing.

        May block as long as what it looks at takes to answer, and not longer than its interval. What cannot be
        seen is left out or told as a failure, never raised.

        Args:
            now: an aware datetime; the instant of the look.
        """


class Probe(Protocol):
    """Makes watches."""

    def watches(self, settings: Settings) -> Sequence[Watch]:
        """Begin: the first look of each comes after one interval, so that it has something to count from."""
