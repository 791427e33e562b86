"""Receipts: what became of each record of a producer that asked, per sink, kept for some days."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from collectors.database import Database, database_path, storable
from collectors.telling import time_text

if TYPE_CHECKING:
    from siteward.server.resources import Resources
    from siteward.server.schedule import Task

QUEUED: Final = "queued"
PARKED: Final = "parked"
GATEWAY: Final = ""
"""In the place of the sink: the row that the gateway wrote when the record was queued."""
WHOLE: Final = -1
"""In the place of the position: the row is about every record of the message."""


class Receipt(msgspec.Struct, frozen=True):
    """What became of one record in one sink.

    Attributes:
        message: 16-byte id of the envelope that brought the record.
        position: the record's place in it, or WHOLE.
        sink: name of the sink, or GATEWAY.
        record: 16-byte record id; None where nobody could compute it.
        outcome: stored, replaced, duplicate, parked or queued.
        reason: why it was parked; in the gateway's row, the account that sent it (`Sender.kept_account`).
    """

    message: bytes
    position: int
    sink: str
    record: bytes | None
    outcome: str
    reason: str = ""


class SinkReceipt(msgspec.Struct, frozen=True):
    """One line of an answer: what a sink has done with the record; `at` in RFC 3339."""

    sink: str
    outcome: str
    reason: str
    at: str


class Submission(msgspec.Struct, frozen=True):
    """One time that a record was sent: the message, when it was queued, and what each sink did with it."""

    message: str
    at: str
    sinks: list[SinkReceipt]


class Receipts:
    """The table of receipts; any number of processes may have it open."""

    def __init__(self, path: Path) -> None:
        """Open the collectors' database.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        self._database = Database(path)

    def __enter__(self) -> Self:
        """The receipts themselves."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the database."""
        self.close()

    def note(self, receipts: Iterable[Receipt], now: int) -> None:
        """Commit receipts. The first one for a message, position and sink stands: a redelivery changes nothing.

        Args:
            receipts: what to note.
            now: microseconds since 1970 UTC.

        Raises:
            sqlite3.Error: nothing was committed; try again later.
        """
        rows = [(r.message, r.position, r.sink, r.record, r.outcome, storable(r.reason), now) for r in receipts]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def is_known(self, message: bytes) -> bool:
        """Whether the gateway has queued a message of this id."""
        return bool(self._database.rows("SELECT 1 FROM receipts WHERE message = ? LIMIT 1", (message,)))

    def of(self, record: bytes, sinks: Sequence[str], accounts: tuple[str, ...] = ()) -> list[Submission]:
        """What became of a record, newest submission first; [] where nothing is known of it.

        Args:
            record: 16-byte record id.
            sinks: names of the sinks to expect; one that has not answered yet has the outcome `queued`.
            accounts: only what these sent over HTTP; () for whatever is known.
        """
        marks = ", ".join("?" * len(accounts))
        of_theirs = f"AND mine.sink = ? AND mine.reason IN ({marks}) " if accounts else ""
        rows = self._database.rows(
            "SELECT DISTINCT "  # noqa: S608  # question marks only.
            "theirs.message, theirs.sink, theirs.outcome, theirs.reason, theirs.at "
            "FROM receipts AS mine JOIN receipts AS theirs ON theirs.message = mine.message "
            f"AND theirs.position IN (mine.position, ?) WHERE mine.record = ? {of_theirs}"
            "ORDER BY theirs.at, theirs.sink",
            (WHOLE, record, *((GATEWAY, *accounts) if accounts else ())),
        )
        by_message: dict[bytes, list[tuple[str, str, str, int]]] = {}
        for message, sink, outcome, reason, at in msgspec.convert(rows, list[tuple[bytes, str, str, str, int]]):
            by_message.setdefault(message, []).append((sink, outcome, reason, at))
        newest_first = sorted(by_message.items(), key=lambda item: item[1][0][3], reverse=True)
        return [_submission(message, answers, sinks) for message, answers in newest_first]

    def began(self, key: bytes, now: int) -> int:
        """When a submission of this key was first seen, in microseconds since 1970 UTC: now, or an earlier try.

        A retry is judged by the clock of the first try, so that it accepts exactly the same records.
        """
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO submissions VALUES (?, ?)", (key, now))
            found = connection.execute("SELECT at FROM submissions WHERE key = ?", (key,)).fetchone()
        return int(found[0])

    def forget(self, before: int) -> int:
        """Delete what is older than an instant, in microseconds since 1970 UTC; the number of receipts deleted."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM submissions WHERE at < ?", (before,))
            return connection.execute("DELETE FROM receipts WHERE at < ?", (before,)).rowcount

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _submission(message: bytes, answers: list[tuple[str, str, str, int]], sinks: Sequence[str]) -> Submission:
    at = time_text(answers[0][3])
    by_sinks = [answer for answer in answers if answer[0] != GATEWAY]
    given = {sink: SinkReceipt(sink, outcome, reason, time_text(when)) for sink, outcome, reason, when in by_sinks}
    for sink in sinks:
        given.setdefault(sink, SinkReceipt(sink, QUEUED, "", at))
    return Submission(message.hex(), at, sorted(given.values(), key=lambda answer: answer.sink))


def forget_old(resources: Resources) -> None:
    """Delete the receipts that are older than the settings say."""
    settings = resources.settings
    span = timedelta(days=settings.gateway.receipts_days) // timedelta(microseconds=1)
    with Receipts(database_path(settings)) as receipts:
        count = receipts.forget(time.time_ns() // 1000 - span)
    if count:
        resources.note_task("receipts", {"receipts": count})


def __getattr__(name: str) -> Task:
    """`task`, made when it is asked for: collectors note receipts without the server being installed."""
    if name != "task":
        raise AttributeError(name)
    from siteward.server.auth import Permission  # noqa: PLC0415  # see above.
    from siteward.server.schedule import Task  # noqa: PLC0415  # see above.

    return Task("receipts", timedelta(hours=1).total_seconds(), Permission.PLATFORM, forget_old)
