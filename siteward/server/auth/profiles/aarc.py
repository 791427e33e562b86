"""AARC guidelines as EGI Check-in follows them: groups, roles and capabilities are entitlements, mostly of userinfo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote_plus

from siteward.server.auth.identity import Identity
from siteward.server.auth.profiles import (
    audiences_of,
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

NAMES: Final = ("entitlements", "eduperson_entitlement")
"""The claim, by its newer and its older name (AARC-G056)."""
_GROUP: Final = re.compile(r"(?P<space>urn:[^#]+?):group:(?P<group>[^:#]+)(:[^#]*)?")
_PORTAL: Final = re.compile(r"urn:mace:egi\.eu:goc\.egi\.eu:[^:]+:(?P<entity>[^:]+):(?P<role>[^:@#]+)@egi\.eu")
"""A role at the operations portal (GOCDB)."""
NO_ACCESS: Final = frozenset({"ID", "Refresh", "Logout", "Offline"})
"""What else Keycloak signs with the same key; its access tokens are "Bearer"."""


class AarcProfile:
    """Reads such tokens."""

    def check(self, claims: Claims, issuer: IssuerSettings, now: float) -> None:
        """Refuse what is not for us; a token without any audience needs a client that is known."""
        check_times(claims, now, essential=("exp", "iat"))
        subject_of(claims)
        text_of(claims, "jti")
        sort = claims.get("typ")
        if isinstance(sort, str) and sort in NO_ACCESS:
            refuse(Reason.CLAIM, f"is no access token, but of type {shown(sort)}")
        if audiences_of(claims) or not issuer.clients:
            check_audience(claims, issuer.audiences)
            return
        client = claims.get("azp", claims.get("client_id"))
        if client not in issuer.clients:
            refuse(Reason.AUDIENCE, "is meant for nobody, and was given to no client of issuers.….clients")

    def identity(self, claims: Claims, issuer: IssuerSettings) -> Identity:
        """Of those VOs whose groups it is entitled to, among those that the issuer may speak for."""
        listed = [each for name in NAMES for each in bounded(texts_of(claims, name), "entitlements")]
        entitlements = frozenset(each.partition("#")[0] for each in listed)
        found_groups = [found for each in entitlements if (found := _GROUP.fullmatch(each))]
        groups = {found["group"] for found in found_groups if found["space"] == issuer.namespace}
        scope = claims.get("scope", "")
        return Identity(
            issuer=issuer.url,
            subject=subject_of(claims),
            token=text_of(claims, "jti"),
            expires=second_of(claims, "exp") or 0.0,
            issued=second_of(claims, "iat") or 0.0,
            vos=tuple(vo for vo in issuer.vos if vo in groups),
            person=person_of(claims, issuer),
            scopes=frozenset(scope.split()) if isinstance(scope, str) else frozenset(),
            entitlements=entitlements,
            is_service=is_clients_own(claims),
            sites=tuple(sorted(_portal_roles(entitlements))),
        )


def _portal_roles(entitlements: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Sites and roles as the portal shows them; an entitlement has them as in a URL, such as `Site+Administrator`."""
    for each in entitlements:
        if found := _PORTAL.fullmatch(each):
            yield unquote_plus(found["entity"]), unquote_plus(found["role"])
