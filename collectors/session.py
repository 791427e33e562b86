"""One consumer's turn at a queue: receive, fill a haul, write it while the next is decoded, acknowledge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Final

from collectors.pipeline import Pipeline
from collectors.steps import Acknowledge, Haul
from collectors.stop_limit import StopLimit
from collectors.suspects import Suspects
from siteward.broker import Consumer, Delivery
from siteward.envelope import MAX_RECORDS
from siteward.settings import Settings
from siteward.telemetry import HELD_OLDEST, telemetry

RECORD_BYTES: Final = 500
"""More than most records take in an envelope."""
LOOK_SECONDS: Final = 0.2
"""Longest time for which the loop looks at one thing only, be it the broker, the sink or the stop."""


class Filling:
    """Deliveries that wait until they are worth a write. `now` is in seconds and never goes back."""

    def __init__(self, records: int, age: float, messages: int) -> None:
        """Take the limits; whichever is met first makes a haul due."""
        self._limits = (records, age, messages)
        self._deliveries: list[Delivery] = []
        self._records = 0
        self._since = 0.0

    def add(self, deliveries: list[Delivery], now: float) -> None:
        """Put deliveries behind those that wait."""
        if deliveries and not self._deliveries:
            self._since = now
        self._deliveries += deliveries
        self._records += sum(map(_weight, deliveries))

    def patience(self, now: float) -> float:
        """Seconds until the next haul is due by age, at most LOOK_SECONDS; 0 where one is due."""
        records, age, messages = self._limits
        if self._records >= records or len(self._deliveries) >= messages:
            return 0.0
        if not self._deliveries:
            return LOOK_SECONDS
        return min(LOOK_SECONDS, max(0.0, self._since + age - now))

    @property
    def waiting(self) -> list[Delivery]:
        """Deliveries that no haul has taken yet."""
        return self._deliveries

    def take(self, now: float) -> list[Delivery]:
        """The next haul's deliveries, oldest first, if one is due, else []."""
        if not self._deliveries or self.patience(now) > 0:
            return []
        count = records = 0
        for delivery in self._deliveries:
            count += 1
            records += _weight(delivery)
            if records >= self._limits[0] or count >= self._limits[2]:
                break
        taken, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self._records -= records
        self._since = now
        return taken


def _weight(delivery: Delivery) -> int:
    """About how many records a message holds; a foreign one says nothing of that, or anything."""
    return min(max(delivery.message.count, len(delivery.message.body) // RECORD_BYTES, 1), MAX_RECORDS)


class Session:
    """Carries what one consumer receives to the sink.

    The broker's side (receive, decode, acknowledge) stays in the calling thread; the sink's side has a thread of its
    own, so that one haul is decoded while the one before it is written. No more than these two are in memory, beside
    what the prefetch limit allows to wait undecoded.
    """

    def __init__(
        self, queue: str, consumer: Consumer, pipeline: Pipeline, limit: StopLimit, settings: Settings
    ) -> None:
        """Take the open consumer, the steps to the sink, and the count of refused records, which outlives a session."""
        self._queue = queue
        self._consumer = consumer
        self._pipeline = pipeline
        self._limit = limit
        self._acknowledge = Acknowledge(queue, consumer)
        self._suspects = Suspects(queue, consumer, settings.broker.delivery_limit)
        limits = settings.collector
        self._filling = Filling(limits.batch_records, limits.batch_age, max(1, settings.broker.prefetch // 2))
        self._writing: Future[Haul] | None = None
        self._written: Sequence[Delivery] = ()

    def run(self, stop: Event) -> str:
        """Collect until `stop` is set, or too many records are refused: then the reason, else "".

        Raises:
            siteward.broker.BrokerUnavailable: the broker is lost; what is not acknowledged comes again.
            collectors.pipeline.Stopped: `stop` was set while the sink failed.
        """
        flood = ""
        with ThreadPoolExecutor(1, f"sink-{self._queue}") as sink:
            while not (stop.is_set() or flood):
                self._receive(0.0 if self._suspects.waits else self._filling.patience(time.monotonic()))
                if self._writing and self._writing.done():
                    flood = self._settle()
                deliveries = self._suspects.next_alone() or self._filling.take(time.monotonic())
                if not deliveries:
                    continue
                haul = self._pipeline.prepare(Haul(deliveries, time.time_ns() // 1000))
                if self._writing:
                    self._await(self._writing)
                    flood = flood or self._settle()
                if not (stop.is_set() or flood):
                    self._writing = sink.submit(self._pipeline.commit, haul, stop)
                    self._written = haul.deliveries
            if self._writing:
                self._settle()
        return flood

    def _receive(self, patience: float) -> None:
        deliveries = self._consumer.receive(patience)
        self._filling.add(self._suspects.taken_out(deliveries), time.monotonic())
        # How old the oldest message in hand is: the head of the queue, which not every broker can tell.
        times = [each.published for held in (self._written, self._filling.waiting) for each in held if each.published]
        telemetry.set(HELD_OLDEST, max(0.0, time.time() - min(times) / 1e6) if times else 0.0, self._queue)

    def _await(self, writing: Future[Haul]) -> None:
        """Wait for the sink, however long it takes, and keep the broker's connection alive meanwhile."""
        while not wait([writing], LOOK_SECONDS).done:
            self._receive(0)

    def _settle(self) -> str:
        """Acknowledge the committed haul; the reason to stop, if too many records were refused lately."""
        assert self._writing is not None
        haul = self._writing.result()
        self._writing, self._written = None, ()
        self._acknowledge(haul)
        self._limit.note(time.monotonic(), haul.records, haul.lost)
        return self._limit.exceeded()
