"""Records that no sink took, kept one by one with reason and original bytes until a person has decided about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import msgspec

from collectors.database import Database, storable
from siteward.records import Refused, anonymous_id, moment

UNKNOWN: Final = b"\0" * 6
"""Where a record's time would stand in its id: nobody could compute one."""


PAGE: Final = 1_000
"""Letters that are looked through at once."""


class State(StrEnum):
    """What has been decided about a dead letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    FIXED = "fixed"
    DISCARDED = "discarded"


class Stage(StrEnum):
    """Which step refused the record."""

    VALIDATE = "validate"
    WRITE = "write"


class Letter(msgspec.Struct, frozen=True):
    """A refused record on its way into the dead letters.

    Attributes:
        queue: the queue, and so the sink, whose collector refused it.
        record: its 16-byte record id, or `place_id` where it has none.
        stage: the step that refused it.
        kind: name of its kind.
        vo: VO of the envelope that brought it.
        producer: who sent it.
        message: 16-byte id of that envelope.
        refused: why.
        original: the record as a JSON object.
    """

    queue: str
    record: bytes
    stage: Stage
    kind: str
    vo: str
    producer: str
    message: bytes
    refused: Refused
    original: bytes


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter as it is kept; times in microseconds since 1970 UTC.

    Attributes:
        number: names it towards people.
        times: in how many messages the record came.
    """

    number: int
    queue: str
    record: bytes
    stage: Stage
    kind: str
    vo: str
    producer: str
    message: bytes
    field: str
    value: str
    reason: str
    original: bytes
    first_seen: int
    last_seen: int
    times: int
    state: State


class Decision(msgspec.Struct, frozen=True):
    """What somebody did with a dead letter; `submitted` is the record sent in its place, if any."""

    letter: int
    at: int
    who: str
    action: State
    note: str
    submitted: bytes | None


class Stop(msgspec.Struct, frozen=True):
    """A queue that is not consumed, and why; `at` in microseconds since 1970 UTC."""

    queue: str
    reason: str
    at: int


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters to look at; "" is any."""

    state: str = ""
    kind: str = ""
    vo: str = ""
    queue: str = ""
    reason: str = ""
    """A part of the reason, the field or the value."""


class UnknownLetter(LookupError):  # noqa: N818  # reads as the state it is.
    """There is no dead letter of that number."""

    permanent = True


class Decided(ValueError):  # noqa: N818  # reads as the state it is.
    """Somebody has decided about this dead letter already."""

    permanent = True


def place_id(message: bytes, position: int) -> bytes:
    """The id of a record that has none: its place in the envelope that brought it. A redelivery gives it again."""
    return anonymous_id(0, message, position)


_COLUMNS: Final = ", ".join(field.name for field in msgspec.structs.fields(DeadLetter))
# The same record may come again in another message. What was replayed and refused again is open again; what was
# discarded stays so, unless the record has changed since.
_PUT: Final = """
INSERT INTO letters (queue, record, stage, kind, vo, producer, message, field, value, reason, original,
                     first_seen, last_seen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (queue, record) DO UPDATE SET
    stage = excluded.stage, producer = excluded.producer, field = excluded.field, value = excluded.value,
    reason = excluded.reason, original = excluded.original, message = excluded.message,
    last_seen = excluded.last_seen, times = times + 1,
    state = CASE WHEN state = 'discarded' AND original = excluded.original THEN state ELSE 'open' END
WHERE message != excluded.message
"""

_MENDED: Final = """
SELECT audit.rowid, letters.kind, audit.bytes FROM audit JOIN letters ON letters.number = audit.letter
WHERE audit.bytes IS NOT NULL AND audit.letter BETWEEN ? AND ?
"""


class DeadLetters:
    """The table of dead letters; any number of processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Open the collectors' database.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        self._database = Database(path)

    def __enter__(self) -> Self:
        """The dead letters themselves."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the database."""
        self.close()

    def put(self, letters: Sequence[Letter], now: int) -> None:
        """Commit refused records. The same letter of the same message again changes nothing.

        Args:
            letters: the records.
            now: microseconds since 1970 UTC.

        Raises:
            sqlite3.Error: nothing was committed; try again later.
        """
        with self._database.transaction() as connection:
            connection.executemany(_PUT, [_row(letter, now) for letter in letters])

    def find(self, which: Which | None = None, *, limit: int = 100, after: int = 0) -> list[DeadLetter]:
        """Dead letters by number, those after the number `after`, at most `limit`."""
        condition, parameters = _condition(which or Which())
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM letters WHERE number > ? AND {condition} ORDER BY number LIMIT ?",  # noqa: S608  # constants only.
            (after, *parameters, limit),
        )
        return [msgspec.convert(dict(zip(_NAMES, row, strict=True)), DeadLetter) for row in rows]

    def count(self, which: Which | None = None) -> int:
        """The number of dead letters."""
        condition, parameters = _condition(which or Which())
        rows = self._database.rows(f"SELECT count(*) FROM letters WHERE {condition}", parameters)  # noqa: S608  # constants only.
        return int(str(rows[0][0]))

    def show(self, number: int) -> DeadLetter:
        """One dead letter.

        Raises:
            UnknownLetter: there is none of that number.
        """
        found = self.find(limit=1, after=number - 1)
        if not found or found[0].number != number:
            message = f"there is no dead letter {number}"
            raise UnknownLetter(message)
        return found[0]

    def counts(self) -> list[tuple[str, str, str, int]]:
        """Queue, kind, state and the number of dead letters."""
        rows = self._database.rows(
            "SELECT queue, kind, state, count(*) FROM letters GROUP BY queue, kind, state ORDER BY queue, kind, state"
        )
        return msgspec.convert(rows, list[tuple[str, str, str, int]])

    def audit(self, number: int) -> list[Decision]:
        """What was done with a dead letter, oldest first."""
        rows = self._database.rows(
            "SELECT letter, at, who, action, note, bytes FROM audit WHERE letter = ? ORDER BY rowid", (number,)
        )
        names = [field.name for field in msgspec.structs.fields(Decision)]
        return [msgspec.convert(dict(zip(names, row, strict=True)), Decision) for row in rows]

    def decide(self, decision: Decision) -> None:
        """Mark a dead letter and note who did what.

        Raises:
            UnknownLetter: there is none of that number.
            Decided: it is neither open nor discarded, or is discarded again.
        """
        open_states = (State.OPEN,) if decision.action is State.DISCARDED else (State.OPEN, State.DISCARDED)
        marks = ", ".join("?" * len(open_states))
        with self._database.transaction() as connection:
            changed = connection.execute(
                f"UPDATE letters SET state = ? WHERE number = ? AND state IN ({marks})",  # noqa: S608  # question marks only.
                (decision.action, decision.letter, *open_states),
            ).rowcount
            if changed:
                row = (decision.letter, decision.at, decision.who, decision.action, decision.note, decision.submitted)
                connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", row)
        if not changed:
            self.check_open(decision.letter)
            message = f"dead letter {decision.letter} is {decision.action} already"
            raise Decided(message)

    def discard(self, number: int, who: str, note: str, now: int) -> None:
        """Decide that a record is not wanted; its bytes and the note are kept.

        Raises:
            UnknownLetter: there is none of that number.
            Decided: it is not open.
        """
        self.decide(Decision(number, now, who, State.DISCARDED, note, None))

    def check_open(self, number: int) -> DeadLetter:
        """The dead letter, if it may be submitted again.

        Raises:
            UnknownLetter: there is none of that number.
            Decided: it was submitted already.
        """
        letter = self.show(number)
        if letter.state in {State.REPLAYED, State.FIXED}:
            last = self.audit(number)[-1]
            message = f"dead letter {number} was {letter.state} by {last.who} at {moment(last.at).isoformat()}"
            raise Decided(message)
        return letter

    def naming(self, names: Callable[[str, bytes], bool]) -> Iterator[int]:
        """The numbers of the letters whose records, by kind and original, say something."""
        after = 0
        while found := self.find(limit=PAGE, after=after):
            yield from (each.number for each in found if names(each.kind, each.original))
            after = found[-1].number

    def rewrite(self, hidden: Callable[[str, bytes], bytes], old: str, new: str) -> int:
        """Hide something in what was refused, and in receipts of it.

        Args:
            hidden: a record of a kind, original or mended, without it.
            old: the value for which such a record may have been refused, as it is told.
            new: what is told in its place.

        Returns:
            How many letters were changed.
        """
        changed = 0
        after = 0
        while found := self.find(limit=PAGE, after=after):
            after = found[-1].number
            texts = [(each, hidden(each.kind, each.original)) for each in found]
            with self._database.transaction() as connection:
                for each, text in texts:
                    if text != each.original:
                        changed += 1
                        value = new if each.value == old else each.value
                        # One that a collector has noted anew meanwhile names nobody who was erased.
                        connection.execute(
                            "UPDATE letters SET original = ?, value = ? WHERE number = ? AND original = ?",
                            (text, value, each.number, each.original),
                        )
                for row, kind, text in connection.execute(_MENDED, (found[0].number, after)).fetchall():
                    connection.execute("UPDATE audit SET bytes = ? WHERE rowid = ?", (hidden(kind, text), row))
        with self._database.transaction() as connection:
            connection.execute("UPDATE receipts SET reason = replace(reason, ?, ?)", (storable(old), new))
        return changed

    def scrub(self) -> None:
        """Leave nothing of what was hidden in the file.

        Raises:
            sqlite3.Error: others hold it; do it again.
        """
        self._database.scrub()

    def stop(self, queue: str, reason: str) -> None:
        """Note that a queue is not consumed any more, and why; it stays so over restarts until `resume`."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO stops VALUES (?, ?, ?)", (queue, reason, time.time_ns() // 1000))

    def resume(self, queue: str = "") -> list[str]:
        """Let a stopped queue go on, or all of them; the names of those that were stopped."""
        names = [stop.queue for stop in self.stops() if queue in {"", stop.queue}]
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM stops WHERE queue = ?", [(name,) for name in names])
        return names

    def stops(self) -> list[Stop]:
        """The queues that are stopped, by name."""
        rows = self._database.rows("SELECT queue, reason, at FROM stops ORDER BY queue")
        return [Stop(*row) for row in msgspec.convert(rows, list[tuple[str, str, int]])]

    def close(self) -> None:
        """Close the database."""
        self._database.close()


_NAMES: Final = tuple(field.name for field in msgspec.structs.fields(DeadLetter))


def _row(letter: Letter, now: int) -> tuple[object, ...]:
    why = letter.refused
    return (
        letter.queue,
        letter.record,
        letter.stage,
        letter.kind,
        storable(letter.vo),
        storable(letter.producer),
        letter.message,
        storable(why.field),
        storable(why.value),
        storable(why.reason),
        letter.original,
        now,
        now,
    )


def _condition(which: Which) -> tuple[str, tuple[object, ...]]:
    conditions: list[str] = ["1"]
    parameters: list[object] = []
    for name in ("state", "kind", "vo", "queue"):
        value = getattr(which, name)
        if value:
            conditions.append(f"{name} = ?")
            parameters.append(value)
    if which.reason:
        conditions.append("instr(lower(reason || ' ' || field || ' ' || value), lower(?)) > 0")
        parameters.append(which.reason)
    return " AND ".join(conditions), tuple(parameters)
