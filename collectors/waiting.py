"""Whether the queues have room for more, and for whose records: whoever fills them waits before anybody else does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from siteward.broker import Broker
from siteward.server.problems import RETRY_AFTER, Problem

LOOK_SECONDS: Final = 1.0
"""How long a look at the queues is good."""
CROWDED: Final = 0.75
"""Share of the room beyond which a VO waits that has more than a fair share of what waits: the rest is for others."""
HALF_SECONDS: Final = 300.0
"""After which half of what a VO has queued is thought to be stored, where other programs fill the queues, too."""
SMALL: Final = 0.01
"""Share of the room that is nobody's fault, however few others there are."""


class Waiting:
    """How full the queues are, looked at once a second at most, and, as far as this process knows, with whose records.

    Collectors take from the queues in order, so what has left them is taken from all VOs alike.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the number of waiting records in any queue that is too many, and a clock in seconds."""
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._longest = 0
        self._looked = clock()
        self._held: dict[str, float] = {}

    def check(self, broker: Broker) -> None:
        """Pass while there is room.

        Raises:
            Problem: 429, with the seconds after which to try again.
            siteward.broker.BrokerError: the broker does not answer.
        """
        if self._clock() >= self._until:
            longest, now = max((queue.records or 0 for queue in broker.status()), default=0), self._clock()
            with self._lock:
                self._longest, self._until = longest, now + LOOK_SECONDS
                self._forget(now)
        if self._longest > self._most:
            message = "more records wait to be stored than there is room for; try again later"
            raise Problem(429, message, headers=RETRY_AFTER)

    def check_share(self, vos: Iterable[str]) -> None:
        """Pass while the queues are not crowded, and then those VOs that have no more than a fair share of what waits.

        One share is left for whoever comes next, or one VO alone could fill the queues.

        Raises:
            Problem: 429, with the seconds after which to try again.
        """
        with self._lock:
            if self._longest <= CROWDED * self._most:
                return
            share = max(sum(self._held.values()) / (len(self._held) + 1), SMALL * self._most)
            greedy = next((vo for vo in vos if self._held.get(vo, 0.0) > share), None)
        if greedy is not None:
            message = (
                f"many records wait to be stored, and more than a fair share of them are of {greedy}; try again later"
            )
            raise Problem(429, message, headers=RETRY_AFTER)

    def charge(self, records: Mapping[str, int]) -> None:
        """Count what was queued, by VO."""
        with self._lock:
            for vo, count in records.items():
                self._held[vo] = self._held.get(vo, 0.0) + count

    def _forget(self, now: float) -> None:
        """What was queued and waits no more is forgotten; in time also what others' records hide."""
        total = sum(self._held.values())
        share = 0.5 ** ((now - self._looked) / HALF_SECONDS) if total else 1.0
        if total * share > self._longest:
            share = self._longest / total
        left = {vo: held * share for vo, held in self._held.items()}
        self._held = {vo: held for vo, held in left.items() if held >= 1}
        self._looked = now
