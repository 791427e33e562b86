"""What a caller sees and may write, from its roles alone."""

from __future__ import annotations

from typing import Any

import pytest
from examples import JOB

from siteward.people import Nobody
from siteward.server.auth import Permission
from siteward.server.auth.caller import Ambiguous, Caller
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.sight import Sight
from siteward.viewer import Viewer, Visible


def caller(*grants: Grant, **parts: Any) -> Caller:
    """Somebody with these roles."""
    given: dict[str, Any] = {"issuer": "i", "subject": "s", "token": "t", "expires": 0.0, "person": "anna"}
    return Caller(Identity(**(given | parts)), grants)


@pytest.mark.parametrize(
    ("grants", "viewer"),
    [
        ((Grant(Role.READER, ("a",)),), Viewer(visible=Visible.VO, names=False, vos=("a", "all"), person="anna")),
        (
            (Grant(Role.READER, ("a",)), Grant(Role.READER, ("b",))),
            Viewer(visible=Visible.VO, names=False, vos=("a", "b", "all"), person="anna"),
        ),
        ((Grant(Role.USER, ("a",)),), Viewer(visible=Visible.OWN, names=False, vos=("a",), person="anna")),
        (
            (Grant(Role.USER, ("a",)), Grant(Role.READER, ("a",))),
            Viewer(visible=Visible.VO, names=False, vos=("a", "all"), person="anna"),
        ),
        (
            (Grant(Role.ACCOUNTANT, ("a",)),),
            Viewer(visible=Visible.VO, names=True, vos=("a",), beside=("all",), person="anna"),
        ),
        (
            (Grant(Role.ACCOUNTANT, ("a", "all")),),
            Viewer(visible=Visible.VO, names=True, vos=("a", "all"), person="anna"),
        ),
        (
            (Grant(Role.SITE_OPERATOR, ("a",), ("Y", "X")), Grant(Role.SITE_OPERATOR, ("a",), ("X",))),
            Viewer(visible=Visible.VO, names=False, vos=("a", "all"), person="anna", sites=("X", "Y")),
        ),
        (
            (Grant(Role.SITE_OPERATOR, ("a",), ("X",)), Grant(Role.READER, ("a",))),
            Viewer(visible=Visible.VO, names=False, vos=("a", "all"), person="anna"),
        ),
        ((Grant(Role.PLATFORM_ADMIN, (EVERY,)),), Viewer(visible=Visible.ALL, names=True)),
    ],
)
def test_roles_tell_what_is_seen(grants: tuple[Grant, ...], viewer: Viewer) -> None:
    """The widest of a VO's roles; what all share beside it."""
    assert caller(*grants).viewer() == viewer


def test_different_sights_are_never_mixed() -> None:
    """Whoever sees more in one VO than in another says which one is asked."""
    mixed = caller(Grant(Role.READER, ("a",)), Grant(Role.USER, ("b",)))
    with pytest.raises(Ambiguous, match="say which one"):
        mixed.viewer()
    assert mixed.viewer("a").visible is Visible.VO
    assert mixed.viewer("b").visible is Visible.OWN
    with pytest.raises(PermissionError, match="may not read the VO"):
        mixed.viewer("c")


@pytest.mark.parametrize("grants", [(), (Grant(Role.REPORTER, ("a",)),)])
def test_who_may_read_nothing_sees_nothing(grants: tuple[Grant, ...]) -> None:
    """It is refused, and not answered as if there were nothing."""
    with pytest.raises(PermissionError):
        caller(*grants).viewer()


def test_own_records_need_a_name_by_which_records_know_their_owner() -> None:
    """An issuer may not say it."""
    with pytest.raises(PermissionError, match="what records call you"):
        caller(Grant(Role.USER, ("a",)), person="").viewer()


def test_people_of_what_all_share_are_not_for_a_vos_accountant() -> None:
    """Where a kind names people, records of `all` are left out for who may see names in the own VO only."""
    accountant = caller(Grant(Role.ACCOUNTANT, ("a",))).viewer()
    dimensions = {column.name: column for column in JOB.dimensions}
    (condition,) = Sight(JOB, accountant, dimensions, JOB.column, Nobody()).conditions
    assert condition.values == ("a",)


@pytest.mark.parametrize(
    ("grant", "vo", "site", "may"),
    [
        (Grant(Role.REPORTER, ("a",)), "a", "X", True),
        (Grant(Role.REPORTER, ("a",)), "b", "X", False),
        (Grant(Role.REPORTER, ("a",)), "A", "X", False),
        (Grant(Role.REPORTER, ("a", "all"), ("X",)), "all", "X", True),
        (Grant(Role.REPORTER, ("a", "all"), ("X",)), "all", "Y", False),
        (Grant(Role.ADMIN, ("a", "all")), "all", "X", False),
        (Grant(Role.ADMIN, ("a", "all")), "a", "X", True),
        (Grant(Role.PLATFORM_ADMIN, (EVERY,)), "all", "X", True),
        (Grant(Role.READER, ("a",)), "a", "X", False),
    ],
)
def test_what_a_role_may_report(grant: Grant, vo: str, site: str, *, may: bool) -> None:
    """What all share is reported by sites and by the platform only, whatever the role."""
    assert caller(grant).may_in(Permission.REPORT, vo, site) is may
