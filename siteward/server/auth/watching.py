"""Who may watch the platform: the judgement of the door, for endpoints that are no routes of the application."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from siteward.log import get_logger
from siteward.server.auth import Permission
from siteward.server.auth.access import CHALLENGE, token_problem
from siteward.server.auth.caller import Caller
from siteward.server.auth.denied import DenyList, refuse_denied
from siteward.server.auth.door import check_trust, token_in, verifier_of
from siteward.server.auth.granting import grants_of
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.refusal import TokenRefused
from siteward.server.database import Conflict, DatabaseError
from siteward.server.databases import access_database
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.settings import Settings

ROLE: Final = "Your token does not allow this; it takes a role that may read the VO 'all'."
log = get_logger(__name__)


class Watchers:
    """Bearers of tokens of the trusted issuers, whose roles let them watch; any thread may ask, and may wait."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Trust the issuers of the settings; none is asked yet.

        Args:
            settings: of this installation, which name an issuer at least.
            clock: seconds since 1970 UTC.

        Raises:
            siteward.settings.SettingsError: an issuer or a grant cannot mean what it says, or our own issuer's file is
                no secret any more.
            OSError: that file can neither be read nor made.
        """
        check_trust(settings)
        local = LocalIssuer(settings.issuer_file, clock)
        self._settings = settings
        self._verifier = verifier_of(settings, local, clock)
        self._lock = Lock()
        self._denied: DenyList | None = None

    def objection(self, authorization: str) -> Problem | None:
        """Why a request may not pass; None where it may.

        Args:
            authorization: its header of that name; "" without.
        """
        text = token_in(authorization)
        if not text:
            return Problem(401, "This needs a token: send the header `Authorization: Bearer …`.", headers=CHALLENGE)
        try:
            identity = self._verifier.verify(text).identity
            refuse_denied(self._deny_list(), identity)
        except TokenRefused as refusal:
            return token_problem(refusal)
        except (SQLAlchemyError, DatabaseError, Conflict) as error:
            log.warning("the deny-list is not opened", error=str(error))
            return Problem(503, "the deny-list cannot be read now; try again later", headers=RETRY_AFTER)
        caller = Caller(identity, grants_of(identity, self._verifier.trusted(identity.issuer).settings))
        # What the platform's own look at is noted, at the application; here nobody could.
        return None if caller.without_platform().may(Permission.WATCH) else Problem(403, ROLE)

    def close(self) -> None:
        """Read the deny-list no more."""
        with self._lock:
            if self._denied is not None:
                self._denied.close()

    def _deny_list(self) -> DenyList:
        with self._lock:
            if self._denied is None:
                self._denied = DenyList(access_database(self._settings))
            return self._denied
