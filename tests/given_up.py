"""Transactions that a database made give way to others, seen where the driver tells: doing them again hides it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from siteward.server.database import Database


@contextmanager
def given_up(database: Database) -> Iterator[list[str]]:
    """What the driver said of each of them meanwhile, with the statement that gave way; from any thread."""
    said: list[str] = []

    def note(context: ExceptionContext) -> None:
        error = context.original_exception
        if database.dialect.is_conflict(error):
            said.append(f"{database.told(error)}: {(context.statement or '')[:200]}")

    event.listen(database.engine, "handle_error", note)
    try:
        yield said
    finally:
        event.remove(database.engine, "handle_error", note)
