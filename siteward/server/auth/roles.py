"""What roles allow: deny by default; pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from siteward.records.declaration import SENT_BY
from siteward.server.auth import Permission

SHARED: Final = "all"
"""The VO of infrastructure that all share."""
EVERY: Final = "*"
"""Stands for every VO in a grant of the platform's own people."""
SENDING: Final = frozenset({Permission.REPORT, *map(Permission, SENT_BY)})
"""Whoever has one of these may send records of some kind."""


class Role(StrEnum):
    """What somebody is to one VO, or, where that says so, to sites or to the whole platform."""

    READER = "reader"
    """Sees what the VO used, people as pseudonyms."""
    USER = "user"
    """Sees records of their own."""
    REPORTER = "reporter"
    """Sends records, and sees none."""
    OPERATOR = "operator"
    """Sets status, overrides, downtimes."""
    SITE_OPERATOR = "site-operator"
    """The same for single sites."""
    ACCOUNTANT = "accountant"
    """Corrects, closes and signs."""
    ADMIN = "admin"
    """All of it within the VO."""
    PLATFORM_ADMIN = "platform-admin"
    """All of it, in every VO, and what no VO owns: queues, dead letters, the deny-list."""


PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.READER: frozenset({Permission.READ}),
    Role.USER: frozenset({Permission.READ}),
    Role.REPORTER: frozenset({Permission.REPORT}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.OPERATE}),
    Role.SITE_OPERATOR: frozenset({Permission.READ, Permission.OPERATE}),
    Role.ACCOUNTANT: frozenset({Permission.READ, Permission.NAMES, Permission.ACCOUNT}),
    Role.ADMIN: frozenset(
        {
            Permission.READ,
            Permission.NAMES,
            Permission.REPORT,
            Permission.OPERATE,
            Permission.ACCOUNT,
            Permission.ADMINISTER,
        }
    ),
    Role.PLATFORM_ADMIN: frozenset(
        set(Permission) - {Permission.PUBLIC, Permission.IDENTIFIED, Permission.WATCH, Permission.SEND}
    ),
}
"""What each role allows; whatever is not here is denied."""


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One role of one bearer.

    Attributes:
        role: which.
        vos: in which VOs; EVERY for all.
        sites: of which sites only; () for all.
    """

    role: Role
    vos: tuple[str, ...]
    sites: tuple[str, ...] = ()

    def allows(self, permission: Permission) -> bool:
        """Whether the role allows that, wherever it holds."""
        if permission is Permission.WATCH:
            # A user sees records of its own; what counts all of them is none.
            is_reading = self.role is not Role.USER and self.allows(Permission.READ)
            return is_reading and not self.sites and self.holds_in(SHARED)
        if permission is Permission.SEND:
            return bool(SENDING & PERMISSIONS[self.role])
        return permission in PERMISSIONS[self.role]

    def holds_in(self, vo: str) -> bool:
        """Whether the role holds in a VO."""
        return vo in self.vos or EVERY in self.vos


OF_SITES: Final = frozenset({Role.REPORTER, Role.SITE_OPERATOR})
"""Roles that may be of single sites."""


def grant(role: Role, vos: tuple[str, ...], sites: tuple[str, ...] = ()) -> Grant:
    """A role, if it can mean what it says.

    Raises:
        ValueError: saying what is missing, or too much.
    """
    if role is Role.PLATFORM_ADMIN:
        if vos or sites:
            message = "platform-admin holds in every VO and for every site; name none"
            raise ValueError(message)
        return Grant(role, (EVERY,))
    if not vos or "" in vos or EVERY in vos:
        message = f"the role {role} holds in VOs; name them"
        raise ValueError(message)
    if role is Role.SITE_OPERATOR and not sites:
        message = "a site-operator needs sites"
        raise ValueError(message)
    if "" in sites or (sites and role not in OF_SITES):
        message = f"the role {role} is not of sites; only {' and '.join(sorted(OF_SITES))} are"
        raise ValueError(message)
    if SHARED in vos and role is Role.REPORTER and not sites:
        message = f"records of shared infrastructure (VO {SHARED!r}) are reported by sites; name them"
        raise ValueError(message)
    return Grant(role, vos, sites)
