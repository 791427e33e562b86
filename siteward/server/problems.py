"""Every error as problem details (RFC 9457): what went wrong, where, and what to do; never what is inside."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from siteward.broker import BrokerError, BrokerFull
from siteward.people import PeopleUnavailable
from siteward.query import QueryError
from siteward.records import Refused
from siteward.records.refusal import shown
from siteward.settings import SettingsError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = {"Retry-After": "5"}
"""What answers of "not now" carry: seconds after which to ask again."""


class Problem(Exception):  # noqa: N818  # the word of RFC 9457.
    """An answer that is an error; raise it anywhere below a route.

    Attributes:
        status: HTTP status.
        detail: one sentence for the person who asked.
        title: what is the same for every problem of this type; the status' own words by default.
        type: a URI that names the type of problem; "about:blank" where the status says it all.
        headers: further headers of the answer.
        parts: further members of the body, such as field, value and reason.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str = "",
        type: str = "about:blank",  # noqa: A002  # the member's name.
        headers: Mapping[str, str] | None = None,
        parts: Mapping[str, object] | None = None,
    ) -> None:
        """Keep the parts; the message is the detail."""
        self.status = status
        self.detail = detail
        self.title = title or HTTPStatus(status).phrase
        self.type = type
        self.headers = dict(headers or {})
        self.parts = dict(parts or {})
        super().__init__(detail)

    def response(self) -> Response:
        """The answer itself."""
        body = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        content = msgspec.json.encode(body | self.parts, enc_hook=str)
        return Response(content, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:  # noqa: PLR0911  # one line per class of error reads best.
    """An exception as the problem to answer; one that nobody expected becomes a 500 that tells nothing."""
    match error:
        case Problem():
            return error
        case Refused():
            parts = {"field": error.field, "value": error.value, "reason": error.reason}
            return Problem(422, str(error), title="Record refused", type="urn:siteward:refused", parts=parts)
        case QueryError():
            return Problem(400, str(error), title="Question refused", type="urn:siteward:query")
        case PeopleUnavailable() | SettingsError():
            # Settings that contradict what is stored, such as another key of pseudonyms, wait for a person.
            return Problem(503, str(error), title="Not available", headers=RETRY_AFTER)
        case BrokerFull():
            return Problem(429, str(error), title="Broker full", headers=RETRY_AFTER)
        case BrokerError():
            return Problem(503, str(error), title="Broker unavailable", headers=RETRY_AFTER)
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return Problem(error.status_code, str(error.detail), headers=error.headers)
    return Problem(500, "Something went wrong here; the log says what.")


def answer_problems(app: FastAPI) -> None:
    """Answer every expected error of an app's routes as problem details."""
    for expected in (
        Problem,
        Refused,
        QueryError,
        PeopleUnavailable,
        SettingsError,
        BrokerError,
        RequestValidationError,
        HTTPException,
    ):
        app.add_exception_handler(expected, _answer)


def _answer(_request: Request, error: Exception) -> Response:
    return problem_of(error).response()


def _invalid(error: RequestValidationError) -> Problem:
    """What FastAPI found wrong with a request's parameters, in our words."""
    found: list[dict[str, Any]] = [
        {
            "field": ".".join(str(part) for part in each["loc"][1:]) or str(each["loc"][0]),
            "reason": each["msg"],
            "value": shown(each.get("input")),
        }
        for each in error.errors()
    ]
    detail = "; ".join(f"{each['field']}: {each['reason']}" for each in found)
    return Problem(422, detail, title="Request refused", type="urn:siteward:request", parts={"errors": found})
