"""Whoever a verified token names: what it proves about its bearer, and nothing of what that allows."""

from __future__ import annotations

import msgspec

from siteward.server.auth.roles import Grant


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One bearer, as one issuer knows it.

    Attributes:
        issuer: whose token; with the subject it is the identity, never reassigned.
        subject: the issuer's name for the bearer.
        token: the token's own name (`jti`), for the audit and the deny-list.
        expires: the second, since 1970 UTC, from which on it proves nothing.
        issued: the second since 1970 UTC in which the issuer said so.
        vos: those that the issuer speaks for here.
        person: what records call the bearer; "" where the issuer does not say.
        groups: membership, as the issuer writes it; of WLCG tokens none where capabilities are given.
        scopes: capabilities.
        entitlements: groups, roles and capabilities as AARC-G069 and -G027 write them, without their authority.
        host: the machine that the bearer is (`host.auth`); "" for people and services.
        is_limited: the token was made for less than its bearer may do (WLCG: it has capabilities), so that these, and
            which host it is, say what it may do here, and nothing else of the bearer does.
        is_service: the bearer is a program that speaks for itself, and nobody who has logged in.
        grants: roles that our own issuer gave; no other one's.
        sites: those for which the bearer has a role at the operations portal, with the role.
    """

    issuer: str
    subject: str
    token: str
    expires: float
    issued: float = 0.0
    vos: tuple[str, ...] = ()
    person: str = ""
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    entitlements: frozenset[str] = frozenset()
    host: str = ""
    is_limited: bool = False
    is_service: bool = False
    grants: tuple[Grant, ...] = ()
    sites: tuple[tuple[str, str], ...] = ()

    @property
    def is_person(self) -> bool:
        """Whether the bearer is a person, as far as anybody knows, whose name stands in no record."""
        return not self.host and not self.is_service
