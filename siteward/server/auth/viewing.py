"""Who asks: the one place from which routes take their caller and their viewer."""

from __future__ import annotations

from typing import Final

from fastapi import Request

from siteward.server.auth.caller import Caller
from siteward.server.auth.local_person import with_names
from siteward.server.problems import Problem
from siteward.settings import Settings
from siteward.viewer import Viewer

VO_HEADER: Final = "siteward-vo"
"""By which a caller of several VOs says which one is asked."""


def caller_of(request: Request) -> Caller:
    """Whoever passed the door with this request."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def viewer_of(request: Request, settings: Settings) -> Viewer:
    """What the caller of a route sees.

    Raises:
        Problem: 403, it may not read that VO.
        siteward.server.auth.caller.Ambiguous: it has to say which VO is asked.
    """
    try:
        viewer = caller_of(request).viewer(request.headers.get(VO_HEADER, ""))
    except PermissionError as error:
        raise Problem(403, str(error)) from error
    return with_names(viewer, settings)
