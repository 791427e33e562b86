"""Who a request is from: its token judged by the trusted issuers, or, on a machine of its own, the person at it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from siteward.exposure import check_reach
from siteward.log import get_logger
from siteward.loopback import is_loopback
from siteward.oauth.fetching import Fetch, HttpFetch, check_address
from siteward.server.auth.caller import Caller
from siteward.server.auth.cookies import SESSION, cookie_in
from siteward.server.auth.denied import Denied, refuse_denied
from siteward.server.auth.granting import check_issuer, grants_of
from siteward.server.auth.identity import Identity
from siteward.server.auth.local_issuer import AUDIENCE, BRIEF, LocalIssuer
from siteward.server.auth.local_issuer import NAME as LOCAL
from siteward.server.auth.local_person import local_person
from siteward.server.auth.login import LogIn
from siteward.server.auth.refusal import Reason, TokenRefused, Waits
from siteward.server.auth.sessions import Session, Sessions
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.auth.verifier import Verifier
from siteward.server.database import Conflict, DatabaseError
from siteward.settings import IssuerSettings, Settings, SettingsError
from siteward.telemetry import TOKENS_REFUSED, telemetry

ASKING_AT_ONCE: Final = 4
"""Requests that hold a thread while an issuer is asked; no issuer that hangs takes those of the routes."""
MOST_WAITING: Final = 100
"""Further ones that wait for their turn."""

ISSUER_KEYS: Final = "issuer-keys"
"""Below the data folder: what issuers said last, so that a start while one does not answer knows its keys."""

Found = TypeVar("Found")
log = get_logger(__name__)


class NoToken(Exception):  # noqa: N818  # reads as what the request lacks.
    """The request has no token, and needs one."""


class Door:
    """Tells who calls.

    Attributes:
        person: whoever is at this machine; None where everybody needs a token.
        login: sends people to their issuers.
        url: where browsers find us; "" where they ask a loopback address.
        is_secure: they find us over TLS.
    """

    def __init__(
        self,
        settings: Settings,
        denied: Callable[[], Denied],
        sessions: Callable[[], Sessions],
        *,
        fetch: Callable[[IssuerSettings], Fetch] | None = None,
        http: Callable[[IssuerSettings], HttpFetch] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Trust the issuers of the settings, and our own one.

        Args:
            settings: of this installation.
            denied: opens the deny-list, when the first token comes.
            sessions: opens those of browsers, when the first cookie comes.
            fetch: gives what asks an issuer for its keys; over HTTP by default.
            http: gives what asks an issuer at log-in.
            clock: seconds since 1970 UTC.

        Raises:
            SettingsError: an issuer or a grant cannot mean what it says, the app would be reachable from other
                machines without a trusted issuer, or our own issuer's file is no secret any more.
            OSError: that file can neither be read nor made.
        """
        check_trust(settings)
        local = LocalIssuer(settings.issuer_file, clock)
        self._denied = denied
        self._sessions = sessions
        self._open_sessions: Sessions | None = None
        # Whose sessions are believed, and the VOs that each speaks for; our own issuer's tokens name theirs.
        self._logging_in: dict[str, tuple[str, ...] | None] = {
            (local.settings.url if name == LOCAL else each.url): None if name == LOCAL else each.vos
            for name, each in settings.issuers.items()
        }
        self._verifier = verifier_of(settings, local, clock, fetch or _over_http)
        self.login = LogIn(settings, self._verifier, http=http, clock=clock)
        self.url = settings.server.url.rstrip("/")
        self.is_secure = self.url.startswith("https:")
        self._opened: Denied | None = None
        # By the issuers' names, of which there are as many as are trusted.
        self._places: dict[str, CapacityLimiter] = {}
        self._waiting: Counter[str] = Counter()
        # With any issuer, whoever comes from this machine may be a proxy that brings the world.
        self.person = None if settings.issuers else local_person()

    async def caller(self, authorization: str, cookies: str = "") -> Caller:
        """Who sent a request.

        Args:
            authorization: its header of that name; "" without.
            cookies: its cookies, by which browsers are known that send no token.

        Raises:
            NoToken: there is no token, and nobody passes without.
            TokenRefused: the token proves nothing.
        """
        text = token_in(authorization)
        if not text:
            if authorization:
                raise NoToken
            return self.person or await self._of_cookie(cookie_in(cookies, SESSION, is_secure=self.is_secure))
        try:
            try:
                verified = self._verifier.verify(text, may_wait=False)
            except Waits as waits:
                verified = await self.apart(waits.issuer, partial(self._verifier.verify, text))
        except TokenRefused as refusal:
            telemetry.add(TOKENS_REFUSED, 1, refusal.reason)
            raise
        return await self.of_identity(verified.identity)

    async def of_identity(self, identity: Identity) -> Caller:
        """A proven identity with its roles, as they are configured now.

        Raises:
            TokenRefused: it is denied.
        """
        refuse_denied(await self._deny_list(), identity)
        return Caller(identity, grants_of(identity, self._verifier.trusted(identity.issuer).settings))

    async def _of_cookie(self, cookie: str) -> Caller:
        """Whose session a cookie is.

        Raises:
            NoToken: it is none.
            TokenRefused: whose it is was denied, or the sessions cannot be read.
        """
        if not cookie:
            raise NoToken
        try:
            session = self._open_sessions.known(cookie) if self._open_sessions else None
            if session is None:
                session = await self.apart("cookies", lambda: self._found(cookie))
        except (SQLAlchemyError, DatabaseError, Conflict) as error:
            log.warning("the sessions are not read", error=str(error))
            message = "sessions cannot be read now; try again later"
            raise TokenRefused(Reason.UNAVAILABLE, message) from error
        if session is None or session.identity.issuer not in self._logging_in:
            raise NoToken
        vos = self._logging_in[session.identity.issuer]
        # What the issuer may speak for is what the settings say now.
        mine = session.identity.vos if vos is None else tuple(vo for vo in session.identity.vos if vo in vos)
        identity = msgspec.structs.replace(session.identity, vos=mine)
        return msgspec.structs.replace(await self.of_identity(identity), by_cookie=True)

    def _found(self, cookie: str) -> Session | None:
        self._open_sessions = self._sessions()
        return self._open_sessions.find(cookie)

    async def apart(self, issuer: str, work: Callable[[], Found]) -> Found:
        """Do in a thread what may wait for an issuer: one that hangs holds up its own bearers only.

        Raises:
            TokenRefused: too many wait for it already.
        """
        if self._waiting[issuer] >= ASKING_AT_ONCE + MOST_WAITING:
            message = f"too many wait for the issuer {issuer}; try again later"
            raise TokenRefused(Reason.UNAVAILABLE, message)
        self._waiting[issuer] += 1
        try:
            limiter = self._places.setdefault(issuer, CapacityLimiter(ASKING_AT_ONCE))
            return await to_thread.run_sync(work, limiter=limiter)
        finally:
            self._waiting[issuer] -= 1

    async def _deny_list(self) -> Denied:
        if self._opened is None:
            try:
                self._opened = await self.apart("", self._denied)
            except (SQLAlchemyError, DatabaseError, Conflict) as error:
                log.warning("the deny-list is not opened", error=str(error))
                message = "the deny-list cannot be read now; try again later"
                raise TokenRefused(Reason.UNAVAILABLE, message) from error
        return self._opened


def trusted_issuers(settings: Settings, local: LocalIssuer) -> dict[str, IssuerSettings]:
    """Whose tokens are believed, by name: those of the settings, and our own one, if for what it makes itself only.

    Raises:
        SettingsError, OSError: as of our own issuer's settings.
    """
    issuers = {name: issuer for name, issuer in settings.issuers.items() if issuer.profile != "local"}
    audiences = (AUDIENCE, BRIEF) if is_own_trusted(settings) else (BRIEF,)
    issuers[LOCAL] = msgspec.structs.replace(local.settings, audiences=audiences)
    return issuers


def is_own_trusted(settings: Settings) -> bool:
    """Whether tokens of our own issuer hold for more than the moments of a command on this machine."""
    return LOCAL in settings.issuers or not settings.issuers


def issuer_named(settings: Settings, name: str) -> str:
    """The exact name of a trusted issuer, given as that or as the settings call it.

    Raises:
        ValueError: nobody here trusts it, so that nothing of it could be denied; with those that are.
    """
    known = {each: issuer.url for each, issuer in settings.issuers.items() if issuer.profile != "local"}
    known[LOCAL] = LocalIssuer(settings.issuer_file).settings.url
    if name in known.values():
        return name
    if name in known:
        return known[name]
    message = f"the issuer {name[:LONGEST_NAME]!r} is not trusted here; there are {', '.join(known.values())}"
    raise ValueError(message)


def check_trust(settings: Settings) -> None:
    """Refuse settings by which strangers would be let in.

    Raises:
        SettingsError: saying what to set.
    """
    by_url: dict[str, str] = {}
    for name, issuer in settings.issuers.items():
        if (name == LOCAL) is not (issuer.profile == "local"):
            message = f"setting issuers.{name}: our own issuer, and no other one, is {LOCAL!r}, of the profile local"
            raise SettingsError(message)
        if issuer.profile == "local":
            _check_local(issuer)
            continue
        if issuer.url in by_url:
            message = f"setting issuers.{name}.url: {issuer.url!r} is that of issuers.{by_url[issuer.url]} already"
            raise SettingsError(message)
        by_url[issuer.url] = name
        check_issuer(name, issuer)
    host, url = settings.server.host, settings.server.url
    if url:
        try:
            check_address(url, "setting server.url")
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if urlsplit(url).path.strip("/"):
            message = f"setting server.url: {url!r} has a path; pages are at the root of their server"
            raise SettingsError(message)
    elif not is_loopback(host) and any(issuer.client for issuer in settings.issuers.values()):
        message = "setting server.url: people who log in are sent back there; give the address that browsers use"
        raise SettingsError(message)
    check_reach("server", host, trusting=bool(settings.issuers))


def _check_local(issuer: IssuerSettings) -> None:
    if issuer != IssuerSettings(profile="local"):
        message = f"setting issuers.{LOCAL}: give our own issuer its profile only; roles stand in its tokens"
        raise SettingsError(message)


def token_in(authorization: str) -> str:
    """The token of an Authorization header; "" without."""
    scheme, _, given = authorization.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _over_http(issuer: IssuerSettings) -> Fetch:
    return HttpFetch(issuer.ca)


def verifier_of(
    settings: Settings,
    local: LocalIssuer,
    clock: Callable[[], float],
    fetch: Callable[[IssuerSettings], Fetch] = _over_http,
) -> Verifier:
    """What verifies tokens of the trusted issuers, with the keys that are known since before.

    Args:
        settings: of this installation.
        local: our own issuer, which nobody has to ask.
        clock: seconds since 1970 UTC.
        fetch: gives what asks another issuer.
    """

    def asking(issuer: IssuerSettings) -> Fetch:
        return local if issuer.profile == "local" else fetch(issuer)

    return Verifier(trusted_issuers(settings, local), asking, clock, settings.folder / ISSUER_KEYS)
