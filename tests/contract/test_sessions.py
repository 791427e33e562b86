"""Sessions of browsers, on every database: what a cookie stands for, and that it ends everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest
from issuer import Clock
from ledger_databases import Place
from sqlalchemy import text

from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import Role, grant
from siteward.server.auth.sessions import LONGEST, MOST, SECONDS, Sessions
from siteward.server.database import Database

Opens = Callable[[], Database]
CLOCK = Clock()


def identity(subject: str = "somebody", **changes: object) -> Identity:
    """A person of many groups, in any script."""
    groups = frozenset(f"/dteam/{number}é" for number in range(1_000))
    made = Identity(issuer="https://iam.example", subject=subject, token="t", expires=CLOCK.now + 3600, groups=groups)
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def open_database(ledger_place: Place) -> Opens:
    """Opens the database of access, as another process would."""
    return lambda: Database(ledger_place.url, ledger_place.password)


@pytest.fixture
def sessions(open_database: Opens) -> Iterator[Sessions]:
    CLOCK.now = 1_790_000_000.0
    with closing(Sessions(open_database(), CLOCK)) as opened:
        yield opened


def test_a_cookie_stands_for_a_person(sessions: Sessions, open_database: Opens) -> None:
    """In every process, until its token is over; and it stands nowhere in the database."""
    who = identity(grants=(grant(Role.READER, ("dteam",)),), sites=(("S", "Site Administrator"),))
    cookie, begun = sessions.begin(who)
    with closing(Sessions(open_database(), CLOCK)) as other:
        assert sessions.find(cookie) == other.find(cookie) == begun
        assert begun.identity == who
        assert other.find(cookie + "x") is None
        CLOCK.now += 3599
        assert sessions.find(cookie) == begun
        CLOCK.now += 1
        assert sessions.find(cookie) is None
    database = open_database()
    with closing(database), database.read() as connection:
        assert cookie not in str(connection.execute(text("SELECT * FROM access_sessions")).all())


def test_no_session_is_longer_than_half_a_day(sessions: Sessions) -> None:
    """Whatever the token says."""
    cookie, begun = sessions.begin(identity(expires=CLOCK.now + 10 * LONGEST))
    assert begun.identity.expires == CLOCK.now + LONGEST
    CLOCK.now += LONGEST
    assert sessions.find(cookie) is None


def test_what_ended_is_over_everywhere(sessions: Sessions, open_database: Opens) -> None:
    """At once where it was ended, within seconds elsewhere; others' sessions go on."""
    one, other = (sessions.begin(identity())[0] for _ in range(2))
    third = sessions.begin(identity("another"))[0]
    with closing(Sessions(open_database(), CLOCK)) as elsewhere:
        assert elsewhere.find(one)
        sessions.end(one)
        assert sessions.find(one) is None
        CLOCK.now += SECONDS
        assert elsewhere.find(one) is None
        assert sessions.end_all("https://iam.example", subject="somebody") == 1
        assert sessions.end_all("https://iam.example", subject="somebody") == 0
        CLOCK.now += SECONDS
        assert [elsewhere.find(each) is None for each in (other, third)] == [True, False]


def test_what_one_token_began_ends_with_it(sessions: Sessions) -> None:
    """And nothing else."""
    one, other = sessions.begin(identity(token="one"))[0], sessions.begin(identity(token="other"))[0]
    assert sessions.end_all("https://iam.example", token="one") == 1
    assert [sessions.find(each) is None for each in (one, other)] == [True, False]


def test_one_person_has_so_many_sessions_at_most(sessions: Sessions) -> None:
    """The oldest ends, also where it was known."""
    cookies = []
    for _ in range(MOST + 1):
        CLOCK.now += 1
        cookies.append(sessions.begin(identity())[0])
        assert sessions.find(cookies[0]) is not None or len(cookies) == MOST + 1
    assert [sessions.find(each) is None for each in cookies] == [True, *[False] * MOST]


def test_sessions_that_are_over_are_forgotten(sessions: Sessions, open_database: Opens) -> None:
    """With the next log-in."""
    sessions.begin(identity(expires=CLOCK.now + 10))
    CLOCK.now += 11
    sessions.begin(identity())
    database = open_database()
    with closing(database), database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM access_sessions")).scalar_one() == 1
