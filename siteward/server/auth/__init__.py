"""Who may call a route: each declares one permission, and the app refuses to start when a route does not."""

from __future__ import annotations

from enum import StrEnum


class Permission(StrEnum):
    """What a caller must be allowed to do; every route asks for exactly one."""

    PUBLIC = "public"
    """Nothing: health checks, style sheets."""
    READ = "read"
    """See records, figures and pages."""
    REPORT = "report"
    """Send records."""
    OPERATE = "operate"
    """Change what others see: fix, replay and discard dead letters."""


class Requirement:
    """A route's permission, as the FastAPI dependency in which the route declares it.

    It lets every request pass: siteward.server.auth.access has judged the request before any of it was read.
    """

    def __init__(self, permission: Permission) -> None:
        """Keep the permission for those who walk over the routes."""
        self.permission = permission

    async def __call__(self) -> None:
        """Take part in a request as every dependency does."""


def requires(permission: Permission) -> Requirement:
    """Declare a route's permission: `dependencies=[Depends(requires(Permission.READ))]`."""
    return Requirement(permission)
