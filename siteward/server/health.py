"""`/health`: whether the process lives, and whether what it stands on answers."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from fastapi import APIRouter, Depends

from siteward.log import get_logger
from siteward.records.identity import ID_BYTES
from siteward.server.auth import Permission, requires
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources

TURN_SECONDS: Final = 2.0
"""How long a question waits for the one before it."""
log = get_logger(__name__)


def router(resources: Resources) -> APIRouter:
    """The routes `/health/live` and `/health/ready`; anyone may ask, since whoever restarts services has no token."""
    routes = APIRouter(prefix="/health", dependencies=[Depends(requires(Permission.PUBLIC))])
    turn = Lock()

    @routes.get("/live")
    async def live() -> dict[str, str]:
        """The process answers; it says nothing of what stands behind it."""
        return {"status": "live"}

    @routes.get("/ready")
    def ready() -> dict[str, str]:
        """Broker and store answer; 503 with the reasons where they do not."""
        # Who asks again and again must not hang one thread after the other on something that does not answer.
        if not turn.acquire(timeout=TURN_SECONDS):
            detail = f"what was asked more than {TURN_SECONDS:.0f} s ago has not answered yet"
            raise Problem(503, detail, title="Not ready", headers=RETRY_AFTER)
        try:
            reasons = {name: reason for name, ask in _asked(resources) if (reason := _reason(name, ask))}
        finally:
            turn.release()
        if reasons:
            detail = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise Problem(503, detail, title="Not ready", headers=RETRY_AFTER, parts={"reasons": reasons})
        return {"status": "ready"}

    return routes


def _asked(resources: Resources) -> list[tuple[str, Callable[[], object]]]:
    """The cheapest question to each: the queues' status, and a record that cannot exist."""
    kind = next(iter(resources.kinds), "")
    return [
        ("broker", lambda: resources.broker.status()),
        ("store", lambda: resources.store.records(kind, ids=[bytes(ID_BYTES)], limit=1)),
    ]


def _reason(name: str, ask: Callable[[], object]) -> str:
    """Why it does not answer; "" where it does."""
    try:
        ask()
    except Exception as error:  # noqa: BLE001  # whatever the reason, it does not answer.
        log.warning("not ready", resource=name, error=str(error))
        return str(error) or type(error).__name__
    return ""
