"""The steps between broker and sink: each takes a haul, does one thing to it, and may be repeated harmlessly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, Protocol

import msgspec

from collectors.database import storable
from collectors.dead_letters import DeadLetters, Letter, Stage, place_id
from collectors.receipts import PARKED, WHOLE, Receipt, Receipts
from siteward.broker import Consumer, Delivery, Message
from siteward.broker.topology import split_key
from siteward.compression import decompress
from siteward.envelope import MAX_BYTES, Parcel, as_json, open_envelope
from siteward.log import get_logger
from siteward.records import Kind, Refused
from siteward.sinks import Batch, Outcome, Sink, SinkUnavailable, Written
from siteward.telemetry import BATCH_SECONDS, CONSUMED, DEAD_LETTERED, SINK_FAILURES, WRITTEN, telemetry

LOGGED_LETTERS: Final = 3
"""Refused records of one haul that are logged; all are in the dead letters."""
UNREADABLE: Final = "message"
"""In the place of a kind: a whole message that could not be read."""
log = get_logger(__name__)
Enrichment = Callable[[Batch], Batch]
"""Adds to the records of a batch what their producer could not know: same records, same order, valid values."""


class Asked(msgspec.Struct, frozen=True):
    """Records that want receipts: `positions` in the envelope `message` as it was sent, from `first` in the batch."""

    message: bytes
    positions: Sequence[int]
    first: int


class Haul(msgspec.Struct):
    """What one round carries from the broker to the sink.

    Attributes:
        deliveries: the messages, acknowledged when the haul has passed every step.
        received: when they were taken, microseconds since 1970 UTC.
        records: how many records they hold; a message that cannot be read is one.
        batches: accepted records by kind.
        written: the sink's answers by kind.
        letters: refused records.
        unreadable: whole messages that nothing can be read from, with the reason.
        asked: records that want a receipt, by kind.
        refused: refused records that want a receipt: message, position and reason.
        people: dimension and name by pseudonym, of everybody that the batches name.
    """

    deliveries: Sequence[Delivery]
    received: int
    records: int = 0
    batches: dict[str, Batch] = {}
    written: dict[str, Written] = {}
    letters: list[Letter] = []
    unreadable: list[tuple[Delivery, str]] = []
    asked: dict[str, list[Asked]] = {}
    refused: list[tuple[bytes, int, str]] = []
    people: dict[str, tuple[str, str]] = {}

    @property
    def lost(self) -> int:
        """How many of the records no sink took; a message that cannot be read is one."""
        return len(self.letters) + len(self.unreadable)


class Step(Protocol):
    """One thing done to a haul. Whatever it raises, the same haul comes again later."""

    def __call__(self, haul: Haul) -> None:
        """Do it; doing it again changes nothing."""


class Decode:
    """Open the envelopes, validate every record, and put what is accepted together by kind."""

    def __init__(self, queue: str, kinds: Mapping[str, Kind]) -> None:
        """Take the queue's name, for the letters, and all kinds by name."""
        self._queue = queue
        self._kinds = kinds

    def __call__(self, haul: Haul) -> None:
        """Fill batches, letters and unreadable from the deliveries."""
        for delivery in haul.deliveries:
            try:
                parcel = opened(delivery.message, self._kinds, haul.received)
            except Refused as refused:
                self._put_aside(haul, delivery, str(refused))
            except Exception as error:  # noqa: BLE001  # a message that breaks the reader must not stop the others.
                self._put_aside(haul, delivery, f"cannot be read: {error!r}")
            else:
                self._add(haul, parcel)

    def _put_aside(self, haul: Haul, delivery: Delivery, reason: str) -> None:
        haul.unreadable.append((delivery, storable(reason)))
        # What its sender says it holds is said by nobody else: made up, it would stop the queue.
        self._count(haul, 1, UNREADABLE)

    def _add(self, haul: Haul, parcel: Parcel) -> None:
        name, total = parcel.kind.name, len(parcel.ids) + len(parcel.refused)
        self._count(haul, total, name)
        batch = haul.batches.get(name)
        first = len(batch) if batch else 0
        if parcel.ids:
            if batch is None:
                batch = haul.batches[name] = Batch(parcel.kind, [], {}, [], [], haul.received)
            _extend(batch, parcel)
        haul.letters += [self._letter(parcel, *refused) for refused in parcel.refused]
        if parcel.header.receipt:
            bad = {position for position, _, _ in parcel.refused}
            good = [position for position in range(total) if position not in bad] if bad else range(total)
            cut = parcel.header.first
            asked = Asked(parcel.header.id, [cut + position for position in good] if cut else good, first)
            haul.asked.setdefault(name, []).append(asked)
            haul.refused += [(parcel.header.id, cut + position, str(why)) for position, why, _ in parcel.refused]

    def _count(self, haul: Haul, records: int, kind: str) -> None:
        haul.records += records
        telemetry.add(CONSUMED, records, self._queue, kind)

    def _letter(self, parcel: Parcel, position: int, why: Refused, original: bytes) -> Letter:
        return Letter(
            queue=self._queue,
            record=place_id(parcel.header.id, parcel.header.first + position),
            stage=Stage.VALIDATE,
            kind=parcel.kind.name,
            vo=parcel.header.vo,
            producer=parcel.header.producer,
            message=parcel.header.id,
            refused=why,
            original=original,
        )


def opened(message: Message, kinds: Mapping[str, Kind], now: int) -> Parcel:
    """The decoded and validated envelope of a message.

    Raises:
        Refused: nothing can be read from the message.
    """
    try:
        vo, _ = split_key(message.key)
    except ValueError as error:
        raise Refused(str(error), field="key") from error
    body = message.body
    if message.content_encoding:
        body = decompress(body, message.content_encoding, MAX_BYTES)
    return open_envelope(body, message.content_type, kinds, now, routed_vo=vo)


def _extend(batch: Batch, parcel: Parcel) -> None:
    """Append by column; the first envelope's lists are taken as they are."""
    count = len(parcel.ids)
    batch.producers += [parcel.header.producer] * count
    batch.messages += [parcel.header.id] * count
    if not batch.ids:
        batch.ids, batch.columns = parcel.ids, parcel.columns
        return
    batch.ids += parcel.ids
    for name, values in parcel.columns.items():
        batch.columns[name] += values


class Enrich:
    """Let extensions add to the records what their producer could not know."""

    def __init__(self, enrichments: Sequence[Enrichment]) -> None:
        """Take the enrichments in the order in which they apply."""
        self._enrichments = enrichments

    def __call__(self, haul: Haul) -> None:
        """Replace every batch by the enriched one.

        Raises:
            ValueError: an enrichment gave another number of records back.
        """
        for enrichment in self._enrichments:
            for name, batch in haul.batches.items():
                enriched = enrichment(batch)
                if len(enriched) != len(batch):
                    message = f"{enrichment!r} made {len(enriched)} {name} records of {len(batch)}; keep all, in order"
                    raise ValueError(message)
                haul.batches[name] = enriched


class Write:
    """Commit every batch to the sink, which is opened when first needed and opened again when it broke."""

    def __init__(self, queue: str, open_sink: Callable[[], Sink], values_of: Callable[[Batch, int], list[Any]]) -> None:
        """Take the sink's name, how to open it, and what a rejected record may come again as; nothing is opened yet."""
        self._queue = queue
        self._open = open_sink
        self._values_of = values_of
        self._sink: Sink | None = None

    def __call__(self, haul: Haul) -> None:
        """Write the batches that are not written yet; those that the sink rejects become letters.

        Raises:
            SinkUnavailable: try again later. Any other error of a sink means the same.
        """
        for name, batch in haul.batches.items():
            if name not in haul.written:
                started = time.perf_counter()
                written = self._write(batch)
                telemetry.add(BATCH_SECONDS, time.perf_counter() - started, self._queue)
                haul.letters += list(self._count(batch, written))
                # Only now: a batch that counts as written is not looked at again, and its letters must be there.
                haul.written[name] = written
                # The next haul is in memory already, and of this one only the ids are still asked for.
                batch.columns = {}

    def open(self) -> Sink:
        """The sink, opened if it is not.

        Raises:
            Exception: whatever the sink raises when it cannot be opened; try again later.
        """
        if self._sink is None:
            try:
                self._sink = self._open()
            except Exception:
                telemetry.add(SINK_FAILURES, 1, self._queue)
                raise
        return self._sink

    def close(self) -> None:
        """Close the sink; a later haul opens it again."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()

    def _write(self, batch: Batch) -> Written:
        sink = self.open()
        try:
            written = sink.write(batch)
            if len(written.outcomes) != len(batch):
                message = f"the sink answered {len(written.outcomes)} outcomes for {len(batch)} records"
                raise SinkUnavailable(message)  # noqa: TRY301  # nobody knows what it has stored.
        except SinkUnavailable:
            telemetry.add(SINK_FAILURES, 1, self._queue)
            raise
        except Exception:
            telemetry.add(SINK_FAILURES, 1, self._queue)
            # Nobody knows what state it is in; a new one starts from what is committed.
            self.close()
            raise
        return written

    def _count(self, batch: Batch, written: Written) -> Iterator[Letter]:
        for outcome in Outcome:
            count = written.outcomes.count(outcome)
            if count:
                telemetry.add(WRITTEN, count, self._queue, batch.kind.name, outcome)
        if Outcome.REJECTED not in written.outcomes:
            return
        for position, outcome in enumerate(written.outcomes):
            if outcome is Outcome.REJECTED:
                yield self._letter(batch, position, written.reasons.get(position))

    def _letter(self, batch: Batch, position: int, why: Refused | None) -> Letter:
        return Letter(
            queue=self._queue,
            record=batch.ids[position],
            stage=Stage.WRITE,
            kind=batch.kind.name,
            vo=batch.columns["vo"][position],
            producer=batch.producers[position],
            message=batch.messages[position],
            refused=why or Refused("was rejected by the sink, which gave no reason", kind=batch.kind.name),
            original=as_json(batch.kind, self._values_of(batch, position)),
        )


class Park:
    """Commit refused records to the dead letters."""

    def __init__(self, dead_letters: DeadLetters, hidden: Callable[[Sequence[Letter]], list[Letter]]) -> None:
        """Take the dead letters, and what hides in them whoever was erased."""
        self._dead_letters = dead_letters
        self._hidden = hidden

    def __call__(self, haul: Haul) -> None:
        """Put every letter."""
        if haul.letters:
            self._dead_letters.put(self._hidden(haul.letters), haul.received)
            for letter in haul.letters:
                telemetry.add(DEAD_LETTERED, 1, letter.queue, letter.kind)
            for letter in haul.letters[:LOGGED_LETTERS]:
                log.warning(
                    "record refused",
                    record=letter.record.hex(),
                    kind=letter.kind,
                    field=letter.refused.field,
                    reason=letter.refused.reason,
                    producer=letter.producer,
                    others=max(0, len(haul.letters) - LOGGED_LETTERS),
                )


class Note:
    """Commit the receipts that producers asked for."""

    def __init__(self, queue: str, receipts: Receipts) -> None:
        """Take the sink's name and the receipts."""
        self._queue = queue
        self._receipts = receipts

    def __call__(self, haul: Haul) -> None:
        """Note what became of every record that wants a receipt."""
        if haul.asked or haul.unreadable:
            notes = chain(self._accepted(haul), self._refused(haul), self._unreadable(haul))
            self._receipts.note(list(notes), haul.received)

    def _accepted(self, haul: Haul) -> Iterator[Receipt]:
        for name, asked in haul.asked.items():
            if name not in haul.batches:
                continue
            ids, written = haul.batches[name].ids, haul.written[name]
            for each in asked:
                for place, position in enumerate(each.positions, each.first):
                    outcome, why = written.outcomes[place], written.reasons.get(place)
                    word = PARKED if outcome is Outcome.REJECTED else outcome.value
                    reason = str(why) if why else ""
                    yield Receipt(each.message, position, self._queue, ids[place], word, reason)

    def _refused(self, haul: Haul) -> Iterator[Receipt]:
        for message, position, reason in haul.refused:
            yield Receipt(message, position, self._queue, None, PARKED, reason)

    def _unreadable(self, haul: Haul) -> Iterator[Receipt]:
        """Only the gateway names its messages so that the records in them can be found without reading them."""
        for delivery, reason in haul.unreadable:
            try:
                message = bytes.fromhex(delivery.message.id)
            except (ValueError, TypeError):
                continue
            if self._receipts.is_known(message):
                yield Receipt(message, WHOLE, self._queue, None, PARKED, reason)


class Acknowledge:
    """Let the broker forget what has passed every other step."""

    def __init__(self, queue: str, consumer: Consumer) -> None:
        """Take the consumer that gave the deliveries."""
        self._queue = queue
        self._consumer = consumer

    def __call__(self, haul: Haul) -> None:
        """Park what nothing could be read from, acknowledge the rest.

        Raises:
            siteward.broker.BrokerUnavailable: the deliveries come again.
        """
        for delivery, reason in haul.unreadable:
            self._consumer.park(delivery, reason)
            telemetry.add(DEAD_LETTERED, 1, self._queue, UNREADABLE)
        parked = {delivery.tag for delivery, _ in haul.unreadable}
        self._consumer.acknowledge([delivery for delivery in haul.deliveries if delivery.tag not in parked])
