"""From a token's text to the identity that it proves: issuer, key, signature, claims, in that order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from joserfc.jws import JWSRegistry

from siteward.oauth.fetching import Fetch
from siteward.server.auth.good_signatures import GoodSignatures
from siteward.server.auth.identity import Identity
from siteward.server.auth.key_file import KeyFile
from siteward.server.auth.key_set import KEY_TYPES
from siteward.server.auth.keys import IssuerKeys
from siteward.server.auth.profiles import Profile
from siteward.server.auth.profiles.aarc import AarcProfile
from siteward.server.auth.profiles.local import LocalProfile
from siteward.server.auth.profiles.wlcg import WlcgProfile
from siteward.server.auth.refusal import Reason, TokenRefused, Waits
from siteward.server.auth.token_text import TokenText, read_token, shown, text_of
from siteward.server.auth.userinfo import Userinfo
from siteward.settings import IssuerSettings

PROFILES: Final[Mapping[str, Profile]] = {"wlcg": WlcgProfile(), "aarc": AarcProfile(), "local": LocalProfile()}
TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What a token may call itself (`typ`, RFC 9068 §2.1); most say nothing."""
CARRIED_KEYS: Final = ("jwk", "jku", "x5u")
"""Headers by which a token would bring the key that is to prove it."""


class Trusted(msgspec.Struct, frozen=True):
    """An issuer, its keys, and its userinfo where entitlements come from there."""

    settings: IssuerSettings
    keys: IssuerKeys
    userinfo: Userinfo | None


class Verified(msgspec.Struct, frozen=True):
    """Whom a token proves, and who says so."""

    identity: Identity
    issuer: IssuerSettings


class Verifier:
    """Judges tokens of the trusted issuers; any thread may ask."""

    def __init__(
        self,
        issuers: Mapping[str, IssuerSettings],
        fetch: Callable[[IssuerSettings], Fetch],
        clock: Callable[[], float] = time.time,
        folder: Path | None = None,
    ) -> None:
        """Trust these issuers, by whatever names the configuration calls them.

        Args:
            issuers: the trusted ones.
            fetch: gives what asks an issuer.
            clock: seconds since 1970 UTC.
            folder: where answers of issuers are kept over a restart; None keeps none.
        """
        self._clock = clock
        self._good = GoodSignatures()
        self._trusted: dict[str, Trusted] = {}
        for settings in issuers.values():
            asks = fetch(settings)
            # Our own issuer's keys stand beside it already.
            file = KeyFile(folder, settings.url) if folder and settings.profile != "local" else None
            keys = IssuerKeys(settings.url, asks, clock, file)
            self._trusted[settings.url] = Trusted(
                settings, keys, Userinfo(keys, asks, clock) if settings.userinfo else None
            )

    def trusted(self, url: str) -> Trusted:
        """A trusted issuer, by its exact name.

        Raises:
            KeyError: it is none.
        """
        return self._trusted[url]

    def verify(self, text: str, *, may_wait: bool = True) -> Verified:
        """Whom a token proves.

        Args:
            text: the token.
            may_wait: whether its issuer may be asked, which can take seconds.

        Raises:
            TokenRefused: it proves nobody; why.
            Waits: its issuer would have to be asked, and may not be.
        """
        token = read_token(text)
        trusted = self._trusted.get(text_of(token.claims, "iss"))
        if trusted is None:
            _refuse(Reason.ISSUER, f"is of the issuer {shown(token.claims['iss'])}, which is not trusted here")
        check_signature(token, trusted.keys, may_wait=may_wait, good=self._good)
        profile, now = PROFILES[trusted.settings.profile], self._clock()
        profile.check(token.claims, trusted.settings, now)
        claims = token.claims
        if trusted.userinfo is not None:
            claims = trusted.userinfo.added(token, may_wait=may_wait)
        identity = profile.identity(claims, trusted.settings)
        return Verified(identity, trusted.settings)


def check_signature(
    token: TokenText, keys: IssuerKeys, *, may_wait: bool, is_named: bool = True, good: GoodSignatures | None = None
) -> None:
    """Refuse a token that its issuer did not sign.

    Args:
        token: not believed yet.
        keys: of its issuer.
        may_wait: whether the issuer may be asked for its keys.
        is_named: the token has to name its key; else it may leave that to an issuer that has only one.
        good: those that were computed already.

    Raises:
        TokenRefused: why.
        Waits: the issuer would have to be asked for its keys, and may not be.
    """
    algorithm, name = _header(token)
    if name is None and not is_named:
        name = keys.only(KEY_TYPES[algorithm])
    if not isinstance(name, str) or not name:
        _refuse(Reason.KEY, "does not name its key (kid)")
    key = keys.known(name, KEY_TYPES[algorithm])
    if key is None:
        if not may_wait:
            raise Waits(str(token.claims["iss"]))
        key = keys.sought(name, KEY_TYPES[algorithm])
    if good is not None and good.has(token.text, key):
        return
    signed = token.text.rpartition(".")[0].encode()
    # EdDSA is the name that most issuers still use for what RFC 9864 calls Ed25519.
    checked = JWSRegistry.algorithms["Ed25519" if algorithm == "EdDSA" else algorithm]
    if not checked.verify(signed, token.signature, key):
        _refuse(Reason.SIGNATURE, "was not signed by its issuer, or was changed")
    if good is not None:
        good.keep(token.text, key)


def _header(token: TokenText) -> tuple[str, object]:
    """By which algorithm a token is signed, and what it calls its key."""
    algorithm = token.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in KEY_TYPES:
        accepted = ", ".join(KEY_TYPES)
        _refuse(Reason.ALGORITHM, f"is signed by {shown(algorithm)}; accepted are {accepted}")
    if "crit" in token.header:
        _refuse(Reason.MALFORMED, "has a header 'crit'; no extension is understood here")
    if any(each in token.header for each in CARRIED_KEYS):
        _refuse(Reason.KEY, f"brings its own key; {', '.join(CARRIED_KEYS)} are refused")
    kind = token.header.get("typ", "jwt")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        _refuse(Reason.MALFORMED, f"is of type {shown(kind)}; expected an access token, of type JWT or at+jwt")
    return algorithm, token.header.get("kid")


def _refuse(reason: Reason, what: str) -> NoReturn:
    message = f"the token {what}"
    raise TokenRefused(reason, message)
