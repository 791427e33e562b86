"""Whoever sits at this machine and runs it; needs nothing beyond the base install."""

from __future__ import annotations

import getpass

import msgspec

from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.settings import Settings
from siteward.viewer import Viewer


def local_person() -> Caller:
    """The one who may do everything: the files are theirs."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    identity = Identity(issuer="", subject=name, token="", expires=float("inf"), person=name)
    return Caller(identity, (Grant(Role.PLATFORM_ADMIN, (EVERY,)),))


def local_viewer(settings: Settings) -> Viewer:
    """What they see: everything; people's names unless `access.names` says otherwise."""
    return with_names(local_person().viewer(), settings)


def with_names(viewer: Viewer, settings: Settings) -> Viewer:
    """A viewer to whom names are shown only where this installation shows any."""
    return msgspec.structs.replace(viewer, names=viewer.names and settings.access.names)
