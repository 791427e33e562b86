"""What one account, and one VO, may ask a store at once: whoever asks what takes long holds up nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from anyio import Event, move_on_after
from fastapi import Request

from siteward.server.asking import ASKED_AT_ONCE
from siteward.server.auth import Permission
from siteward.server.auth.identity import Identity
from siteward.server.auth.viewing import VO_HEADER, caller_of
from siteward.server.places import may_take
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources

OF_ONE: Final = ASKED_AT_ONCE // 4
"""Questions of one account that are asked at the same time, where nobody else asks."""
OF_VO: Final = ASKED_AT_ONCE * 3 // 4
"""Those of one VO, however many accounts it has; where nobody else asks, too."""
MOST_OF_ONE: Final = 64
"""Requests of one account that are answered or wait."""
MOST_OF_VO: Final = 256
"""Those of one VO. Whenever a place is free, all that wait are looked through."""
OWN_SECONDS: Final = 10.0
"""How long a further one waits for its turn, which holds no thread, before it is answered 429."""
Whose = tuple[str, ...]
"""An account, by issuer and subject, since another issuer's subject of the same name is somebody else; or a VO."""


class Asking:
    """A request that holds a place, or waits for one."""

    def __init__(self, account: Whose, vo: str) -> None:
        """Wait."""
        self.account = account
        self.vo = (vo,)
        self.turn = Event()
        self.has_place = False


class Shares:
    """Those who ask one store now; each is forgotten as soon as it has nothing to ask. For one event loop."""

    def __init__(self) -> None:
        """Nobody asks yet."""
        self._here: Counter[Whose] = Counter()
        self._held: Counter[Whose] = Counter()
        self._taken = 0
        self._waiting: dict[Asking, None] = {}

    @asynccontextmanager
    async def hold(self, identity: Identity, vos: Sequence[str], asked: str) -> AsyncIterator[None]:
        """Hold a place of an account, and of its VO, while one of its questions is answered.

        Who holds some takes another one only while that leaves enough for others, and else waits: the next VO, whose
        places those may be, is asked at once, and where several come at the same moment, before any that holds some.

        Args:
            identity: who asks.
            vos: of whose places it may have one; it is one of the VO of which the fewest requests are here.
            asked: who is asked, for messages.

        Raises:
            Problem: 429, its other ones, or its VO's, take too long.
        """
        vo = min(vos, key=lambda each: self._here[each,], default="")
        request = Asking((identity.issuer, identity.subject), vo)
        self._check_here(request, asked)
        self._enter(request)
        try:
            with move_on_after(OWN_SECONDS):
                await request.turn.wait()
            if not request.has_place:
                held = f"{self._held[request.account]} of yours, {self._held[request.vo]} of the VO {vo}"
                message = f"{asked}: questions wait for their answer already, {held}; try again later"
                raise Problem(429, message, headers=RETRY_AFTER)
            yield
        finally:
            self._leave(request)

    def _check_here(self, request: Asking, asked: str) -> None:
        """Refuse a request where so many wait that another one would only wait in vain."""
        for whose, most, called in (
            (request.account, MOST_OF_ONE, "yours"),
            (request.vo, MOST_OF_VO, f"the VO {request.vo[0]}"),
        ):
            if self._here[whose] >= most:
                message = f"{asked}: {self._here[whose]} questions of {called} wait; try again later"
                raise Problem(429, message, headers=RETRY_AFTER)

    def _enter(self, request: Asking) -> None:
        self._here.update((request.account, request.vo))
        self._waiting[request] = None
        self._give_places()

    def _leave(self, request: Asking) -> None:
        self._here.subtract((request.account, request.vo))
        self._waiting.pop(request, None)
        if request.has_place:
            self._held.subtract((request.account, request.vo))
            self._taken -= 1
        # Names of those who are gone are not kept.
        self._here += Counter()
        self._held += Counter()
        self._give_places()

    def _give_places(self) -> None:
        """Let those ask who may now, whoever came first before the others."""
        for request in [*self._waiting]:
            if self._may_take(request):
                del self._waiting[request]
                self._held.update((request.account, request.vo))
                self._taken += 1
                request.has_place = True
                request.turn.set()

    def _may_take(self, request: Asking) -> bool:
        free = ASKED_AT_ONCE - self._taken
        return free > 0 and all(
            may_take(held=self._held[whose], most=most, free=free, places=ASKED_AT_ONCE)
            for whose, most in ((request.account, OF_ONE), (request.vo, OF_VO))
        )


class ShareOf:
    """Dependency of routes that ask a store: no account, and no VO, takes all of it.

    Whoever is at this machine is alone here.
    """

    def __init__(self, asked: str) -> None:
        """Name who is asked; all routes that ask the same one have one share of it."""
        self._asked = asked

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Let the route answer when it is its account's turn, and its VO's."""
        caller = caller_of(request)
        if not caller.identity.issuer:
            yield
            return
        vos, named = caller.places_of(Permission.READ), request.headers.get(VO_HEADER, "")
        # Which one is asked is known where it is named; of those who may ask any, one share is for all of them.
        vos = (named,) if named in vos else vos
        resources: Resources = request.app.state.resources
        async with resources.shared(f"shares of the {self._asked}", Shares).hold(caller.identity, vos, self._asked):
            yield
