"""The HTTP door: `POST /v1/records/{kind}` queues records durably, `GET /v1/receipts/{id}` tells what became."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from hashlib import blake2b
from typing import Any, Final

import msgspec
from anyio import CapacityLimiter, fail_after, from_thread, to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from collectors.bodies import Element, broken, elements, limited, lines, plain
from collectors.database import database_path
from collectors.envelopes import ENVELOPES, LARGEST, Sent, opened
from collectors.intake import Answers, Intake
from collectors.limits import Limits
from collectors.quotas import AT_ONCE, Quotas
from collectors.receipts import Receipts
from collectors.sender import Sender
from collectors.waiting import Waiting
from siteward.broker import BrokerError
from siteward.broker.opening import sinks
from siteward.envelope import MSGPACK, check_units
from siteward.log import get_logger
from siteward.people import PeopleUnavailable
from siteward.records import Kind, Refused, id_bytes
from siteward.server.auth import Permission, requires
from siteward.server.auth.audit import Audit
from siteward.server.auth.viewing import asks_for_all, caller_of, vo_asked
from siteward.server.database import Conflict, DatabaseError
from siteward.server.problems import MEDIA_TYPE, RETRY_AFTER, Problem, problem_of
from siteward.server.resources import Resources
from siteward.settings import GatewaySettings, Settings, SettingsError
from siteward.telemetry import GATEWAY_REQUESTS, telemetry

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
NDJSON_TYPES: Final = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"})
PATIENCE: Final = 30.0
"""Seconds without a byte after which a request is given up."""
LEAST_RATE: Final = 10_000
"""Bytes per second that a body has to come at, beside that."""
LONGEST_KEY: Final = 255
log = get_logger(__name__)
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Records; `Content-Encoding: gzip` or `zstd` is welcome. `/v1/kinds/{kind}` has their schema.",
        "content": {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"type": "array", "items": {"type": "object"}},
                        {"type": "object", "description": '`{"units": {…}, "records": […]}`, or one record'},
                    ]
                }
            },
            NDJSON: {"schema": {"type": "string", "description": "one JSON object per line"}},
            MSGPACK: {"schema": {"type": "string", "format": "binary", "description": "an envelope of this kind"}},
        },
    }
}


def router(settings: Settings) -> APIRouter:
    """The gateway's routes."""
    routes = APIRouter(prefix="/v1", tags=["gateway"])
    limiter = CapacityLimiter(AT_ONCE)
    limits = Limits(Waiting(settings.gateway.max_waiting), Quotas(settings.gateway))

    @routes.post("/records/{kind}", dependencies=[Depends(requires(Permission.SEND))], openapi_extra=_BODY)
    async def post_records(kind: str, request: Request) -> Response:
        """Queue records of one kind; answers for each `queued` or `rejected`, with its id or the reason."""
        resources: Resources = request.app.state.resources
        sender = Sender(caller_of(request), resources.people)
        try:
            # Before it takes a thread: those of one producer, or one VO, never fill all places.
            with limits.quotas.reading(sender):
                post = partial(_post, kind, request, resources, sender, limits)
                response = await to_thread.run_sync(post, limiter=limiter)
        except Problem as problem:
            response = problem.response()
        telemetry.add(GATEWAY_REQUESTS, 1, str(response.status_code))
        return response

    @routes.get("/receipts/{id}", dependencies=[Depends(requires(Permission.SEND)), Depends(vo_asked)])
    def get_receipt(request: Request, id: str) -> dict[str, object]:  # noqa: A002  # the path's word.
        """What each sink did with a record, for every time that you sent it; the newest first.

        Whoever looks after the platform sees what others sent, too, where the header Siteward-VO says `*`; it is noted.
        """
        try:
            record = id_bytes(id)
        except ValueError as error:
            raise Problem(422, str(error), parts={"field": "id"}) from error
        resources: Resources = request.app.state.resources
        sender = Sender(caller_of(request), resources.people)
        # What a person sent before accounts of people were kept as pseudonyms is still theirs to see.
        mine = () if asks_for_all(request) else (sender.kept_account, sender.account)
        with Receipts(database_path(settings)) as receipts:
            submissions = receipts.of(record, sinks(settings), mine)
        if not submissions:
            message = f"no record {id} of yours came with a receipt in the last {settings.gateway.receipts_days} days"
            raise Problem(404, message)
        found: list[object] = msgspec.to_builtins(submissions)
        return {"id": id, "submissions": found}

    return routes


class Body(msgspec.Struct, frozen=True):
    """What a request brings: records, and the envelope that they are in, if they are."""

    sent: Sent | None
    records: Iterable[Element]


def _post(name: str, request: Request, resources: Resources, sender: Sender, limits: Limits) -> Response:
    """Answer a request; runs in a thread and asks the event loop for the body, piece by piece."""
    try:
        kind = resources.kinds.get(name)
        if kind is None:
            message = f"no kind is called {name[:80]!r}; there are {', '.join(sorted(resources.kinds))}"
            raise Problem(404, message, parts={"field": "kind"})  # noqa: TRY301  # as what is raised below.
        if not sender.may_send(kind):
            message = f"your token does not let you send records of the kind {kind.name}"
            raise Problem(403, message, parts={"field": "kind"})  # noqa: TRY301  # as above.
        body = _body(request, kind, sender, resources.settings.gateway)
        limits.waiting.check(resources.broker)
        limits.quotas.check(sender, ())
        # What is queued and not noted comes again, and again.
        resources.audit.check()
        return _answer(request, kind, resources, sender, body(), limits)
    except (Problem, Refused, BrokerError, PeopleUnavailable, SettingsError, sqlite3.Error) as error:
        return _problem(error).response()
    except (SQLAlchemyError, DatabaseError, Conflict) as error:
        # Before any record is read.
        return _unnoted(error).response()


def _answer(  # from whom, what, and what may stop it.
    request: Request,
    kind: Kind,
    resources: Resources,
    sender: Sender,
    body: Body,
    limits: Limits,
) -> Response:
    """Queue the records; the answer says for each what became of it, and why the rest was not read, if so."""
    audit, by_line = resources.audit, NDJSON in request.headers.get("accept", "")
    now = time.time_ns() // 1000
    key = _key(request, kind, sender)
    answers = Answers(by_line=by_line, minimal="return=minimal" in request.headers.get("prefer", ""))
    ending: dict[str, object] = {}
    status, media_type, headers = 200, NDJSON if by_line else JSON, {}
    try:
        with (
            closing(resources.broker.publisher()) as publisher,
            Receipts(database_path(resources.settings)) as receipts,
        ):
            if key:
                now = receipts.began(key, now)
            intake = Intake(kind, sender, publisher, receipts, answers, now, limits, resources.people)
            intake.use_key(key)
            if body.sent:
                intake.use_envelope(body.sent)
            problem, outcome = None, "broken off"
            try:
                problem = _take_all(intake, body.records, lambda: limits.waiting.check(resources.broker))
                outcome = str(problem.status) if problem else "200"
            finally:
                unnoted = _note(request, audit, kind, intake, answers, outcome)
            problem = unnoted or problem
            if problem:
                status, headers = problem.status, problem.headers
                media_type = media_type if by_line else MEDIA_TYPE
                ending = {"type": problem.type, "title": problem.title, "status": status, "detail": problem.detail}
                ending |= problem.parts | {"position": intake.answered}
    except BaseException:
        answers.close()
        raise
    # Whoever hung up before the answer began leaves its file open otherwise.
    closing_it = BackgroundTask(answers.close)
    return StreamingResponse(answers.parts(ending), status, headers, media_type, closing_it)


def _take_all(intake: Intake, records: Iterable[Element], check: Callable[[], None]) -> Problem | None:
    """Take every record; why it ended before, if it did. What came before a broken place is queued all the same."""
    try:
        try:
            for element in records:
                if intake.take(element):
                    check()
        except (Problem, Refused) as error:
            intake.flush()
            return _problem(error)
        intake.flush()
    except (Problem, BrokerError, PeopleUnavailable, SettingsError, sqlite3.Error) as error:
        return _problem(error)
    return None


def _note(request: Request, audit: Audit, kind: Kind, intake: Intake, answers: Answers, outcome: str) -> Problem | None:
    """Note in the audit who has sent how many records of whom, once they are queued; why not, if it cannot be."""
    if not intake.queued:
        return None
    sent = {"kind": kind.name, "queued": dict(intake.queued), "rejected": answers.rejected}
    try:
        audit.note(caller_of(request), f"POST {request.scope['path']}", outcome, intake.queued, sent)
    except (SQLAlchemyError, Conflict) as error:
        return _unnoted(error)
    return None


def _unnoted(error: Exception) -> Problem:
    log.warning("the audit cannot be written", error=str(error))
    message = "the audit cannot be written now, and without it no records are taken; send what was not queued again"
    return Problem(503, message, headers=RETRY_AFTER)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Refused):
        # What is refused as a whole is the body, not one record among others.
        parts = {"field": error.field, "value": error.value, "reason": error.reason}
        return Problem(400, str(error), title="Refused", type="urn:siteward:refused", parts=parts)
    if isinstance(error, sqlite3.Error):
        return Problem(503, f"receipts cannot be kept now: {error}", headers=RETRY_AFTER)
    return problem_of(error)


def _key(request: Request, kind: Kind, sender: Sender) -> bytes:
    """What the idempotency key makes of the request; b"" where there is none.

    Raises:
        Problem: 400, the key is too long.
    """
    text = request.headers.get("idempotency-key", "")
    if len(text) > LONGEST_KEY:
        message = f"the Idempotency-Key has more than {LONGEST_KEY} characters"
        raise Problem(400, message)
    # Of each sender its own: nobody else's key makes a retry of it.
    content = msgspec.json.encode((kind.name, sender.account, text))
    return blake2b(content, digest_size=16).digest() if text else b""


def _body(request: Request, kind: Kind, sender: Sender, settings: GatewaySettings) -> Callable[[], Body]:
    """What reads the body; its records are read as they are asked for, but those of an envelope.

    Raises:
        Problem: 413, 415; and while reading 400, 403, 408 and 413.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > settings.max_body:
        message = f"the body has {declared[:20]} bytes, more than {settings.max_body}; send it in parts"
        raise Problem(413, message)
    media_type = _media_type(request.headers.get("content-type", ""))
    arrived = limited(_pieces(request), settings.max_body, "as it was sent")
    pieces = plain(arrived, request.headers.get("content-encoding", "").strip().lower())
    if media_type in ENVELOPES:
        pieces = limited(pieces, min(LARGEST, settings.max_plain), "as an envelope")
        now = time.time_ns() // 1000
        return lambda: Body(*opened(pieces, media_type, kind, sender, now, settings.max_record))
    pieces = limited(pieces, settings.max_plain, "after decompression")
    if media_type in NDJSON_TYPES:
        return lambda: Body(None, lines(pieces, settings.max_record))
    return lambda: Body(None, _late(lambda: elements(pieces, settings.max_record, partial(_check_units, kind))))


def _late(open_: Callable[[], Iterator[Element]]) -> Iterator[Element]:
    """Start to read only when the first record is asked for."""
    yield from open_()


def _media_type(content_type: str) -> str:
    """What the body is.

    Raises:
        Problem: 415, it is nothing that is taken here, or not in UTF-8.
    """
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if charset not in {"", "utf-8", "utf8", "us-ascii"}:
        message = f"the charset {charset[:40]!r} is not taken here; send UTF-8"
        raise Problem(415, message)
    if media_type in {JSON, *NDJSON_TYPES, *ENVELOPES}:
        return media_type
    message = f"the content type {media_type[:80]!r} is not taken here; send {JSON} or {NDJSON}"
    raise Problem(415, message)


def _check_units(kind: Kind, units: object) -> None:
    try:
        check_units(kind, msgspec.convert(units, dict[str, str]))
    except msgspec.ValidationError as error:
        message = f"units: {error}"
        raise broken(message) from error


def _pieces(request: Request) -> Iterator[bytes]:
    """The pieces of the body, fetched from the event loop by a worker thread.

    Raises:
        Problem: 408 where nothing came for a while, 400 where the sender went away.
    """
    stream = request.stream()
    began, arrived = time.monotonic(), 0

    async def following() -> bytes | None:
        with fail_after(PATIENCE):
            return await anext(stream, None)

    while True:
        try:
            piece = from_thread.run(following)
            # Each byte alone could be in time for ever, and hold a place.
            arrived += len(piece or b"")
            if time.monotonic() - began > PATIENCE + arrived / LEAST_RATE:
                message = f"fewer than {LEAST_RATE} bytes a second came"
                raise Problem(408, message)
        except TimeoutError as error:
            message = f"no byte came for {PATIENCE:.0f} s"
            raise Problem(408, message) from error
        except ClientDisconnect as error:
            message = "the connection was closed before the body's end"
            raise broken(message) from error
        if piece is None:
            return
        if piece:
            yield piece
