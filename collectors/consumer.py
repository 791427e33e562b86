"""What keeps a queue collected: a session with the broker after the other, until told to stop."""

from __future__ import annotations

from threading import Event

from collectors.dead_letters import DeadLetters
from collectors.pipeline import Pipeline, Stopped, delays
from collectors.session import Session
from collectors.stop_limit import StopLimit
from siteward.broker import Broker
from siteward.log import get_logger
from siteward.settings import Settings
from siteward.telemetry import HELD_OLDEST, telemetry

log = get_logger(__name__)


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
        """Consume until told to stop, or until a flood of refused records stops the queue."""
        consumer = self._broker.consumer(self._queue, self._name, self._settings.broker.prefetch)
        try:
            reason = Session(self._queue, consumer, self._pipeline, self._limit, self._settings).run(stop)
        finally:
            consumer.close()
            telemetry.set(HELD_OLDEST, 0.0, self._queue)
        if reason:
            self._dead_letters.stop(self._queue, reason)
