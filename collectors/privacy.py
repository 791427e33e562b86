"""One person's identity, wherever an installation keeps it: given out, or taken away; no record is touched."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from math import isfinite
from typing import Any

import msgspec

from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from collectors.erased_names import renamed, stand_in
from collectors.telling import time_text
from siteward.people import personal_names
from siteward.records.refusal import shown
from siteward.server.auth.audit import MOST, Audited
from siteward.server.auth.denied import Denial
from siteward.server.auth.sessions import Session
from siteward.server.people_table import Person
from siteward.server.resources import Resources


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one person beside the records, which hold the pseudonyms.

    Attributes:
        subject: the name.
        names: where it stands among people's names, with the pseudonym in its place.
        dead_letters: numbers of refused records that name it.
        sessions: log-ins with a browser.
        denied: entries of the deny-list.
        audit: what was changed by somebody of this name, the newest first.
    """

    subject: str
    names: tuple[Person, ...]
    dead_letters: tuple[int, ...]
    sessions: tuple[Session, ...]
    denied: tuple[Denial, ...]
    audit: tuple[Audited, ...]


class Erased(msgspec.Struct, frozen=True):
    """How much of one person was taken away."""

    names: int
    dead_letters: int
    sessions: int


def pseudonyms_of(resources: Resources, subject: str, dimensions: Collection[str] = ()) -> dict[str, str]:
    """The dimension of each pseudonym that a name has in records.

    Args:
        resources: of the installation.
        subject: the name.
        dimensions: only in these; () for every one that names people.

    Raises:
        ValueError: the subject is empty, or a dimension names nobody.
    """
    personal = personal_names(resources.kinds.values())
    unknown = sorted(set(dimensions) - set(personal))
    if unknown:
        message = f"{unknown[0]!r} is not a dimension that names people; there are {', '.join(personal)}"
        raise ValueError(message)
    if not subject:
        message = "name somebody: the empty text is nobody's name"
        raise ValueError(message)
    return {resources.people.pseudonym(name, subject): name for name in dimensions or personal}


def export(resources: Resources, subject: str, people: Mapping[str, str]) -> Known:
    """What is kept of a person."""
    with closing(DeadLetters(database_path(resources.settings))) as letters:
        numbers = tuple(letters.naming(lambda kind, text: _hidden(resources, subject, people, kind, text) != text))
    return Known(
        subject=subject,
        names=tuple(resources.people.find(people)),
        dead_letters=numbers,
        sessions=tuple(resources.sessions.of_person(subject)),
        denied=tuple(each for each in resources.denied.all() if each.subject == subject),
        audit=tuple(_audited(resources, subject)),
    )


def known_document(known: Known) -> dict[str, Any]:
    """What is known of a person as it is given out: instants as ISO 8601, in UTC."""
    told: dict[str, Any] = msgspec.to_builtins(known)
    for part, name in (("names", "entered"), ("names", "erased"), ("denied", "at"), ("audit", "at")):
        for each in told[part]:
            each[name] = None if each[name] is None else time_text(each[name])
    for denial in told["denied"]:
        denial["before"] = time_text(denial["before"]) if denial["before"] else None
    for session in told["sessions"]:
        session["begun"] = _second_text(session["begun"])
        for name in ("expires", "issued"):
            session["identity"][name] = _second_text(session["identity"][name])
    return told


def _second_text(at: float) -> str | None:
    return time_text(int(at * 1_000_000)) if isfinite(at) else None


def erase(resources: Resources, subject: str, people: Mapping[str, str]) -> Erased:
    """Take a person's identity away; records that come later do not bring it back.

    What was refused keeps the pseudonym, sealed, so that it can still be mended and sent. The audit keeps who changed
    what, and the deny-list who is denied. Done again, it does what was left.

    Raises:
        siteward.people.PeopleUnavailable, sqlite3.Error: others held what is to be written anew: everything is erased,
            but may still be read from the files; do it again.
    """
    names = resources.people.erase(people)
    sessions = resources.sessions.end_person(subject)
    with closing(DeadLetters(database_path(resources.settings))) as letters:
        rewritten = letters.rewrite(
            lambda kind, text: _hidden(resources, subject, people, kind, text), shown(subject), next(iter(people))
        )
        letters.scrub()
    resources.people.scrub()
    return Erased(names, rewritten, sessions)


def _audited(resources: Resources, subject: str) -> Iterator[Audited]:
    after = 0
    while found := resources.audit.find(subject=subject, after=after, limit=MOST):
        yield from found
        after = found[-1].number


def _hidden(resources: Resources, subject: str, people: Mapping[str, str], kind: str, original: bytes) -> bytes:
    """A refused record in which somebody is named by the pseudonym."""
    codes = {dimension: code for code, dimension in people.items()}

    def naming(field: str, text: str) -> str:
        return stand_in(codes, resources.people, field) if text == subject else text

    return renamed(original, resources.kinds.get(kind), naming)
