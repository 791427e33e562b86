"""Which roles a bearer has: from an identity and its issuer's grants, deny by default; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from siteward.oauth.fetching import check_address
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import EVERY, Grant, Role, grant
from siteward.settings import GrantSettings, IssuerSettings, SettingsError


def grants_of(identity: Identity, issuer: IssuerSettings) -> tuple[Grant, ...]:
    """Every role of a bearer, in the order of the configuration; those of our own issuer stand in its tokens."""
    if issuer.profile == "local":
        return identity.grants
    return tuple(grant for rule in issuer.grants if (grant := _granted(identity, rule)) is not None)


def _granted(identity: Identity, rule: GrantSettings) -> Grant | None:
    sort, _, wanted = rule.when.partition(":")
    if not MATCHES[sort](identity, wanted) or (identity.is_limited and sort not in _OF_LIMITED):
        return None
    role = Role(rule.role)
    if role is Role.PLATFORM_ADMIN:
        return Grant(role, (EVERY,))
    sites = rule.sites
    if sort == "portal":
        own = tuple(site for site, portal_role in identity.sites if portal_role == wanted)
        sites = tuple(site for site in own if site in sites) if sites else own
        if not sites:
            return None
    vos = rule.vos or identity.vos
    return Grant(role, vos, sites) if vos else None


def _is_host(identity: Identity, pattern: str) -> bool:
    if not identity.host:
        return False
    if pattern.startswith("*."):
        # At least one label in place of the star, so that the domain itself is not one of its hosts.
        return identity.host.endswith(pattern[1:]) and len(identity.host) > len(pattern[1:])
    return identity.host == pattern


MATCHES: Final[Mapping[str, Callable[[Identity, str], bool]]] = {
    "any": lambda _identity, wanted: not wanted,
    "group": lambda identity, wanted: wanted in identity.groups,
    "scope": lambda identity, wanted: wanted in identity.scopes,
    "entitlement": lambda identity, wanted: wanted.partition("#")[0] in identity.entitlements,
    "host": _is_host,
    "portal": lambda identity, wanted: any(role == wanted for _, role in identity.sites),
    "subject": lambda identity, wanted: identity.subject == wanted,
}
"""Whether a rule speaks of a bearer, by its first word."""
_OF_LIMITED: Final = {"scope", "host"}
"""What is asked of a token that has capabilities: one that was given to a job is not its owner."""
_OF_PROFILE: Final = {
    "wlcg": {"any", "group", "scope", "host", "subject"},
    "aarc": {"any", "entitlement", "portal", "subject"},
    "local": set[str](),
}


def check_issuer(name: str, issuer: IssuerSettings) -> None:
    """Refuse an issuer, or grants, that cannot mean what they say.

    Raises:
        SettingsError: naming the setting and what is possible.
    """
    place = f"setting issuers.{name}"
    try:
        check_address(issuer.url, "issuer")
    except ValueError as error:
        _refuse(f"{place}.url: {error}")
    if issuer.profile == "wlcg" and len(issuer.vos) != 1:
        _refuse(f"{place}.vos: a wlcg issuer speaks for exactly one VO, got {len(issuer.vos)}")
    if not issuer.audiences and not issuer.clients and not (issuer.profile == "wlcg" and issuer.any_audience):
        _refuse(f"{place}.audiences: none, so no token could be meant for this service; name it, such as its address")
    for vo in (*issuer.vos, *(vo for rule in issuer.grants for vo in rule.vos)):
        if not vo or vo == EVERY:
            _refuse(f"{place}: {vo!r} is no VO")
    for number, rule in enumerate(issuer.grants):
        _check_rule(f"{place}.grants[{number}]", issuer, rule)


def _check_rule(place: str, issuer: IssuerSettings, rule: GrantSettings) -> None:
    sort, _, wanted = rule.when.partition(":")
    possible = _OF_PROFILE[issuer.profile]
    if sort not in possible or bool(wanted) is (sort == "any"):
        forms = ", ".join(each if each == "any" else f"{each}:…" for each in sorted(possible)) or "none"
        _refuse(f"{place}.when: {rule.when!r} is no rule of the profile {issuer.profile}; there are {forms}")
    if sort == "host" and ("*" in wanted.removeprefix("*.") or wanted != wanted.lower() or "." not in wanted):
        _refuse(f"{place}.when: {wanted!r} is no host; a name in lower case with its domain, or `*.` before a domain")
    role = Role(rule.role)
    if sort == "entitlement" and not rule.vos and role is not Role.PLATFORM_ADMIN:
        # Else a role in one VO would hold in each that the bearer is a member of.
        _refuse(f"{place}.vos: an entitlement's role needs the VOs in which it holds")
    if role is Role.PLATFORM_ADMIN and sort in {"any", "portal"}:
        _refuse(f"{place}: platform-admin is given by name only")
    vos = rule.vos if rule.vos or role is Role.PLATFORM_ADMIN else issuer.vos
    # Where the portal tells the sites, one that it may tell stands for them.
    sites = rule.sites or (("of the portal",) if sort == "portal" else ())
    try:
        grant(role, vos, sites)
    except ValueError as error:
        _refuse(f"{place}: {error}")


def _refuse(message: str) -> NoReturn:
    raise SettingsError(message)
