"""Routing keys under which the broker does not let this program publish: looked at again after a while."""

from __future__ import annotations

import time
from typing import Final

RETRY_SECONDS: Final = 300.0
"""How long a key stays forbidden before it is tried again: an operator may have granted it meanwhile."""


class ForbiddenKeys:
    """Keys and until when they are not tried. Any thread may look."""

    def __init__(self) -> None:
        """Forbid nothing."""
        self._until: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether any key is, or was: cheap to ask for every record."""
        return bool(self._until)

    def __contains__(self, key: str) -> bool:
        """Whether a key is forbidden now."""
        return time.monotonic() < self._until.get(key, 0.0)

    def add(self, key: str) -> None:
        """Note that the broker has refused a key."""
        self._until[key] = time.monotonic() + RETRY_SECONDS
