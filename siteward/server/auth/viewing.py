"""Who asks: the one place from which routes take their caller and their viewer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Header, Request
from sqlalchemy.exc import SQLAlchemyError

from siteward.log import get_logger
from siteward.server.auth import Permission
from siteward.server.auth.asked_names import Fields, without_names
from siteward.server.auth.audit import SEEN
from siteward.server.auth.caller import Ambiguous, Caller
from siteward.server.auth.local_person import with_names
from siteward.server.auth.roles import EVERY
from siteward.server.database import Conflict, DatabaseError
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.settings import Settings
from siteward.viewer import Viewer, Visible

if TYPE_CHECKING:
    from siteward.server.resources import Resources

VO_HEADER: Final = "siteward-vo"
"""By which a caller of several VOs says which one is asked."""
ALL_OF_THEM: Final = "*"
"""Said there: all that may be seen, of every VO for those who may see every one."""
NOTED_EVERY: Final = 3600.0
"""Seconds for which one note says that somebody looks at something as the platform; pages ask every few seconds."""
MOST_NOTED: Final = 10_000
Look = tuple[str, ...]
"""Who looks at what, and of which VOs."""
log = get_logger(__name__)


class Looks:
    """Who is known to look at what, so that each is noted once an hour in each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody yet; the clock is in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[Look, float] = {}

    def note(self, look: Look, note: Callable[[], object]) -> None:
        """Have it noted, unless that was done a while ago; what goes wrong is the note's to say."""
        now = self._clock()
        with self._lock:
            if self._until.get(look, 0.0) > now:
                return
        note()
        with self._lock:
            if len(self._until) >= MOST_NOTED:
                self._until.clear()
            self._until[look] = now + NOTED_EVERY


def vo_asked(
    siteward_vo: Annotated[
        str,
        Header(
            alias="Siteward-VO",
            description="The VO that is asked, for callers of several; `*` for all that may be seen, which has to be "
            "said where that is every VO, and is noted.",
        ),
    ] = "",
) -> str:
    """The VO that a request names; a dependency of the routes that ask `viewer_of`, so that OpenAPI tells of it."""
    return siteward_vo


def caller_of(request: Request) -> Caller:
    """Whoever passed the door with this request."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def viewer_of(request: Request, settings: Settings) -> Viewer:
    """What the caller of a route sees; whoever sees every VO says so, and is noted. May wait for the audit.

    Raises:
        Problem: 403, it may not read that VO; 503, that it looks as one of the platform's people cannot be noted.
        siteward.server.auth.caller.Ambiguous: it has to say which VO is asked.
    """
    caller, asked = caller_of(request), request.headers.get(VO_HEADER, "")
    vo = "" if asked == ALL_OF_THEM else asked
    try:
        viewer = caller.viewer(vo)
    except PermissionError as error:
        raise Problem(403, str(error)) from error
    if viewer.visible is Visible.ALL:
        # Whoever is at this machine without any token owns the files.
        if asked != ALL_OF_THEM and caller.identity.issuer:
            message = "you may see every VO; say which one is asked (header Siteward-VO), or * for all, which is noted"
            raise Ambiguous(message)
        note_look(request, (EVERY,))
    elif vo and caller.sees_as_platform(vo):
        note_look(request, (vo,))
    return with_names(viewer, settings)


def asks_for_all(request: Request) -> bool:
    """Whether somebody who looks after the platform asks for what is of every VO, or of none; noted. May wait for it.

    Raises:
        Problem: 503, that it looks at every VO cannot be noted.
    """
    caller = caller_of(request)
    if not caller.may(Permission.PLATFORM):
        return False
    if not caller.identity.issuer:
        return True
    if request.headers.get(VO_HEADER, "") != ALL_OF_THEM:
        return False
    note_look(request, (EVERY,))
    return True


def note_look(request: Request, vos: Collection[str]) -> None:
    """Note that somebody looks, by a role of the platform's, at what is others'; once an hour for each path.

    Args:
        request: by which; its method, path and query are noted, without the names in its conditions.
        vos: whose it is; EVERY for all, none where that is not known.

    Raises:
        Problem: 503, it cannot be noted now, and must not be answered.
    """
    caller, resources = caller_of(request), request.app.state.resources
    who, action = caller.identity, f"{request.method} {request.scope['path']}"
    if not who.issuer:
        return

    def note() -> None:
        resources.audit.note(caller, action, SEEN, vos, {"query": _query(request, resources)})

    try:
        resources.shared("looks", Looks).note((who.issuer, who.subject, action, *sorted(vos)), note)
    except (SQLAlchemyError, DatabaseError, Conflict) as error:
        log.warning("the audit cannot be written", error=str(error))
        message = "the audit cannot be written now, and nobody looks at what is others' without it"
        raise Problem(503, message, headers=RETRY_AFTER) from error


def note_platform(request: Request, permission: Permission, vo: str = "") -> None:
    """Note a look for which the caller has no other right than a role of the platform's; see `note_look`.

    Args:
        request: by which.
        permission: what it takes.
        vo: in which VO; "" where one in any would do.
    """
    member = caller_of(request).without_platform()
    if not (member.may_in(permission, vo) if vo else member.may(permission)):
        note_look(request, (vo or EVERY,))


def _query(request: Request, resources: Resources) -> list[tuple[str, str]]:
    """The parameters of a question, without people's names: the audit is never rewritten."""
    fields = Fields.of(resources.kinds.values())
    return [(name, without_names(name, value, fields)) for name, value in request.query_params.multi_items()]
