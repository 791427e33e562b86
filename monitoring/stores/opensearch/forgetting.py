"""Retention: whole indices are deleted, never single records, and none that could still be receiving."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any, Final

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, OpenSearchException

from monitoring.stores.opensearch.errors import cluster_error
from monitoring.stores.opensearch.templates import RECEIVED, period_end, searched
from siteward.records import Kind, microseconds

_CONTENT: Final[dict[str, Any]] = {
    "size": 0,
    "track_total_hits": True,
    "aggs": {"received": {"max": {"field": RECEIVED}}},
}


def forget_indices(client: OpenSearch, where: str, prefix: str, kind: Kind, before: datetime) -> int:
    """Delete the indices of a kind whose period ended before an instant and that received nothing since.

    Args:
        client: of the cluster.
        where: the cluster, as messages name it.
        prefix: of the installation.
        kind: whose records.
        before: an instant in UTC.

    Returns:
        The number of records deleted.

    Raises:
        ClusterError: the cluster does not answer, or the user may not; some indices may be deleted.
    """
    try:
        path = f"/{searched(prefix, kind)}/_settings/index.uuid,index.blocks.write"
        found = client.transport.perform_request("GET", path)
        old = [index for index in sorted(found) if _is_over(prefix, kind, index, before)]
        return sum(_forget(client, index, microseconds(before), is_blocked=_is_blocked(found[index])) for index in old)
    except OpenSearchException as error:
        raise cluster_error(error, where) from error


def _is_over(prefix: str, kind: Kind, index: str, before: datetime) -> bool:
    end = period_end(prefix, kind, index)
    return end is not None and datetime.combine(end, time(), UTC) <= before


def _is_blocked(shown: dict[str, Any]) -> bool:
    blocks = shown.get("settings", {}).get("index", {}).get("blocks", {})
    return str(blocks.get("write", "false")) == "true"


def _forget(client: OpenSearch, index: str, before: int, *, is_blocked: bool) -> int:
    """Delete one index, if nothing came into it since.

    Writes are blocked before the last look, and wait: what is on its way while the index is deleted then goes into a
    new one. A process that died in between left the block behind; it is taken off where the index stays.
    """
    try:
        if _received_since(client, index, before) is None:
            if is_blocked:
                _unblock(client, index)
            return 0
        client.transport.perform_request("PUT", f"/{index}/_block/write")
        count = _received_since(client, index, before)
        if count is None:
            _unblock(client, index)
            return 0
        client.transport.perform_request("DELETE", f"/{index}")
    except NotFoundError:
        return 0  # Another process was faster, and has counted them.
    return count


def _received_since(client: OpenSearch, index: str, before: int) -> int | None:
    """The number of records of an index of which none was received since; None if one was."""
    client.transport.perform_request("POST", f"/{index}/_refresh")
    path = f"/{index}/_search?allow_partial_search_results=false"
    answer = client.transport.perform_request("POST", path, body=_CONTENT)
    last = answer["aggregations"]["received"]["value"]
    return None if last is not None and last >= before else int(answer["hits"]["total"]["value"])


def _unblock(client: OpenSearch, index: str) -> None:
    client.transport.perform_request("PUT", f"/{index}/_settings", body={"index.blocks.write": False})
