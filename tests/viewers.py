"""Those who ask in tests, and a key for pseudonyms."""

from __future__ import annotations

from typing import Final

from accounting.ledger import Ledger
from accounting.query.usage import Usage
from siteward.usage import UsageAnswer, UsageQuery
from siteward.viewer import Viewer, Visible

EVERYTHING: Final = Viewer(visible=Visible.ALL, names=True)
"""Sees all there is."""
KEY: Final = b"a key of tests, which nobody knows"


def answered(ledger: Ledger, query: UsageQuery, viewer: Viewer = EVERYTHING) -> UsageAnswer:
    """The answer to a question."""
    return asking(ledger).ask(query, viewer)


def asking(ledger: Ledger) -> Usage:
    """What answers questions to a ledger."""
    return Usage(ledger, lambda: KEY)
