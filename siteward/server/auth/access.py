"""The door: every request is judged before any of it is read, by the permission that its route declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from siteward.exposure import host_name
from siteward.log import get_logger
from siteward.loopback import is_loopback
from siteward.server.auth import Permission, Requirement, declared
from siteward.server.auth.caller import Caller
from siteward.server.auth.door import Door, NoToken
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.roles import SHARED, Grant, Role
from siteward.server.problems import RETRY_AFTER, Problem

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
OWN_SITES: Final = frozenset({"same-origin", "none"})
"""What a browser calls a request of our own pages, and one typed by a person."""
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="siteward"'}
LOGIN_PAGE: Final = "/login"
TO_LOGIN: Final[Mapping[int, Mapping[str, str]]] = {401: {}, 403: {"refused": "role"}}
"""By which statuses a browser that asks for a page is sent to log in, and what it is told there."""

log = get_logger(__name__)


class UndeclaredError(RuntimeError):
    """A route, or a task, that declares no permission; the app does not start with it."""


def permissions(routes: Iterable[BaseRoute]) -> Iterator[tuple[BaseRoute, Permission]]:
    """Every route with the permission it declares.

    Raises:
        UndeclaredError: naming the route that declares none, or more than one.
    """
    for route in routes:
        yield route, permission_of(route)


def permission_of(route: BaseRoute) -> Permission:
    """The permission that a route declares.

    Raises:
        UndeclaredError: it declares none, or more than one.
    """
    found = set(_declared(route))
    if len(found) != 1:
        path = getattr(route, "path", "") or type(route).__name__
        methods = ", ".join(sorted(getattr(route, "methods", None) or ()))
        message = (
            f"route {path!r}{f' ({methods})' if methods else ''} declares "
            f"{'no permission' if not found else 'more than one permission'}; "
            "give it one: dependencies=[Depends(requires(Permission.READ))], or mount Guarded(app, permission)"
        )
        raise UndeclaredError(message)
    return found.pop()


def _declared(route: BaseRoute) -> Iterator[Permission]:
    if isinstance(route, APIRoute):
        yield from _in_dependencies(route.dependant)
    elif isinstance(route, Mount) and isinstance(route.app, Guarded):
        yield route.app.permission


def _in_dependencies(dependant: Any) -> Iterator[Permission]:  # noqa: ANN401  # FastAPI's tree, whose class moves.
    if isinstance(dependant.call, Requirement):
        yield dependant.call.permission
    for inner in dependant.dependencies:
        yield from _in_dependencies(inner)


class Guarded:
    """An ASGI application to be mounted, with the permission it asks for."""

    def __init__(self, app: ASGIApp, permission: Permission) -> None:
        """Say what a caller of anything below it must be allowed to do.

        Raises:
            TypeError: that is no permission.
        """
        self.app = app
        self.permission = declared(permission, "a mounted application")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await self.app(scope, receive, send)


class Access:
    """ASGI middleware that lets a request through to its route, with its caller, or answers why not."""

    def __init__(self, app: ASGIApp, door: Door, routes: Sequence[BaseRoute]) -> None:
        """Judge by what this door tells, and by what the routes declare.

        Args:
            app: what the routes are of.
            door: tells who calls.
            routes: the application's own list, in its order: what is added to it later is judged, too.
        """
        self._app = app
        self._door = door
        self._routes = routes
        # By the routes' own addresses in memory, which are theirs as long as they are kept here.
        self._judged: dict[int, tuple[BaseRoute, Permission | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No route is a WebSocket; one behind a mounted application would pass unjudged.
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            await self._admit(scope, Headers(scope=scope))
        except Problem as problem:
            headers = Headers(scope=scope)
            is_page = problem.status in TO_LOGIN and _is_page(scope, headers)
            answer = _to_login(scope, TO_LOGIN[problem.status]) if is_page else problem.response()
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> None:
        """Leave a request's caller in its scope.

        Raises:
            Problem: it may not pass.
        """
        if self._door.person is not None and not is_loopback(host_name(headers.get("host", ""))):
            detail = "This server answers to localhost only; other names need issuers of tokens ([issuers.NAME])."
            raise Problem(421, detail)
        if scope["method"] not in SAFE and _from_another_site(headers):
            detail = "A web page of another site may not change anything here."
            raise Problem(403, detail)
        permission = self._asked(scope)
        if permission is not Permission.PUBLIC:
            caller = await self._caller(headers, permission)
            if caller.by_cookie and scope["method"] not in SAFE and not _is_ours(headers):
                # Whatever page made the browser send this: it does not say that it is one of ours.
                detail = "Only a page of this server may change anything with a session; programs send a token."
                raise Problem(403, detail)
            scope.setdefault("state", {}).update(caller=caller, permission=permission)

    async def _caller(self, headers: Headers, permission: Permission) -> Caller:
        try:
            caller = await self._door.caller(headers.get("authorization", ""), headers.get("cookie", ""))
        except NoToken as error:
            detail = "This needs a token: send the header `Authorization: Bearer …`."
            raise Problem(401, detail, headers=CHALLENGE) from error
        except TokenRefused as refusal:
            raise token_problem(refusal) from refusal
        if not caller.may(permission):
            roles = ", ".join(role for role in Role if Grant(role, (SHARED,)).allows(permission))
            detail = f"Your token does not allow this; it takes one of the roles {roles}."
            if permission is Permission.WATCH:
                detail += f" It has to hold in the VO {SHARED!r}."
            raise Problem(403, detail, headers={"WWW-Authenticate": 'Bearer error="insufficient_scope"'})
        return caller

    def _asked(self, scope: Scope) -> Permission:
        """What the route that will take the request asks for; where none will, nothing is asked and nothing is there.

        Raises:
            Problem: that route declares nothing.
        """
        partly: BaseRoute | None = None
        for route in self._routes:
            match route.matches(scope)[0]:
                case Match.FULL:
                    return self._permission_of(route)
                case Match.PARTIAL if partly is None:
                    partly = route
        if partly is not None:
            # It answers that it is not for this method, if it is one of ours.
            self._permission_of(partly)
        return Permission.PUBLIC

    def _permission_of(self, route: BaseRoute) -> Permission:
        """What a route declares.

        Raises:
            Problem: nothing; the app has started, so the route came later, and is as if it were not there.
        """
        if id(route) not in self._judged:
            try:
                self._judged[id(route)] = route, permission_of(route)
            except UndeclaredError as error:
                log.error("a route is not served", error=str(error))  # noqa: TRY400  # its trace tells nothing more.
                self._judged[id(route)] = route, None
        permission = self._judged[id(route)][1]
        if permission is None:
            raise Problem(404, "Not Found")
        return permission


def token_problem(refusal: TokenRefused) -> Problem:
    """A refused token as the problem to answer."""
    parts = {"reason": str(refusal.reason)}
    if refusal.reason is Reason.UNAVAILABLE:
        return Problem(503, str(refusal), title="Issuer unavailable", headers=RETRY_AFTER, parts=parts)
    challenge = {"WWW-Authenticate": 'Bearer realm="siteward", error="invalid_token"'}
    return Problem(401, str(refusal), title="Token refused", type="urn:siteward:token", headers=challenge, parts=parts)


def _is_page(scope: Scope, headers: Headers) -> bool:
    """Whether a person's browser asks for something to look at."""
    is_shown = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
    return is_shown and "authorization" not in headers


def _to_login(scope: Scope, refused: Mapping[str, str]) -> Response:
    query = scope.get("query_string", b"").decode("latin-1")
    to = f"{scope['path']}?{query}" if query else scope["path"]
    return RedirectResponse(f"{LOGIN_PAGE}?{urlencode({'to': to, **refused})}", 303)


def _is_ours(headers: Headers) -> bool:
    """Whether a browser says that one of our own pages sends this; every browser says one or the other."""
    if "sec-fetch-site" in headers:
        return headers["sec-fetch-site"] == "same-origin"
    return "origin" in headers and not _from_another_site(headers)


def _from_another_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another origin sends this; programs say nothing and pass."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in OWN_SITES
    origin = headers.get("origin")
    try:
        return origin is not None and urlsplit(origin).netloc != headers.get("host", "")
    except ValueError:
        return True
