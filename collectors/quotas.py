"""How much one producer, and one VO, may send: whoever is noisy waits, and nobody else notices."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from siteward.server.places import may_take
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.settings import GatewaySettings

if TYPE_CHECKING:
    from collectors.sender import Sender

AT_ONCE: Final = 16
"""Requests that are read at the same time; further ones wait. Each holds one thread."""
BURST: Final = 10.0
"""Seconds of its rate that somebody may send at once after a rest."""
MOST_KNOWN: Final = 10_000
"""Producers and VOs that are remembered; whoever was silent longest is forgotten first, and has rested anyhow."""


class Whose(NamedTuple):
    """Whose limit it is."""

    sort: str
    account: str
    name: str
    """What people call it."""


class Bucket:
    """Fills at a rate up to a burst, and is emptied by what is sent; may be overdrawn, which has to be waited for."""

    def __init__(self, rate: float, now: float) -> None:
        """Start full."""
        self._rate = rate
        self._level = rate * BURST
        self._at = now

    def take(self, count: int, now: float) -> None:
        """Empty it by so many records."""
        self._level = min(self._level + (now - self._at) * self._rate, self._rate * BURST) - count
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until it holds anything; 0 where it does."""
        return max(0.0, -(self._level + (now - self._at) * self._rate) / self._rate)


class Quotas:
    """Those of one process. Any thread may ask."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the limits, and a clock in seconds."""
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: Counter[str] = Counter()
        self._of_vo: Counter[str] = Counter()
        self._buckets: OrderedDict[Whose, Bucket] = OrderedDict()

    @contextmanager
    def reading(self, sender: Sender) -> Iterator[None]:
        """Hold one of a sender's places, and one of its VO's, while its request is read.

        Who holds some takes another one only while enough are free for others: however many VOs are noisy, they leave a
        place for the next one. Where several come at the same moment, the only request of a VO waits for its turn.

        Of which VO the records are is not known before; whoever sends for several has a place of the one that holds
        fewest, so that one of them that is noisy does not keep out what is sent for the others.

        Args:
            sender: whose.

        Raises:
            Problem: 429, it has none left, or none of its VOs has.
        """
        with self._lock:
            free = AT_ONCE - self._reading.total()
            self._check_places(self._reading[sender.account], self._settings.producer_at_once, free, sender.name)
            vo = min(sender.places_of, key=lambda each: self._of_vo[each], default="")
            self._check_places(self._of_vo[vo], self._settings.vo_at_once, free, f"the VO {vo}")
            self._reading[sender.account] += 1
            self._of_vo[vo] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[sender.account] -= 1
                self._of_vo[vo] -= 1
                # Names of those who are gone are not kept.
                self._reading += Counter()
                self._of_vo += Counter()

    @staticmethod
    def _check_places(held: int, most: int, free: int, whose: str) -> None:
        """Refuse one more, beyond a share of the free places by which somebody alone holds no more than `most`."""
        if not may_take(held=held, most=most, free=free, places=AT_ONCE):
            message = f"{held} requests of {whose} are being read, and {free} places are free; try again later"
            raise Problem(429, message, headers=RETRY_AFTER)

    def check(self, sender: Sender, vos: Iterable[str]) -> None:
        """Refuse whoever has sent more than the limits allow, before anything more is queued.

        Args:
            sender: who sends.
            vos: of which VOs.

        Raises:
            Problem: 429, with the seconds after which to try again.
        """
        now, longest, whose = self._clock(), 0.0, ""
        with self._lock:
            for key, rate, _ in self._limits(sender, dict.fromkeys(vos, 0)):
                bucket = self._buckets.get(key)
                if bucket is not None and bucket.wait(now) > longest:
                    longest, whose = bucket.wait(now), f"the {key.sort} {key.name}: {rate:g} records per second"
        if longest:
            message = f"more than the limit of {whose}; try again in {math.ceil(longest)} s"
            raise Problem(429, message, headers={"Retry-After": str(math.ceil(longest))})

    def charge(self, sender: Sender, records: Mapping[str, int]) -> None:
        """Count what was queued, by VO."""
        now = self._clock()
        with self._lock:
            for key, rate, count in self._limits(sender, records):
                bucket = self._buckets.setdefault(key, Bucket(rate, now))
                self._buckets.move_to_end(key)
                bucket.take(count, now)
            while len(self._buckets) > MOST_KNOWN:
                self._buckets.popitem(last=False)

    def _limits(self, sender: Sender, records: Mapping[str, int]) -> Iterator[tuple[Whose, float, int]]:
        """Whose bucket, how fast it fills, and how many of the records are its; of limits that there are."""
        if self._settings.producer_rate:
            yield (
                Whose("producer", sender.account, sender.name),
                self._settings.producer_rate,
                sum(records.values()),
            )
        for vo, count in records.items():
            own = self._settings.vos.get(vo)
            rate = self._settings.vo_rate if own is None else own.rate
            if rate:
                yield Whose("VO", vo, vo), rate, count
