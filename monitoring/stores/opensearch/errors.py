"""What OpenSearch's errors say, in one line for people and as parts for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opensearchpy.exceptions import TransportError

from monitoring.stores import StoreError

LONGEST: Final = 400
"""Characters of a reason that are passed on: some quote the whole request."""
TOO_MANY: Final = 429
CONFIGURED: Final = frozenset({401, 403})
"""Statuses that say that somebody has to change rights or passwords; asking again later is all a program can do."""


class ClusterError(StoreError):
    """What a cluster said when it did not do what it was asked.

    Attributes:
        status: of HTTP; None where there was no answer.
        type: OpenSearch's word for the error, such as `mapper_parsing_exception`; "" where there is none.
    """

    def __init__(self, message: str, status: int | None = None, type_: str = "", *, permanent: bool = False) -> None:
        """Keep the parts."""
        super().__init__(message)
        self.status = status
        self.type = type_
        self.permanent = permanent


def cluster_error(error: Exception, where: str) -> ClusterError:
    """An error of opensearch-py as ours.

    Args:
        error: what was raised.
        where: the cluster, as the message is to name it.
    """
    status = status_of(error)
    if not isinstance(error, TransportError) or status is None:
        return ClusterError(f"{where} does not answer: {_cause(error)}")
    info = error.info if isinstance(error.info, Mapping) else {}
    said = info.get("error")
    type_ = str(said.get("type", "")) if isinstance(said, Mapping) else ""
    words = reason_of(said) if isinstance(said, Mapping) else str(said or error.error)[:LONGEST]
    if status in CONFIGURED and type_ != "cluster_block_exception":
        words += (
            "; check monitoring.url's user, monitoring.password and what this user may do (docs/how-to/opensearch.md)"
        )
    return ClusterError(f"{where} answers {status}: {words}", status, type_)


def status_of(error: Exception) -> int | None:
    """The HTTP status of an error; None where no answer came."""
    status = error.args[0] if isinstance(error, TransportError) and error.args else None
    return status if isinstance(status, int) else None


def reason_of(said: Mapping[str, Any]) -> str:
    """An error object of OpenSearch in words: its reason and what caused it, without repeating either."""
    reasons: list[str] = []
    cause: Any = said
    while isinstance(cause, Mapping):
        reason = " ".join(str(cause.get("reason") or cause.get("type") or "").split())
        if reason and not any(reason in other for other in reasons):
            reasons.append(reason)
        # "All shards failed" has no cause of its own; what the first of them said stands apart.
        cause = cause.get("caused_by") or next(iter(cause.get("root_cause", ())), None)
    text = "; ".join(reasons)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _cause(error: Exception) -> str:
    """The words below opensearch-py's wrapping."""
    inner = error.args[2] if isinstance(error, TransportError) and len(error.args) > 2 else error  # noqa: PLR2004  # see opensearch-py: status, words, cause.
    text = str(inner) or type(inner).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
