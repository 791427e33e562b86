"""What changes anything is noted: before it is done, so that nothing is done unnoted, and again with what it became."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siteward.log import get_logger
from siteward.server.auth import Permission
from siteward.server.auth.audit import Audit
from siteward.server.auth.caller import Caller
from siteward.server.database import Conflict, DatabaseError
from siteward.server.problems import RETRY_AFTER, Problem

READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CHANGE: Final = "change"
UNNOTED: Final = frozenset({Permission.REPORT, Permission.SEND})
"""What records are sent by."""

log = get_logger(__name__)


class Auditing:
    """ASGI middleware, behind the door: notes every request that changes anything.

    Who sends records is noted by the gateway once they are queued: before, nobody knows whose they are, and how many.
    """

    def __init__(self, app: ASGIApp, audit: Callable[[], Audit]) -> None:
        """Take what opens the audit, when something is noted first."""
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note it before and after."""
        caller: Caller | None = scope.get("state", {}).get("caller")
        permission = scope.get("state", {}).get("permission")
        if scope["type"] != "http" or scope["method"] in READS or caller is None or permission in UNNOTED:
            await self._app(scope, receive, send)
            return
        try:
            audit = await asyncio.to_thread(self._audit)
            vos = () if permission is None else caller.only_in(permission)
            asked = await asyncio.to_thread(audit.ask, caller, f"{scope['method']} {scope['path']}", vos)
        except (SQLAlchemyError, DatabaseError, Conflict) as error:
            log.warning("the audit cannot be written", error=str(error))
            message = "the audit cannot be written now, and nothing is changed without it"
            await Problem(503, message, headers=RETRY_AFTER).response()(scope, receive, send)
            return
        status = "broken off"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            change: dict[str, Any] = scope["state"].get(CHANGE, {})
            try:
                await asyncio.to_thread(lambda: audit.end(asked, status, **change))
            except (SQLAlchemyError, Conflict) as error:
                # That it was asked for is noted; what it was, the log has to say.
                log.warning("the end of a change is not noted", number=asked.number, status=status, error=str(error))


def note_change(
    request: Request, *, vo: str = "", vos: Collection[str] = (), before: object = None, after: object = None
) -> None:
    """Say what a route changes, for the audit; also before it does, and again with more: what is said last counts.

    Args:
        request: that asked for it.
        vo: whose it is; "" where it is no VO's.
        vos: the same where it is several ones'; `*` for all.
        before: what it was.
        after: what it became.
    """
    named = (vo,) if vo else vos
    said: dict[str, Any] = request.scope["state"].setdefault(CHANGE, {})
    given = {"vos": named or None, "before": before, "after": after}
    said.update({name: value for name, value in given.items() if value is not None})
