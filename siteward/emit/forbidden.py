"""What the broker will not take, routing keys and single records: said aloud, and tried again after a while."""

from __future__ import annotations

import time
from typing import Final

from siteward.broker import Rejected
from siteward.log import get_logger

RETRY_SECONDS: Final = 300.0
"""How long a key stays forbidden before it is tried again: an operator may have granted it meanwhile."""
_MOST_SAID: Final = 10
"""Rejections that are logged between two rounds of the spool: a program that goes on must not fill the disk."""


class ForbiddenKeys:
    """Keys, until when they are not tried, and why. Any thread may look."""

    def __init__(self) -> None:
        """Forbid nothing."""
        self._until: dict[str, float] = {}
        self._reasons: dict[str, str] = {}

    def __bool__(self) -> bool:
        """Whether any key is, or was: cheap to ask for every record."""
        return bool(self._until)

    def __contains__(self, key: str) -> bool:
        """Whether a key is forbidden now."""
        return time.monotonic() < self._until.get(key, 0.0)

    def add(self, key: str, reason: str) -> None:
        """Note that the broker has refused a key."""
        self._reasons[key] = reason
        self._until[key] = time.monotonic() + RETRY_SECONDS

    def reason(self, key: str) -> str:
        """Why a key is forbidden, or was when it was last tried."""
        return self._reasons[key]


class Rejections:
    """Tells of records that the broker has read and does not take. Any thread may."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._said = 0

    def note(self, error: Rejected) -> None:
        """Say it, if it was not said often already."""
        self._said += 1
        if self._said <= _MOST_SAID:
            records = sum(message.count for message in error.left)
            get_logger(__name__).error(
                "records are rejected, they stay in the spool", records=records, reason=str(error)
            )

    def start_anew(self) -> None:
        """What was set aside is tried again, and what happens to it is to be said again."""
        self._said = 0
