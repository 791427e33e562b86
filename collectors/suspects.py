"""Messages delivered again and again and never acknowledged: each is cut up, until the record that kills is alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from siteward.broker import Consumer, Delivery
from siteward.compression import compress_zstd, decompress
from siteward.envelope import MAX_BYTES, ZSTD, divide
from siteward.log import get_logger
from siteward.records import Refused
from siteward.telemetry import DEAD_LETTERED, REDELIVERED, telemetry

log = get_logger(__name__)


class Suspects:
    """Takes out of a consumer's deliveries what may be killing its collectors."""

    def __init__(self, queue: str, consumer: Consumer, limit: int) -> None:
        """Take the queue's name, its consumer, and the number of deliveries that makes a message suspect."""
        self._queue = queue
        self._consumer = consumer
        self._limit = limit
        self._alone: list[Delivery] = []

    def taken_out(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """The deliveries that may be processed together with others.

        A suspect of several records is replaced by one message for each, and one of a single record waits for
        `next_alone`. What was delivered twice as often as makes a suspect is parked.

        Raises:
            siteward.broker.BrokerError: the suspects come again.
        """
        again = sum(1 for delivery in deliveries if delivery.redelivered)
        if not again:
            return list(deliveries)
        telemetry.add(REDELIVERED, again, self._queue)
        for delivery in deliveries:
            if delivery.redelivered >= self._limit:
                self._cut(delivery)
        return [delivery for delivery in deliveries if delivery.redelivered < self._limit]

    def next_alone(self) -> list[Delivery]:
        """A suspect of a single record, to be processed by itself; [] where there is none.

        What is held beside a record that kills counts as delivered as often as it. They are taken in random order, so
        that each collector that dies has first acknowledged some of those that do no harm.
        """
        if not self._alone:
            return []
        place = random.randrange(len(self._alone))  # noqa: S311  # any order that is another one next time.
        self._alone[place], self._alone[-1] = self._alone[-1], self._alone[place]
        return [self._alone.pop()]

    @property
    def waits(self) -> bool:
        """Whether `next_alone` has one."""
        return bool(self._alone)

    def _cut(self, delivery: Delivery) -> None:
        message, times = delivery.message, delivery.redelivered
        why = f"was delivered {times} times and never acknowledged: it may kill its collectors"
        if times >= 2 * self._limit:
            self._park(delivery, why)
            return
        try:
            encoding = message.content_encoding
            body = decompress(message.body, encoding, MAX_BYTES) if encoding else message.body
            parts = divide(body, message.content_type)
        except Refused as refused:
            self._park(delivery, str(refused))
            return
        if len(parts) == 1:
            self._alone.append(delivery)
            return
        if encoding == ZSTD:
            parts = [compress_zstd(part) for part in parts]
        log.warning("message is retried record by record", sink=self._queue, key=message.key, records=len(parts))
        self._consumer.replace(delivery, [msgspec.structs.replace(message, body=part, count=1) for part in parts])

    def _park(self, delivery: Delivery, reason: str) -> None:
        log.warning("message parked", sink=self._queue, key=delivery.message.key, reason=reason)
        self._consumer.park(delivery, reason)
        telemetry.add(DEAD_LETTERED, max(1, delivery.message.count), self._queue, "message")
