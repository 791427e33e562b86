"""The sink `ledger`: batches from the broker are booked."""

from __future__ import annotations

from accounting.ledger import Ledger
from accounting.opening import open_ledger
from siteward.kinds import Kinds
from siteward.settings import Settings
from siteward.sinks import Batch, Outcome, Sink, Written


def open_sink(settings: Settings, kinds: Kinds) -> Sink:
    """The ledger as a sink.

    Raises:
        siteward.sinks.SinkUnavailable: the database does not answer now.
        Exception: see `accounting.opening.open_ledger`.
    """
    return LedgerSink(open_ledger(settings, kinds))


class LedgerSink:
    """Hands batches to a ledger, and leaves aside the kinds that it does not book."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the ledger, which is closed with this sink."""
        self.ledger = ledger

    def write(self, batch: Batch) -> Written:
        """Book a batch. Records of a kind that is not booked count as stored: nothing more is to become of them here.

        Raises:
            SinkUnavailable: see `Ledger.write`.
        """
        if batch.kind.name not in self.ledger.kinds:
            return Written([Outcome.STORED] * len(batch))
        return self.ledger.write(batch)

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()
