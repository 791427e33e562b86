"""HTTP routes that correct the ledger: proposed, approved, rejected and taken back by those who account for the VOs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response

from accounting.answering import answered, ledger_of, of_ledger
from accounting.booking.adjustments import ALL_VOS
from accounting.corrections.concerned import concerned_vos
from accounting.corrections.correction import Correction, CorrectionError
from accounting.corrections.deciding import approve, found_correction, preview, propose, reject, reverse
from accounting.corrections.drafting import DraftText, parse_draft
from accounting.corrections.naming import (
    has_pattern_of_people,
    named_corrections,
    named_figures,
    without_names,
)
from accounting.documents import correction_document, differences_of
from siteward.records import Kind
from siteward.server.asking import TEXT, body_described, body_of, json_response, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.auditing import note_change
from siteward.server.auth.caller import Caller
from siteward.server.auth.viewing import caller_of
from siteward.server.problems import Problem
from siteward.server.resources import Resources
from siteward.settings import Settings

Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="As the list of corrections says it.")]
Text = Annotated[str, msgspec.Meta(pattern=TEXT)]
Reason = Annotated[str, msgspec.Meta(pattern=TEXT, description="Why; it stays with the correction.")]


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A correction as somebody wants it.

    Attributes:
        kind: name of the kind, such as `job`.
        action: `change` measures, `move` to other dimensions, or `void`.
        reason: why; it stays with the correction.
        where: conditions on the records, as of usage.
        window: of the records' partition time: `2026`, `2026-Q1`, `2026-03` …
        start: first instant, in place of a window.
        end: first instant after it.
        ids: of single records.
        given: new values, `site=RIGHT`.
        dry_run: only show what it would change.
    """

    kind: Text
    action: Text
    reason: Reason
    where: tuple[Text, ...] = ()
    window: Text = ""
    start: Text = ""
    end: Text = ""
    ids: tuple[Text, ...] = ()
    given: tuple[Text, ...] = ()
    dry_run: bool = False


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a correction is to be applied; `anew` also where it would change something else by now than as proposed."""

    anew: bool = False


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a correction is not applied, or taken back."""

    reason: Reason


def router(_settings: Settings) -> APIRouter:
    """The routes below `/v1/accounting/corrections` that change something."""
    routes = APIRouter(
        prefix="/v1/accounting/corrections",
        tags=["accounting"],
        dependencies=[Depends(requires(Permission.ACCOUNT)), Depends(refuse_unknown), Depends(of_ledger)],
    )
    routes.post("", openapi_extra=body_described(Proposal))(propose_correction)
    routes.post("/{number}/approval", openapi_extra=body_described(Approval))(approve_correction)
    why = body_described(Decision)
    routes.post("/{number}/rejection", openapi_extra=why)(reject_correction)
    routes.post("/{number}/reversal", openapi_extra=why)(reverse_correction)
    return routes


async def _proposal(request: Request) -> Proposal:
    return await body_of(request, Proposal)


async def _approval(request: Request) -> Approval:
    return await body_of(request, Approval)


async def _decision(request: Request) -> Decision:
    return await body_of(request, Decision)


def propose_correction(request: Request, said: Annotated[Proposal, Depends(_proposal)]) -> Response:
    """Propose a correction for somebody else to approve, or only answer what it would change in each total.

    A condition has to name the VOs whose records are corrected, `vo=…`, all of which you account for.
    """
    resources: Resources = request.app.state.resources
    text = DraftText(
        kind=said.kind,
        action=said.action,
        where=said.where,
        window=said.window,
        start=said.start,
        end=said.end,
        ids=said.ids,
        given=said.given,
        author=person_of(caller_of(request)),
        reason=said.reason,
    )
    ledger = ledger_of(request)
    typed = _decided(lambda: parse_draft(text, resources.kinds, datetime.now(UTC)))
    _check(request, typed.kind, typed.selection.where, typed.given)
    sees_all = caller_of(request).may(Permission.PLATFORM)
    if not sees_all and has_pattern_of_people(typed, resources.kinds[typed.kind]):
        raise Problem(403, "name people one by one: a pattern of names would tell who is in the ledger of other VOs")
    unnamed = _decided(lambda: without_names(ledger, typed, resources.kinds[typed.kind], resources.people))
    draft = unnamed.draft
    if said.dry_run:
        figures = named_figures(_decided(lambda: preview(ledger, draft)), resources.people, unnamed.names)
        return json_response({"records": figures.records, "differences": differences_of(figures)})
    resources.people.enter(unnamed.names)
    return _told(request, _decided(lambda: propose(ledger, draft)), None)


def approve_correction(request: Request, number: Number, said: Annotated[Approval, Depends(_approval)]) -> Response:
    """Apply a correction that somebody else has proposed, or go on with one that was interrupted."""
    self_approval = request.app.state.resources.settings.accounting.self_approval
    return _decide(
        request,
        number,
        lambda by: approve(ledger_of(request), number, by, self_approval=self_approval, anew=said.anew),
    )


def reject_correction(request: Request, number: Number, said: Annotated[Decision, Depends(_decision)]) -> Response:
    """Keep a correction from being applied."""
    return _decide(request, number, lambda by: reject(ledger_of(request), number, by, said.reason))


def reverse_correction(request: Request, number: Number, said: Annotated[Decision, Depends(_decision)]) -> Response:
    """Take a correction back: every record is what it would be without it."""
    return _decide(request, number, lambda by: reverse(ledger_of(request), number, by, said.reason))


def may_correct(
    caller: Caller, kinds: Mapping[str, Kind], kind: str, where: Sequence[str], given: Mapping[str, Any]
) -> bool:
    """Whether a caller accounts for all whose records a correction is about, and for where they go."""
    if caller.may_in(Permission.ACCOUNT, ALL_VOS):
        return True
    return kind in kinds and all(
        caller.may_in(Permission.ACCOUNT, vo) for vo in concerned_vos(kinds[kind], where, given)
    )


def person_of(caller: Caller) -> str:
    """What decides: a subject of one issuer is not that of another one."""
    who = caller.identity
    return f"{who.subject} of {who.issuer}" if who.issuer else who.subject


def refuse_hidden_names(request: Request) -> None:
    """Refuse where this installation shows nobody's name: a correction names its author, and whom it is about.

    Raises:
        Problem: 403.
    """
    if not request.app.state.resources.settings.access.names:
        raise Problem(403, "Corrections name people, whom this installation does not show over HTTP.")


def _check(request: Request, kind: str, where: Sequence[str], given: Mapping[str, Any]) -> None:
    refuse_hidden_names(request)
    kinds = request.app.state.resources.kinds
    if not may_correct(caller_of(request), kinds, kind, where, given):
        message = "name the VOs whose records are corrected, vo=…, and none for which you do not account"
        raise Problem(403, message)
    note_change(request, vos=concerned_vos(kinds[kind], where, given) if kind in kinds else ())


def _decide(request: Request, number: int, decide: Callable[[str], Correction]) -> Response:
    ledger = ledger_of(request)
    before = _decided(lambda: found_correction(ledger, number))
    _check(request, before.kind, before.selection.where, before.given)
    return _told(request, _decided(lambda: decide(person_of(caller_of(request)))), before)


def _told(request: Request, after: Correction, before: Correction | None) -> Response:
    was = before and {"number": before.number, "state": str(before.state)}
    # Whose it is was noted when it was found that the caller accounts for them.
    note_change(request, before=was, after={"number": after.number, "state": str(after.state), "reason": after.reason})
    sees_all = caller_of(request).may(Permission.PLATFORM)
    (named,) = named_corrections([after], request.app.state.resources.people, conditions=sees_all)
    return json_response(correction_document(named))


def _decided(decide: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever is decided.
    try:
        return answered(decide)
    except CorrectionError as error:
        raise Problem(422, str(error), title="Correction refused", type="urn:siteward:correction") from error
