"""Profiles: how the claims of an issuer's tokens are to be read. Each has a file here."""

from __future__ import annotations

from typing import Final, NoReturn, Protocol

from siteward.records.declaration import LONGEST_PERSONAL
from siteward.server.auth.identity import Identity
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.token_text import Claims, second_of, shown, text_of
from siteward.settings import IssuerSettings

SKEW: Final = 60.0
"""Seconds by which an issuer's clock may differ from ours (WLCG Common JWT Profile 1.3)."""
MOST_LISTED: Final = 1_000
"""Groups, scopes or entitlements that one token is read for."""


class Profile(Protocol):
    """Reads the claims of verified tokens. Pure: nothing is asked, nothing waited for."""

    def check(self, claims: Claims, issuer: IssuerSettings, now: float) -> None:
        """Refuse a token that must not be used here, or not now.

        Args:
            claims: of a token whose signature is good.
            issuer: who signed it.
            now: seconds since 1970 UTC.

        Raises:
            TokenRefused: saying which claim, and what it should be.
        """

    def identity(self, claims: Claims, issuer: IssuerSettings) -> Identity:
        """Whom the claims name; those of the issuer's userinfo are among them where it is asked.

        Raises:
            TokenRefused: a claim is not what it must be.
        """


def check_times(claims: Claims, now: float, *, essential: tuple[str, ...]) -> None:
    """Refuse what is over, or has not begun.

    Args:
        claims: with `exp`, `nbf`, `iat` in seconds since 1970 UTC.
        now: in the same.
        essential: those of them that must be there.

    Raises:
        TokenRefused: naming the claim.
    """
    for name in essential:
        if claims.get(name) is None:
            refuse(Reason.CLAIM, f"has no claim {name!r}")
    expires = second_of(claims, "exp")
    if expires is not None and now >= expires + SKEW:
        refuse(Reason.EXPIRED, f"expired {now - expires:.0f} seconds ago; get a new one")
    for name in ("nbf", "iat"):
        since = second_of(claims, name)
        if since is not None and now < since - SKEW:
            refuse(Reason.EARLY, f"is of the future: its {name!r} lies {since - now:.0f} seconds ahead")


def audiences_of(claims: Claims) -> tuple[str, ...]:
    """For which services a token is meant; () where it does not say.

    Raises:
        TokenRefused: the claim is neither a text nor a list of them.
    """
    value = claims.get("aud", [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        refuse(Reason.CLAIM, "has a claim 'aud' that is neither a text nor a list of texts")
    return tuple(listed)


def check_audience(claims: Claims, accepted: tuple[str, ...]) -> None:
    """Refuse a token that is meant for none of these services.

    Raises:
        TokenRefused: saying which one would be right.
    """
    given = audiences_of(claims)
    if not set(given) & set(accepted):
        wanted = " or ".join(accepted) or "one that is configured (issuers.….audiences)"
        what = ", ".join(map(shown, given[:3])) or "nobody"
        refuse(Reason.AUDIENCE, f"is meant for {what}; expected the audience {wanted}")


def bounded(listed: tuple[str, ...], name: str) -> tuple[str, ...]:
    """A list that a token gives, refused where nobody would read it."""
    if len(listed) > MOST_LISTED:
        refuse(Reason.CLAIM, f"has {len(listed)} {name}, more than {MOST_LISTED}")
    return listed


def subject_of(claims: Claims) -> str:
    """The issuer's name for the bearer, ASCII.

    Raises:
        TokenRefused: it is missing, or something else.
    """
    subject = text_of(claims, "sub")
    if not subject.isascii():
        refuse(Reason.CLAIM, "has a claim 'sub' beyond ASCII")
    return subject


def person_of(claims: Claims, issuer: IssuerSettings) -> str:
    """What records call the bearer; "" where the issuer does not say.

    Raises:
        TokenRefused: it is a text that stands for nobody in any record.
    """
    given = claims.get(issuer.person)
    return text_of(claims, issuer.person, longest=LONGEST_PERSONAL) if given and isinstance(given, str) else ""


def is_clients_own(claims: Claims) -> bool:
    """Whether a client asked for the token for itself: the subject is the client (RFC 9068 §2.2, RFC 7662 §2.2)."""
    return claims.get("sub") in {each for name in ("client_id", "azp") if isinstance(each := claims.get(name), str)}


def refuse(reason: Reason, what: str) -> NoReturn:
    """Say what is wrong with the token."""
    message = f"the token {what}"
    raise TokenRefused(reason, message)
