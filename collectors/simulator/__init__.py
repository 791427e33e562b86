"""A believable grid at any size, deterministic, with faults to inject and their labels kept apart.

Every hour of the simulation is made by itself, from the seed, the grid and the hour's number; so it does not matter
in which slices, in which order or how often it is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from siteward.records import Record


class Emission(msgspec.Struct, frozen=True, gc=False):
    """A record and the instant at which its producer would send it, microseconds since 1970 UTC."""

    time: int
    record: Record


class Stream(Protocol):
    """One kind of what happens in the grid."""

    def emissions(self, hour: int, start: int, end: int) -> Iterable[Emission]:
        """What is sent during one hour, in any order, the same at every call.

        Args:
            hour: number of the hour since 1970 UTC.
            start: in the hour; what is sent earlier may be left out, microseconds since 1970 UTC.
            end: in the hour or its end; what is sent at or after it may be left out.
        """
