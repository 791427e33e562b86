"""Who calls is told without anybody waiting for somebody else's issuer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from issuer import Clock, Issuer

from siteward.server.auth.door import ASKING_AT_ONCE, MOST_WAITING, Door
from siteward.server.auth.identity import Identity
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.resources import Resources
from siteward.settings import IssuerSettings, Settings


class Nobody:
    """A deny-list without anybody."""

    def is_denied(self, identity: Identity) -> bool:
        """Nobody is."""
        del identity
        return False


def no_sessions() -> Any:
    """Nobody has logged in."""
    raise AssertionError


def test_an_issuer_that_hangs_holds_up_its_own_bearers_only(tmp_path: Path) -> None:
    """However many come with whatever in its name; beyond what may wait they are told to come again."""
    slow, quick, goes_on = Issuer("https://slow.example"), Issuer("https://quick.example"), threading.Event()

    def hang(_headers: Mapping[str, str]) -> object:
        assert goes_on.wait(30)
        return {"keys": slow.published}

    slow.extra[f"{slow.url}/jwks"] = hang
    issuers = {"slow": slow.settings(), "quick": quick.settings(vos=("quick",))}
    by_url: dict[str, Issuer] = {slow.url: slow, quick.url: quick}

    def asking(settings: IssuerSettings) -> Issuer:
        return by_url[settings.url]

    door = Door(Settings(data=str(tmp_path), issuers=issuers), Nobody, no_sessions, fetch=asking, clock=Clock())
    refusals: list[Reason] = []
    enough = anyio.Event()

    async def call(token: str) -> None:
        try:
            await door.caller(f"Bearer {token}")
        except TokenRefused as refusal:
            refusals.append(refusal.reason)
            if len(refusals) == 20:
                enough.set()

    async def all_of_it() -> None:
        async with anyio.create_task_group() as group:
            for number in range(ASKING_AT_ONCE + MOST_WAITING + 20):
                group.start_soon(call, slow.token(jti=str(number)))
            with anyio.fail_after(20):
                await enough.wait()
                found = await door.caller(f"Bearer {quick.token()}")
            assert found.identity.issuer == quick.url
            assert refusals == [Reason.UNAVAILABLE] * 20
            goes_on.set()

    anyio.run(all_of_it)
    assert len(refusals) == 20


def test_what_does_not_open_holds_up_nobody_else(tmp_path: Path) -> None:
    """A database that is away is waited for by those who want it."""
    resources, goes_on, started = Resources(Settings(data=str(tmp_path)), {}), threading.Event(), threading.Event()
    opened: list[Any] = []

    def slow() -> str:
        started.set()
        assert goes_on.wait(30)
        opened.append("slow")
        return "slow"

    threads = [threading.Thread(target=resources.shared, args=("slow", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    assert resources.shared("quick", lambda: "quick") == "quick"
    assert not opened
    goes_on.set()
    for thread in threads:
        thread.join()
    assert opened == ["slow"]
    resources.close()


def test_what_opens_after_the_end_is_closed_again(tmp_path: Path) -> None:
    """Nobody would close it any more."""
    resources = Resources(Settings(data=str(tmp_path)), {})

    class Opened:
        closed = False

        def close(self) -> None:
            self.closed = True

    made = Opened()

    def late() -> Opened:
        resources.close()
        return made

    with pytest.raises(RuntimeError, match="after the end"):
        resources.shared("late", late)
    assert made.closed
