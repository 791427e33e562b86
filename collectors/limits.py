"""What may stop a request that sends records: full queues, and how much its sender and its VOs may send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from collectors.quotas import Quotas
from collectors.sender import Sender
from collectors.waiting import Waiting


class Limits(msgspec.Struct, frozen=True):
    """Those of one process."""

    waiting: Waiting
    quotas: Quotas

    def check(self, sender: Sender, vos: Iterable[str]) -> None:
        """Refuse more of a sender's records of some VOs, where they have to wait.

        Raises:
            Problem: 429, with the seconds after which to try again.
        """
        asked = tuple(vos)
        self.quotas.check(sender, asked)
        self.waiting.check_share(asked)

    def charge(self, sender: Sender, records: Mapping[str, int]) -> None:
        """Count what was queued, by VO."""
        self.quotas.charge(sender, records)
        self.waiting.charge(records)
