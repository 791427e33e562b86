"""What one question sees of a kind's indices: one state of them, however many requests it takes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final
from uuid import uuid4

from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from monitoring.stores.opensearch.conditions import Clause
from monitoring.stores.opensearch.errors import TOO_MANY, ClusterError, cluster_error
from monitoring.stores.opensearch.indices import kept_to, months, path_of
from monitoring.stores.opensearch.templates import TIME
from siteward.query import QueryError
from siteward.records import Kind

KEEP: Final = "2m"
"""How long the cluster keeps a state for the next request."""
MOST_BUCKETS: Final = 10_000
"""Buckets of one page."""
MOST_HITS: Final = 5_000
"""Records of one page."""
LEAST_HITS: Final = 500
"""Records of a page where fewer are wanted: many may be of the same instant, and all of those are looked at."""
_WHOLE: Final = {"allow_partial_search_results": "false"}
STARTING_SECONDS: Final = 5.0
"""How long a question waits for an index whose shards are just starting, as each new period's do for a moment."""
STARTING_PAUSE: Final = 0.1
_REFUSED: Final = 400
_NOT_NOW: Final = 503
_NEXT_PAGE: Final = "/_search/scroll"
_TOO_MUCH: Final = ("failed to create query", "too many nested clauses")
"""What the cluster says of filters that it does not take, as a fault of the question or of its own."""
Bucket = dict[str, Any]
"""One bucket of an aggregation: `key`, `doc_count` and the aggregations within it."""


class View:
    """A kind's records in some indices. What is missing or came too late is an error, never a smaller answer."""

    def __init__(self, client: OpenSearch, where: str, prefix: str, kind: Kind, indices: Sequence[str]) -> None:
        """Look at indices that are there; there may be none.

        Args:
            client: of the cluster.
            where: the cluster, as messages name it.
            prefix: of the installation.
            kind: whose indices.
            indices: their names.
        """
        self.kind = kind
        self._client = client
        self._where = where
        self._prefix = prefix
        self._indices = indices
        self._path = path_of(prefix, kind, indices)
        self._point = ""
        # Where no state is kept, the same copies of the shards at least answer all requests.
        self._parameters = {**_WHOLE, "ignore_unavailable": "true", "preference": uuid4().hex}

    @contextmanager
    def held(self) -> Iterator[View]:
        """Keep one state for all requests within, if the cluster does: it limits how many it keeps at a time.

        Raises:
            ClusterError: the cluster does not answer.
        """
        if not self._indices:
            yield self
            return
        path = f"/{self._path}/_search/point_in_time"
        parameters = {"keep_alive": KEEP, "allow_partial_pit_creation": "false", "ignore_unavailable": "true"}
        try:
            self._point = str(self._request("POST", path, parameters)["pit_id"])
        except ClusterError as error:
            # Refused as wrong is also a path whose last index was deleted just now.
            if error.status not in {TOO_MANY, _REFUSED}:
                raise
        try:
            yield self
        finally:
            if self._point:
                with suppress(ClusterError):
                    self._request("DELETE", "/_search/point_in_time", {}, {"pit_id": [self._point]})
                self._point = ""

    def buckets(
        self, query: Clause, sources: Sequence[Clause], aggregations: Clause, size: int = MOST_BUCKETS
    ) -> Iterator[Bucket]:
        """Every bucket that holds records, page by page; without sources, the one bucket of all records.

        Args:
            query: which records.
            sources: of a composite aggregation.
            aggregations: computed in each bucket.
            size: buckets of a page.

        Raises:
            ClusterError, QueryError: see search.
        """
        if not self._indices:
            return
        if not sources:
            answer = self.search({"size": 0, "track_total_hits": True, "query": query, "aggs": aggregations})
            count = answer["hits"]["total"]["value"]
            if count:
                yield {"key": {}, "doc_count": count, **answer.get("aggregations", {})}
            return
        composite: dict[str, Any] = {"size": size, "sources": sources}
        body = {"size": 0, "track_total_hits": False, "query": query}
        while True:
            answer = self.search(body | {"aggs": {"groups": {"composite": composite, "aggs": aggregations}}})
            # Without aggregations where the last of the indices was deleted just now.
            page = answer.get("aggregations", {}).get("groups", {"buckets": []})
            yield from page["buckets"]
            if len(page["buckets"]) < size:
                return
            composite["after"] = page["after_key"]

    def hits(
        self, query: Clause, fields: Sequence[str] | None = None, *, newest: bool = False, size: int = MOST_HITS
    ) -> Generator[dict[str, Any], None, None]:
        """Single records as the cluster holds them, with `_id` and `_source`, page by page.

        They are scrolled: no field is different for every record, so that pages found by the last record's values
        would lose or repeat some.

        Args:
            query: which records.
            fields: names of the fields wanted; None for all.
            newest: newest first; else in any order.
            size: records of a page.

        Raises:
            ClusterError, QueryError: see search.
        """
        body = {
            "size": size,
            "query": query,
            "_source": True if fields is None else fields,
            "sort": [{TIME: "desc"}] if newest else ["_doc"],
        }
        for indices in months(self._prefix, self.kind, self._indices):
            with closing(self._scroll(indices, body)) as found:
                yield from found

    def _scroll(self, indices: Sequence[str], body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        path = f"/{path_of(self._prefix, self.kind, indices)}/_search"
        body = body | {"query": kept_to(indices, body["query"])}
        answer = self._checked("POST", path, self._parameters | {"scroll": KEEP}, body)
        try:
            while True:
                yield from answer["hits"]["hits"]
                if len(answer["hits"]["hits"]) < body["size"]:
                    return
                again = {"scroll": KEEP, "scroll_id": answer["_scroll_id"]}
                answer = self._checked("POST", _NEXT_PAGE, {}, again)
        finally:
            # Nothing is kept where the last of the indices was deleted just now.
            if "_scroll_id" in answer:
                with suppress(ClusterError):
                    self._request("DELETE", "/_search/scroll", {}, {"scroll_id": [answer["_scroll_id"]]})

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """One request, of a query in the indices of the view.

        Raises:
            ClusterError: the cluster does not answer, or not wholly.
            QueryError: the filters are more, or more complex, than it takes.
        """
        body = body | {"query": kept_to(self._indices, body["query"])}
        if not self._point:
            return self._checked("POST", f"/{self._path}/_search", self._parameters, body)
        return self._checked("POST", "/_search", _WHOLE, body | {"pit": {"id": self._point, "keep_alive": KEEP}})

    def _checked(self, method: str, path: str, parameters: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        answer = self._request(method, path, parameters, body)
        if answer["timed_out"] or answer["_shards"]["failed"]:
            message = f"{self._where} answered only in part; ask again"
            raise ClusterError(message)
        return answer

    def _request(
        self, method: str, path: str, parameters: dict[str, str], body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        until = time.monotonic() + STARTING_SECONDS
        while True:
            try:
                return self._requested(method, path, parameters, body)
            except ClusterError as error:
                # The next page of a scroll is asked for once only: nobody knows whether it was given.
                if error.status != _NOT_NOW or path == _NEXT_PAGE or time.monotonic() > until:
                    raise
            time.sleep(STARTING_PAUSE)

    def _requested(
        self, method: str, path: str, parameters: dict[str, str], body: dict[str, Any] | None
    ) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._client.transport.perform_request(method, path, params=parameters, body=body)
        except UnicodeError as error:
            message = f"a value of the question cannot be sent to the store: {error}"
            raise QueryError(message) from error
        except OpenSearchException as error:
            problem = cluster_error(error, self._where)
            if any(words in str(problem) for words in _TOO_MUCH):
                message = f"the filters are too many or too complex for the store; use fewer wildcards ({problem})"
                raise QueryError(message) from error
            raise problem from error
        return answer
