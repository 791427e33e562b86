"""The audit on every database: entries in order, complete, found again, never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from at_once import all_at_once
from issuer import Clock
from ledger_databases import Place

from siteward.server.auth.audit import LONGEST_STATE, MOST, Audit
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.database import Database


def caller(subject: str = "anna") -> Caller:
    """Somebody."""
    return Caller(Identity(issuer="https://dteam.iam.example", subject=subject, token="t1", expires=0.0), ())


@pytest.fixture
def clock() -> Clock:
    """A clock to move."""
    return Clock()


@pytest.fixture
def opening(ledger_place: Place, clock: Clock) -> Iterator[Callable[[], Audit]]:
    """Opens the audit, as often as processes would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Audit(Database(ledger_place.url, ledger_place.password), clock)))


def test_a_change_is_noted_before_and_after(opening: Callable[[], Audit], clock: Clock) -> None:
    """Who, with which token, what, when, from what to what."""
    audit = opening()
    asked = audit.ask(caller(), "POST /v1/denied")
    clock.now += 1
    audit.end(asked, "200", vo="dteam", before={"state": "Active"}, after={"state": "Banned", "why": "ümlaut"})
    after, before = opening().find()
    assert (before.outcome, before.of, before.after) == ("asked", 0, None)
    assert (after.issuer, after.subject, after.token) == ("https://dteam.iam.example", "anna", "t1")
    assert (after.action, after.outcome, after.of, after.vo) == ("POST /v1/denied", "200", before.number, "dteam")
    assert (after.before, after.after) == ({"state": "Active"}, {"state": "Banned", "why": "ümlaut"})
    assert after.at - before.at == 1_000_000


def test_what_was_only_asked_for_stays_noted(opening: Callable[[], Audit]) -> None:
    """Also if the process died before it was done."""
    opening().ask(caller(), "POST /v1/denied")
    (only,) = opening().find()
    assert only.outcome == "asked"


def test_entries_are_found_by_whom_and_by_vo_page_by_page(opening: Callable[[], Audit]) -> None:
    """The newest first; every one once."""
    audit = opening()
    for number in range(7):
        audit.end(audit.ask(caller("anna" if number % 2 else "boris"), f"act {number}"), "200", vo=f"vo{number % 3}")
    every: list[int] = []
    while page := audit.find(after=every[-1] if every else 0, limit=3):
        every += [each.number for each in page]
    assert every == sorted(every, reverse=True)
    assert len(every) == 14
    assert {each.subject for each in audit.find(subject="anna")} == {"anna"}
    assert {each.action for each in audit.find(vo="vo1")} == {"act 1", "act 4"}
    assert len(audit.find(limit=10 * MOST)) == 14


def test_many_writers_leave_every_entry(opening: Callable[[], Audit]) -> None:
    """With numbers of their own."""
    audits = [opening() for _ in range(4)]

    def act(audit: Audit) -> None:
        for number in range(10):
            audit.end(audit.ask(caller(), f"act {number}"), "200")

    assert not all_at_once([lambda audit=audit: act(audit) for audit in audits])  # type: ignore[misc]  # each its own.
    found = audits[0].find(limit=MOST)
    assert len({each.number for each in found}) == 80
    asked = {each.number for each in found if each.outcome == "asked"}
    assert {each.of for each in found if each.outcome == "200"} == asked


def test_what_is_too_long_is_cut_and_said_to_be(opening: Callable[[], Audit]) -> None:
    """A change of a megabyte must not keep the audit from being written."""
    audit = opening()
    audit.end(audit.ask(caller("s" * 255), "a" * 10_000), "200", before="x" * LONGEST_STATE, after=["y"])
    newest = audit.find()[0]
    assert "cut" in newest.before
    assert newest.after == ["y"]
    assert len(newest.action) == 255
