"""Tokens of our own issuer: their roles stand in them, since nobody else could have signed them."""

from __future__ import annotations

from typing import Final

import msgspec

from siteward.server.auth.identity import Identity
from siteward.server.auth.profiles import check_audience, check_times, refuse, subject_of
from siteward.server.auth.refusal import Reason
from siteward.server.auth.roles import Grant, Role
from siteward.server.auth.token_text import Claims, second_of, text_of
from siteward.settings import IssuerSettings

GRANTS: Final = "siteward.grants"


class LocalProfile:
    """Reads such tokens."""

    def check(self, claims: Claims, issuer: IssuerSettings, now: float) -> None:
        """Refuse what is over, or not complete."""
        check_times(claims, now, essential=("exp", "iat"))
        subject_of(claims)
        text_of(claims, "jti")
        check_audience(claims, issuer.audiences)

    def identity(self, claims: Claims, issuer: IssuerSettings) -> Identity:
        """With the roles that it was made with."""
        try:
            grants = msgspec.convert(claims.get(GRANTS), tuple[Grant, ...])
        except msgspec.ValidationError:
            refuse(Reason.CLAIM, f"has a claim {GRANTS!r} that is no list of roles")
        subject = subject_of(claims)
        return Identity(
            issuer=issuer.url,
            subject=subject,
            token=text_of(claims, "jti"),
            expires=second_of(claims, "exp") or 0.0,
            issued=second_of(claims, "iat") or 0.0,
            vos=tuple(dict.fromkeys(vo for grant in grants for vo in grant.vos)),
            person=subject,
            # A token that only sends is made for a program.
            is_service=all(grant.role is Role.REPORTER for grant in grants),
            grants=grants,
        )
