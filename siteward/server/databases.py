"""The databases that the settings name: that of access, and that of the ledger."""

from __future__ import annotations

from siteward.server.database import Database, DatabaseError
from siteward.settings import Settings, SettingsError


def access_database(settings: Settings) -> Database:
    """What is known of tokens, sessions and people, and the audit; nothing is opened yet.

    Raises:
        siteward.server.database.DatabaseError: as `Database`.
    """
    return Database(settings.access_url, settings.access.password, plain=settings.network.plain)


def ledger_database(settings: Settings) -> Database:
    """The database of the ledger; nothing is opened yet.

    Raises:
        siteward.server.database.DatabaseError: as `Database`.
    """
    return Database(settings.accounting_url, settings.accounting.password, plain=settings.network.plain)


def check_databases(settings: Settings) -> None:
    """Refuse URLs of databases by which nothing will ever be opened; nobody is asked.

    Raises:
        siteward.settings.SettingsError: naming the setting, and what to write.
    """
    for setting, opened in (("access.url", access_database), ("accounting.url", ledger_database)):
        try:
            opened(settings).close()
        except DatabaseError as error:
            message = f"setting {setting}: {error}"
            raise SettingsError(message) from error
