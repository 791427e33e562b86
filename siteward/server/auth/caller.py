"""Whoever passed the door: an identity with its roles, and what of the records that lets it see and write."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from siteward.query import QueryError
from siteward.server.auth import Permission
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import EVERY, SENDING, SHARED, Grant, Role
from siteward.viewer import Viewer, Visible


class Ambiguous(QueryError):  # noqa: N818  # reads as what the question is.
    """The caller sees different things in different VOs, and did not say which one is asked."""


class _View(msgspec.Struct, frozen=True):
    """What a caller sees of one VO."""

    visible: Visible
    names: bool
    sites: tuple[str, ...]


class Reads(msgspec.Struct, frozen=True):
    """What a caller may ask for by the header Siteward-VO.

    Attributes:
        vos: in which it has a role.
        all: it may ask for all that it sees at once.
        noted: that would be every VO's, and is noted; single ones may be asked for beside those it has a role in.
    """

    vos: tuple[str, ...]
    all: bool = False
    noted: bool = False


class Caller(msgspec.Struct, frozen=True):
    """One caller.

    Attributes:
        identity: whom the token proves; of the person at this machine, without any token, that one's.
        grants: its roles.
        by_cookie: it is a browser's session, and so what any page may make the browser send.
    """

    identity: Identity
    grants: tuple[Grant, ...]
    by_cookie: bool = False

    def may(self, permission: Permission) -> bool:
        """Whether any of its roles allows that; for which VO is asked where the VO is known."""
        return permission is Permission.IDENTIFIED or any(grant.allows(permission) for grant in self.grants)

    def may_in(self, permission: Permission, vo: str, site: str = "") -> bool:
        """Whether it may do that in a VO, to an element or a record of a site."""
        return any(
            grant.allows(permission) and grant.holds_in(vo) and _is_of(grant, permission, vo, site)
            for grant in self.grants
        )

    def only_in(self, permission: Permission) -> tuple[str, ...]:
        """The VOs beyond which nothing is allowed that a permission is about; none where it is in every one."""
        vos = sorted({vo for grant in self.grants if grant.allows(permission) for vo in grant.vos})
        return () if EVERY in vos else tuple(vos)

    def places_of(self, permission: Permission) -> tuple[str, ...]:
        """The VOs of whose places a request may take one that a permission is about.

        What all share is nobody's, unless it has nothing else.
        """
        grants = [grant for grant in self.grants if grant.allows(permission)] or self.grants
        vos = tuple(dict.fromkeys(vo for grant in grants for vo in grant.vos))
        return tuple(vo for vo in vos if vo != SHARED) or vos

    def reads(self) -> Reads:
        """Which VOs it may read, and whether all of that at once."""
        vos = {vo for grant in self.grants if grant.allows(Permission.READ) for vo in grant.vos}
        try:
            seen = self.viewer().visible
        except (Ambiguous, PermissionError):
            return Reads(tuple(sorted(vos - {EVERY})))
        is_noted = seen is Visible.ALL and bool(self.identity.issuer)
        return Reads(tuple(sorted(vos - {EVERY})), all=True, noted=is_noted)

    def without_platform(self) -> Caller:
        """The same with the roles only that name their VOs."""
        return msgspec.structs.replace(self, grants=tuple(grant for grant in self.grants if EVERY not in grant.vos))

    def sees_as_platform(self, vo: str) -> bool:
        """Whether it sees more of a VO than its roles in that VO show."""
        member, shown = self.without_platform(), self.viewer(vo)
        if member == self:
            return False
        try:
            own = member.viewer(vo)
        except PermissionError:
            return True
        return own.visible is not shown.visible or bool(own.sites) or own.names < shown.names

    def viewer(self, vo: str = "") -> Viewer:
        """What it sees of the records.

        Args:
            vo: only of this VO; by default of all that it may read, where it sees the same in each.

        Raises:
            Ambiguous: it sees different things in them, and has to say which one.
            PermissionError: it may not read that VO, or any.
        """
        readable = [grant for grant in self.grants if grant.allows(Permission.READ)]
        names_everywhere = any(EVERY in grant.vos and grant.allows(Permission.NAMES) for grant in readable)
        if any(EVERY in grant.vos for grant in readable):
            if not vo:
                return Viewer(visible=Visible.ALL, names=names_everywhere)
            return Viewer(visible=Visible.VO, names=names_everywhere, vos=(vo,))
        vos = tuple(dict.fromkeys(each for grant in readable for each in grant.vos))
        if vo and vo not in vos:
            _deny(f"you may not read the VO {vo!r}; you may {', '.join(vos) or 'none'}")
        chosen = (vo,) if vo else vos
        if not chosen:
            _deny("you may not read any VO")
        views = {self._view(each, readable) for each in chosen}
        if len(views) > 1:
            message = f"you see different things in {', '.join(chosen)}; say which one is asked (header Siteward-VO)"
            raise Ambiguous(message)
        (view,) = views
        # What all share is nobody's own.
        beside = () if view.visible is Visible.OWN or SHARED in chosen else (SHARED,)
        if view.visible is Visible.OWN and not self.identity.person:
            _deny("you see records of your own only, and your token does not say what records call you")
        return Viewer(
            visible=view.visible,
            names=view.names,
            vos=chosen if view.names else (*chosen, *beside),
            beside=beside if view.names else (),
            person=self.identity.person,
            sites=view.sites,
        )

    def _view(self, vo: str, readable: list[Grant]) -> _View:
        here = [grant for grant in readable if grant.holds_in(vo)]
        wide = [grant for grant in here if grant.role is not Role.USER]
        names = any(grant.allows(Permission.NAMES) for grant in here)
        if not wide:
            return _View(Visible.OWN, names, ())
        if any(not grant.sites for grant in wide):
            return _View(Visible.VO, names, ())
        return _View(Visible.VO, names, tuple(sorted({site for grant in wide for site in grant.sites})))


def _is_of(grant: Grant, permission: Permission, vo: str, site: str) -> bool:
    """Whether a role is of a site; records of what all share are sent by sites and by the platform only."""
    if permission in SENDING and vo == SHARED and not grant.sites:
        return EVERY in grant.vos
    return not grant.sites or site in grant.sites


def _deny(message: str) -> NoReturn:
    raise PermissionError(message)
