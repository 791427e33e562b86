"""One account's questions, and all of one VO's, leave room for the next one's."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx2
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from examples import NOON
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from searching import searched

from monitoring.api import router as monitoring
from siteward.query import Answer, AnswerRow, Query
from siteward.server import shares
from siteward.server.app import create_app
from siteward.server.asking import ASKED_AT_ONCE
from siteward.server.auth.identity import Identity
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Role, grant
from siteward.server.problems import Problem
from siteward.server.resources import Resources
from siteward.server.shares import OF_ONE, OF_VO, Asking, Shares
from siteward.settings import IssuerSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SECONDS = 60.0
"""Longer than any test, so that nobody's turn is lost to the clock."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "OWN_SECONDS", SECONDS)


def account(name: str) -> Identity:
    """One of that name."""
    return Identity(issuer="https://dteam.iam.example", subject=name, token="t", expires=0.0)


class Askers:
    """Several who ask at the same time, as tasks of one event loop.

    Attributes:
        has_place: who is asking, or was refused, in that order.
        refused: who was refused.
    """

    def __init__(self, group: TaskGroup) -> None:
        """Nobody asks yet."""
        self.shares = Shares()
        self.has_place: list[str] = []
        self.refused: list[str] = []
        self._group = group
        self._ends: list[tuple[str, anyio.Event]] = []

    async def ask(self, name: str, *vos: str) -> None:
        """Have somebody ask, and go on when nothing more happens by itself."""
        end = anyio.Event()
        self._ends.append((name, end))
        self._group.start_soon(self._asking, name, vos, end)
        await settled()

    async def answer(self, name: str) -> None:
        """End the oldest of somebody's questions, whether it was asked or waits."""
        found = next(each for each in self._ends if each[0] == name)
        self._ends.remove(found)
        found[1].set()
        await settled()

    async def _asking(self, name: str, vos: tuple[str, ...], end: anyio.Event) -> None:
        try:
            async with self.shares.hold(account(name), vos, "store"):
                self.has_place.append(name)
                await end.wait()
                self.has_place.remove(name)
        except Problem:
            self.refused.append(name)


async def settled() -> None:
    """Let every task go as far as it can by itself."""
    for _ in range(10):
        await checkpoint()


def run(test: Callable[[Askers], Awaitable[None]]) -> None:
    """Run a test in an event loop; whoever still asks at its end is cancelled."""

    async def running() -> None:
        async with anyio.create_task_group() as group:
            askers = Askers(group)
            await test(askers)
            group.cancel_scope.cancel()
        assert not any((askers.shares._here, askers.shares._held, askers.shares._taken, askers.shares._waiting))

    anyio.run(running)


def test_many_accounts_of_one_vo_leave_places_for_the_next_one() -> None:
    """Sixteen that ask four questions each have three quarters; another VO's first question is asked at once."""

    async def test(askers: Askers) -> None:
        for number in range(64):
            await askers.ask(f"alpha-{number % 16}", "alpha")
        assert len(askers.has_place) == OF_VO
        await askers.ask("beta", "beta")
        assert askers.has_place[-1] == "beta"
        await askers.ask("gamma", "gamma")
        assert askers.has_place[-1] == "gamma"
        assert not askers.refused

    run(test)


def test_one_account_alone_gets_a_quarter() -> None:
    """Its further question waits until one of its own is answered."""

    async def test(askers: Askers) -> None:
        for _ in range(OF_ONE + 1):
            await askers.ask("alpha-0", "alpha")
        assert askers.has_place == ["alpha-0"] * OF_ONE
        await askers.answer("alpha-0")
        assert askers.has_place == ["alpha-0"] * OF_ONE

    run(test)


def test_a_place_that_is_given_back_goes_to_whoever_holds_fewer() -> None:
    """A VO that filled its share before another one came shrinks until both hold the same."""

    async def test(askers: Askers) -> None:
        for number in range(40):
            await askers.ask(f"alpha-{number}", "alpha")
        for number in range(20):
            await askers.ask(f"beta-{number}", "beta")
        for _ in range(20):
            await askers.answer(next(each for each in askers.has_place if each.startswith("alpha")))
        of_vo = Counter(each.partition("-")[0] for each in askers.has_place)
        assert max(of_vo.values()) - min(of_vo.values()) <= 1
        assert sum(of_vo.values()) < ASKED_AT_ONCE

    run(test)


def test_each_place_that_is_given_back_is_a_new_vos_first() -> None:
    """Of many VOs at once, those that hold none are asked before those that hold some; none is refused."""

    async def test(askers: Askers) -> None:
        for number in range(40):
            await askers.ask(f"alpha-{number}", "alpha")
        for number in range(10):
            await askers.ask(f"vo-{number}", f"vo-{number}")
        assert len(askers.has_place) == ASKED_AT_ONCE
        for number in range(4, 10):
            await askers.answer(askers.has_place[0])
            assert askers.has_place[-1] == f"vo-{number}"
        assert not askers.refused

    run(test)


def test_who_asks_for_several_vos_counts_for_the_one_of_the_fewest() -> None:
    """So that one of them that is noisy does not keep it out."""

    async def test(askers: Askers) -> None:
        for number in range(20):
            await askers.ask(f"alpha-{number}", "alpha")
        await askers.ask("both", "alpha", "beta")
        assert askers.has_place[-1] == "both"

    run(test)


def test_who_gives_up_leaves_nothing_behind() -> None:
    """A browser that closes while it waits, or is answered, gives its place to the next one."""

    async def test(askers: Askers) -> None:
        held, gives_up = anyio.Event(), anyio.CancelScope()

        async def waiting() -> None:
            with gives_up:
                async with askers.shares.hold(account("alpha-0"), ("alpha",), "store"):
                    held.set()

        for _ in range(OF_ONE):
            await askers.ask("alpha-0", "alpha")
        askers._group.start_soon(waiting)
        await settled()
        gives_up.cancel()
        await settled()
        assert not held.is_set()
        await askers.answer("alpha-0")
        assert len(askers.has_place) == OF_ONE - 1
        await askers.ask("alpha-0", "alpha")
        assert len(askers.has_place) == OF_ONE

    run(test)


@pytest.mark.parametrize(("most", "accounts"), [("MOST_OF_ONE", 1), ("MOST_OF_VO", 100)])
def test_beyond_a_number_nobody_waits(monkeypatch: pytest.MonkeyPatch, most: str, accounts: int) -> None:
    """Requests that would wait in vain are answered 429 at once: an account's, and a VO's; others still may."""
    monkeypatch.setattr(shares, most, 20)

    async def test(askers: Askers) -> None:
        for number in range(25):
            await askers.ask(f"alpha-{number % accounts}", "alpha")
        assert len(askers.refused) == 5
        await askers.ask("beta", "beta")
        assert askers.has_place[-1] == "beta"

    run(test)


def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how many of its own, and of its VO's, are asked."""
    monkeypatch.setattr(shares, "OWN_SECONDS", 0.0)

    async def test(askers: Askers) -> None:
        async with AsyncExitStack() as held:
            for number in range(OF_VO):
                await held.enter_async_context(askers.shares.hold(account(f"alpha-{number}"), ("alpha",), "store"))
            with pytest.raises(Problem, match="0 of yours, 12 of the VO alpha") as refused:
                await held.enter_async_context(askers.shares.hold(account("another"), ("alpha",), "store"))
            assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "5"})

    run(test)


@searched(100)
@given(st.lists(st.tuples(st.integers(0, 4) | st.integers(0, 19), st.integers(0, 11), st.booleans()), max_size=80))
def test_whoever_comes_next_finds_a_place(steps: list[tuple[int, int, bool]]) -> None:
    """However they come and go: only a VO's first takes the last place, and no turn is lost."""

    async def test(askers: Askers) -> None:
        for vo, number, is_over in steps:
            name = f"{vo}-{number}"
            if is_over and name in askers.has_place:
                await askers.answer(name)
            else:
                await askers.ask(name, f"vo-{vo}")
            held = askers.shares._held
            of_vo = {whose: count for whose, count in held.items() if len(whose) == 1}
            waiting = askers.shares._waiting
            assert sum(of_vo.values()) == len(askers.has_place) <= ASKED_AT_ONCE
            if len(askers.has_place) == ASKED_AT_ONCE:
                assert of_vo["vo-" + askers.has_place[-1].partition("-")[0],] == 1
            assert max(of_vo.values(), default=0) <= OF_VO
            assert max((count for whose, count in held.items() if len(whose) == 2), default=0) <= OF_ONE
            assert len(askers.has_place) == ASKED_AT_ONCE or all(held[request.vo] for request in waiting)
            assert not any(askers.shares._may_take(request) for request in waiting)

    run(test)


class HeldStore:
    """A store that tells of each question, and answers when it is let.

    Attributes:
        asked: each question, when it comes.
        goes_on: let it answer.
    """

    def __init__(self) -> None:
        """Hold all questions."""
        self.asked: queue.Queue[Query] = queue.Queue()
        self.goes_on = threading.Event()

    def query(self, query: Query) -> Answer:
        """Answer when that is let."""
        self.asked.put(query)
        assert self.goes_on.wait(SECONDS)
        return Answer(query=query, rows=(AnswerRow(NOON, (), (1,)),), totals=(1,), units=("",), groups=1)


def test_one_vos_accounts_hold_up_no_other_vo_in_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty tokens of one VO ask a slow store at once: twelve are asked, and so are all of the next VO's that come."""
    came: queue.Queue[str] = queue.Queue()

    class Telling(Shares):
        def _enter(self, request: Asking) -> None:
            super()._enter(request)
            came.put(request.vo[0])

    monkeypatch.setattr(shares, "Shares", Telling)
    trusting = Settings(data=str(tmp_path), issuers={"local": IssuerSettings(profile="local")})
    resources, store = Resources(trusting), HeldStore()
    resources._objects["store"] = store
    issuer = LocalIssuer(trusting.issuer_file)
    found: list[tuple[str, int]] = []

    def token(name: str, *vos: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {issuer.token(name, (grant(Role.READER, vos),), 1)}"}

    with TestClient(create_app(trusting, routers=[monitoring], resources=resources), base_url="http://127.0.0.1") as to:
        threads: list[threading.Thread] = []

        def ask(vo: str, headers: dict[str, str]) -> None:
            def asking() -> None:
                answer: httpx2.Response = to.get("/v1/query?kind=job", headers=headers)
                found.append((vo, answer.status_code))

            threads.append(threading.Thread(target=asking, daemon=True))
            threads[-1].start()

        for number in range(20):
            ask("alpha", token(f"alpha-{number}", "alpha"))
        assert [came.get(timeout=SECONDS) for _ in range(20)] == ["alpha"] * 20
        for _ in range(OF_VO):
            store.asked.get(timeout=SECONDS)
        # Of three VOs that come now, and of one that is named by who may ask the noisy one, too.
        for vo, headers in (
            ("beta", token("beta-0", "beta")),
            ("gamma", token("gamma-0", "gamma", "alpha") | {"Siteward-VO": "gamma"}),
            ("delta", token("delta-0", "alpha", "delta")),
        ):
            ask(vo, headers)
            assert came.get(timeout=SECONDS) == vo
            store.asked.get(timeout=SECONDS)
        assert store.asked.empty()
        # Who names the noisy one waits for its turn as all of its own do.
        ask("alpha", token("several", "alpha", "epsilon") | {"Siteward-VO": "alpha"})
        assert came.get(timeout=SECONDS) == "alpha"
        assert to.get("/v1/kinds", headers=token("alpha-0", "alpha")).status_code == 200
        assert store.asked.empty()
        store.goes_on.set()
        for thread in threads:
            thread.join(SECONDS)
    assert Counter(found) == {("alpha", 200): 21, ("beta", 200): 1, ("gamma", 200): 1, ("delta", 200): 1}
