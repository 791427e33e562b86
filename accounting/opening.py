"""The ledger that the settings name, its tables made and brought up to the kinds."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from siteward.kinds import Kinds
from siteward.kinds.booked import booked_kinds
from siteward.server.database import Conflict
from siteward.server.databases import ledger_database
from siteward.settings import Settings
from siteward.sinks import SinkUnavailable


def open_ledger(settings: Settings, kinds: Kinds) -> Ledger:
    """Open the ledger, chosen by the scheme of `accounting.url`.

    Raises:
        siteward.settings.SettingsError: a kind is to be left out that there is not.
        siteward.server.database.DatabaseError: the URL cannot be used, or its driver is not installed.
        siteward.sinks.SinkUnavailable: the database does not answer now.
        accounting.LedgerError: the tables differ in a way that waits for a person.
    """
    booked = booked_kinds(settings, kinds)
    database = ledger_database(settings)
    try:
        return Ledger(database, booked, digests=prepare(database, booked))
    except (Conflict, SQLAlchemyError) as error:
        database.close()
        raise SinkUnavailable(database.told(error)) from error
    except BaseException:
        database.close()
        raise


def kept_days(settings: Settings, kinds: Kinds) -> dict[str, int]:
    """Days after which records leave the ledger for the archive, of those kinds whose records ever do.

    Args:
        settings: which say so of all kinds, and of single ones.
        kinds: those that the ledger takes.
    """
    accounting = settings.accounting
    days = {
        name: accounting.kinds[name].keep_records if name in accounting.kinds else accounting.keep_records
        for name, kind in kinds.items()
        if kind.archived
    }
    return {name: each for name, each in days.items() if each}


def archive_folder(settings: Settings, given: str = "") -> Path:
    """The folder of the archive's files: the one that was given, else that of the settings."""
    chosen = given or settings.accounting.archive
    return Path(chosen).expanduser() if chosen else settings.folder / "archive"
