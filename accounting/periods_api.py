"""HTTP routes of periods: months closed, signed and reopened by those who account for a VO, and what changed since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from accounting.answering import answered, ledger_of, of_ledger
from accounting.booking.adjustments import ALL_VOS, Cause
from accounting.checks.signing import sign_compared
from accounting.corrections_api import person_of
from accounting.documents import PeriodDocument, adjustment_document, period_document
from accounting.ledger import Ledger
from accounting.opening import archive_folder
from accounting.periods.adjusted import Adjustment, Place, Portion, adjustments_of
from accounting.periods.closed_months import (
    ClosedMonth,
    PeriodError,
    PeriodStateError,
    periods_in,
    present_period,
    tables_of_kind,
)
from accounting.periods.closing import LONGEST_NAME, LONGEST_REASON, close, reopen
from accounting.query.usage import Usage
from accounting.trace.traced import MOST_LISTED
from accounting.upkeep.months import parse_month
from siteward.people import personal_names
from siteward.query import QueryError
from siteward.records.fields import INT64_MAX
from siteward.server.asking import TEXT, body_described, body_of, json_response, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.auditing import note_change
from siteward.server.auth.viewing import caller_of, viewer_of, vo_asked
from siteward.server.problems import Problem
from siteward.settings import Settings
from siteward.viewer import Viewer, Visible

KindName = Annotated[str, Path(description="Name of the kind, such as `job`.")]
Month = Annotated[str, Path(description="Such as `2026-10`.")]
VoName = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME, pattern=TEXT)]


class Whose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of which VO a month is closed, signed or reopened; of all that have no period of their own by default."""

    vo: VoName = ALL_VOS


class Reopening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same, and why."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_REASON, pattern=TEXT)]
    vo: VoName = ALL_VOS


class SignedDocument(msgspec.Struct, frozen=True):
    """A month that was signed.

    Attributes:
        period: as it is now.
        not_compared: UTC days whose buckets could not be compared with records, since these are not all there.
    """

    period: PeriodDocument
    not_compared: tuple[tuple[str, str], ...]


def router(_settings: Settings) -> APIRouter:
    """The routes below `/v1/accounting/periods`."""
    routes = APIRouter(
        prefix="/v1/accounting/periods",
        tags=["accounting"],
        dependencies=[Depends(refuse_unknown), Depends(of_ledger)],
    )
    reading = [Depends(requires(Permission.READ)), Depends(vo_asked)]
    deciding = [Depends(requires(Permission.ACCOUNT))]
    routes.get("", dependencies=reading)(list_periods)
    routes.get("/{kind}/{month}/adjustments", dependencies=reading)(list_adjustments)
    whose = body_described(Whose)
    routes.post("/{kind}/{month}/closing", dependencies=deciding, openapi_extra=whose)(close_month)
    routes.post("/{kind}/{month}/signature", dependencies=deciding, openapi_extra=whose)(sign_month)
    why = body_described(Reopening)
    routes.post("/{kind}/{month}/reopening", dependencies=deciding, openapi_extra=why)(reopen_month)
    return routes


async def _whose(request: Request) -> Whose:
    return await body_of(request, Whose)


async def _reopening(request: Request) -> Reopening:
    return await body_of(request, Reopening)


def list_periods(
    request: Request,
    kind: Annotated[str, Query(pattern=TEXT, description="Only those of this kind.")] = "",
    vo: Annotated[str, Query(description="Only those that this VO's figures are in.")] = "",
) -> Response:
    """Every month that was closed at some time, for a VO that you may see or for all; digests of the signed ones."""
    ledger, viewer = ledger_of(request), viewer_of(request, request.app.state.resources.settings)
    if vo and vo != ALL_VOS and not _sees(viewer, vo):
        # Whether that VO has closed a month is its own affair.
        raise Problem(403, "you may not read that VO")
    found = [
        period_document(each, names=viewer.names, is_visible=lambda name: _sees(viewer, name))
        for each in answered(lambda: periods_in(ledger, kind))
        if _concerns(viewer, each) and (not vo or each.covers(vo))
    ]
    return json_response({"periods": found})


def list_adjustments(
    request: Request,
    kind: KindName,
    month: Month,
    vo: Annotated[str, Query(description="Of its own period; `*` of that of all VOs that have none.")] = ALL_VOS,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED, description="Adjustments that are listed.")] = 1000,
    after: Annotated[str, Query(description="Go on: `more` of the answer before.")] = "",
) -> Response:
    """What has changed a month since it was closed, by groups: of what you may see, without names that you may not."""
    settings = request.app.state.resources.settings
    ledger, viewer = ledger_of(request), viewer_of(request, settings)
    if vo != ALL_VOS and not _sees(viewer, vo):
        raise Problem(403, "you may not read that VO")
    tables = _decided(lambda: tables_of_kind(ledger, kind))
    sight = Usage(ledger, request.app.state.resources.people).sight(tables.kind, viewer)
    portion = Portion(visible=sight.conditions, after=_place(after), most=limit + 1)
    found = _decided(lambda: adjustments_of(ledger, kind, _month(month), vo, portion))
    shown = found[:limit]
    for name in personal_names([tables.kind]):
        sight.look_up(name, (each.group.get(name) for each in shown))
    documents = [adjustment_document(each, names=viewer.names, shown=sight.shown) for each in shown]
    return json_response(
        {
            "adjustments": documents,
            "pseudonyms": sorted(sight.hidden & {name for each in shown for name in each.group}),
            "more": _after(shown[-1]) if len(found) > limit else "",
        }
    )


def close_month(request: Request, kind: KindName, month: Month, whose: Annotated[Whose, Depends(_whose)]) -> Response:
    """Close a month of a VO for which you account: what changes its figures from now on is an adjustment."""
    return json_response(_decide(request, kind, month, whose.vo, _closed))


def _closed(ledger: Ledger, kind: str, month: int, by: str, vo: str) -> ClosedMonth:
    return close(ledger, kind, month, by, vo)


def sign_month(request: Request, kind: KindName, month: Month, whose: Annotated[Whose, Depends(_whose)]) -> Response:
    """Stand for the figures of a closed month, which are compared with its records first; that takes its time."""
    folder = archive_folder(request.app.state.resources.settings)
    days: list[tuple[str, str]] = []

    def signed(ledger: Ledger, kind: str, month: int, by: str, vo: str) -> ClosedMonth:
        done = sign_compared(ledger, folder, kind, month, by, vo)
        days.extend((str(each.first.date()), str(each.last.date())) for each in done.untold)
        return done.period

    period = _decide(request, kind, month, whose.vo, signed)
    return json_response(SignedDocument(period, tuple(days)))


def reopen_month(
    request: Request, kind: KindName, month: Month, said: Annotated[Reopening, Depends(_reopening)]
) -> Response:
    """Let a closed or signed month change again without adjustments; its signature is void."""

    def reopened(ledger: Ledger, kind: str, month: int, by: str, vo: str) -> ClosedMonth:
        return reopen(ledger, kind, month, by, said.reason, vo)

    return json_response(_decide(request, kind, month, said.vo, reopened, said.reason))


Decide = Callable[[Ledger, str, int, str, str], ClosedMonth]
"""Does something to a month of a kind, by somebody, for a VO."""


def _decide(request: Request, kind: str, month: str, vo: str, decide: Decide, reason: str = "") -> PeriodDocument:
    caller = caller_of(request)
    if not caller.may_in(Permission.ACCOUNT, vo):
        whose = "all VOs; name one for which you account" if vo == ALL_VOS else "that VO"
        raise Problem(403, f"you do not account for {whose}")
    note_change(request, vo=vo)
    ledger, second, by = ledger_of(request), _month(month), person_of(caller)
    _decided(lambda: tables_of_kind(ledger, kind))
    before = answered(lambda: _present(ledger, kind, second, vo))
    after = _decided(lambda: decide(ledger, kind, second, by, vo))
    why = {"reason": reason} if reason else {}
    note_change(request, before=before and _noted(before), after=_noted(after) | why)
    names = request.app.state.resources.settings.access.names
    return period_document(after, names=names, is_visible=lambda name: caller.may_in(Permission.READ, name))


def _present(ledger: Ledger, kind: str, month: int, vo: str) -> ClosedMonth | None:
    with ledger.database.read() as connection:
        return present_period(connection, ledger.common.periods, kind, month, vo)


def _noted(period: ClosedMonth) -> dict[str, Any]:
    """What the audit keeps of a period; of one that was never closed it keeps nothing."""
    names = ("kind", "name", "vo", "without", "state", "closing", "closed_by", "signed_by", "digest")
    return {name: getattr(period, name) for name in names}


def _sees(viewer: Viewer, vo: str) -> bool:
    return viewer.visible is Visible.ALL or vo in viewer.vos


def _concerns(viewer: Viewer, period: ClosedMonth) -> bool:
    """Whether anything that a viewer sees may be in a period's figures."""
    return viewer.visible is Visible.ALL or any(map(period.covers, viewer.vos))


def _month(text: str) -> int:
    try:
        return parse_month(text)
    except ValueError as error:
        raise Problem(422, str(error), title="Period refused", type="urn:siteward:period") from error


def _after(adjustment: Adjustment) -> str:
    """The place of an adjustment as a text."""
    entry, cause, day, series = adjustment.place
    return f"{entry}.{Cause(cause).name}.{day}.{series}"


def _place(text: str) -> Place | None:
    if not text:
        return None
    try:
        entry, cause, day, series = text.split(".")
        numbers = int(entry), int(day), int(series)
        place = numbers[0], str(Cause[cause]), numbers[1], numbers[2]
    except (ValueError, KeyError) as error:
        message = f"after {text[:80]!r}: give what an answer named `more`"
        raise QueryError(message) from error
    if any(abs(each) > INT64_MAX for each in numbers):
        message = f"after {text[:80]!r}: numbers have at most 64 bits"
        raise QueryError(message)
    return place


def _decided(decide: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever is decided.
    try:
        return answered(decide)
    except PeriodError as error:
        status = 409 if isinstance(error, PeriodStateError) else 422
        raise Problem(status, str(error), title="Period refused", type="urn:siteward:period") from error
