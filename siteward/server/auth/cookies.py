"""The two cookies: what a session is known by, and what a log-in that is under way has to come back with."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

SESSION: Final = "siteward-session"
LOGIN: Final = "siteward-login"
LOGIN_SECONDS: Final = 600
"""In which a person has to come back from the issuer."""
LONGEST: Final = 4096
"""Characters of a cookie that is read."""


class UnderWay(msgspec.Struct, frozen=True):
    """A log-in that has begun. It stays with the browser: whoever comes back without it did not begin it.

    Attributes:
        issuer: name of the issuer in the settings.
        state: what the issuer sends back.
        nonce: what its ID token says.
        verifier: proves that the code is brought by who asked for it (PKCE).
        to: the path where the person wanted to go.
    """

    issuer: str
    state: str
    nonce: str
    verifier: str
    to: str


def cookie_in(header: str, name: str, *, is_secure: bool) -> str:
    """The value of a cookie in the header of a request; "" without."""
    if len(header) > 4 * LONGEST:
        return ""
    # No more is stripped than RFC 6265 §5.2 says: a name that looks like ours but for a strange space is not ours.
    parts = (part.strip(" \t").partition("=") for part in header.split(";"))
    found = [value for key, _, value in parts if key == _named(name, is_secure=is_secure)]
    return found[0] if len(found) == 1 and len(found[0]) <= LONGEST else ""


def set_cookie(name: str, value: str, seconds: float, *, is_secure: bool) -> str:
    """A header that sets a cookie, out of reach of scripts and of other sites' forms; with "" one that takes it away.

    `Lax`, not `Strict`: a person who follows a link from elsewhere, or comes back from the issuer, is logged in.
    """
    parts = [f"{_named(name, is_secure=is_secure)}={value}", "Path=/", "HttpOnly", "SameSite=Lax"]
    parts += [f"Max-Age={int(seconds) if value else 0}"]
    return "; ".join([*parts, *(["Secure"] if is_secure else [])])


def written(under_way: UnderWay) -> str:
    """As a cookie's value."""
    return urlsafe_b64encode(msgspec.json.encode(under_way)).decode()


def read(value: str) -> UnderWay | None:
    """What stands in one; None where it is nothing of ours."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(value.encode()), type=UnderWay)
    except (ValueError, msgspec.MsgspecError):
        return None


def _named(name: str, *, is_secure: bool) -> str:
    # Of this host only, and set over TLS only: no neighbour's page can plant one (RFC 6265bis §4.1.3).
    return f"__Host-{name}" if is_secure else name
