"""Dead letters on their way back: judged by today's kinds, mended or as they were, and sent to the sinks again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from hashlib import blake2b

import msgspec

from collectors.dead_letters import DeadLetter, DeadLetters, Decision, Stage, State
from collectors.pseudonymising import Pseudonymise
from siteward.broker import Broker, Message
from siteward.broker.topology import routing_key
from siteward.envelope import seal
from siteward.records import Kind, Refused, Row
from siteward.records.doors import row_from_json
from siteward.server.people_table import PeopleTable
from siteward.sinks import Batch, Outcome, Sink


class Resubmission:
    """Sends dead letters again. Published first, marked after: a repeat is harmless, since it has the same ids."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        kinds: Mapping[str, Kind],
        broker: Broker,
        open_sink: Callable[[str], Sink],
        people: PeopleTable,
    ) -> None:
        """Take what is needed.

        Args:
            dead_letters: where the letters are.
            kinds: every kind by name.
            broker: takes the records again.
            open_sink: opens a sink by its queue's name.
            people: their names.
        """
        self._dead_letters = dead_letters
        self._kinds = kinds
        self._broker = broker
        self._open_sink = open_sink
        self._people = people

    def replay(self, number: int, who: str, note: str = "") -> None:
        """Send the record again as it is.

        Raises:
            Refused: it would be refused again; with field, value and reason.
            LookupError: there is no dead letter of that number.
            collectors.dead_letters.Decided: it was sent again already.
            siteward.broker.BrokerError: the broker does not take it now; the letter stays as it is.
            siteward.sinks.SinkUnavailable: likewise the sink.
        """
        self._submit(number, None, who, note, State.REPLAYED)

    def fix(self, number: int, text: bytes, who: str, note: str = "") -> None:
        """Send a mended record in its place: the whole record as a JSON object.

        Raises:
            Refused: the new record is refused too; with field, value and reason.
            LookupError: there is no dead letter of that number.
            collectors.dead_letters.Decided: it was sent again already.
            siteward.broker.BrokerError: the broker does not take it now; the letter stays as it is.
            siteward.sinks.SinkUnavailable: likewise the sink.
        """
        self._submit(number, text, who, note, State.FIXED)

    def _submit(self, number: int, text: bytes | None, who: str, note: str, action: State) -> None:
        letter = self._dead_letters.check_open(number)
        kind = self._kinds.get(letter.kind)
        if kind is None:
            reason = "no kind of this name is known here; see `siteward kinds`"
            raise Refused(reason, field="kind", value=letter.kind)
        now = time.time_ns() // 1000
        row = row_from_json(kind, letter.original if text is None else text, now)
        if letter.stage is Stage.WRITE and not kind.identity:
            self._write(letter, kind, row, now)
        else:
            self._publish(letter, kind, row, now)
        self._dead_letters.decide(Decision(number, now, who, action, note, text))

    def _publish(self, letter: DeadLetter, kind: Kind, row: Row, now: int) -> None:
        """Send to every sink; those that have the record ignore it.

        The envelope's id follows from letter and content and not from the queue: when every sink's collector has
        refused a record without identity, and each letter is replayed, the record is the same one each time. The
        message is part of it, so that a letter refused again is known for news, however often it is replayed.
        """
        envelope = blake2b(letter.record + letter.message + msgspec.msgpack.encode(row), digest_size=16).digest()
        body = seal(kind, [row], letter.producer, now, receipt=True, identifier=envelope)
        vo: str = row.vo  # type: ignore[attr-defined]  # every kind has it.
        with closing(self._broker.publisher()) as publisher:
            publisher.publish([Message(routing_key(vo, kind.name), body, 1, id=envelope.hex())])

    def _write(self, letter: DeadLetter, kind: Kind, row: Row, now: int) -> None:
        """Give the record to the one sink that rejected it, under the id by which other sinks may have stored it.

        A new envelope would give it a new id, since its kind has no identity, and the others would have it twice.
        """
        columns = {name: [getattr(row, name)] for name in kind.names}
        batch = Batch(kind, [letter.record], columns, [letter.producer], [letter.message], now)
        self._people.enter(Pseudonymise(self._people).replace(batch))
        with closing(self._open_sink(letter.queue)) as sink:
            written = sink.write(batch)
        if written.outcomes[0] is Outcome.REJECTED:
            raise written.reasons.get(0) or Refused("was rejected by the sink again", kind=kind.name)
