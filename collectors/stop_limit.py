"""When too many records are refused, something upstream is broken: the point at which a consumer stops and says so."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW: Final = 300.0
"""Seconds over which consumed and refused records are counted."""
_SLOT: Final = 5.0


class StopLimit:
    """Counts refused records among those consumed in the last minutes. Pure: the clock is a parameter."""

    def __init__(self, count: int, share: float) -> None:
        """Take the limit: more refused records than `count`, and more than `share` of all, are too many."""
        self._count = count
        self._share = share
        self._slots: deque[list[float]] = deque()

    def note(self, now: float, consumed: int, refused: int) -> None:
        """Count records; `now` is in seconds and never goes back."""
        if not self._slots or now - self._slots[-1][0] >= _SLOT:
            self._slots.append([now, 0, 0])
        self._slots[-1][1] += consumed
        self._slots[-1][2] += refused
        while self._slots[0][0] < now - WINDOW:
            self._slots.popleft()

    def exceeded(self) -> str:
        """Why to stop, as a sentence; "" where there is no reason."""
        consumed = int(sum(slot[1] for slot in self._slots))
        refused = int(sum(slot[2] for slot in self._slots))
        if refused <= self._count or refused <= self._share * consumed:
            return ""
        return (
            f"stopped: flood of refused records: {refused} of the last {consumed} records were refused "
            f"(the limit is {self._count} and {self._share:.0%}); look at `siteward dead-letters list`, "
            "mend the producer or the kind, then run `siteward dead-letters resume`"
        )

    def reset(self) -> None:
        """Count from zero: somebody has looked and lets it go on."""
        self._slots.clear()
