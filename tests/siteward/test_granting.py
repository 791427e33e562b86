"""Who gets which role: what a grant says, and nothing that it does not say."""

from __future__ import annotations

from typing import Any

import pytest
from issuer import AUDIENCE, Issuer

from siteward.server.auth import Permission
from siteward.server.auth.granting import check_issuer, grants_of
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import EVERY, PERMISSIONS, Grant, Role
from siteward.settings import GrantSettings, IssuerSettings, SettingsError

OPS = "urn:mace:egi.eu:group:dteam:role=ops"


def bearer(**parts: Any) -> Identity:
    """Somebody of dteam."""
    given: dict[str, Any] = {"issuer": "https://dteam.iam.example", "subject": "s", "token": "t", "expires": 0.0}
    return Identity(**(given | {"vos": ("dteam",)} | parts))


def grant(when: str, role: str = "reader", **parts: Any) -> GrantSettings:
    """A rule."""
    return GrantSettings(when=when, role=role, **parts)  # type: ignore[arg-type]  # a test's words.


def wlcg(*grants: GrantSettings, **parts: Any) -> IssuerSettings:
    """An issuer of dteam."""
    return Issuer().settings(*grants, **parts)


def aarc(*grants: GrantSettings, **parts: Any) -> IssuerSettings:
    """An issuer for several VOs."""
    given = {"profile": "aarc", "vos": ("dteam", "biomed"), "audiences": (AUDIENCE,)}
    return Issuer().settings(*grants, **(given | parts))


def test_nobody_may_do_anything_unless_it_is_granted() -> None:
    """A good token of a trusted issuer alone allows nothing."""
    assert grants_of(bearer(groups=frozenset({"/dteam", "/dteam/admin"})), wlcg()) == ()
    assert Permission.PUBLIC not in PERMISSIONS[Role.PLATFORM_ADMIN]
    assert set(PERMISSIONS) == set(Role)


@pytest.mark.parametrize(
    ("when", "parts"),
    [
        ("any", {}),
        ("group:/dteam/ops", {"groups": frozenset({"/dteam", "/dteam/ops"})}),
        ("scope:siteward.report", {"scopes": frozenset({"siteward.report"})}),
        ("host:ce1.site.example", {"host": "ce1.site.example"}),
        ("host:*.site.example", {"host": "ce1.site.example"}),
        ("host:*.site.example", {"host": "a.b.site.example"}),
        ("subject:s", {}),
    ],
)
def test_a_rule_grants_its_role_to_whom_it_speaks_of(when: str, parts: dict[str, Any]) -> None:
    """In the VO of the issuer."""
    assert grants_of(bearer(**parts), wlcg(grant(when))) == (Grant(Role.READER, ("dteam",)),)


@pytest.mark.parametrize("when", ["subject:s", "any", "group:/dteam"])
def test_a_token_with_capabilities_is_judged_by_them(when: str) -> None:
    """It may have been handed to a job: what its owner may do is not what it may do."""
    who = bearer(is_limited=True, groups=frozenset({"/dteam"}), scopes=frozenset({"storage.read:/"}))
    assert grants_of(who, wlcg(grant(when))) == ()
    assert grants_of(who, wlcg(grant(when), grant("scope:storage.read:/"))) == (Grant(Role.READER, ("dteam",)),)


@pytest.mark.parametrize(
    ("when", "parts"),
    [
        ("group:/dteam", {"groups": frozenset({"/dteam/ops"})}),
        ("group:/dteam/ops", {"groups": frozenset({"/dteam", "/dteam/ops2", "/DTEAM/ops"})}),
        ("scope:siteward", {"scopes": frozenset({"siteward.report"})}),
        ("host:*.site.example", {"host": "site.example"}),
        ("host:*.site.example", {"host": "evilsite.example"}),
        ("host:*.site.example", {"host": "ce1.site.example.evil.example"}),
        ("host:*.site.example", {"subject": "host:ce1.site.example"}),
        ("host:ce1.site.example", {"host": "ce1xsite.example"}),
        ("subject:s", {"subject": "S"}),
        ("subject:s", {"subject": "s2"}),
    ],
)
def test_a_rule_grants_nothing_to_others(when: str, parts: dict[str, Any]) -> None:
    """A group is not its parent (profile §2.2), a host not its domain, nothing is folded or cut."""
    assert grants_of(bearer(**parts), wlcg(grant(when))) == ()


def test_an_entitlement_grants_a_role_where_the_rule_says() -> None:
    """The authority behind # does not matter; membership of another VO is no role there."""
    rules = aarc(grant(f"entitlement:{OPS}#aai.egi.eu", "operator", vos=("dteam",)), grant("any"))
    both = bearer(entitlements=frozenset({OPS}), vos=("dteam", "biomed"))
    assert grants_of(both, rules) == (Grant(Role.OPERATOR, ("dteam",)), Grant(Role.READER, ("dteam", "biomed")))
    assert grants_of(bearer(vos=("biomed",)), rules) == (Grant(Role.READER, ("biomed",)),)
    assert grants_of(bearer(vos=()), rules) == ()


def test_a_site_operator_gets_the_sites_of_the_portal() -> None:
    """Those for which it has the role that the rule names, and of them only the configured ones."""
    admin = bearer(sites=(("SITE-A", "Site Administrator"), ("SITE-B", "Site Administrator"), ("SITE-C", "Other")))
    open_ = aarc(grant("portal:Site Administrator", "site-operator", vos=("dteam",)))
    assert grants_of(admin, open_) == (Grant(Role.SITE_OPERATOR, ("dteam",), ("SITE-A", "SITE-B")),)
    some = aarc(grant("portal:Site Administrator", "site-operator", vos=("dteam",), sites=("SITE-B", "SITE-D")))
    assert grants_of(admin, some) == (Grant(Role.SITE_OPERATOR, ("dteam",), ("SITE-B",)),)
    none = aarc(grant("portal:Site Administrator", "site-operator", vos=("dteam",), sites=("SITE-D",)))
    assert grants_of(admin, none) == ()


def test_a_platform_admin_is_one_everywhere() -> None:
    """By name, in every VO."""
    (found,) = grants_of(bearer(), wlcg(grant("subject:s", "platform-admin")))
    assert found == Grant(Role.PLATFORM_ADMIN, (EVERY,))
    assert found.holds_in("biomed")
    assert found.allows(Permission.PLATFORM)
    assert not Grant(Role.ADMIN, ("dteam",)).holds_in("biomed")


@pytest.mark.parametrize(
    ("issuer", "what"),
    [
        (wlcg(vos=()), "exactly one VO"),
        (wlcg(vos=("a", "b")), "exactly one VO"),
        (wlcg(vos=("*",)), "no VO"),
        (wlcg(vos=("",)), "no VO"),
        (wlcg(audiences=(), any_audience=False), "audiences"),
        (aarc(audiences=()), "audiences"),
        (wlcg(grant("group")), "no rule"),
        (wlcg(grant("group:")), "no rule"),
        (wlcg(grant("any:x")), "no rule"),
        (wlcg(grant("everybody")), "no rule"),
        (wlcg(grant(f"entitlement:{OPS}", vos=("dteam",))), "no rule of the profile wlcg"),
        (aarc(grant("group:/dteam")), "no rule of the profile aarc"),
        (aarc(grant("host:a.example")), "no rule of the profile aarc"),
        (aarc(grant(f"entitlement:{OPS}", "operator")), "needs the VOs"),
        (wlcg(grant("host:*")), "no host"),
        (wlcg(grant("host:*.*.example")), "no host"),
        (wlcg(grant("host:ce*.example")), "no host"),
        (wlcg(grant("host:CE1.example")), "no host"),
        (wlcg(grant("host:localhost")), "no host"),
        (wlcg(grant("any", "site-operator")), "needs sites"),
        (wlcg(grant("any", "reader", sites=("A",))), "not of sites"),
        (wlcg(grant("any", "platform-admin")), "by name only"),
        (aarc(grant("portal:x", "platform-admin")), "by name only"),
        (wlcg(grant("subject:s", "platform-admin", vos=("dteam",))), "every VO"),
        (wlcg(grant("any", "reporter", vos=("all",))), "reported by sites"),
        (wlcg(grant("any", "reader", vos=("*",))), "no VO"),
        (wlcg(grant("any", "reader", vos=("",))), "no VO"),
    ],
)
def test_a_rule_that_cannot_mean_what_it_says_is_refused_at_the_start(issuer: IssuerSettings, what: str) -> None:
    """Naming the setting."""
    with pytest.raises(SettingsError, match=r"setting issuers\.one") as caught:
        check_issuer("one", issuer)
    assert what in str(caught.value)


def test_good_rules_pass() -> None:
    """Of every sort."""
    check_issuer("one", wlcg(grant("any"), grant("host:*.a.example", "reporter", vos=("dteam", "all"), sites=("A",))))
    check_issuer(
        "two", aarc(grant(f"entitlement:{OPS}", "operator", vos=("dteam",)), grant("portal:x", "site-operator"))
    )
