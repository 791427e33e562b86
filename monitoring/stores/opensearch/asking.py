"""The asking half of the store on OpenSearch: questions, values and single records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from heapq import nlargest, nsmallest
from itertools import groupby
from operator import add
from typing import Any, Final

from opensearchpy import OpenSearch

from monitoring.stores.opensearch.conditions import all_of, meeting, within
from monitoring.stores.opensearch.indices import found_indices
from monitoring.stores.opensearch.paging import Cells, gathered, order_of
from monitoring.stores.opensearch.question import Question
from monitoring.stores.opensearch.rows import record_of
from monitoring.stores.opensearch.templates import TIME, index_name
from monitoring.stores.opensearch.view import LEAST_HITS, MOST_HITS, View
from monitoring.stores.questions import (
    check_filters,
    check_ids,
    check_limit,
    check_query,
    known_dimension,
    known_kind,
    utc,
)
from siteward.query import Answer, Filter, Query, StoredRecord
from siteward.records import Kind, id_text, microseconds

Window = tuple[datetime | None, datetime | None]
_ALL: Final[Window] = (None, None)


class Asking:
    """Asks the indices of one prefix; any thread may."""

    def __init__(self, client: OpenSearch, kinds: Mapping[str, Kind], prefix: str, where: str = "OpenSearch") -> None:
        """Prepare; nothing is asked yet.

        Args:
            client: of the cluster.
            kinds: by name.
            prefix: how the names of all indices begin.
            where: the cluster, as messages name it.
        """
        self._client = client
        self._kinds = kinds
        self._prefix = prefix
        self._where = where

    def query(self, query: Query) -> Answer:
        """See Store.query. Percentiles may be approximate, and Answer.errors then says so."""
        kind, asked = check_query(self._kinds, query)
        with self._view(kind, (asked.start, asked.end)).held() as view:
            return Question(view, asked).answer()

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """See Store.values."""
        known = known_kind(self._kinds, kind)
        known_dimension(known, field)
        check_filters(known, filters)
        check_limit(limit)
        query = all_of(meeting(known, filters))
        with self._view(known, _ALL).held() as view:
            cells = Cells(known, (field,), 0)
            buckets = view.buckets(query, cells.sources(), {})
            counts = gathered(((*cells.placed(bucket), bucket["doc_count"]) for bucket in buckets), add)
            ordered = nsmallest(limit, counts, key=lambda counted: (-counted[1], order_of(counted[0][1])))
        return [value for (_, (value,)), _ in ordered]

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
        """See Store.records."""
        known = known_kind(self._kinds, kind)
        check_filters(known, filters)
        check_limit(limit)
        window = (start and utc(start, "start"), end and utc(end, "end"))
        clauses = [*within(*map(_microseconds, window)), *meeting(known, filters)]
        if ids:
            clauses.append({"ids": {"values": [id_text(identifier) for identifier in check_ids(ids)]}})
        view = self._view(known, window, ids)
        size = max(LEAST_HITS, min(limit + 1, MOST_HITS))
        with closing(view.hits(all_of(clauses), newest=True, size=size)) as hits:
            return [record_of(known, hit) for hit in _newest(hits, limit)]

    def _view(self, kind: Kind, window: Window, ids: Sequence[bytes] = ()) -> View:
        indices = found_indices(self._client, self._where, self._prefix, kind, window)
        if ids:
            theirs = {index_name(self._prefix, kind, each, daily=daily) for each in ids for daily in (False, True)}
            indices = [index for index in indices if index in theirs]
        return View(self._client, self._where, self._prefix, kind, indices)


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def _newest(hits: Iterator[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The first of hits that come newest first; of those at the same instant the ones with the largest ids."""
    found: list[dict[str, Any]] = []
    for _, together in groupby(hits, key=lambda hit: hit["_source"][TIME]):
        found += nlargest(limit - len(found), together, key=lambda hit: str(hit["_id"]))
        if len(found) == limit:
            break
    return found
