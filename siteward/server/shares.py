"""What one account may ask a store at once: whoever asks what takes long holds up nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from anyio import Semaphore, move_on_after
from fastapi import Request

from siteward.server.asking import ASKED_AT_ONCE
from siteward.server.auth.identity import Identity
from siteward.server.auth.viewing import caller_of
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources

OF_ONE: Final = ASKED_AT_ONCE // 4
"""Questions of one account that are asked at the same time."""
MOST_OF_ONE: Final = 64
"""Requests of one account that are answered or wait."""
OWN_SECONDS: Final = 10.0
"""How long a further one waits for its turn, which holds no thread, before it is answered 429."""


class Share:
    """What one account may ask at once, and how many of its requests are here."""

    def __init__(self) -> None:
        """None is yet."""
        self.free = Semaphore(OF_ONE)
        self.requests = 0


class Shares:
    """Those of the accounts that ask one store now; each is forgotten as soon as it has nothing to ask."""

    def __init__(self) -> None:
        """Nobody asks yet."""
        self._shares: dict[tuple[str, str], Share] = {}

    @asynccontextmanager
    async def hold(self, identity: Identity, asked: str) -> AsyncIterator[None]:
        """Hold a part of an account's share while one of its questions is answered.

        Raises:
            Problem: 429, its other ones take too long.
        """
        # By the issuer, too: another one's subject of the same name is somebody else.
        key = (identity.issuer, identity.subject)
        share = self._shares.setdefault(key, Share())
        if share.requests >= MOST_OF_ONE:
            raise Problem(429, f"{asked}: {share.requests} of yours wait; try again later", headers=RETRY_AFTER)
        share.requests += 1
        try:
            with move_on_after(OWN_SECONDS) as waiting:
                await share.free.acquire()
            if waiting.cancelled_caught:
                message = f"{asked}: {OF_ONE} questions of yours wait for their answer already; try again later"
                raise Problem(429, message, headers=RETRY_AFTER)
            try:
                yield
            finally:
                share.free.release()
        finally:
            share.requests -= 1
            if not share.requests:
                del self._shares[key]


class ShareOf:
    """Dependency of routes that ask a store: no account takes all of it. Whoever is at this machine is alone here."""

    def __init__(self, asked: str) -> None:
        """Name who is asked; all routes that ask the same one have one share of it."""
        self._asked = asked

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Let the route answer when it is its account's turn."""
        identity = caller_of(request).identity
        if not identity.issuer:
            yield
            return
        resources: Resources = request.app.state.resources
        async with resources.shared(f"shares of the {self._asked}", Shares).hold(identity, self._asked):
            yield
