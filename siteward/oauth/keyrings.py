"""The desktop's keyring, as far as it does what it says: whatever it raises becomes one error, and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

SERVICE: Final = "siteward"
"""Under which the keyring keeps what is ours."""
MOST_COPIES: Final = 8
"""Entries of one name that are taken away; most keyrings take away the first one only."""
LONGEST_REASON: Final = 200
LEAST_SECRET: Final = 16
Done = TypeVar("Done")


class RingError(Exception):
    """The keyring did not do what it was asked for; why."""


class Ring:
    """One that is safe to use, by the names of what it keeps.

    Its backends are others' code over D-Bus and system libraries, with errors of any class.
    """

    def __init__(self, library: Any) -> None:  # noqa: ANN401  # the library is optional.
        """Take the library `keyring`."""
        self._library = library

    def read(self, name: str) -> str:
        """What it keeps; "" without.

        Raises:
            RingError: it is locked, or does not answer.
        """
        return _done(lambda: self._library.get_password(SERVICE, name)) or ""

    def write(self, name: str, text: str) -> None:
        """Keep a text in place of any older one.

        Raises:
            RingError: it does not; whether it keeps the older one, or a part, nobody knows.
        """
        _done(lambda: self._library.set_password(SERVICE, name, text), text)
        if self.read(name) != text:
            message = "it does not give back what it took"
            raise RingError(message)

    def remove(self, name: str) -> None:
        """Keep nothing of that name any more.

        Raises:
            RingError: it does still, or does not say.
        """
        for _ in range(MOST_COPIES):
            if not self.read(name):
                return
            _done(lambda: self._library.delete_password(SERVICE, name))
        if self.read(name):
            message = "it keeps it still"
            raise RingError(message)


def safe_ring() -> Ring | None:
    """The keyring, where the library is installed and has one that is safe to use."""
    try:
        import keyring  # noqa: PLC0415  # optional, and slow to load.

        # Those that keep nothing, or keep it in the clear, say so by their priority.
        return Ring(keyring) if keyring.get_keyring().priority >= 1 else None
    except Exception:  # noqa: BLE001  # without D-Bus, or with a backend in its settings that there is not: as without.
        return None


def _done(act: Callable[[], Done], secret: str = "") -> Done:
    """What a keyring answers; an error of it never shows what it was to keep."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001  # see above.
        said = "".join(each if each.isprintable() else " " for each in str(error))
        if any(len(part) >= LEAST_SECRET and part in said for part in secret.split('"')):
            said = ""
        message = f"{type(error).__name__}: {said}"[:LONGEST_REASON].removesuffix(": ")
        raise RingError(message) from None
