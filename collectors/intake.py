"""The records of one HTTP request on their way to the broker: validated, sealed, queued, answered one by one."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from tempfile import SpooledTemporaryFile
from typing import Final

import msgspec

from collectors.bodies import PIECE, Element
from collectors.envelopes import Sent
from collectors.limits import Limits
from collectors.pseudonymising import final_id
from collectors.receipts import GATEWAY, QUEUED, Receipt, Receipts
from collectors.sender import Sender
from siteward.broker import Message, Publisher
from siteward.broker.topology import routing_key
from siteward.envelope import seal
from siteward.records import Kind, Refused, Row, anonymous_id, id_text
from siteward.records.doors import row_from_json
from siteward.server.people_table import PeopleTable
from siteward.server.problems import Problem
from siteward.telemetry import GATEWAY_QUEUED, GATEWAY_REJECTED, telemetry

CHUNK: Final = 1_000
"""Records after which what is accepted goes to the broker, whatever their VOs."""
CHUNK_BYTES: Final = 2**23
"""… or bytes of JSON: an envelope of them stays well below what collectors read."""
MOST_REJECTED: Final = 10_000
"""A body with more rejected records than this is not read to its end."""
IN_MEMORY: Final = 2**20
"""Bytes of answers beyond which they wait on disk."""
Placed = tuple[int, Row]
"""A record and its position in the body."""


class Answers:
    """What becomes of each record, gathered in the form in which it is sent: constant memory, whatever their number.

    The status of the whole answer is known only at the end of the body, so the parts wait until then.
    """

    def __init__(self, *, by_line: bool, minimal: bool = False) -> None:
        """Start an answer: NDJSON, or one JSON object; of every record, or of those that are rejected."""
        self._by_line = by_line
        self._minimal = minimal
        # Closed by whoever sends the answer; see parts().
        self._spool = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # see above.
        self.queued = 0
        self.rejected = 0
        self._any = False
        self._separator = b"" if by_line else b'{"records":['

    def add(self, answer: dict[str, object]) -> None:
        """Append the answer about one record."""
        if self._minimal and answer["status"] == QUEUED:
            return
        self._any = True
        self._spool.write(self._separator)
        self._spool.write(_json(answer))
        self._separator = b"\n" if self._by_line else b","

    def close(self) -> None:
        """Forget everything."""
        self._spool.close()

    def parts(self, ending: dict[str, object]) -> Iterator[bytes]:
        """The whole answer, with the members of `ending` and the sums at its end; can be had once."""
        last = _json(ending | {"queued": self.queued, "rejected": self.rejected})
        if self._by_line:
            self._spool.write(self._separator + last + b"\n")
        else:
            self._spool.write((b"]," if self._any else b'{"records":[],') + last[1:])
        self._spool.seek(0)
        with self._spool:
            while part := self._spool.read(PIECE):
                yield part


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # A refused text may hold half characters; they are shown as escapes.
        return msgspec.json.encode(_shown(value))


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shown(each) for key, each in value.items()}
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


class Intake:
    """Takes the records of one request, queues them in chunks and answers for each, in order."""

    def __init__(  # noqa: PLR0913, PLR0917  # from whom, to whom, when.
        self,
        kind: Kind,
        sender: Sender,
        publisher: Publisher,
        receipts: Receipts,
        answers: Answers,
        now: int,
        limits: Limits,
        people: PeopleTable,
    ) -> None:
        """Take who sends, where records go, how many may, and by whose pseudonyms their ids are told.

        `now`, microseconds since 1970 UTC, is the same for all of them.
        """
        self._kind = kind
        self._publisher = publisher
        self._receipts = receipts
        self._answers = answers
        self._now = now
        self._sender = sender
        self._limits = limits
        self._people = people
        self._accepted: list[tuple[int, Row]] = []
        self._rejected: list[tuple[int, Refused]] = []
        self._bytes = 0
        self._chunks = 0
        self._key = b""
        self._sent: Sent | None = None
        self.position = 0
        self.queued: Counter[str] = Counter()
        """How many records of each VO are queued."""

    def use_key(self, key: bytes) -> None:
        """Name the envelopes after an idempotency key, so that the same records sent again are the same records."""
        self._key = key

    def use_envelope(self, sent: Sent) -> None:
        """Name records by their places in an envelope, which is queued all at once.

        Else one of which only the first part may be queued, since a limit is reached, would never get further.
        """
        self._sent = sent

    def take(self, element: Element) -> bool:
        """Validate one record; whether a chunk was queued with it.

        Raises:
            siteward.broker.BrokerError, siteward.people.PeopleUnavailable, siteward.settings.SettingsError: the chunk
                is not queued.
            Problem: 400, too many records of this request were rejected.
        """
        position, self.position = self.position, self.position + 1
        try:
            self._accepted.append((position, self._row(element)))
            self._bytes += len(element) if isinstance(element, bytes) else 0
        except Refused as refused:
            self._rejected.append((position, refused))
        is_chunk = len(self._accepted) + len(self._rejected) >= CHUNK or self._bytes >= CHUNK_BYTES
        if self._sent or not is_chunk:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Queue what is accepted, durably, then answer for everything taken.

        Raises:
            siteward.broker.BrokerError, siteward.people.PeopleUnavailable, siteward.settings.SettingsError: nothing is
                known to be queued, and nothing is answered.
            Problem: 400, too many records of this request were rejected; 429, the sender has sent more than it may, and
                these are not queued.
        """
        ids = self._queue() if self._accepted else {}
        answers: dict[int, dict[str, object]] = {
            position: {"position": position, "id": id_text(record), "status": QUEUED}
            for position, record in ids.items()
        }
        answers |= {
            position: {
                "position": position,
                "status": "rejected",
                "field": why.field,
                "value": why.value,
                "reason": why.reason,
            }
            for position, why in self._rejected
        }
        for _, answer in sorted(answers.items()):
            self._answers.add(answer)
        self._count()
        if self._answers.rejected > MOST_REJECTED:
            message = f"more than {MOST_REJECTED} records were rejected; the rest of the body is not read"
            raise Problem(400, message, title="Too many rejected records")

    @property
    def answered(self) -> int:
        """The number of records answered for; the first one without an answer has this position."""
        return self._answers.queued + self._answers.rejected

    def _row(self, element: Element) -> Row:
        if isinstance(element, Refused):
            raise element
        row = self._read(element) if isinstance(element, bytes) else element
        self._sender.check(self._kind, row)
        return row

    def _read(self, element: bytes) -> Row:
        if b"\0" in element:
            # json.loads would take it for UTF-16 or UTF-32 and go on.
            reason = "holds a NUL byte; send UTF-8"
            raise Refused(reason, kind=self._kind.name, value=element[:80])
        return row_from_json(self._kind, element, self._now)

    def _queue(self) -> dict[int, bytes]:
        """Publish the accepted records, an envelope per VO, and note that they are queued; their ids by position."""
        by_vo: dict[str, list[Placed]] = {}
        for position, row in self._accepted:
            by_vo.setdefault(row.vo, []).append((position, row))  # type: ignore[attr-defined]  # every kind has it.
        self._limits.check(self._sender, by_vo)
        messages: list[Message] = []
        receipts: list[Receipt] = []
        ids: dict[int, bytes] = {}
        for vo, placed in by_vo.items():
            for envelope, first, together in self._envelopes(vo, placed):
                rows = [row for _, row in together]
                body = seal(
                    self._kind,
                    rows,
                    self._sender.producer,
                    self._now,
                    receipt=True,
                    identifier=envelope,
                    first=first,
                )
                messages.append(Message(routing_key(vo, self._kind.name), body, len(rows), id=envelope.hex()))
                for place, (position, row) in enumerate(together, first):
                    anonymous = anonymous_id(getattr(row, self._kind.time), envelope, place)
                    ids[position] = final_id(self._kind, row, self._people, anonymous)
                    receipts.append(Receipt(envelope, place, GATEWAY, ids[position], QUEUED, self._sender.kept_account))
        self._publisher.publish(messages)
        counts = {vo: len(placed) for vo, placed in by_vo.items()}
        self.queued.update(counts)
        self._limits.charge(self._sender, counts)
        self._receipts.note(receipts, self._now)
        self._chunks += 1
        return ids

    def _envelopes(self, vo: str, placed: Sequence[Placed]) -> Iterator[tuple[bytes, int, Sequence[Placed]]]:
        """What goes into an envelope together: its id, the place of the first record, and the records.

        Those of one that was sent keep their places in it, so that whatever of it is rejected and comes again later,
        the others have the ids that they had.
        """
        if self._sent is None:
            yield self._envelope_id(vo, [row for _, row in placed]), 0, placed
            return
        for _, run in groupby(enumerate(placed), lambda each: each[1][0] - each[0]):
            together = [each for _, each in run]
            yield self._sent.identifier, self._sent.first + together[0][0], together

    def _envelope_id(self, vo: str, rows: list[Row]) -> bytes:
        """Random, or what follows from key and content: a key used again for other records loses none of them."""
        if not self._key:
            return secrets.token_bytes(16)
        content = msgspec.msgpack.encode((self._key, self._kind.name, vo, self._chunks, rows))
        return blake2b(content, digest_size=16).digest()

    def _count(self) -> None:
        queued, rejected = len(self._accepted), len(self._rejected)
        self._answers.queued += queued
        self._answers.rejected += rejected
        telemetry.add(GATEWAY_QUEUED, queued, self._kind.name)
        telemetry.add(GATEWAY_REJECTED, rejected, self._kind.name)
        self._accepted, self._rejected, self._bytes = [], [], 0
