"""What the application's answers mean for who publishes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import msgspec

from siteward.broker import BrokerError, BrokerUnavailable, Forbidden, Message, Rejected
from siteward.broker.gateway.connection import Answer
from siteward.broker.gateway.parts import with_only

LONGEST_WAIT: Final = 300.0
"""Seconds that a server may ask for; whoever asks for more is asked again all the same."""
SHOWN: Final = 300
"""Characters of a server's words that a message repeats."""
PROBLEM: Final = "application/problem+json"
REJECTED: Final = "rejected"
"""The gateway's word for a record that it has not taken."""
BROKEN: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY})
"""What says that this message will not be taken, whoever sends it."""


class _Told(msgspec.Struct):
    """What the gateway says of records that it has taken."""

    queued: int
    rejected: int
    records: list[_Record]


class _Record(msgspec.Struct):
    """What it says of one; of those that it has taken, too, where the wish for a short answer is lost on the way."""

    position: int
    status: str
    field: str = ""
    value: str = ""
    reason: str = ""


class _Problem(msgspec.Struct):
    """An error, as problem details."""

    detail: str = ""
    field: str = ""


def judge(answer: Answer, message: Message, place: str) -> None:
    """Return where an answer confirms every record of a message.

    Args:
        answer: to the message.
        message: that was sent.
        place: the server's address, for what is said.

    Raises:
        BrokerUnavailable: it says "not now", or is not the gateway's: a proxy, or another program.
        Forbidden: it says that this key is not for who sent it.
        Rejected: it says that some records are not taken.
    """
    if answer.status == HTTPStatus.OK:
        _check_records(answer, message, place)
        return
    problem = _problem(answer)
    said = f"{place} answers {answer.status}{_words(problem.detail if problem else '')}"
    if problem and (answer.status == HTTPStatus.FORBIDDEN or _is_unknown_kind(answer, problem)):
        raise Forbidden(said, message.key)
    if problem and answer.status in BROKEN:
        raise Rejected(said, [message])
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        said += (
            f"; it leads to {ascii(answer.headers.get('location', ''))[:SHOWN]}, write the right address in broker.url"
        )
    raise away(said, answer)


def away(said: str, answer: Answer | None = None) -> BrokerUnavailable:
    """What says "not now", and how long the server asks to wait."""
    error = BrokerUnavailable(said)
    error.wait = min(_seconds(answer.headers), LONGEST_WAIT) if answer else 0.0
    return error


def _seconds(headers: Mapping[str, str]) -> float:
    """How long a server asks to wait (RFC 9110 §10.2.3): seconds, or an instant; 0 where it says neither.

    An instant is one of the server's clock, where its answer says what that shows: ours may be another one.
    """
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdecimal():
        return float(said[:9])
    until, now = _instant(said), _instant(headers.get("date", ""))
    return 0.0 if until is None else max(0.0, until - (time.time() if now is None else now))


def _instant(text: str) -> float | None:
    """A date of HTTP in seconds since 1970 UTC; None where it is none."""
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def too_large(message: Message, place: str) -> BrokerError:
    """One record that is larger than the server takes, or the proxy before it."""
    return Rejected(f"{place} answers {HTTPStatus.REQUEST_ENTITY_TOO_LARGE}: it takes no body as large", [message])


def _check_records(answer: Answer, message: Message, place: str) -> None:
    try:
        told = msgspec.json.decode(answer.body, type=_Told)
    except msgspec.MsgspecError as error:
        said = f"{place} answers something else than Siteward's gateway does: {error}"
        raise away(said) from error
    rejected = [record for record in told.records if record.status == REJECTED]
    if told.rejected != len(rejected) or told.queued + told.rejected < 1:
        said = f"{place} does not say what became of each record"
        raise away(said)
    if rejected:
        first = rejected[0]
        where = f"{first.field}: " if first.field else ""
        said = f"{place} rejects {told.rejected} of {told.rejected + told.queued} records, the first for"
        said += _words(f"{where}{first.reason} (got {first.value})")
        raise Rejected(said, with_only(message, (record.position for record in rejected)))


def _problem(answer: Answer) -> _Problem | None:
    """What Siteward itself says went wrong; None where something before it answers, whose word is no judgement."""
    if answer.headers.get("content-type", "").partition(";")[0].strip() != PROBLEM:
        return None
    try:
        return msgspec.json.decode(answer.body, type=_Problem)
    except msgspec.MsgspecError:
        return None


def _is_unknown_kind(answer: Answer, problem: _Problem) -> bool:
    """Else the address is wrong, and whatever is sent would not be found."""
    return answer.status == HTTPStatus.NOT_FOUND and problem.field == "kind"


def _words(text: str) -> str:
    shown = text if text.isprintable() else ascii(text)
    return f": {shown[:SHOWN]}" if text else ""
