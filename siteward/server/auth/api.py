"""HTTP routes about callers: who one is, who is denied, and who changed what."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from siteward.log import get_logger
from siteward.people import PeopleUnavailable
from siteward.query_window import parse_time
from siteward.records import microseconds
from siteward.records.fields import INT64_MAX
from siteward.server.asking import TEXT, body_described, body_of, json_response, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.audit import MOST, Audited
from siteward.server.auth.auditing import note_change
from siteward.server.auth.caller import Ambiguous, Caller
from siteward.server.auth.denied import LONGEST_REASON
from siteward.server.auth.door import issuer_named
from siteward.server.auth.producer import producer_name
from siteward.server.auth.roles import EVERY
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.auth.viewing import asks_for_all, caller_of, note_look, note_platform, vo_asked
from siteward.server.problems import Problem
from siteward.server.resources import Resources
from siteward.server.shares import ShareOf
from siteward.settings import SettingsError

log = get_logger(__name__)
Name = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME, pattern=TEXT)]


class Denying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are refused from now on, and why.

    Attributes:
        issuer: whose token, or subject, it is.
        reason: why.
        subject: all tokens of this subject.
        token: or one token, by its `jti`.
    """

    issuer: Name
    reason: Annotated[str, msgspec.Meta(max_length=LONGEST_REASON, pattern=TEXT)]
    subject: Name = ""
    token: Name = ""


async def _denying(request: Request) -> Denying:
    return await body_of(request, Denying)


def router(resources: Resources) -> APIRouter:
    """The routes `/v1/whoami`, `/v1/denied` and `/v1/audit`."""
    routes = APIRouter(prefix="/v1", tags=["access"], dependencies=[Depends(refuse_unknown)])

    @routes.get("/whoami", dependencies=[Depends(requires(Permission.IDENTIFIED))])
    def whoami(request: Request) -> Response:
        """Answer whom your token proves, which roles that gives, and what they allow; never the token itself.

        `producer` is what snapshots call who sends with it, "" where it sends nothing, and null where that cannot be
        told now.
        """
        caller = caller_of(request)
        identity = caller.identity
        grants = [
            msgspec.to_builtins(grant) | {"allows": list(filter(grant.allows, sorted(Permission)))}
            for grant in caller.grants
        ]
        told = {"issuer": identity.issuer, "subject": identity.subject, "host": identity.host, "vos": identity.vos}
        expires = None if identity.expires == float("inf") else identity.expires
        reads = caller.reads()
        if reads.noted:
            known = {vo for issuer in resources.settings.issuers.values() for vo in issuer.vos}
            reads = msgspec.structs.replace(reads, vos=tuple(sorted({*reads.vos, *known})))
        producer = _producer(resources, caller)
        return json_response(told | {"expires": expires, "grants": grants, "reads": reads, "producer": producer})

    @routes.get("/denied", dependencies=[Depends(requires(Permission.PLATFORM))])
    def list_denied(request: Request) -> Response:
        """Every token and subject that is refused although its issuer vouches for it, the newest first; noted."""
        note_look(request, (EVERY,))
        return json_response({"denied": resources.denied.all()})

    @routes.post(
        "/denied",
        dependencies=[Depends(requires(Permission.PLATFORM))],
        openapi_extra=body_described(Denying),
    )
    def deny(request: Request, said: Annotated[Denying, Depends(_denying)]) -> Response:
        """Deny a subject, or a token; every process refuses it within seconds."""
        who = caller_of(request).identity
        by = f"{who.subject} ({who.issuer or 'at this machine'})"[:LONGEST_NAME]
        said = msgspec.structs.replace(said, issuer=_issuer(resources, said.issuer))
        note_change(request, after=said)
        whom = {"subject": said.subject, "token": said.token}
        try:
            note_change(request, before=resources.denied.deny(said.issuer, **whom, by=by, reason=said.reason))
            # What is allowed again later does not bring back the browsers of before.
            resources.sessions.end_all(said.issuer, **whom)
        except ValueError as error:
            raise Problem(422, str(error)) from error
        return json_response({"denied": resources.denied.all()})

    @routes.delete("/denied", dependencies=[Depends(requires(Permission.PLATFORM))])
    def allow(request: Request, issuer: str, subject: str = "", token: str = "") -> Response:
        """Take an entry out again."""
        issuer = _issuer(resources, issuer)
        found = resources.denied.allow(issuer, subject=subject, token=token)
        note_change(request, before=found or {"issuer": issuer, "subject": subject, "token": token})
        if found is None:
            raise Problem(404, "nothing like that is denied")
        return json_response({"denied": resources.denied.all()})

    @routes.get(
        "/audit", dependencies=[Depends(requires(Permission.ADMINISTER)), Depends(vo_asked), Depends(ShareOf("audit"))]
    )
    def audit(  # noqa: PLR0913, PLR0917  # FastAPI reads the parameters from the signature.
        request: Request,
        issuer: Annotated[str, Query(description="Only of tokens of this one; as the settings call it, too.")] = "",
        subject: Annotated[str, Query(description="Only what this one did.")] = "",
        token: Annotated[str, Query(description="Only what was done with this token, its `jti`.")] = "",
        action: Annotated[str, Query(description="Only what begins so: `POST /v1/denied`, `siteward token`.")] = "",
        vo: Annotated[str, Query(description="Only what is about this VO, or about all.")] = "",
        since: Annotated[str, Query(description="First instant: `2026-10-01`, `-7d` …")] = "",
        until: Annotated[str, Query(description="First instant after it.")] = "",
        after: Annotated[int, Query(ge=0, le=INT64_MAX, description="The last number of the page before.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    ) -> Response:
        """Answer who changed what, the newest first; of a VO for its administrators, of all for the platform's.

        Of all, and of what is no VO's, only where the header Siteward-VO says `*`, which is noted.
        """
        _check_audit(request, vo)
        now = datetime.now(UTC)
        # One that is trusted no more has entries all the same.
        with suppress(Problem):
            issuer = issuer and _issuer(resources, issuer)
        found = resources.audit.find(
            issuer=issuer,
            subject=subject,
            token=token,
            action=action,
            vo=vo,
            since=_instant(since, now),
            until=_instant(until, now),
            after=after,
            limit=limit,
        )
        is_whole = not vo or caller_of(request).may(Permission.PLATFORM)
        return json_response({"audit": found if is_whole else [_of_vo(each, vo) for each in found]})

    return routes


def _producer(resources: Resources, caller: Caller) -> str | None:
    """What whoever sends is called in snapshots; the rest of the answer does not wait for the table of people."""
    if not caller.may(Permission.SEND):
        return ""
    try:
        return producer_name(caller.identity, resources.people)
    except (PeopleUnavailable, SettingsError) as error:
        log.warning("a producer's name cannot be told", error=str(error))
        return None


def _check_audit(request: Request, vo: str) -> None:
    """Pass where the caller may see what was changed of a VO; "" is of all."""
    caller = caller_of(request)
    if vo and caller.may_in(Permission.ADMINISTER, vo):
        note_platform(request, Permission.ADMINISTER, vo)
        return
    if not vo and asks_for_all(request):
        return
    if not vo and caller.may(Permission.PLATFORM):
        message = "name a VO, vo=…, or say * (header Siteward-VO) for what was changed of all, which is noted"
        raise Ambiguous(message)
    raise Problem(403, "name a VO that you administer: vo=…")


def _of_vo(entry: Audited, vo: str) -> Audited:
    """An entry for a VO's administrators: of one that is about others too, that it was done, and by whom."""
    if set(entry.vos) <= {vo}:
        return entry
    vos = tuple(each for each in entry.vos if each in {vo, EVERY})
    return msgspec.structs.replace(entry, vos=vos, before=None, after=None)


def _issuer(resources: Resources, name: str) -> str:
    try:
        return issuer_named(resources.settings, name)
    except ValueError as error:
        raise Problem(422, str(error)) from error


def _instant(text: str, now: datetime) -> int:
    """Microseconds since 1970 UTC; 0 where nothing is said.

    Raises:
        siteward.query.QueryError: it is no time.
    """
    return microseconds(parse_time(text, now)) if text else 0
