"""`/health`: whether the process lives, and whether what it stands on answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from fastapi import APIRouter, Depends

from siteward.log import get_logger
from siteward.records.identity import ID_BYTES
from siteward.server.auth import Permission, requires
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources

TURN_SECONDS: Final = 2.0
"""How long a question waits for an answer."""
GOOD_SECONDS: Final = 1.0
"""How long an answer is good for further questions."""
log = get_logger(__name__)


def router(resources: Resources) -> APIRouter:
    """The routes `/health/live` and `/health/ready`; anyone may ask, since whoever restarts services has no token."""
    routes = APIRouter(prefix="/health", dependencies=[Depends(requires(Permission.PUBLIC))])
    readiness = _Readiness(resources)

    @routes.get("/live")
    async def live() -> dict[str, str]:
        """The process answers; it says nothing of what stands behind it."""
        return {"status": "live"}

    @routes.get("/ready")
    async def ready() -> dict[str, str]:
        """Broker and store answer; 503 with the names of those that do not."""
        away = await readiness.away()
        if away:
            detail = f"{' and '.join(away)} {'does' if len(away) == 1 else 'do'} not answer; the log says why"
            raise Problem(503, detail, title="Not ready", headers=RETRY_AFTER, parts={"away": away})
        return {"status": "ready"}

    return routes


class _Readiness:
    """Asked by one thread at a time, whoever and however many want to know; an answer is good for a moment."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._lock = threading.Lock()
        self._asked: Future[list[str]] = Future()
        self._until = float("-inf")
        self._asked.set_result([])

    async def away(self) -> list[str]:
        """What does not answer."""
        with self._lock:
            if self._asked.done() and time.monotonic() >= self._until:
                self._asked = Future()
                # Of its own: what never answers keeps neither a route's thread nor the process.
                threading.Thread(target=self._look, args=(self._asked,), name="readiness", daemon=True).start()
            asked = self._asked
        try:
            # Who gives up does so for itself only.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(asked)), TURN_SECONDS)
        except TimeoutError:
            return [f"what was asked {TURN_SECONDS:.0f} s ago"]

    def _look(self, asked: Future[list[str]]) -> None:
        away = [name for name, ask in _asked(self._resources) if not _answers(name, ask)]
        self._until = time.monotonic() + GOOD_SECONDS
        asked.set_result(away)


def _asked(resources: Resources) -> list[tuple[str, Callable[[], object]]]:
    """The cheapest question to each: the queues' status, and a record that cannot exist."""
    kind = next(iter(resources.kinds), "")
    return [
        ("broker", lambda: resources.broker.status()),
        ("store", lambda: resources.store.records(kind, ids=[bytes(ID_BYTES)], limit=1)),
    ]


def _answers(name: str, ask: Callable[[], object]) -> bool:
    """Whether it does; why not is for the log: anybody may ask here."""
    try:
        ask()
    except Exception as error:  # noqa: BLE001  # whatever the reason, it does not answer.
        log.warning("not ready", resource=name, error=str(error))
        return False
    return True
