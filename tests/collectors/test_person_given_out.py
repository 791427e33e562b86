"""What is known of a person as it is given out."""

from __future__ import annotations

from collectors.privacy import Known, known_document
from siteward.server.auth.audit import Audited
from siteward.server.auth.denied import Denial
from siteward.server.auth.identity import Identity
from siteward.server.auth.sessions import Session
from siteward.server.people_table import Person

AT = 1_772_445_600
"""Seconds since 1970 at 2026-03-02T10:00:00Z."""
SAID = "2026-03-02T10:00:00Z"


def test_instants_are_iso_8601_in_utc() -> None:
    """Whichever unit they are kept in; what has none, or never comes, stays unknown."""
    who = [
        Identity(issuer="i", subject="anna", token="t", expires=each, issued=AT) for each in (float(AT), float("inf"))
    ]
    known = Known(
        subject="anna",
        names=(Person("p", "user", "anna", AT * 1_000_000, None), Person("q", "user", "", 0, AT * 1_000_000)),
        dead_letters=(1,),
        sessions=tuple(Session(each, AT) for each in who),
        denied=tuple(Denial("i", "anna", "", AT * 1_000_000, "root", "why", each) for each in (0, AT * 1_000_000)),
        audit=(Audited(at=AT * 1_000_000 + 250_000, issuer="i", subject="anna", token="t", action="a"),),
    )
    told = known_document(known)
    assert [(each["entered"], each["erased"]) for each in told["names"]] == [
        (SAID, None),
        ("1970-01-01T00:00:00Z", SAID),
    ]
    assert [(each["begun"], each["identity"]["expires"]) for each in told["sessions"]] == [(SAID, SAID), (SAID, None)]
    assert {each["identity"]["issued"] for each in told["sessions"]} == {SAID}
    assert [each["before"] for each in told["denied"]] == [None, SAID]
    assert (told["denied"][0]["at"], told["audit"][0]["at"]) == (SAID, "2026-03-02T10:00:00.250000Z")
    assert (told["subject"], told["dead_letters"]) == ("anna", (1,))
