"""Retention: the monitoring store forgets the records of each kind when they are older than the kind says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from siteward.log import get_logger
from siteward.records import Kind

if TYPE_CHECKING:
    from siteward.server.resources import Resources

EVERY: Final = 3600.0
"""Seconds between two looks; retention is counted in days."""
_log = get_logger(__name__)


class ForgettingStore(Protocol):
    """The part of the Store contract that retention needs."""

    def forget(self, kind: str, before: datetime) -> int:
        """See monitoring.stores.Store.forget."""


def forget_expired(store: ForgettingStore, kinds: Mapping[str, Kind], now: datetime) -> dict[str, int]:
    """Forget what is older than its kind's retention.

    Args:
        store: where records are.
        kinds: all kinds; one without a retention is kept for ever.
        now: the present instant.

    Returns:
        Number of records forgotten by kind, of the kinds that had any.
    """
    forgotten = {
        name: store.forget(name, now - kind.retention) for name, kind in kinds.items() if kind.retention is not None
    }
    return {name: count for name, count in forgotten.items() if count}


def run(resources: Resources) -> None:
    """The periodic task."""
    forgotten = forget_expired(resources.store, resources.kinds, datetime.now(UTC))
    if forgotten:
        _log.info("records are past their retention", **forgotten)
        resources.note_task("retention", forgotten)


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module's attributes are of any type.
    """`task`, made when it is asked for: the store alone needs no scheduler."""
    if name == "task":
        from siteward.server.auth import Permission  # noqa: PLC0415  # see above.
        from siteward.server.schedule import Task  # noqa: PLC0415  # see above.

        return Task(name="retention", every=EVERY, permission=Permission.PLATFORM, run=run)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
