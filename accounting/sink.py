"""The sink `ledger`: batches from the broker are booked."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from siteward.kinds import Kinds
from siteward.records import Kind, Shape
from siteward.records.doors import nearest
from siteward.server.database import Conflict, Database
from siteward.settings import Settings, SettingsError
from siteward.sinks import Batch, Outcome, Sink, SinkUnavailable, Written


def open_sink(settings: Settings, kinds: Kinds) -> Sink:
    """The ledger as a sink, its tables made and brought up to the kinds.

    Raises:
        siteward.settings.SettingsError: a kind is to be left out that there is not.
        siteward.server.database.DatabaseError: the URL cannot be used.
        accounting.LedgerError: the tables differ in a way that waits for a person.
        siteward.sinks.SinkUnavailable: the database does not answer now.
    """
    booked = booked_kinds(settings, kinds)
    database = Database(settings.accounting_url, settings.accounting.password)
    try:
        digests = prepare(database, booked)
    except (Conflict, SQLAlchemyError) as error:
        database.close()
        raise SinkUnavailable(database.told(error)) from error
    except BaseException:
        database.close()
        raise
    return LedgerSink(Ledger(database, booked, digests=digests))


def booked_kinds(settings: Settings, kinds: Kinds) -> dict[str, Kind]:
    """The kinds that the ledger takes: all but those that say otherwise, those left out, and snapshots.

    Raises:
        siteward.settings.SettingsError: a kind is to be left out that there is not.
    """
    left_out = settings.accounting.leave_out
    for name in left_out:
        if name not in kinds:
            message = f"setting accounting.leave_out: no kind is called {name!r}{nearest(name, tuple(kinds))}"
            raise SettingsError(message)
    # TODO(#5): what snapshots leave in buckets: sum, number of instants, last, least and most.
    return {
        name: kind
        for name, kind in kinds.items()
        if kind.booked and name not in left_out and kind.shape is not Shape.SNAPSHOT
    }


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
        if batch.kind.name not in self.ledger.tables:
            return Written([Outcome.STORED] * len(batch))
        return self.ledger.write(batch)

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()
