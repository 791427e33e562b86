"""Routes about the data path itself: what flows through it, and what to do with what it refused."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path as FilePath
from threading import Lock
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.requests import ClientDisconnect

from collectors.database import database_path
from collectors.dead_letters import DeadLetters, Decided, UnknownLetter, Which
from collectors.resubmission import Resubmission
from collectors.service import sink_opening
from collectors.telling import letter_json, letter_summary, time_text
from siteward.broker import QueueStatus
from siteward.log import get_logger
from siteward.query import Function, QueryError, Wanted
from siteward.query import Query as Question
from siteward.records.fields import INT64_MAX
from siteward.records.shapes import EARLIEST, LATEST
from siteward.server.asking import TURN_SECONDS, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.auditing import note_change
from siteward.server.auth.viewing import caller_of, note_platform, viewer_of, vo_asked
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources
from siteward.server.seen import SeenStore
from siteward.settings import Settings
from siteward.sinks import Outcome, SinkUnavailable
from siteward.telemetry import (
    CONFIRMED,
    EMIT_REFUSED,
    GATEWAY_QUEUED,
    GATEWAY_REJECTED,
    WRITTEN,
    Metric,
    Sample,
    shared_samples,
    telemetry,
)
from siteward.viewer import Viewer, Visible

COUNT_SECONDS: Final = 2.0
"""How long a count of the stored records is shown before it is taken again."""
MOST_VIEWERS: Final = 1_000
"""Viewers whose counts are kept."""
OF_NO_VO: Final = frozenset({"queue", "oldest"})
"""What is told of a queue to whoever may not know how much others send."""
FLOODED: Final = "too many records were refused"
"""Why a queue is stopped, without the figures."""
LONGEST_SAID: Final = 2**18
"""Bytes of what a person says about a dead letter: a record, of which the gateway takes 64 KiB, and a note."""
Number = Annotated[int, Path(description="Number of a dead letter.", ge=0, le=INT64_MAX)]
_SAID: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "Who decides, why, and for `fix` the whole record.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "who": {"type": "string"},
                        "note": {"type": "string"},
                        "record": {"type": "object"},
                    },
                }
            }
        },
    }
}
_READ: Final = [Depends(requires(Permission.READ))]
_PLATFORM: Final = [Depends(requires(Permission.PLATFORM))]
"""What was refused may be of any VO, and say so wrongly: all of it is shown to who sees every VO, and is noted."""
log = get_logger(__name__)


class Note(msgspec.Struct):
    """What a person says when deciding about a dead letter; the record in its own bytes, to be judged as they are."""

    who: str = "operator"
    note: str = ""
    record: msgspec.Raw = msgspec.Raw(b"{}")


NOTED: Final = ("number", "queue", "record", "kind", "vo", "producer", "state")
"""What the audit says of a dead letter."""


def router(settings: Settings) -> APIRouter:
    """The routes `/v1/pipeline` and `/v1/dead-letters`."""
    routes = APIRouter(prefix="/v1", tags=["pipeline"], dependencies=[Depends(refuse_unknown)])
    stored = StoredCounts()
    path = database_path(settings)

    @routes.get("/pipeline", dependencies=[*_READ, Depends(vo_asked)])
    def pipeline(request: Request) -> dict[str, object]:
        """The data path in figures: queues, stored records by kind, outcomes, what was refused, services.

        Stored records are those that you may see. What is counted of all VOs together is null for whoever may not watch
        the platform: such readers learn whether records flow, and not how many others send.
        """
        resources: Resources = request.app.state.resources
        viewer = viewer_of(request, settings)
        watches = _watches(request)
        with _letters(path) as letters:
            open_letters = letters.count(Which(state="open"))
            stops = [
                {"queue": each.queue, "reason": each.reason if watches else FLOODED, "since": time_text(each.at)}
                for each in letters.stops()
            ]
        queues = resources.broker.status()
        kinds = stored.of(resources, viewer)
        counted = _counted(settings, queues, open_letters)
        return {
            "now": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "queues": [_queue(queue, watches=watches) for queue in queues],
            "stopped": stops,
            "stored": {"total": sum(kinds.values()), "kinds": kinds},
            **(counted if watches else {name: dict.fromkeys(each) for name, each in counted.items()}),
            "services": services(settings.folder / "run" / "services.json"),
        }

    @routes.get("/dead-letters", dependencies=[*_PLATFORM, Depends(vo_asked)])
    def dead_letters(  # noqa: PLR0913, PLR0917  # FastAPI reads the filters from the signature.
        request: Request,
        state: str = "open",
        kind: str = "",
        vo: str = "",
        queue: str = "",
        reason: str = "",
        after: Annotated[int, Query(ge=0, le=INT64_MAX)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> dict[str, object]:
        """Refused records; `state=` (empty) is all of them, `after` the last number of the page before.

        The header Siteward-VO says of which VO, as far as they say so themselves, or `*`: of all, which is noted.
        """
        own = _own_vo(request, settings)
        if own and vo not in {"", own}:
            raise Problem(403, f"you ask for what is of {own!r}; say * (header Siteward-VO) for all, which is noted")
        which = Which(state=state, kind=kind, vo=vo or own, queue=queue, reason=reason)
        with _letters(path) as letters:
            found = letters.find(which, limit=limit, after=after)
            total = letters.count(which)
        return {"total": total, "dead_letters": [letter_summary(letter) for letter in found]}

    @routes.get("/dead-letters/{number}", dependencies=[*_PLATFORM, Depends(vo_asked)])
    def dead_letter(request: Request, number: Number) -> dict[str, object]:
        """One refused record with its bytes, and what was done with it; of which VO, the header says as above."""
        own = _own_vo(request, settings)
        found = _one(path, number)
        if own and found["vo"] != own:
            raise Problem(404, f"there is no dead letter {number} of {own!r}")
        return found

    @routes.post("/dead-letters/{number}/{action}", dependencies=_PLATFORM, openapi_extra=_SAID)
    def act(
        request: Request,
        number: Number,
        action: Literal["replay", "discard", "fix"],
        said: Annotated[bytes, Depends(_said)],
    ) -> dict[str, object]:
        """Send a record again, mended (`fix`, with `record`) or as it is (`replay`), or `discard` it."""
        note, caller = _note(said), caller_of(request).identity
        # Whoever has a token is who it says, whatever the body says.
        who = caller.subject if caller.token else note.who
        before = _one(path, number)
        with _letters(path) as letters:
            if action == "discard":
                letters.discard(number, who, note.note, time.time_ns() // 1000)
            else:
                resources: Resources = request.app.state.resources
                sinks = sink_opening(settings, resources.kinds)
                again = Resubmission(letters, resources.kinds, resources.broker, sinks, resources.people)
                if action == "replay":
                    again.replay(number, who, note.note)
                else:
                    again.fix(number, bytes(note.record), who, note.note)
        after = _one(path, number)
        # Not the record itself, which may name a person: the audit is never rewritten.
        noted = [{name: each[name] for name in NOTED} for each in (before, after)]
        note_change(request, vo=str(before.get("vo", "")), before=noted[0], after=noted[1])
        return after

    return routes


@contextmanager
def _letters(path: FilePath) -> Iterator[DeadLetters]:
    """The dead letters, and their errors as problems."""
    try:
        with DeadLetters(path) as letters:
            yield letters
    except UnknownLetter as error:
        raise Problem(404, str(error)) from error
    except Decided as error:
        raise Problem(409, str(error)) from error
    except SinkUnavailable as error:
        raise Problem(503, str(error), title="Sink unavailable", headers=RETRY_AFTER) from error
    except sqlite3.Error as error:
        message = f"the dead letters cannot be read now: {error}"
        raise Problem(503, message, headers=RETRY_AFTER) from error


async def _said(request: Request) -> bytes:
    """The request's body, of which no more is read than a person may say."""
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > LONGEST_SAID:
                message = f"the body is larger than {LONGEST_SAID} bytes"
                raise Problem(413, message)
    except ClientDisconnect as error:
        message = "the connection was closed before the body's end"
        raise Problem(400, message) from error
    if body and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        message = "send application/json"
        raise Problem(415, message)
    return body


def _note(said: bytes) -> Note:
    try:
        return msgspec.json.decode(said or b"{}", type=Note)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(422, str(error)) from error


def _watches(request: Request) -> bool:
    """Whether what is counted of all VOs together is shown; noted where only a role of the platform allows it."""
    watches = caller_of(request).may(Permission.WATCH)
    if watches:
        note_platform(request, Permission.WATCH)
    return watches


def _own_vo(request: Request, settings: Settings) -> str:
    """The only VO that is asked; "" where all of them are."""
    viewer = viewer_of(request, settings)
    if viewer.visible is Visible.ALL:
        return ""
    (vo,) = viewer.vos
    return vo


def _one(path: FilePath, number: int) -> dict[str, object]:
    with _letters(path) as letters:
        letter, decisions = letters.show(number), letters.audit(number)
    return letter_json(letter, decisions)


class StoredCounts:
    """How many records of each kind viewers see in the store; asked again every few seconds at most."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._counts: OrderedDict[Viewer, dict[str, int]] = OrderedDict()
        self._until: dict[Viewer, float] = {}
        self._turn = Lock()

    def of(self, resources: Resources, viewer: Viewer) -> dict[str, int]:
        """The counts by kind, of the kinds that have any; the last ones known while the store does not answer.

        One thread asks, and the others do not wait for it if they have any counts: a store that hangs holds no more
        than that one for long.
        """
        patience = 0.0 if viewer in self._counts else TURN_SECONDS
        if time.monotonic() >= self._until.get(viewer, 0.0) and self._turn.acquire(timeout=patience):
            try:
                # Somebody else may have asked while this one waited.
                if time.monotonic() >= self._until.get(viewer, 0.0):
                    self._ask(resources, viewer)
            finally:
                self._turn.release()
        return self._counts.get(viewer, {})

    def _ask(self, resources: Resources, viewer: Viewer) -> None:
        found = self._counts.get(viewer, {})
        try:
            seen = SeenStore(resources.store, resources.kinds, viewer, resources.people)
            counts = {name: _count(seen, name) for name in resources.kinds}
            found = {name: count for name, count in counts.items() if count}
        except Exception as error:  # noqa: BLE001  # a store that is away must not hide the rest of the path.
            log.warning("stored records are not counted", error=str(error))
        self._counts[viewer] = found
        self._counts.move_to_end(viewer)
        self._until[viewer] = time.monotonic() + COUNT_SECONDS
        while len(self._counts) > MOST_VIEWERS:
            forgotten, _ = self._counts.popitem(last=False)
            self._until.pop(forgotten, None)


def _count(store: SeenStore, kind: str) -> int:
    question = Question(kind=kind, wanted=(Wanted(Function.COUNT),), start=EARLIEST, end=LATEST)
    try:
        return int(store.query(question).totals[0] or 0)
    except QueryError:
        # Records of this kind do not say whose they are, to somebody who sees some only.
        return 0


def _queue(queue: QueueStatus, *, watches: bool) -> dict[str, object]:
    """What is told of a queue: to readers of some VOs its name, and how old what waits in it is."""
    told: dict[str, object] = msgspec.to_builtins(queue)
    return told if watches else {name: value if name in OF_NO_VO else None for name, value in told.items()}


def _counted(settings: Settings, queues: Sequence[QueueStatus], open_letters: int) -> dict[str, dict[str, int]]:
    """What the processes of this installation have counted since each was started.

    A broker that counts messages but no records leaves `emitted` and `collected` to them too.
    """
    shared = shared_samples(settings.folder / "telemetry")
    # This process's own values may be a second older in the folder than they are here.
    shared["app"] = telemetry.samples()
    samples = [sample for each in shared.values() for sample in each]
    published = [queue.published for queue in queues if queue.published is not None]
    acknowledged = [queue.acknowledged for queue in queues if queue.acknowledged is not None]
    emitted = _sum(samples, CONFIRMED) + _sum(samples, GATEWAY_QUEUED)
    written: Counter[str] = Counter()
    for sample in samples:
        if sample.metric == WRITTEN.name and sample.labels:
            written[sample.labels[0]] += int(sample.value)
    return {
        "emitted": {"total": max(published) if published else emitted},
        # Every sink gets every record; the one that has seen most tells how many there were.
        "collected": {"total": max(acknowledged or written.values(), default=0)},
        "outcomes": {outcome.value: _sum(samples, WRITTEN, outcome.value) for outcome in Outcome},
        "refused": {
            "dead_letters": open_letters,
            "gateway": _sum(samples, GATEWAY_REJECTED),
            "emitters": _sum(samples, EMIT_REFUSED),
        },
    }


def _sum(samples: Iterable[Sample], metric: Metric, label: str = "") -> int:
    return int(sum(each.value for each in samples if each.metric == metric.name and label in {"", *each.labels[2:]}))


def services(path: FilePath) -> list[dict[str, object]]:
    """What the supervisor says of the processes it started; [] where nothing is supervised."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except (OSError, msgspec.MsgspecError):
        return []
    return [{name: each.get(name) for name in ("name", "pid", "state", "restarts", "since")} for each in found]
