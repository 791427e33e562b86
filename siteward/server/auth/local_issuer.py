"""Our own issuer, for one machine without any other: its keys stand in the data folder, for their owner only."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from joserfc import jwt
from joserfc.jwk import OKPKey

from siteward.oauth.discovery import discovery_addresses
from siteward.oauth.fetching import Fetched, FetchError
from siteward.private_files import make_private, read_private
from siteward.server.auth.profiles.local import GRANTS
from siteward.server.auth.roles import Grant
from siteward.settings import IssuerSettings, SettingsError

NAME: Final = "local"
AUDIENCE: Final = "siteward"
BRIEF: Final = "siteward-brief"
"""The audience of tokens that our own commands make for the moment; they are accepted without any configuration."""
MOST_DAYS: Final = 366
"""Of a token's life: it cannot be taken back but by the deny-list."""
DAY: Final = 86_400
_ALGORITHM: Final = "Ed25519"


class _Kept(msgspec.Struct, frozen=True):
    """What stands in the file: the issuer's name, and its keys with their private parts, the newest first."""

    issuer: str
    keys: tuple[dict[str, Any], ...]


class LocalIssuer:
    """Makes tokens, and answers whoever verifies them in the way that issuers on the network do."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Use the keys of a file; they are made when first needed.

        Args:
            path: the file.
            clock: seconds since 1970 UTC.
        """
        self._path = path
        self._clock = clock

    @property
    def settings(self) -> IssuerSettings:
        """How it is trusted.

        Raises:
            SettingsError: its file is not what we wrote.
            OSError: it can neither be read nor made.
        """
        return IssuerSettings(url=self._kept().issuer, profile="local", audiences=(AUDIENCE,))

    def token(self, subject: str, grants: tuple[Grant, ...], days: float, audience: str = AUDIENCE) -> str:
        """A new token.

        Args:
            subject: whom it names; a person as records call them.
            grants: what its bearer may do.
            days: for which it is valid, at most MOST_DAYS.
            audience: AUDIENCE, or BRIEF.

        Raises:
            ValueError: it would live too long.
            SettingsError, OSError: as for the settings.
        """
        if not 0 < days <= MOST_DAYS:
            message = f"a token lives at most {MOST_DAYS} days, got {days:g}"
            raise ValueError(message)
        kept, now = self._kept(), int(self._clock())
        key = OKPKey.import_key(kept.keys[0])
        claims = {
            "iss": kept.issuer,
            "sub": subject,
            "aud": audience,
            "jti": secrets.token_hex(16),
            "iat": now,
            "exp": now + int(days * DAY),
            GRANTS: msgspec.to_builtins(grants),
        }
        return jwt.encode({"alg": _ALGORITHM, "kid": kept.keys[0]["kid"]}, claims, key, algorithms=[_ALGORITHM])

    def __call__(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """Answer as its own server would, by siteward.oauth.fetching.Fetch."""
        del headers
        try:
            kept = self._kept()
        except (OSError, SettingsError) as error:
            raise FetchError(str(error)) from error
        if url in discovery_addresses(kept.issuer):
            return Fetched(json.dumps({"issuer": kept.issuer, "jwks_uri": f"{kept.issuer}/keys"}).encode())
        public = [{name: value for name, value in key.items() if name != "d"} for key in kept.keys]
        return Fetched(json.dumps({"keys": public}).encode())

    def _kept(self) -> _Kept:
        with suppress(FileNotFoundError):
            return self._read()
        self._make()
        return self._read()

    def _read(self) -> _Kept:
        try:
            kept = msgspec.json.decode(read_private(self._path), type=_Kept)
        except msgspec.DecodeError as error:
            message = f"{self._path}: not what was written there: {error}; without it, tokens made here are void"
            raise SettingsError(message) from error
        if not kept.keys:
            message = f"{self._path}: it holds no key"
            raise SettingsError(message)
        return kept

    def _make(self) -> None:
        key = OKPKey.generate_key("Ed25519", {"kid": secrets.token_hex(8)}, private=True)
        kept = _Kept(f"http://localhost/{secrets.token_hex(8)}", (dict(key.as_dict(private=True)),))
        make_private(self._path, msgspec.json.encode(kept))
