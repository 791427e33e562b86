"""HTTP routes that ask the ledger: its kinds, and who used what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from accounting.answering import answered, ledger_of, of_ledger
from accounting.booking.measures import additive
from accounting.completeness.cadence import SPREADS
from accounting.completeness.comparing import completeness
from accounting.completeness.completeness_text import CompletenessText, completeness_document, parse_completeness
from accounting.corrections.correction_table import corrections_in
from accounting.corrections.naming import named_corrections
from accounting.corrections_api import may_correct, refuse_hidden_names
from accounting.documents import correction_document
from accounting.opening import archive_folder
from accounting.query.reports import reports_in
from accounting.query.usage import Usage, attributes_of
from accounting.trace.figure_trace import trace
from accounting.trace.record_trace import trace_record
from accounting.trace.trace_text import TraceText, parse_record_id, parse_trace
from siteward.pseudonyms import pseudonym_key
from siteward.query import QueryError
from siteward.query_text import find_named, split_list
from siteward.records import Kind
from siteward.server.asking import json_response, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.viewing import caller_of, viewer_of, vo_asked
from siteward.server.problems import Problem
from siteward.settings import Settings
from siteward.usage_json import UsageDocument, usage_document
from siteward.usage_table import arrow_bytes, csv_text, parquet_bytes
from siteward.usage_text import UsageText, attributions_of, by_value, groupable, of_records, parse_usage
from siteward.usage_window import parse_zone
from siteward.viewer import Visible


class Form(msgspec.Struct, frozen=True):
    """How an answer may be written."""

    media_type: str
    write: Callable[[UsageDocument], bytes]


FORMS: Final = {
    "json": Form("application/json", msgspec.json.encode),
    "csv": Form("text/csv", lambda document: csv_text(document).encode()),
    "arrow": Form("application/vnd.apache.arrow.stream", arrow_bytes),
    "parquet": Form("application/vnd.apache.parquet", parquet_bytes),
}


def router(settings: Settings) -> APIRouter:
    """The routes; every question is answered by the ledger that the settings name.

    Raises:
        siteward.settings.SettingsError: the key of pseudonyms can be guessed, or can neither be read nor made.
    """
    # Made at the first start; a mistake is better found now than by the first who asks.
    pseudonym_key(settings)
    routes = APIRouter(
        prefix="/v1/accounting",
        tags=["accounting"],
        dependencies=[Depends(requires(Permission.READ)), Depends(refuse_unknown), Depends(of_ledger)],
    )
    routes.get("/kinds")(list_kinds)
    routes.get("/reports")(list_reports)
    for path, answer in (
        ("/usage", answer_usage),
        ("/completeness", answer_completeness),
        ("/trace", answer_trace),
        ("/corrections", list_corrections),
    ):
        routes.get(path, dependencies=[Depends(vo_asked)])(answer)
    return routes


def list_kinds(request: Request) -> Response:
    """Every kind in the ledger: what its totals are kept by, what adds up, and in which buckets."""
    ledger = ledger_of(request)
    attributes = answered(lambda: attributes_of(ledger))
    return json_response({"kinds": [_kind(kind, attributes) for kind in ledger.kinds.values()]})


def list_reports(
    request: Request, kind: Annotated[str, Query(description="Name of a kind; by default those of all kinds.")] = ""
) -> Response:
    """Every named report: a question that follows from what a kind declares, to be asked of `/v1/accounting/usage`."""
    ledger = ledger_of(request)
    return json_response({"reports": answered(lambda: reports_in(ledger, kind))})


def list_corrections(
    request: Request, kind: Annotated[str, Query(description="Only those of this kind.")] = ""
) -> Response:
    """Every correction: what it selects and says, who wanted, approved and reversed it, and what it has changed."""
    ledger, caller = ledger_of(request), caller_of(request)
    accounts = caller.may(Permission.ACCOUNT) and not caller.may(Permission.PLATFORM)
    if accounts:
        refuse_hidden_names(request)
    else:
        _refuse_some(request, "Corrections name people and records of all VOs", names=True)
    found = answered(lambda: corrections_in(ledger, kind))
    if accounts:
        kinds = request.app.state.resources.kinds
        found = [each for each in found if may_correct(caller, kinds, each.kind, each.selection.where, each.given)]
    found = named_corrections(found, request.app.state.resources.people, conditions=not accounts)
    return json_response({"corrections": list(map(correction_document, found))})


def answer_usage(  # noqa: PLR0913, PLR0917  # FastAPI reads the question's parts from the signature.
    request: Request,
    kind: Annotated[str, Query(description="Name of the kind, such as `job`.")],
    measures: Annotated[
        str, Query(description="What to compute, such as `cpu_time,rate:core_time,efficiency,records`.")
    ] = "records",
    by: Annotated[
        str, Query(description="Bucketed dimensions to group by, such as `site,vo`, or `site.country`.")
    ] = "",
    where: Annotated[
        list[str], Query(description="Conditions, all of which hold: `site=A|B`, `site~LCG.*`, `vo!=x` …")
    ] = [],  # noqa: B006  # FastAPI copies it.
    window: Annotated[
        str, Query(description="A calendar word: `2026`, `2026-Q1`, `2026-03`, `last-month`; or give start and end.")
    ] = "",
    start: Annotated[
        str, Query(description="First instant: RFC 3339, a date, `-30d`, or a calendar word's first instant.")
    ] = "",
    end: Annotated[str, Query(description="First instant after the window, in the same forms; now by default.")] = "",
    attribution: Annotated[
        str,
        Query(
            description="`prorated` over the time it ran, the default, or `by-end`: whole where it ended; of snapshots "
            "`at-instant`."
        ),
    ] = "",
    period: Annotated[
        str, Query(description="A row for each `hour`, `day`, `week`, `month`, `quarter`, `year`; or `whole`.")
    ] = "whole",
    top: Annotated[int, Query(description="Groups kept; the others become one, Other. 0 keeps all.")] = 0,
    as_of: Annotated[
        str, Query(description="Figures of closed months: `present`, or by end as of their `closing`.")
    ] = "present",
    zone: Annotated[
        str, Query(description="Time zone in which instants are written, such as `Europe/Zurich`; periods are UTC's.")
    ] = "UTC",
    format: Annotated[  # noqa: A002  # the parameter's name.
        str, Query(description="`json`, `csv`, `arrow` or `parquet`; by default as the header Accept says, else JSON.")
    ] = "",
) -> Response:
    """Answer who used what: exact totals, by groups and calendar periods, with their attribution."""
    text = UsageText(
        kind=kind,
        measures=split_list(measures),
        by=split_list(by),
        where=tuple(where),
        window=window,
        start=start,
        end=end,
        attribution=attribution,
        period=period,
        top=top,
        as_of=as_of,
    )
    form = FORMS[_form(format, request.headers.get("accept", ""))]
    in_zone = parse_zone(zone)
    ledger = ledger_of(request)
    settings = request.app.state.resources.settings
    usage = Usage(ledger, request.app.state.resources.people, archive_folder(settings))
    query = parse_usage(text, ledger.kinds, datetime.now(UTC), answered(lambda: attributes_of(ledger)))
    began = time.perf_counter()
    answer = answered(lambda: usage.ask(query, viewer_of(request, settings)))
    document = usage_document(answer, (time.perf_counter() - began) * 1000, in_zone)
    try:
        return Response(form.write(document), media_type=form.media_type)
    except OverflowError as error:
        raise QueryError(str(error)) from error


def answer_completeness(  # noqa: PLR0913, PLR0917  # as above.
    request: Request,
    kind: Annotated[list[str], Query(description="Kinds; all by default.")] = [],  # noqa: B006  # as above.
    producer: Annotated[list[str], Query(description="Producers; all by default.")] = [],  # noqa: B006
    window: Annotated[str, Query(description="A calendar word; or give start and end.")] = "",
    start: Annotated[str, Query(description="First day; by default seven days ago.")] = "",
    end: Annotated[str, Query(description="First day after the last; now by default.")] = "",
    spreads: Annotated[int, Query(description="Spreads beyond what is usual at which records are missing.")] = SPREADS,
    gaps: Annotated[bool, Query(description="Only what is missing, and who is silent.")] = False,  # noqa: FBT002  # a parameter.
) -> Response:
    """Answer what was expected from each producer, kind and day, what came, and which producers are silent."""
    _refuse_some(request, "Producers send records of all VOs")
    text = CompletenessText(
        kinds=tuple(kind),
        producers=tuple(producer),
        window=window,
        start=start,
        end=end,
        spreads=spreads,
        gaps=gaps,
    )
    ledger = ledger_of(request)
    asked = parse_completeness(text, ledger.kinds, datetime.now(UTC))
    return json_response(completeness_document(answered(lambda: completeness(ledger, asked)), asked, gaps=gaps))


def answer_trace(  # noqa: PLR0913, PLR0917  # as above.
    request: Request,
    kind: Annotated[str, Query(description="Name of the kind, such as `job`.")] = "",
    measures: Annotated[str, Query(description="What adds up: measures, products, `records`, `started`.")] = "records",
    where: Annotated[list[str], Query(description="Conditions, as of usage; a group is named by them.")] = [],  # noqa: B006
    window: Annotated[str, Query(description="A calendar word; or give start and end.")] = "",
    start: Annotated[str, Query(description="First instant, as of usage.")] = "",
    end: Annotated[str, Query(description="First instant after the window; now by default.")] = "",
    attribution: Annotated[
        str, Query(description="`prorated`, the default, `by-end`, or of snapshots `at-instant`.")
    ] = "",
    as_of: Annotated[
        str, Query(description="`present`, or by end as of `closing`, with what has changed since.")
    ] = "present",
    limit: Annotated[int, Query(description="Buckets, and records, that are listed.")] = 100,
    after_bucket: Annotated[str, Query(description="Go on with buckets: `more_buckets` of the answer before.")] = "",
    after_record: Annotated[str, Query(description="Go on with records: `more_records` of the answer before.")] = "",
    after_adjustment: Annotated[
        str, Query(description="Go on with changes since closing: `more_adjustments` of the answer before.")
    ] = "",
    record: Annotated[str, Query(description="In place of a kind: a record's id, 32 hexadecimal digits.")] = "",
) -> Response:
    """Answer what a figure is made of: buckets, records, who sent them; or all that is known of one record."""
    if bool(kind) == bool(record):
        message = "give either a kind, or a record"
        raise QueryError(message)
    ledger = ledger_of(request)
    settings = request.app.state.resources.settings
    people = request.app.state.resources.people
    usage, viewer = Usage(ledger, people, archive_folder(settings)), viewer_of(request, settings)
    if record:
        identifier = parse_record_id(record)
        return json_response(answered(lambda: trace_record(usage, archive_folder(settings), identifier, viewer)))
    text = TraceText(
        kind=kind,
        measures=split_list(measures),
        where=tuple(where),
        window=window,
        start=start,
        end=end,
        attribution=attribution,
        limit=limit,
        after_bucket=after_bucket,
        after_record=after_record,
        after_adjustment=after_adjustment,
        as_of=as_of,
    )
    return json_response(answered(lambda: trace(usage, *parse_trace(text, ledger, datetime.now(UTC)), viewer)))


def _refuse_some(request: Request, why: str, *, names: bool = False) -> None:
    """Refuse whoever sees some records only, or, where names are shown, no names."""
    viewer = viewer_of(request, request.app.state.resources.settings)
    if viewer.visible is not Visible.ALL or (names and not viewer.names):
        raise Problem(403, f"{why}; ask somebody who may see all of it.")


def _form(chosen: str, accepted: str) -> str:
    if chosen:
        return find_named(chosen, {name: name for name in FORMS}, "format")
    by_type = {form.media_type: name for name, form in FORMS.items()}
    wanted = (part.partition(";")[0].strip() for part in accepted.split(","))
    return next((by_type[media_type] for media_type in wanted if media_type in by_type), "json")


def _kind(kind: Kind, attributes: Mapping[str, Sequence[str]]) -> dict[str, object]:
    return {
        "name": kind.name,
        "attributions": [str(each) for each in attributions_of(kind)],
        "doc": kind.doc,
        "dimensions": list(groupable(kind, attributes)),
        "record_dimensions": [name for name in of_records(kind) if name not in by_value(kind)],
        "record_measures": list(by_value(kind)),
        "measures": [{"name": name, "unit": _unit(kind, name)} for name in additive(kind)],
        "values": [column.name for column in kind.measures if column.name not in additive(kind)],
        "ratios": [{"name": name, "unit": ratio.unit} for name, ratio in kind.ratios.items()],
        "tiers": [{"until_age": age, "width": width} for age, width in kind.tiers],
    }


def _unit(kind: Kind, measure: str) -> str:
    return kind.products[measure].unit if measure in kind.products else kind.column[measure].unit
