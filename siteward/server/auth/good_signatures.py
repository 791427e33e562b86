"""Which tokens' signatures were found good: the same text proves the same again, and is not computed again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import sha256
from typing import Final

from siteward.server.auth.key_set import Key

MOST: Final = 10_000


class GoodSignatures:
    """Knows tokens by a digest of their whole text, so that none is kept and no other one is found; any thread may ask.

    Each is kept with the very key that proved it. Keys that are read again are others, and prove each token once
    more: one that its issuer has withdrawn or replaced proves nothing by what it once did.
    """

    def __init__(self) -> None:
        """Know none."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Key] = OrderedDict()

    def has(self, text: str, key: Key) -> bool:
        """Whether a key has proved this text."""
        digest = _digest(text)
        with self._lock:
            found = self._kept.get(digest) is key
            if found:
                self._kept.move_to_end(digest)
            return found

    def keep(self, text: str, key: Key) -> None:
        """Know that it has."""
        with self._lock:
            self._kept[_digest(text)] = key
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
