"""Who used what, to the last second, for years: a ledger of exact buckets, and the questions that it answers."""

from __future__ import annotations

from typing import Final

SINK: Final = "ledger"
"""Name of the sink that books."""


class LedgerError(Exception):
    """The ledger cannot be used as it is; the message says what differs and what a person has to do."""

    permanent = True
