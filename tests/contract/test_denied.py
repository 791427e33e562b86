"""The deny-list on every database: what is denied is so in every process, and stays so when the database is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from at_once import all_at_once
from issuer import Clock
from ledger_databases import Place

from siteward.server.auth import denied as module
from siteward.server.auth.denied import DenyList
from siteward.server.auth.identity import Identity
from siteward.server.database import Conflict, Database

ISSUER = "https://dteam.iam.example"


def bearer(subject: str = "anna", token: str = "one", issuer: str = ISSUER, issued: float = 0.0) -> Identity:
    """Somebody."""
    return Identity(issuer=issuer, subject=subject, token=token, expires=0.0, issued=issued)


@pytest.fixture
def opening(ledger_place: Place) -> Iterator[Callable[[], DenyList]]:
    """Opens the list, as often as processes would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(DenyList(Database(ledger_place.url, ledger_place.password))))


def test_a_subject_is_denied_with_all_its_tokens(opening: Callable[[], DenyList]) -> None:
    """And nobody else: another issuer's subject of that name is another one."""
    denied = opening()
    assert not denied.is_denied(bearer())
    denied.deny(ISSUER, subject="anna", by="boris", reason="her laptop was stolen")
    assert denied.is_denied(bearer(token="one"))
    assert denied.is_denied(bearer(token="two"))
    for other in (bearer("Anna"), bearer("anna "), bearer("ann"), bearer(issuer="https://other.example")):
        assert not denied.is_denied(other)


def test_a_token_is_denied_alone(opening: Callable[[], DenyList]) -> None:
    """Its bearer's other ones stay good."""
    denied = opening()
    denied.deny(ISSUER, token="one", by="boris", reason="it stood in a log")
    assert denied.is_denied(bearer(token="one"))
    assert not denied.is_denied(bearer(token="two"))
    assert not denied.is_denied(bearer(token="one", issuer="https://other.example"))


def test_what_is_denied_can_be_allowed_again(opening: Callable[[], DenyList]) -> None:
    """Only by naming it as it was denied."""
    denied = opening()
    denied.deny(ISSUER, subject="anna", by="boris", reason="her laptop was stolen")
    assert not denied.allow(ISSUER, token="anna")
    assert denied.is_denied(bearer())
    assert denied.allow(ISSUER, subject="anna")
    assert not denied.is_denied(bearer())


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"subject": "anna", "token": "one"},
        {"subject": "anna", "reason": ""},
        {"subject": "anna", "issuer": ""},
    ],
)
def test_an_entry_names_one_thing_and_a_reason(opening: Callable[[], DenyList], entry: dict[str, str]) -> None:
    """Else nobody could tell later what was meant."""
    denied = opening()
    given = {"issuer": ISSUER, "by": "boris", "reason": "why"} | entry
    with pytest.raises(ValueError, match="name an issuer"):
        denied.deny(given.pop("issuer"), **given)
    assert denied.all() == []


def test_what_was_issued_before_ends(ledger_place: Place) -> None:
    """Of one subject of one issuer; what is issued from then on is good, until it ends again."""
    clock = Clock(1_000.5)
    with closing(DenyList(Database(ledger_place.url, ledger_place.password), clock)) as denied:
        denied.end_tokens(ISSUER, "anna", by="anna", reason="logged out everywhere")
        for issued, is_denied in ((0.0, True), (999.0, True), (1_000.0, True), (1_000.5, False), (1_001.0, False)):
            assert denied.is_denied(bearer(issued=issued)) is is_denied
        for other in (bearer("Anna"), bearer("boris"), bearer(issuer="https://other.example")):
            assert not denied.is_denied(other)
        clock.now = 2_000.0
        denied.end_tokens(ISSUER, "anna", by="anna", reason="logged out everywhere")
        assert denied.is_denied(bearer(issued=1_999.0))
        with closing(DenyList(Database(ledger_place.url, ledger_place.password), clock)) as later:
            assert [(each.subject, each.before) for each in later.all()] == [("anna", 2_000_000_000)]
            assert later.is_denied(bearer(issued=1_999.0))
            assert not later.is_denied(bearer(issued=2_000.0))


def test_who_is_allowed_again_is_not_given_back_what_it_has_ended(opening: Callable[[], DenyList]) -> None:
    """One entry of each is listed; taking a token's entry out takes neither, and a denial goes first, by itself."""
    denied = opening()
    denied.end_tokens(ISSUER, "anna", by="anna", reason="logged out everywhere")
    denied.deny(ISSUER, subject="anna", by="boris", reason="her laptop was stolen")
    assert [(each.by, bool(each.before)) for each in denied.all()] == [("boris", False), ("anna", True)]
    denial = denied.all()[0]
    assert not denied.allow(ISSUER, token="one")
    assert denied.is_denied(bearer(issued=time.time() + 60))
    assert denied.allow(ISSUER, subject="anna") == denial
    assert denied.is_denied(bearer(issued=time.time() - 60))
    assert not denied.is_denied(bearer(issued=time.time() + 60))
    assert denied.allow(ISSUER, subject="anna")
    assert not denied.is_denied(bearer())
    assert denied.all() == []


def test_a_token_that_ends_all_is_ended_whatever_its_issuers_clock_says(opening: Callable[[], DenyList]) -> None:
    """Clocks are up to a minute apart."""
    denied, ahead = opening(), time.time() + 50
    denied.end_tokens(ISSUER, "anna", by="anna", reason="logged out everywhere", issued=ahead)
    assert denied.is_denied(bearer(issued=ahead))
    assert not denied.is_denied(bearer(issued=ahead + 2))


def test_it_is_kept_with_who_and_why(opening: Callable[[], DenyList]) -> None:
    """The newest first; the same entry again is one with the later reason."""
    denied = opening()
    denied.deny(ISSUER, subject="anna", by="boris", reason="first")
    denied.deny(ISSUER, token="one", by="carla", reason="second")
    denied.deny(ISSUER, subject="anna", by="carla", reason="ümlauts — and more")
    kept = opening().all()
    assert [(each.subject, each.token, each.by, each.reason) for each in kept] == [
        ("anna", "", "carla", "ümlauts — and more"),
        ("", "one", "carla", "second"),
    ]


def test_every_process_sees_it_within_seconds(opening: Callable[[], DenyList], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was started before."""
    monkeypatch.setattr(module, "SECONDS", 0.1)
    one, other = opening(), opening()
    one.deny(ISSUER, subject="anna", by="boris", reason="why")
    end = time.monotonic() + 30
    while not other.is_denied(bearer()):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_was_denied_stays_so_while_the_database_is_away(
    opening: Callable[[], DenyList], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last state counts, and it is read again when that is possible."""
    monkeypatch.setattr(module, "SECONDS", 0.05)
    denied = opening()
    denied.deny(ISSUER, subject="anna", by="boris", reason="why")
    tried: list[int] = []

    def away() -> list[object]:
        tried.append(1)
        message = "the database is away"
        raise Conflict(message)

    monkeypatch.setattr(denied, "all", away)
    end = time.monotonic() + 30
    while len(tried) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert denied.is_denied(bearer())


def test_many_start_at_once(ledger_place: Place) -> None:
    """The table is made by one of them."""

    def start() -> None:
        with closing(DenyList(Database(ledger_place.url, ledger_place.password))) as denied:
            assert denied.all() == []

    assert not all_at_once([start] * 8)
