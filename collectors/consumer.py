"""The loop between one queue and its sink: receive, fill a haul, write it while the next is decoded, acknowledge."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Final

from collectors.dead_letters import DeadLetters
from collectors.pipeline import Pipeline, Stopped, delays
from collectors.steps import Acknowledge, Haul
from collectors.stop_limit import StopLimit
from collectors.suspects import Suspects
from siteward.broker import Broker, Consumer, Delivery
from siteward.log import get_logger
from siteward.settings import Settings

LOOK_SECONDS: Final = 0.2
"""Longest time for which the loop looks at one thing only, be it the broker, the sink or the stop."""
log = get_logger(__name__)


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
        self._records += sum(delivery.message.count for delivery in deliveries)

    def patience(self, now: float) -> float:
        """Seconds until the next haul is due by age, at most LOOK_SECONDS; 0 where one is due."""
        records, age, messages = self._limits
        if self._records >= records or len(self._deliveries) >= messages:
            return 0.0
        if not self._deliveries:
            return LOOK_SECONDS
        return min(LOOK_SECONDS, max(0.0, self._since + age - now))

    def take(self, now: float) -> list[Delivery]:
        """The next haul's deliveries, oldest first, if one is due, else []."""
        if not self._deliveries or self.patience(now) > 0:
            return []
        count = records = 0
        for delivery in self._deliveries:
            count += 1
            records += delivery.message.count
            if records >= self._limits[0] or count >= self._limits[2]:
                break
        taken, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        self._records -= records
        self._since = now
        return taken


class Collector:
    """Carries the records of one queue to its sink until it is told to stop."""

    def __init__(
        self,
        queue: str,
        broker: Broker,
        pipeline: Pipeline,
        dead_letters: DeadLetters,
        settings: Settings,
        name: str = "collector",
    ) -> None:
        """Take what to connect.

        Args:
            queue: the queue, named as its sink.
            broker: where it is.
            pipeline: the steps to the sink.
            dead_letters: where a flood of refused records is noted.
            settings: batch sizes, prefetch and the stop limit.
            name: the consumer's name towards the broker.
        """
        self._queue = queue
        self._broker = broker
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._settings = settings
        self._name = name
        self._limit = StopLimit(settings.collector.dead_letter_count, settings.collector.dead_letter_share)

    def run(self, stop: Event) -> None:
        """Collect until `stop` is set; a lost broker is looked for again, a failing sink waited for."""
        waits = delays()
        try:
            while not stop.is_set():
                try:
                    if self._may_run(stop):
                        self._pipeline.open(stop)
                        self._collect(stop)
                        waits = delays()
                except Stopped:
                    break
                except Exception as error:  # noqa: BLE001  # nothing is lost by starting again, the other sinks go on.
                    delay = next(waits)
                    why = str(error) or type(error).__name__
                    log.warning("collector waits", sink=self._queue, error=why, seconds=round(delay, 1))
                    stop.wait(delay)
        finally:
            self._pipeline.close()

    def _may_run(self, stop: Event) -> bool:
        """Whether no flood has stopped the queue; waits while it has, for somebody to say `resume`."""
        reason = self._stop_reason()
        if not reason:
            return True
        log.error(reason, sink=self._queue)
        while not stop.wait(1.0):
            if not self._stop_reason():
                log.info("resumed", sink=self._queue)
                self._limit.reset()
                return True
        return False

    def _stop_reason(self) -> str:
        return next((stop.reason for stop in self._dead_letters.stops() if stop.queue == self._queue), "")

    def _collect(self, stop: Event) -> None:
        """Consume until told to stop, or until a flood of refused records stops the queue.

        The broker's side (receive, decode, acknowledge) stays in this thread; the sink's side has a thread of its
        own, so that one haul is decoded while the one before it is written. No more than these two are in memory,
        beside what the prefetch limit allows to wait undecoded.
        """
        prefetch = self._settings.broker.prefetch
        limits = self._settings.collector
        filling = Filling(limits.batch_records, limits.batch_age, max(1, prefetch // 2))
        consumer = self._broker.consumer(self._queue, self._name, prefetch)
        acknowledge = Acknowledge(self._queue, consumer)
        suspects = Suspects(self._queue, consumer, self._settings.broker.delivery_limit)
        writing: Future[Haul] | None = None
        try:
            with ThreadPoolExecutor(1, f"sink-{self._queue}") as sink:
                flood = ""
                while not (stop.is_set() or flood):
                    deliveries = consumer.receive(filling.patience(time.monotonic()))
                    filling.add(suspects.taken_out(deliveries), time.monotonic())
                    if writing and writing.done():
                        flood, writing = self._settle(writing, acknowledge), None
                    deliveries = filling.take(time.monotonic())
                    if not deliveries:
                        continue
                    haul = self._pipeline.prepare(Haul(deliveries, time.time_ns() // 1000))
                    if writing:
                        self._await(writing, consumer, suspects, filling)
                        flood, writing = self._settle(writing, acknowledge), None
                    if not (stop.is_set() or flood):
                        writing = sink.submit(self._pipeline.commit, haul, stop)
                if writing:
                    self._settle(writing, acknowledge)
        finally:
            consumer.close()

    def _await(self, writing: Future[Haul], consumer: Consumer, suspects: Suspects, filling: Filling) -> None:
        """Wait for the sink, however long it takes, and keep the broker's connection alive meanwhile."""
        while not wait([writing], LOOK_SECONDS).done:
            filling.add(suspects.taken_out(consumer.receive(0)), time.monotonic())

    def _settle(self, writing: Future[Haul], acknowledge: Acknowledge) -> str:
        """Acknowledge a committed haul; the reason to stop, if too many of its records were refused."""
        haul = writing.result()
        acknowledge(haul)
        self._limit.note(time.monotonic(), haul.records, haul.lost)
        reason = self._limit.exceeded()
        if reason:
            self._dead_letters.stop(self._queue, reason)
        return reason
