"""What stands in a token: three parts, strict JSON, nothing believed yet; pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final, NoReturn

import msgspec

from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.strict_json import strict_json

LONGEST: Final = 16 * 2**10
"""Characters of a token. Those with hundreds of groups have a few thousand."""
LONGEST_NAME: Final = 255
"""Characters of issuer's, subject's and key's names (WLCG Common JWT Profile, OpenID Connect Core §2)."""
SHOWN: Final = 80
"""Characters of a stranger's text that a message repeats."""
_PARTS: Final = 3

Claims = Mapping[str, object]


class TokenText(msgspec.Struct, frozen=True):
    """A token that was read and not verified.

    Attributes:
        text: the whole of it.
        header: which algorithm and key it names.
        claims: what it says.
        signature: what is to prove it.
    """

    text: str
    header: Claims
    claims: Claims
    signature: bytes


def read_token(text: str) -> TokenText:
    """Take a token apart.

    Raises:
        TokenRefused: it is no compact JWS (RFC 7515 §3.1) of two JSON objects. Names that occur twice, numbers that
            JSON does not know, and characters that base64url leaves open are refused: two readers could differ.
    """
    if len(text) > LONGEST:
        _refuse(f"has {len(text)} characters, more than {LONGEST}")
    parts = text.split(".")
    if len(parts) != _PARTS or not text.isascii():
        _refuse("is no signed JSON Web Token: three parts of base64url with dots between them")
    header, claims = (_object(part, name) for part, name in zip(parts, ("header", "payload"), strict=False))
    return TokenText(text, header, claims, _decoded(parts[2], "signature"))


def _object(part: str, name: str) -> Claims:
    try:
        found = strict_json(_decoded(part, name).decode())
    except ValueError:
        # Its own message may quote the token.
        _refuse(f"has a {name} that is not strict JSON, with each name once")
    if not isinstance(found, dict):
        _refuse(f"has a {name} that is no JSON object")
    return found


def _decoded(part: str, name: str) -> bytes:
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        _refuse(f"has a {name} that is not base64url")
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        _refuse(f"has a {name} that is not canonical base64url")
    return data


def _refuse(what: str) -> NoReturn:
    message = f"the token {what}"
    raise TokenRefused(Reason.MALFORMED, message)


def shown(value: object) -> str:
    """A stranger's value for a message: bounded, without control characters."""
    text = ascii(value) if isinstance(value, str) else f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def text_of(claims: Claims, name: str, *, longest: int = LONGEST_NAME) -> str:
    """A claim that must be a text.

    Raises:
        TokenRefused: it is missing, empty, too long, or something else.
    """
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        what = "is missing" if value is None else f"is {shown(value)}"
        message = f"the token's claim {name!r} {what}; expected a text of 1 to {longest} printable characters"
        raise TokenRefused(Reason.CLAIM, message)
    return value


def texts_of(claims: Claims, name: str) -> tuple[str, ...]:
    """A claim that may be a list of texts; () where it is missing.

    Raises:
        TokenRefused: it is something else.
    """
    value = claims.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        message = f"the token's claim {name!r} is not a list of texts"
        raise TokenRefused(Reason.CLAIM, message)
    return tuple(value)


def second_of(claims: Claims, name: str) -> float | None:
    """A claim that may be an instant, in seconds since 1970 UTC; None where it is missing.

    Raises:
        TokenRefused: it is something else.
    """
    value = claims.get(name)
    if value is None:
        return None
    # True is an integer to Python; instants beyond what any clock shows are no instants.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        message = f"the token's claim {name!r} is {shown(value)}; expected seconds since 1970"
        raise TokenRefused(Reason.CLAIM, message)
    return value
