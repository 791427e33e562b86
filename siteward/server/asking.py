"""What all routes have in common: no mistyped parameter, bounded bodies, and a bound on what waits for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, Final, TypeVar

import msgspec
from anyio import fail_after
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from siteward.records.doors import nearest
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.strict_json import strict_json

ASKED_AT_ONCE: Final = 16
"""Questions that one store is asked at the same time, fewer than there are threads: a store that hangs must not hang
the pages, nor the data path's figures."""
TURN_SECONDS: Final = 2.0
"""How long a further question waits before it is answered 503."""
LONGEST_BODY: Final = 2**16
"""Bytes of what a person says in a request."""
BODY_SECONDS: Final = 10.0
"""How long a body may take to come."""
TEXT: Final = r"^[^\x00]*$"
"""What every database keeps."""
Form = TypeVar("Form", bound=msgspec.Struct)


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
    """Refuse a mistyped parameter: without it, the answer would be to another question.

    And one with a character that no record holds, and that PostgreSQL takes in no question either.
    """
    known = tuple(field.alias for field in request.scope["route"].dependant.query_params)
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        detail = (
            f"parameter {unknown[:80]!r} is unknown{nearest(unknown, known)}; there are {', '.join(known) or 'none'}"
        )
        raise Problem(400, detail, title="Question refused", type="urn:siteward:query")
    unkept = next((name for name, value in request.query_params.multi_items() if "\0" in value), None)
    if unkept is not None:
        detail = f"parameter {unkept!r} holds a NUL character, which nothing here does"
        raise Problem(400, detail, title="Question refused", type="urn:siteward:query")


async def body_of(request: Request, form: type[Form]) -> Form:
    """A request's JSON, of which no more is read than a person says; nothing at all is an object without members.

    Args:
        request: the request.
        form: what it is to be; one that forbids unknown fields refuses mistyped ones.

    Raises:
        Problem: it is too long, comes too slowly, gives a name twice, or is not that.
    """
    body = bytearray()
    try:
        with fail_after(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > LONGEST_BODY:
                    raise Problem(413, f"The body has at most {LONGEST_BODY} bytes.")
        said = bytes(body) or b"{}"
        # Of a name that is given twice, msgspec would take the last.
        strict_json(said.decode())
        return msgspec.json.decode(said, type=form)
    except (TimeoutError, ClientDisconnect) as error:
        raise Problem(408, "The body did not come in time.") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise Problem(422, str(error), title="Request refused", type="urn:siteward:request") from error


def body_described(form: type[msgspec.Struct]) -> dict[str, Any]:
    """What OpenAPI says of such a body: the `openapi_extra` of its route."""
    _, schemas = msgspec.json.schema_components([form])
    return {"requestBody": {"content": {"application/json": {"schema": schemas[form.__name__]}}}}


def json_response(value: object, media_type: str = "application/json") -> Response:
    """A value as JSON; integers of any size stay exact."""
    return Response(msgspec.json.encode(value), media_type=media_type)
