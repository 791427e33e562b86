"""The ledger that the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from accounting.ledger import Ledger
from siteward.records import Kind
from siteward.server.database import Database


class AccountingSettings(Protocol):
    """`[accounting]`, as far as opening needs it."""

    @property
    def password(self) -> str:
        """Of the URL's user."""


class LedgerSettings(Protocol):
    """The settings of an installation, as far as opening needs them."""

    @property
    def accounting(self) -> AccountingSettings:
        """`[accounting]`."""

    @property
    def accounting_url(self) -> str:
        """The ledger's URL, the embedded default filled in."""


def open_ledger(settings: LedgerSettings, kinds: Mapping[str, Kind]) -> Ledger:
    """Open the ledger, chosen by the scheme of `accounting.url`; it connects when first used.

    Raises:
        siteward.server.database.DatabaseError: the URL cannot be used, or its driver is not installed.
    """
    return Ledger(Database(settings.accounting_url, settings.accounting.password), kinds)
