"""The keys of one issuer, found by discovery and kept: through outages of the issuer, and through its rotations."""

from __future__ import annotations

import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from siteward.log import get_logger
from siteward.oauth.discovery import Metadata, address_in, described_by, json_object
from siteward.oauth.fetching import Fetch, FetchError
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.token_text import LONGEST_NAME, shown

Key = RSAKey | ECKey | OKPKey

REFRESH: Final = 6 * 3600.0
"""Seconds after which keys are asked for again (WLCG Common JWT Profile 1.3: default 6 hours, at least one)."""
LEAST_REFRESH: Final = 3600.0
OUTAGE: Final = 2 * 86_400.0
"""Seconds for which keys are believed while their issuer does not answer (the same: default 2 days)."""
RETRY: Final = 60.0
"""Seconds between two questions to an issuer that did not answer, or did not have a key."""
MOST_KEYS: Final = 100
LEAST_RSA_BITS: Final = 2048
CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
PARTS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
"""The type of key that each accepted algorithm signs with."""

log = get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    metadata: Metadata
    keys: Mapping[tuple[str, str], Key]
    asked: float
    until: float


class IssuerKeys:
    """Asks the issuer at most once at a time. What is kept is found without waiting; any thread may ask."""

    def __init__(self, issuer: str, fetch: Fetch, clock: Callable[[], float]) -> None:
        """Know the issuer; it is asked when the first token comes.

        Args:
            issuer: its exact name, which is the address below which it describes itself.
            fetch: asks it.
            clock: seconds since 1970 UTC.
        """
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._asking = threading.Lock()
        self._kept: _Kept | None = None
        self._tried = float("-inf")

    def known(self, name: str, key_type: str) -> Key | None:
        """A key that is kept and fresh, without waiting; None where the issuer has to be asked first."""
        kept = self._kept
        return kept.keys.get((name, key_type)) if kept and self._clock() < kept.until else None

    def only(self, key_type: str) -> str:
        """The name of the issuer's only key of a type, where it has one; may wait for it.

        An ID token need not name its key then (OpenID Connect Core §10.1).

        Raises:
            TokenRefused: it has none, or several.
        """
        kept = self._kept
        if kept is None or self._clock() >= kept.until:
            with suppress(TokenRefused):
                self.sought("", key_type)
            kept = self._kept
        names = [name for name, each in kept.keys if each == key_type] if kept and self._is_believable(kept) else []
        if len(names) != 1:
            message = f"the token does not name its key (kid), and the issuer {self._issuer} has {len(names)} for it"
            raise TokenRefused(Reason.KEY, message)
        return names[0]

    def sought(self, name: str, key_type: str) -> Key:
        """A key, after asking the issuer where that is due; may wait for it.

        Args:
            name: of the key (`kid`).
            key_type: "RSA", "EC" or "OKP".

        Raises:
            TokenRefused: the issuer does not have it, or has not answered for too long.
        """
        found = self.known(name, key_type)
        if found is not None:
            return found
        kept = self._kept
        # Who finds an old key does not wait behind another one's question.
        with_old = kept is not None and (name, key_type) in kept.keys and self._is_believable(kept)
        if self._asking.acquire(blocking=not with_old):
            try:
                if self.known(name, key_type) is None and self._clock() >= self._tried + RETRY:
                    self._ask()
            finally:
                self._asking.release()
        kept = self._kept
        if kept is None or not self._is_believable(kept):
            message = f"the issuer {self._issuer} does not tell its keys now; try again later"
            raise TokenRefused(Reason.UNAVAILABLE, message)
        key = kept.keys.get((name, key_type))
        if key is None:
            message = f"the issuer {self._issuer} has no {key_type} key {shown(name)} for signatures"
            raise TokenRefused(Reason.KEY, message)
        return key

    def _is_believable(self, kept: _Kept) -> bool:
        return self._clock() < kept.asked + OUTAGE

    def _ask(self) -> None:
        self._tried = self._clock()
        try:
            metadata = described_by(self._issuer, self._fetch)
            answer = self._fetch(address_in(metadata, "jwks_uri"), {})
            keys = dict(_keys_in(json_object(answer.body)))
        except (FetchError, ValueError) as error:
            log.warning("keys of an issuer not read", issuer=self._issuer, error=str(error))
            return
        lasting = REFRESH if answer.lasting is None else min(max(answer.lasting, LEAST_REFRESH), REFRESH)
        self._kept = _Kept(metadata, keys, self._tried, self._tried + lasting)

    @property
    def described(self) -> Metadata:
        """How the issuer described itself when it was last asked; {} before."""
        return self._kept.metadata if self._kept else {}


class _Described(msgspec.Struct):
    """A key as JSON Web Key Sets write it (RFC 7517 §4), as far as it matters here."""

    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
    kty: str
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str = ""
    crv: str = ""
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""


def _keys_in(answer: Mapping[str, object]) -> Iterator[tuple[tuple[str, str], Key]]:
    """The public keys for signatures that can be used here; others are of no concern."""
    listed = answer.get("keys")
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        message = f"its keys are no list of at most {MOST_KEYS}"
        raise ValueError(message)
    for each in listed:
        try:
            described = msgspec.convert(each, _Described)
            key = _key_of(described)
        except (msgspec.ValidationError, JoseError, ValueError, TypeError):
            continue
        if key is not None:
            yield (described.kid, described.kty), key


def _key_of(described: _Described) -> Key | None:
    if described.use != "sig" or "verify" not in described.key_ops or described.kty not in PARTS:
        return None
    if described.alg and KEY_TYPES.get(described.alg) != described.kty:
        return None
    if described.crv != CURVES.get(described.kty, ""):
        return None
    # Only its public parts: a private one that was published by mistake is not to be kept.
    parts = {name: getattr(described, name) for name in ("kty", *PARTS[described.kty])}
    match described.kty:
        case "RSA":
            # The library would import a weak one, with a warning.
            return RSAKey.import_key(parts) if _bits(described.n) >= LEAST_RSA_BITS else None
        case "EC":
            return ECKey.import_key(parts)
        case _:
            return OKPKey.import_key(parts)


def _bits(number: str) -> int:
    return int.from_bytes(urlsafe_b64decode(f"{number}{'=' * (-len(number) % 4)}"), "big").bit_length()
