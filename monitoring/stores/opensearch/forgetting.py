"""Retention: whole indices are deleted, never single records, and none that could still be receiving."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, time
from typing import Any, Final

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, OpenSearchException

from monitoring.stores.opensearch.errors import cluster_error
from monitoring.stores.opensearch.templates import OWN, RECEIVED, period_end, searched
from siteward.records import Kind, microseconds

_CONTENT: Final[dict[str, Any]] = {
    "size": 0,
    "track_total_hits": True,
    "aggs": {"received": {"max": {"field": RECEIVED}}},
}

ABANDONED: Final = 600.0
"""Seconds after which a block is taken for one that a process left behind when it died; deleting takes a few."""
_FORGETTING: Final = "forgetting"
"""In an index's `_meta`: when a process began to delete it, seconds since 1970 UTC."""


def forget_indices(client: OpenSearch, where: str, prefix: str, kind: Kind, before: datetime) -> int:
    """Delete the indices of a kind whose period ended before an instant and that received nothing since.

    Blocks that a process left behind when it died are taken off the indices that stay, whether or not they are over.

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
        ours = [index for index in sorted(found) if period_end(prefix, kind, index) is not None]
        blocked = [index for index in ours if _is_blocked(found[index])]
        busy = _being_forgotten(client, blocked)
        old = [index for index in ours if index not in busy and _is_over(prefix, kind, index, before)]
        count = sum(_forget(client, index, microseconds(before), is_blocked=index in blocked) for index in old)
        for index in blocked:
            if index not in busy and index not in old:
                with suppress(NotFoundError):
                    _unblock(client, index)
    except OpenSearchException as error:
        raise cluster_error(error, where) from error
    return count


def _is_over(prefix: str, kind: Kind, index: str, before: datetime) -> bool:
    end = period_end(prefix, kind, index)
    return end is not None and datetime.combine(end, time(), UTC) <= before


def _is_blocked(shown: dict[str, Any]) -> bool:
    blocks = shown.get("settings", {}).get("index", {}).get("blocks", {})
    return str(blocks.get("write", "false")) == "true"


def _being_forgotten(client: OpenSearch, blocked: Sequence[str]) -> set[str]:
    """Blocked indices that another process is deleting just now; they are left to it, with its block."""
    since = clock.time() - ABANDONED
    return {index for index in blocked if _begun(client, index) > since}


def _begun(client: OpenSearch, index: str) -> float:
    try:
        found = client.transport.perform_request("GET", f"/{index}/_mapping")
    except NotFoundError:
        return clock.time()  # It is deleted by now.
    own = found[index]["mappings"].get("_meta", {}).get(OWN, {})
    return float(own.get(_FORGETTING, 0)) if isinstance(own, Mapping) else 0.0


def _forget(client: OpenSearch, index: str, before: int, *, is_blocked: bool) -> int:
    """Delete one index, if nothing came into it since.

    Writes are blocked before the last look, and wait: what is on its way while the index is deleted then goes into a
    new one. The block is taken off wherever the index stays, also one that was there at the start.
    """
    try:
        count = _received_since(client, index, before)
        if count is not None:
            count = _delete(client, index, before)
        elif is_blocked:
            _unblock(client, index)
    except NotFoundError:
        return 0  # Another process was faster, and has counted them.
    return count or 0


def _delete(client: OpenSearch, index: str, before: int) -> int | None:
    """The number of records deleted; None where the index stays, because something came into it."""
    mark = {"_meta": {OWN: {_FORGETTING: clock.time()}}}
    client.transport.perform_request("PUT", f"/{index}/_mapping", body=mark)
    try:
        client.transport.perform_request("PUT", f"/{index}/_block/write")
        count = _received_since(client, index, before)
        if count is not None:
            client.transport.perform_request("DELETE", f"/{index}")
    except BaseException:
        # Where nobody answers, what failed is what is said, and a later run takes the block off.
        with suppress(OpenSearchException):
            _unblock(client, index)
        raise
    if count is None:
        _unblock(client, index)
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
