"""HTTP routes of log-in with a browser: to the issuer, back from it, with a token, and out again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
from anyio import fail_after, to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect

from siteward.exposure import host_name
from siteward.log import get_logger
from siteward.loopback import is_loopback
from siteward.server.asking import json_response, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.access import token_problem
from siteward.server.auth.auditing import note_change
from siteward.server.auth.caller import Caller
from siteward.server.auth.cookies import LOGIN, LOGIN_SECONDS, SESSION, cookie_in, read, set_cookie, written
from siteward.server.auth.door import Door, NoToken
from siteward.server.auth.login import SCOPES, LogInRefused, local_path
from siteward.server.auth.refusal import TokenRefused
from siteward.server.auth.token_text import LONGEST
from siteward.server.auth.viewing import caller_of
from siteward.server.database import Conflict, DatabaseError
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources

SEE_OTHER: Final = 303
PATIENCE: Final = 10.0
"""Seconds in which a body of a few kilobytes has to come."""
TOKEN: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]}
            }
        },
    }
}
PUBLIC: Final = (Depends(requires(Permission.PUBLIC)),)

Done = TypeVar("Done")
log = get_logger(__name__)


def router(resources: Resources, door: Door) -> APIRouter:
    """The routes `/login/start`, `/login/callback`, `/v1/issuers` and `/v1/session`."""
    routes = APIRouter(tags=["access"])
    _add_issuers(routes, resources, door)
    _add_browser(routes, resources, door)
    _add_session(routes, resources, door)
    return routes


def _add_issuers(routes: APIRouter, resources: Resources, door: Door) -> None:
    settings = resources.settings

    @routes.get("/v1/issuers", dependencies=[*PUBLIC, Depends(refuse_unknown)])
    def issuers() -> Response:
        """Answer whose tokens are believed here, and where people log in: with a browser, or on a command line."""
        told = [
            {
                "name": name,
                "url": issuer.url,
                "browser": name in door.login.names,
                "client": issuer.device_client,
                "scopes": issuer.scopes or SCOPES[issuer.profile],
                "audience": next(iter(issuer.audiences), ""),
            }
            for name, issuer in settings.issuers.items()
            if issuer.profile != "local"
        ]
        return json_response({"issuers": told, "tokens": bool(settings.issuers)})


def _add_browser(routes: APIRouter, resources: Resources, door: Door) -> None:
    @routes.get("/login/start", dependencies=[*PUBLIC], include_in_schema=False)
    async def start(request: Request, issuer: Annotated[str, Query()], to: Annotated[str, Query()] = "/") -> Response:
        """Send a browser to an issuer."""
        if issuer not in door.login.names:
            raise Problem(404, "nobody can log in with a browser at that issuer")
        base = _base(request, door)
        try:
            url, under_way = await door.apart(issuer, partial(door.login.begin, issuer, base, to))
        except (LogInRefused, TokenRefused) as refusal:
            return _refused(refusal, to)
        answer = RedirectResponse(url, SEE_OTHER)
        cookie = set_cookie(LOGIN, written(under_way), LOGIN_SECONDS, is_secure=door.is_secure)
        answer.headers.append("Set-Cookie", cookie)
        return answer

    @routes.get("/login/callback/{issuer}", dependencies=[*PUBLIC], include_in_schema=False)
    async def callback(request: Request, issuer: str) -> Response:
        """Take back a browser from an issuer, each at an address of its own: none can pass for another one."""
        cookies = request.headers.get("cookie", "")
        under_way = read(cookie_in(cookies, LOGIN, is_secure=door.is_secure))
        to = under_way.to if under_way else "/"
        if issuer not in door.login.names:
            raise Problem(404, "nobody can log in with a browser at that issuer")
        finish = partial(door.login.finish, issuer, under_way, _base(request, door), dict(request.query_params))
        try:
            identity = await door.apart(issuer, finish)
            caller = await door.of_identity(identity)
        except (LogInRefused, TokenRefused) as refusal:
            return _refused(refusal, to, door)
        answer = RedirectResponse(local_path(to), SEE_OTHER)
        await _begin(resources, door, caller, answer, cookies)
        answer.headers.append("Set-Cookie", set_cookie(LOGIN, "", 0, is_secure=door.is_secure))
        return answer


def _add_session(routes: APIRouter, resources: Resources, door: Door) -> None:
    @routes.post("/v1/session", dependencies=[*PUBLIC, Depends(refuse_unknown)], openapi_extra=TOKEN)
    async def begin(
        request: Request,
    ) -> Response:
        """Log in a browser with a token, such as one of `siteward token create`; its cookie stands for it from now."""
        _base(request, door)
        token = await _token_of(request)
        try:
            caller = await door.caller(f"Bearer {token}")
        except NoToken as error:
            raise Problem(401, "This is no token.") from error
        except TokenRefused as refusal:
            raise token_problem(refusal) from refusal
        answer = json_response({"subject": caller.identity.subject, "issuer": caller.identity.issuer})
        await _begin(resources, door, caller, answer, request.headers.get("cookie", ""))
        return answer

    @routes.delete("/v1/session", dependencies=[Depends(requires(Permission.IDENTIFIED)), Depends(refuse_unknown)])
    async def end(
        request: Request,
        everywhere: Annotated[bool, Query(description="In every browser, and with every token issued so far.")] = False,  # noqa: FBT002  # a query.
    ) -> Response:
        """Log out, and say where the session at the issuer is ended, which this does not do."""
        identity = caller_of(request).identity
        cookie = cookie_in(request.headers.get("cookie", ""), SESSION, is_secure=door.is_secure)
        # Noted as it is asked for, too: what goes wrong on the way may have ended some.
        note_change(request, after={"everywhere": everywhere})

        def ended() -> int:
            if everywhere:
                count = resources.sessions.end_all(identity.issuer, subject=identity.subject)
                if identity.issuer:
                    # Programs that the person has logged in, and whoever has copied a token, are out, too; the one that
                    # asks for it as well, whatever its issuer's clock says.
                    told = {"by": identity.subject, "reason": "logged out everywhere"}
                    issued = identity.issued if identity.issued < float("inf") else 0.0
                    resources.denied.end_tokens(identity.issuer, identity.subject, issued=issued, **told)
                return count
            return resources.sessions.end(cookie)

        count, at_issuer = await _of_database(ended), ""
        note_change(request, before={"sessions": count}, after={"sessions": 0, "everywhere": everywhere})
        if everywhere:
            # Whatever becomes of this, the sessions are over.
            with suppress(Problem, TokenRefused):
                logout = partial(door.login.issuer_logout, identity.issuer, _base(request, door))
                at_issuer = await door.apart(identity.issuer, logout)
        answer = json_response({"ended": count, "issuer": at_issuer})
        answer.headers.append("Set-Cookie", set_cookie(SESSION, "", 0, is_secure=door.is_secure))
        return answer


async def _begin(resources: Resources, door: Door, caller: Caller, answer: Response, cookies: str) -> None:
    """Give an answer the cookie of a new session; the browser's old one ends, so that none is left behind."""
    old = cookie_in(cookies, SESSION, is_secure=door.is_secure)

    def begun() -> tuple[str, float]:
        with resources.audited(caller, "log in", None) as change:
            cookie, session = resources.sessions.begin(caller.identity)
            ended = resources.sessions.end(old) if old else 0
            # Neither is named: what stands for a session is a secret.
            change.before = {"sessions": ended}
            change.after = {"sessions": 1, "ends": int(session.identity.expires)}
        return cookie, session.identity.expires - session.begun

    cookie, seconds = await _of_database(begun)
    answer.headers.append("Set-Cookie", set_cookie(SESSION, cookie, seconds, is_secure=door.is_secure))


async def _token_of(request: Request) -> str:
    """The token of a body, of which no more is read than a token is long.

    Raises:
        Problem: it is longer, comes too slowly, or is no token.
    """
    body = bytearray()
    try:
        with fail_after(PATIENCE):
            async for piece in request.stream():
                body += piece
                if len(body) > 2 * LONGEST:
                    raise Problem(413, f"A token has at most {LONGEST} characters.")
        return msgspec.json.decode(bytes(body), type=_Given).token
    except (TimeoutError, ClientDisconnect) as error:
        raise Problem(408, "The token did not come in time.") from error
    except msgspec.MsgspecError as error:
        raise Problem(422, 'Send JSON: {"token": "…"}.') from error


class _Given(msgspec.Struct):
    token: str


async def _of_database(work: Callable[[], Done]) -> Done:
    """Do in a thread what needs the database of access.

    Raises:
        Problem: it does not answer.
    """
    try:
        return await to_thread.run_sync(work)
    except (SQLAlchemyError, DatabaseError, Conflict) as error:
        log.warning("the sessions cannot be reached", error=str(error))
        raise Problem(503, "sessions cannot be read or written now; try again later", headers=RETRY_AFTER) from error


def _base(request: Request, door: Door) -> str:
    """Our own address, as browsers know it.

    Raises:
        Problem: nobody said it; what a request says of it may be anybody's.
    """
    if door.url:
        return door.url
    host = request.headers.get("host", "")
    if not is_loopback(host_name(host)):
        raise Problem(421, "Log-in needs to know where browsers find this server: set server.url.")
    return f"http://{host}"


def _refused(refusal: LogInRefused | TokenRefused, to: str, door: Door | None = None) -> Response:
    """Back to the page of log-in, which says why in words of its own: none of a stranger's are shown."""
    why = refusal.why if isinstance(refusal, LogInRefused) else str(refusal.reason)
    log.info("log-in refused", why=why, error=str(refusal))
    answer = RedirectResponse(f"/login?{urlencode({'refused': why, 'to': to})}", SEE_OTHER)
    if door is not None:
        answer.headers.append("Set-Cookie", set_cookie(LOGIN, "", 0, is_secure=door.is_secure))
    return answer
