"""WLCG Common JWT Profile 1.x: one issuer is one VO; capabilities go before groups; hosts are `host:` subjects."""

from __future__ import annotations

import re
from typing import Final

from siteward.server.auth.identity import Identity
from siteward.server.auth.profiles import (
    bounded,
    check_audience,
    check_times,
    is_clients_own,
    person_of,
    refuse,
    subject_of,
)
from siteward.server.auth.refusal import Reason
from siteward.server.auth.token_text import Claims, second_of, shown, text_of, texts_of
from siteward.settings import IssuerSettings

ANY_AUDIENCE: Final = "https://wlcg.cern.ch/jwt/v1/any"
HOST_CAPABILITY: Final = "host.auth"
HOST_PREFIX: Final = "host:"
CAPABILITIES: Final = ("storage.", "compute.", "siteward.")
"""How the scopes begin that are capabilities: the profile's, and ours."""
LONGEST_SCOPE: Final = 8_000
_VERSION: Final = re.compile(r"1(\.\d{1,4})+", re.ASCII)
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+\Z")


class WlcgProfile:
    """Reads such tokens."""

    def check(self, claims: Claims, issuer: IssuerSettings, now: float) -> None:
        """Refuse what the profile refuses; every claim that it calls required is."""
        version = text_of(claims, "wlcg.ver")
        if not _VERSION.fullmatch(version):
            refuse(Reason.VERSION, f"follows version {shown(version)} of its profile; 1.x is understood")
        check_times(claims, now, essential=("exp", "iat"))
        subject_of(claims)
        text_of(claims, "jti")
        any_service = (ANY_AUDIENCE,) if issuer.any_audience else ()
        check_audience(claims, (*issuer.audiences, *any_service))

    def identity(self, claims: Claims, issuer: IssuerSettings) -> Identity:
        """Of the issuer's VO, whatever a claim says of one."""
        subject = subject_of(claims)
        scopes = frozenset(bounded(_scopes(claims), "scopes"))
        with_capabilities = any(scope.startswith(CAPABILITIES) for scope in scopes)
        groups = () if with_capabilities else bounded(texts_of(claims, "wlcg.groups"), "groups")
        host = subject.removeprefix(HOST_PREFIX) if subject.startswith(HOST_PREFIX) else ""
        return Identity(
            issuer=issuer.url,
            subject=subject,
            token=text_of(claims, "jti"),
            expires=second_of(claims, "exp") or 0.0,
            issued=second_of(claims, "iat") or 0.0,
            vos=issuer.vos,
            person=person_of(claims, issuer),
            groups=frozenset(groups),
            scopes=scopes,
            host=host if HOST_CAPABILITY in scopes and _HOST.match(host) else "",
            is_limited=with_capabilities,
            is_service=is_clients_own(claims),
        )


def _scopes(claims: Claims) -> tuple[str, ...]:
    given = claims.get("scope")
    return () if given is None or given == "" else tuple(text_of(claims, "scope", longest=LONGEST_SCOPE).split())
