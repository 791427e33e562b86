"""Who may call a route: each declares one permission, and the app refuses to start when a route does not."""

from __future__ import annotations

from enum import StrEnum


class Permission(StrEnum):
    """What a caller must be allowed to do; every route asks for exactly one."""

    PUBLIC = "public"
    """Nothing: health checks, style sheets."""
    IDENTIFIED = "identified"
    """Only a token that is believed, whatever it allows: whose it is, is told to its bearer."""
    READ = "read"
    """See records, figures and pages."""
    REPORT = "report"
    """Send records of any kind."""
    SEND = "send"
    """Send records of some kinds at least: report, or hold what a kind says that it may be sent by."""
    WATCH = "watch"
    """See how the platform itself does, in figures that name producers of any VO: a reader of what all share."""
    NAMES = "names"
    """See people's names, not only pseudonyms."""
    OPERATE = "operate"
    """Set the status of elements, overrule it, announce downtimes."""
    ACCOUNT = "account"
    """Correct records, close and sign periods."""
    ADMINISTER = "administer"
    """Look after one VO: its quotas, its audit, its people's identities."""
    PLATFORM = "platform"
    """Look after what no VO owns: queues, dead letters, the deny-list, the audit of all."""


def declared(permission: object, what: str) -> Permission:
    """A permission as somebody has declared it: what is none would be forgotten until somebody is let in by it.

    Raises:
        TypeError: it is something else, such as a text or None; who declares it is named.
    """
    if not isinstance(permission, Permission):
        known = ", ".join(each.name for each in Permission)
        message = f"{what} declares the permission {permission!r}; expected Permission.X, where X is one of {known}"
        raise TypeError(message)
    return permission


class Requirement:
    """A route's permission, as the FastAPI dependency in which the route declares it.

    It lets every request pass: siteward.server.auth.access has judged the request before any of it was read.
    """

    def __init__(self, permission: Permission) -> None:
        """Keep the permission for those who walk over the routes.

        Raises:
            TypeError: it is none.
        """
        self.permission = declared(permission, "a route")

    async def __call__(self) -> None:
        """Take part in a request as every dependency does."""


def requires(permission: Permission) -> Requirement:
    """Declare a route's permission: `dependencies=[Depends(requires(Permission.READ))]`."""
    return Requirement(permission)
