"""What all routes that ask have in common: no mistyped parameter, and a bound on what waits for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Final

import msgspec
from fastapi import Request, Response

from siteward.records.doors import nearest
from siteward.server.problems import RETRY_AFTER, Problem

ASKED_AT_ONCE: Final = 16
"""Questions that one store is asked at the same time, fewer than there are threads: a store that hangs must not hang
the pages, nor the data path's figures."""
TURN_SECONDS: Final = 2.0
"""How long a further question waits before it is answered 503."""


class Turns:
    """Lets so many ask at once."""

    def __init__(self, asked: str, at_once: int = ASKED_AT_ONCE) -> None:
        """Name who is asked, for the answer to those who wait in vain."""
        self._asked = asked
        self._at_once = at_once
        self._free = BoundedSemaphore(at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold a place while asking.

        Raises:
            Problem: there is none free.
        """
        if not self._free.acquire(timeout=TURN_SECONDS):
            message = f"{self._asked}: {self._at_once} questions wait for their answer already; try again later"
            raise Problem(503, message, headers=RETRY_AFTER)
        try:
            yield
        finally:
            self._free.release()


async def refuse_unknown(request: Request) -> None:
    """Refuse a mistyped parameter: without it, the answer would be to another question."""
    known = tuple(field.alias for field in request.scope["route"].dependant.query_params)
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        detail = (
            f"parameter {unknown[:80]!r} is unknown{nearest(unknown, known)}; there are {', '.join(known) or 'none'}"
        )
        raise Problem(400, detail, title="Question refused", type="urn:siteward:query")


def json_response(value: object, media_type: str = "application/json") -> Response:
    """A value as JSON; integers of any size stay exact."""
    return Response(msgspec.json.encode(value), media_type=media_type)
