"""Records waiting in memory, one batch for each kind and VO; bounded, and cheap to add to."""

from __future__ import annotations

import threading
import time
from typing import Final

import msgspec

from siteward.records import Kind, Row

FIRST_GUESS: Final = 192
"""Bytes of an envelope that a record is taken for until some have been sealed."""


class Pending(msgspec.Struct, gc=False):
    """Rows of one kind and VO that make one envelope, or several."""

    kind: Kind
    vo: str
    rows: list[Row]


class Buffer:
    """Rows waiting for their envelope, and the count of those on their way.

    A batch is due when it is large enough or old enough. The size in bytes is estimated from envelopes sealed
    lately, since encoding a row to learn its size would cost the caller as much as validating it.
    """

    def __init__(self, batch_records: int, batch_bytes: int, batch_age: float, memory_bytes: int) -> None:
        """Take the limits; see EmitterSettings."""
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._batch_age = batch_age
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self.due = threading.Condition(self._lock)
        """Notified when a batch is due; holds the buffer's lock."""
        self.settled = threading.Condition(self._lock)
        """Notified when records were confirmed, spooled or given up."""
        self._batches: dict[tuple[str, str], Pending] = {}
        self._oldest = 0.0
        self._waiting = 0
        self._urgent = False
        self._closed = False
        self._row_bytes = FIRST_GUESS
        self._limit = self._full_at()
        self.added = 0
        """Records ever added."""
        self.finished = 0
        """Records ever confirmed, spooled or given up; those added before them are finished too."""

    def add(self, kind: Kind, row: Row) -> bool:
        """Append one row; False when there is no room, or no more. Costs less than a microsecond and never waits."""
        with self._lock:
            if self._closed or self.added - self.finished >= self._limit:
                return False
            vo: str = row.vo  # type: ignore[attr-defined]  # every row has one.
            batch = self._batches.get((kind.name, vo))
            if batch is None:
                batch = self._batches[kind.name, vo] = Pending(kind, vo, [])
                if len(self._batches) == 1:
                    self._oldest = time.monotonic()
                    self.due.notify()
            batch.rows.append(row)
            self.added += 1
            if len(batch.rows) == self._batch_records or len(batch.rows) * self._row_bytes > self._batch_bytes:
                self._urgent = True
                self.due.notify()
            return True

    def close(self) -> None:
        """Take no more rows and make everything due; those that wait for room are told."""
        with self._lock:
            self._closed = True
            self.due.notify()
            self.settled.notify_all()

    def take(self) -> list[Pending]:
        """Wait until a batch is due, then take all of them; [] only when closed and nothing is left."""
        with self._lock:
            while True:
                if self._batches and (self._urgent or self._closed):
                    break
                if self._batches:
                    left = self._oldest + self._batch_age - time.monotonic()
                    if left <= 0:
                        break
                    self.due.wait(left)
                elif self._closed:
                    return []
                else:
                    self.due.wait()
            taken = list(self._batches.values())
            self._batches = {}
            self._urgent = False
            return taken

    def hurry(self) -> int:
        """Make everything due now; the number of records added so far."""
        with self._lock:
            self._urgent = bool(self._batches)
            self.due.notify()
            return self.added

    def finish(self, count: int) -> None:
        """Note that so many records, the oldest ones, are off the caller's hands."""
        with self._lock:
            self.finished += count
            self.settled.notify_all()

    def wait_finished(self, count: int, timeout: float) -> bool:
        """Wait until the first `count` records ever added are finished; False when time is up first."""
        with self._lock:
            return self.settled.wait_for(lambda: self.finished >= count, timeout)

    def wait_room(self, timeout: float) -> None:
        """Wait until a row fits, or time is up."""
        with self._lock:
            self.settled.wait_for(lambda: self._closed or self.added - self.finished < self._limit, timeout)

    def learn(self, row_bytes: int) -> None:
        """Move the estimate of a row's size towards what was just sealed."""
        with self._lock:
            self._row_bytes = max(64, (3 * self._row_bytes + row_bytes) // 4)
            self._limit = self._full_at()

    @property
    def bytes(self) -> int:
        """Estimated bytes of records not yet finished."""
        return (self.added - self.finished) * self._row_bytes

    def _full_at(self) -> int:
        """A row in memory is an object with its values: about six times its bytes in an envelope."""
        return max(self._batch_records, self._memory_bytes // (6 * self._row_bytes))
