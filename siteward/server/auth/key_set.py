"""What issuers publish as their keys (RFC 7517), and which of them can prove a token here; pure."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from siteward.server.auth.token_text import LONGEST_NAME

Key = RSAKey | ECKey | OKPKey

MOST_KEYS: Final = 100
LEAST_RSA_BITS: Final = 2048
CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
PARTS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
"""The type of key that each accepted algorithm signs with."""


class PublishedKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as JSON Web Key Sets write it (RFC 7517 §4), as far as it matters here; never its private parts."""

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


def published_in(answer: Mapping[str, object]) -> list[PublishedKey]:
    """The keys of a key set that can be read; others are of no concern.

    Raises:
        ValueError: it is no key set, or has too many.
    """
    listed = answer.get("keys")
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        message = f"its keys are no list of at most {MOST_KEYS}"
        raise ValueError(message)
    return list(_read(listed))


def _read(listed: list[object]) -> Iterator[PublishedKey]:
    for each in listed:
        try:
            yield msgspec.convert(each, PublishedKey)
        except msgspec.ValidationError:
            continue


def usable(published: Iterable[PublishedKey]) -> Iterator[tuple[PublishedKey, Key]]:
    """Those that are for signatures that are accepted here."""
    for each in published:
        try:
            key = _key_of(each)
        except (JoseError, ValueError, TypeError):
            continue
        if key is not None:
            yield each, key


def _key_of(published: PublishedKey) -> Key | None:
    if published.use != "sig" or "verify" not in published.key_ops or published.kty not in PARTS:
        return None
    if published.alg and KEY_TYPES.get(published.alg) != published.kty:
        return None
    if published.crv != CURVES.get(published.kty, ""):
        return None
    # Only its public parts: a private one that was published by mistake is not to be kept.
    parts = {name: getattr(published, name) for name in ("kty", *PARTS[published.kty])}
    match published.kty:
        case "RSA":
            # The library would import a weak one, with a warning.
            return RSAKey.import_key(parts) if _bits(published.n) >= LEAST_RSA_BITS else None
        case "EC":
            return ECKey.import_key(parts)
        case _:
            return OKPKey.import_key(parts)


def _bits(number: str) -> int:
    return int.from_bytes(urlsafe_b64decode(f"{number}{'=' * (-len(number) % 4)}"), "big").bit_length()
