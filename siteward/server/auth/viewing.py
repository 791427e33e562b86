"""Who asks: the one place from which routes take their caller and their viewer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError

from siteward.log import get_logger
from siteward.server.auth import Permission
from siteward.server.auth.caller import Ambiguous, Caller
from siteward.server.auth.local_person import with_names
from siteward.server.database import Conflict, DatabaseError
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.settings import Settings
from siteward.viewer import Viewer, Visible

VO_HEADER: Final = "siteward-vo"
"""By which a caller of several VOs says which one is asked."""
ALL_OF_THEM: Final = "*"
"""Said there: all that may be seen, of every VO for those who may see every one."""
NOTED_EVERY: Final = 3600.0
"""Seconds for which one note says that somebody looks at every VO; pages ask every few seconds."""
MOST_NOTED: Final = 10_000
log = get_logger(__name__)


class Wide:
    """Who is known to look at every VO at once, so that each is noted once an hour in each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody yet; the clock is in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[tuple[str, str], float] = {}

    def note(self, caller: Caller, note: Callable[[], None]) -> None:
        """Have it noted, unless that was done a while ago; what goes wrong is the note's to say."""
        who = caller.identity
        key, now = (who.issuer, who.subject), self._clock()
        with self._lock:
            if self._until.get(key, 0.0) > now:
                return
        note()
        with self._lock:
            if len(self._until) >= MOST_NOTED:
                self._until.clear()
            self._until[key] = now + NOTED_EVERY


def caller_of(request: Request) -> Caller:
    """Whoever passed the door with this request."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def viewer_of(request: Request, settings: Settings) -> Viewer:
    """What the caller of a route sees; whoever sees every VO says so, and is noted. May wait for the audit.

    Raises:
        Problem: 403, it may not read that VO; 503, that it looks at every VO cannot be noted.
        siteward.server.auth.caller.Ambiguous: it has to say which VO is asked.
    """
    caller, asked = caller_of(request), request.headers.get(VO_HEADER, "")
    try:
        viewer = caller.viewer("" if asked == ALL_OF_THEM else asked)
    except PermissionError as error:
        raise Problem(403, str(error)) from error
    # Whoever is at this machine without any token owns the files.
    if viewer.visible is Visible.ALL and caller.identity.issuer:
        if asked != ALL_OF_THEM:
            message = "you may see every VO; say which one is asked (header Siteward-VO), or * for all, which is noted"
            raise Ambiguous(message)
        _note(request, caller)
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
    _note(request, caller)
    return True


def _note(request: Request, caller: Caller) -> None:
    resources = request.app.state.resources

    def note() -> None:
        with resources.audited(caller, "see every VO", None):
            pass

    try:
        resources.shared("wide views", Wide).note(caller, note)
    except (SQLAlchemyError, DatabaseError, Conflict) as error:
        log.warning("the audit cannot be written", error=str(error))
        message = "the audit cannot be written now, and nobody sees every VO without it"
        raise Problem(503, message, headers=RETRY_AFTER) from error
