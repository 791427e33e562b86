"""The noisy one waits, and nobody else notices."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from issuer import Clock

from collectors import quotas as module
from collectors.quotas import AT_ONCE, BURST, Quotas
from collectors.sender import Sender
from siteward.people import Nobody
from siteward.server.auth.caller import Caller
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import Grant, Role
from siteward.server.problems import Problem
from siteward.settings import GatewaySettings
from siteward.settings_sections import VoSettings

TOO_MANY = 429


def sender(name: str, *vos: str) -> Sender:
    """One of that name, which reports for VOs."""
    identity = Identity(issuer="https://dteam.iam.example", subject=name, token="t", expires=0.0)
    return Sender(Caller(identity, (Grant(Role.REPORTER, vos),) if vos else ()), Nobody())


def limited(clock: Clock, **limits: Any) -> Quotas:
    """Quotas with these limits."""
    return Quotas(GatewaySettings(**limits), clock)


def wait(quotas: Quotas, producer: str, *vos: str) -> int:
    """Seconds that a producer is told to wait; 0 where it may send."""
    try:
        quotas.check(sender(producer), vos)
    except Problem as problem:
        return int(problem.headers["Retry-After"]) if problem.status == TOO_MANY else -1
    return 0


def test_without_limits_nobody_waits() -> None:
    """Where the settings say so."""
    quotas = limited(Clock(), producer_rate=0, vo_rate=0)
    quotas.charge(sender("one"), {"a": 10**9})
    assert wait(quotas, "one", "a") == 0


def test_an_honest_site_never_waits_by_default() -> None:
    """With 100,000 cores, a day's jobs to send anew, and 200 VOs' worth of everything else."""
    clock = Clock()
    quotas = limited(clock)
    for _ in range(24 * 28):
        assert wait(quotas, "site", "a") == 0
        quotas.charge(sender("site"), {"a": 3_600})
        clock.now += 0.4


def test_a_vo_may_have_a_rate_of_its_own() -> None:
    """Higher, lower or none; the others have that of all."""
    clock = Clock()
    own = {"small": VoSettings(rate=10), "free": VoSettings(rate=0)}
    quotas = limited(clock, producer_rate=0, vo_rate=100, vos=own)
    for vo in ("small", "free", "other"):
        quotas.charge(sender("one"), {vo: 1_000})
    assert [wait(quotas, "one", vo) for vo in ("small", "free", "other")] == [90, 0, 0]
    quotas.charge(sender("one"), {"free": 10**9, "other": 100})
    assert [wait(quotas, "one", vo) for vo in ("free", "other")] == [0, 1]


def test_a_noisy_producer_waits_and_no_other() -> None:
    """As long as it takes until it has kept to its rate; then it goes on."""
    clock = Clock()
    quotas = limited(clock, producer_rate=100)
    quotas.charge(sender("noisy"), {"a": int(100 * BURST)})
    assert wait(quotas, "noisy") == 0
    quotas.charge(sender("noisy"), {"a": 500})
    assert wait(quotas, "noisy") == 5
    assert wait(quotas, "quiet") == 0
    clock.now += 4.9
    assert wait(quotas, "noisy") == 1
    clock.now += 0.1
    assert wait(quotas, "noisy") == 0


def test_a_noisy_vo_waits_whoever_sends_for_it() -> None:
    """The sum over its producers counts; other VOs of the same producers go on."""
    clock = Clock()
    quotas = limited(clock, vo_rate=100)
    for number in range(11):
        quotas.charge(sender(f"producer-{number}"), {"noisy": 100, "quiet": 1})
    assert wait(quotas, "another", "noisy") == 1
    assert wait(quotas, "another", "quiet") == 0
    assert wait(quotas, "another", "quiet", "noisy") == 1


def test_in_the_long_run_a_rate_is_the_rate() -> None:
    """Whoever sends whenever it may has sent what the limit says, and one burst more."""
    clock = Clock()
    begin, sent, quotas = clock.now, 0, limited(clock, producer_rate=50)
    while clock.now < begin + 600:
        if wait(quotas, "one") == 0:
            quotas.charge(sender("one"), {"a": 70})
            sent += 70
        clock.now += 0.3
    assert 600 * 50 <= sent <= (600 + BURST) * 50 + 70


def test_a_rest_earns_no_more_than_a_burst() -> None:
    """A year of silence is not a year of records at once."""
    clock = Clock()
    quotas = limited(clock, producer_rate=10)
    quotas.charge(sender("one"), {"a": 1})
    clock.now += 10**7
    quotas.charge(sender("one"), {"a": int(10 * BURST) + 10})
    assert wait(quotas, "one") == 1


def test_one_producer_does_not_hold_all_places() -> None:
    """Its further requests are refused while the others' are read; a place that is given back is free."""
    quotas = limited(Clock(), producer_at_once=2)
    noisy, quiet = sender("noisy"), sender("quiet")
    with quotas.reading(noisy):
        with quotas.reading(noisy):
            with pytest.raises(Problem, match="2 requests of noisy"), quotas.reading(noisy):
                pass
            with quotas.reading(quiet):
                pass
        with quotas.reading(noisy):
            pass


def test_one_vo_does_not_hold_all_places_however_many_tokens_it_has() -> None:
    """Its further senders are refused, and another VO's are not; nor is who speaks for both, by the other one."""
    quotas = limited(Clock(), vo_at_once=3)
    with ExitStack() as held:
        for number in range(3):
            held.enter_context(quotas.reading(sender(f"alpha-{number}", "alpha", "all")))
        with (
            pytest.raises(Problem, match="3 requests of the VO alpha") as refused,
            quotas.reading(sender("x", "alpha")),
        ):
            pass
        assert (refused.value.status, "Retry-After" in refused.value.headers) == (TOO_MANY, True)
        held.enter_context(quotas.reading(sender("beta-0", "beta", "all")))
        with quotas.reading(sender("both", "alpha", "beta")):
            with pytest.raises(Problem, match="2 requests of the VO"), quotas.reading(sender("more", "alpha", "beta")):
                pass
            with quotas.reading(sender("shared", "all")):
                pass
        with quotas.reading(sender("beta-1", "beta")):
            pass
    with quotas.reading(sender("alpha-3", "alpha")):
        pass


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4) | st.integers(0, 19), st.integers(0, 11)), max_size=80))
def test_whoever_comes_next_finds_a_place(asked: list[tuple[int, int]]) -> None:
    """However many tokens take what they can get: only a VO's first takes the last place, and none is refused it."""
    quotas, reading, of_vo = limited(Clock()), 0, Counter[int]()
    with ExitStack() as held:
        for vo, token in asked:
            try:
                held.enter_context(quotas.reading(sender(f"{vo}-{token}", f"vo-{vo}")))
            except Problem:
                assert of_vo[vo], "it holds some"
            else:
                reading, of_vo[vo] = reading + 1, of_vo[vo] + 1
                assert reading < AT_ONCE or of_vo[vo] == 1, "whoever held some left a place"
            assert max(of_vo.values(), default=0) <= GatewaySettings().vo_at_once


def test_one_alone_gets_what_the_settings_say() -> None:
    """Eight for one token, twelve for a VO of many; sixteen where that is asked for."""
    for most, limits in ((12, {}), (16, {"vo_at_once": 16}), (1, {"vo_at_once": 1})):
        quotas = limited(Clock(), **limits)
        with ExitStack() as held:
            for number in range(most):
                held.enter_context(quotas.reading(sender(f"alpha-{number}", "alpha")))
            with pytest.raises(Problem, match=f"{most} requests of the VO"), quotas.reading(sender("one", "alpha")):
                pass


def test_who_was_silent_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of names does not fill the memory."""
    monkeypatch.setattr(module, "MOST_KNOWN", 3)
    quotas = limited(Clock(), producer_rate=1, vo_rate=0)
    for name in ("a", "b", "c", "a", "d"):
        quotas.charge(sender(name), {"vo": 100})
    assert [wait(quotas, name) > 0 for name in ("a", "b", "c", "d")] == [True, False, True, True]
