"""The store contract: what is happening now and lately, written idempotently and asked in one language.

Implementations live beside this file and are chosen by the URL's scheme (entry points `siteward.stores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from siteward.query import Answer, Filter, Query, StoredRecord
from siteward.sinks import Batch, Written


class StoreError(Exception):
    """A store did not do what it was asked; `permanent` says whether asking again can help."""

    permanent = False


class Store(Protocol):
    """Keeps records for their kind's retention. Every method may be called from any thread and may block."""

    def write(self, batch: Batch) -> Written:
        """Commit a batch, as the sink contract asks: idempotent by record id, newer revisions replace.

        Raises:
            siteward.sinks.SinkUnavailable: try the same batch again later.
        """

    def query(self, query: Query) -> Answer:
        """Answer a question exactly.

        Raises:
            siteward.query.QueryError: the question names what the kind does not have.
            StoreError: the store cannot answer now.
        """

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """Distinct values of a dimension, most frequent first, then by value; at most `limit`.

        Raises:
            siteward.query.QueryError: unknown kind or dimension.
        """

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        """Single records, newest first: those with the ids, or those within the window that meet the filters.

        Raises:
            siteward.query.QueryError: unknown kind or field.
        """

    def forget(self, kind: str, before: datetime) -> int:
        """Delete the records of a kind whose partition time and receipt are both before an instant; the number deleted.

        The receipt counts too, so that an old log, imported today, is not deleted tomorrow. A store that deletes
        whole periods, such as months, may keep the records of one until all of them may go.
        """
