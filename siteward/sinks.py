"""The sink contract: where batches of validated records end, and what became of each record."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from siteward.envelope import Columns
from siteward.records import Kind, Refused


class Outcome(StrEnum):
    """What became of one record in one sink."""

    STORED = "stored"
    REPLACED = "replaced"
    """A newer revision took the place of an older one."""
    DUPLICATE = "duplicate"
    """The sink has this record already, in this or a newer revision."""
    REJECTED = "rejected"
    """The sink can never take it; it goes to the dead letters with the reason."""


class Batch(msgspec.Struct):
    """Validated records of one kind, by column.

    Attributes:
        kind: their kind.
        ids: a 16-byte record id each; the same id may occur more than once.
        columns: their values, by column name.
        producers: who sent each.
        messages: 16-byte id of the envelope that brought each.
        received: when the batch was taken from the broker, microseconds since 1970 UTC.
    """

    kind: Kind
    ids: list[bytes]
    columns: Columns
    producers: list[str]
    messages: list[bytes]
    received: int

    def __len__(self) -> int:
        """The number of records."""
        return len(self.ids)

    def part(self, positions: Sequence[int]) -> Batch:
        """The records at some positions, in their order; the batch itself where these are all."""
        if list(positions) == list(range(len(self))):
            return self
        return Batch(
            kind=self.kind,
            ids=[self.ids[i] for i in positions],
            columns={name: [values[i] for i in positions] for name, values in self.columns.items()},
            producers=[self.producers[i] for i in positions],
            messages=[self.messages[i] for i in positions],
            received=self.received,
        )


class Written(msgspec.Struct):
    """The answer of a sink: one outcome per record of the batch, in order, and a reason for each rejected one."""

    outcomes: list[Outcome]
    reasons: dict[int, Refused] = {}


class SinkUnavailable(Exception):  # noqa: N818  # reads as the state it is.
    """The sink cannot commit now; nothing of the batch is known to be stored. Try the same batch again later."""


class Sink(Protocol):
    """Takes batches for good. Registered under the entry-point group `siteward.sinks`; its name is its queue's."""

    def write(self, batch: Batch) -> Written:
        """Commit a batch and say what became of each record.

        Idempotent by record id: writing a batch again changes nothing. When it returns, everything not rejected
        survives the death of any process. May block for long.

        Raises:
            SinkUnavailable: nothing was committed, or nobody knows; the batch will come again.
        """

    def close(self) -> None:
        """Let go of connections."""
