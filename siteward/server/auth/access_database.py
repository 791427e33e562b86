"""The database of access: what is known of tokens, sessions and people, and the audit."""

from __future__ import annotations

from siteward.server.database import Database
from siteward.settings import Settings


def access_database(settings: Settings) -> Database:
    """The database that the settings name; nothing is opened yet.

    Raises:
        siteward.server.database.DatabaseError: as `Database`.
    """
    return Database(settings.access_url, settings.access.password, plain=settings.network.plain)
