"""What routes that ask the ledger share: the ledger itself, and answers of its database or why there is none now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError

from accounting import LedgerError
from accounting.ledger import Ledger
from accounting.opening import open_ledger
from siteward.log import get_logger
from siteward.server.asking import Turns
from siteward.server.database import Conflict, DatabaseError
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources
from siteward.server.shares import ShareOf
from siteward.sinks import SinkUnavailable

log = get_logger(__name__)
Answered = TypeVar("Answered")
_turns: Final = Turns("ledger")
of_ledger: Final = ShareOf("ledger")
"""Dependency of every route that asks the ledger."""


def ledger_of(request: Request) -> Ledger:
    """The ledger, shared by all routes.

    Raises:
        Problem: it cannot be opened.
    """
    resources: Resources = request.app.state.resources

    def opening() -> Ledger:
        return open_ledger(resources.settings, resources.kinds)

    try:
        return resources.shared("ledger", opening)
    except (DatabaseError, LedgerError) as error:
        raise Problem(500, f"ledger: {error}") from error
    except SinkUnavailable as error:
        raise Problem(503, f"ledger: {error}") from error


def answered(ask: Callable[[], Answered]) -> Answered:
    """The ledger's answer; 503 where it cannot answer, or decide, now."""
    try:
        with _turns.turn():
            return ask()
    except SQLAlchemyError as error:
        # Its text holds the statement and what was asked for.
        log.warning("the ledger does not answer", reason=str(error))
        message = "ledger: its database does not answer now; the log says why"
        raise Problem(503, message, headers=RETRY_AFTER) from error
    except (Conflict, SinkUnavailable) as error:
        raise Problem(503, f"ledger: {error}", headers=RETRY_AFTER) from error
