"""An issuer's last answer in a file, so that a start during its outage knows its keys as well as who ran through it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from siteward.log import get_logger
from siteward.private_files import make_private, read_private
from siteward.server.auth.key_set import PublishedKey
from siteward.server.auth.profiles import SKEW
from siteward.settings import SettingsError

_DIGITS: Final = 32
log = get_logger(__name__)


class Told(msgspec.Struct, frozen=True):
    """What an issuer said of itself.

    Attributes:
        issuer: its exact name.
        asked: when, seconds since 1970 UTC.
        metadata: of its description what are texts, such as addresses.
        keys: what it publishes that can be read, without anything private.
    """

    issuer: str
    asked: float
    metadata: Mapping[str, str]
    keys: tuple[PublishedKey, ...]


class KeyFile:
    """One issuer's file. Processes may share it: each puts a whole one in place of the last."""

    def __init__(self, folder: Path, issuer: str) -> None:
        """Name the file; it is made with the first answer.

        Args:
            folder: where those of all issuers are.
            issuer: its exact name.
        """
        self._issuer = issuer
        self.path = folder / f"{sha256(issuer.encode()).hexdigest()[:_DIGITS]}.json"

    def read(self, now: float) -> Told | None:
        """What stands there; None where nothing can be believed of it, which is told.

        Args:
            now: seconds since 1970 UTC.
        """
        try:
            told = msgspec.json.decode(read_private(self.path), type=Told)
        except FileNotFoundError:
            return None
        except (OSError, SettingsError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            log.warning("kept keys of an issuer not used", issuer=self._issuer, file=str(self.path), error=str(error))
            return None
        # What was asked in the future would be believed for as long beyond two days.
        if told.issuer != self._issuer or told.asked > now + SKEW:
            why = "another issuer's" if told.issuer != self._issuer else "of the future"
            log.warning("kept keys of an issuer not used", issuer=self._issuer, file=str(self.path), error=why)
            return None
        return told

    def write(self, told: Told) -> None:
        """Keep it; where that fails, what is known goes on without."""
        try:
            make_private(self.path, msgspec.json.encode(told), replacing=True)
        except (OSError, ValueError) as error:
            log.warning("keys of an issuer not kept", issuer=self._issuer, file=str(self.path), error=str(error))
