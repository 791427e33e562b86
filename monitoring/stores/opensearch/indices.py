"""Which indices a question concerns: those that are there, and whose period meets the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, OpenSearchException

from monitoring.stores.opensearch.conditions import Clause, all_of, among
from monitoring.stores.opensearch.errors import ClusterError, cluster_error
from monitoring.stores.opensearch.templates import family, period_end, searched
from siteward.records import Kind

LONGEST_PATH: Final = 3000
"""Bytes of index names in a request's path: clusters take 4,096 of the whole line."""
_MONTH: Final = len("2026.11")


def found_indices(
    client: OpenSearch, where: str, prefix: str, kind: Kind, window: tuple[datetime | None, datetime | None]
) -> list[str]:
    """The kind's indices whose period meets a half-open window, oldest first.

    Raises:
        ClusterError: the cluster does not answer, or one of them is closed: the answer would lack its records.
    """
    try:
        path = f"/_resolve/index/{searched(prefix, kind)}?expand_wildcards=open,closed"
        answer = client.transport.perform_request("GET", path)
    except NotFoundError:
        return []
    except OpenSearchException as error:
        raise cluster_error(error, where) from error
    found: Sequence[Mapping[str, Any]] = answer["indices"]
    chosen = sorted((str(index["name"]), index) for index in found if _meets(prefix, kind, str(index["name"]), window))
    for name, index in chosen:
        if "closed" in index.get("attributes", ()):
            message = f"{where}: index {name} is closed, so that its records cannot be asked; open or delete it"
            raise ClusterError(message)
    return [name for name, _ in chosen]


def _meets(prefix: str, kind: Kind, index: str, window: tuple[datetime | None, datetime | None]) -> bool:
    after = period_end(prefix, kind, index)
    if after is None:
        return False
    start, end = window
    period = period_text(prefix, kind, index).split(".")
    first = date(int(period[0]), int(period[1]), int(period[2]) if period[2:] else 1)
    return (start is None or _midnight(after) > start) and (end is None or _midnight(first) < end)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def period_text(prefix: str, kind: Kind, index: str) -> str:
    """The period in an index's name."""
    return index.removeprefix(f"{family(prefix, kind)}-")


def months(prefix: str, kind: Kind, indices: Sequence[str]) -> list[list[str]]:
    """The indices by month, newest first: a kind that was given another retention has days and months side by side."""
    by_month: dict[str, list[str]] = {}
    for index in indices:
        by_month.setdefault(period_text(prefix, kind, index)[:_MONTH], []).append(index)
    return [by_month[month] for month in sorted(by_month, reverse=True)]


def path_of(prefix: str, kind: Kind, indices: Sequence[str]) -> str:
    """Indices as a request's path names them; by years where they are too many, `kept_to` then chooses within."""
    if not _is_long(indices):
        return ",".join(indices)
    years = sorted({period_text(prefix, kind, index).partition(".")[0] for index in indices})
    return ",".join(f"{family(prefix, kind)}-{year}.*" for year in years)


def kept_to(indices: Sequence[str], query: Clause) -> Clause:
    """A query that finds nothing in other indices, which a path that names them by years would take too."""
    return all_of([query, among("_index", indices)]) if _is_long(indices) else query


def _is_long(indices: Sequence[str]) -> bool:
    return len(",".join(indices)) > LONGEST_PATH
