"""HTTP routes that ask: kinds, queries, values of a dimension, single records."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from monitoring.stores import StoreError
from siteward.query import QueryError
from siteward.query_json import document
from siteward.query_text import (
    QueryText,
    find_dimension,
    find_kind,
    parse_filters,
    parse_query,
    split_list,
)
from siteward.query_window import parse_window
from siteward.records import Column, Dimension, Kind, Measure, id_bytes
from siteward.records.schema import MICROSECONDS, json_schema
from siteward.server.asking import Turns, json_response, refuse_unknown
from siteward.server.auth import Permission, requires
from siteward.server.auth.viewing import vo_asked
from siteward.server.problems import RETRY_AFTER, Problem
from siteward.server.resources import Resources
from siteward.server.seen import seen_by
from siteward.server.shares import ShareOf
from siteward.settings import Settings

MOST_RECORDS: Final = 10_000
MOST_VALUES: Final = 10_000
BEGINNING: Final = "1990-01-01"
"""Where a window starts that gives no start: before every record."""
END: Final = "2100-01-01"

Answered = TypeVar("Answered")
STORE: Final = "store"
_turns: Final = Turns(STORE)
KindName = Annotated[str, Path(description="Name of the kind, such as `job`.")]
Where = Annotated[
    list[str],
    Query(description="Conditions, all of which hold: `state=completed|failed`, `site~LCG.*`, `wall_time>=3600` …"),
]
Start = Annotated[str, Query(description="First instant: RFC 3339, a date, `now`, or relative, such as `-24h`.")]
End = Annotated[str, Query(description="First instant after the window, in the same forms.")]


def router(_settings: Settings) -> APIRouter:
    """The routes; every question is answered by the store that the app's resources open."""
    routes = APIRouter(
        prefix="/v1",
        tags=["monitoring"],
        dependencies=[Depends(requires(Permission.READ)), Depends(refuse_unknown)],
    )
    of_vo = [Depends(vo_asked)]
    routes.get("/kinds")(list_kinds)
    routes.get("/kinds/{kind}")(show_kind)
    asking = [*of_vo, Depends(ShareOf(STORE))]
    routes.get("/query", dependencies=asking)(answer_query)
    routes.get("/values/{kind}/{field}", dependencies=asking)(list_values)
    routes.get("/records/{kind}", dependencies=asking)(list_records)
    return routes


def list_kinds(request: Request) -> Response:
    """Every record kind with its fields, products, ratios, limits and tiers of the ledger; spans in seconds."""
    return json_response({"kinds": [_kind(kind) for kind in _resources(request).kinds.values()]})


def show_kind(request: Request, kind: KindName) -> Response:
    """The JSON Schema of one record of a kind."""
    return json_response(json_schema(_known(request, kind)), "application/schema+json")


def answer_query(  # noqa: PLR0913, PLR0917  # FastAPI reads the question's parts from the signature.
    request: Request,
    kind: Annotated[str, Query(description="Name of the kind, such as `job`.")],
    measures: Annotated[str, Query(description="What to compute, such as `sum:wall_time,count`.")] = "count",
    by: Annotated[str, Query(description="Dimensions to group by, such as `site,state`.")] = "",
    where: Where = [],  # noqa: B006  # FastAPI copies it.
    start: Start = "-24h",
    end: End = "now",
    width: Annotated[str, Query(description="Bucket: seconds, `15m`, `1h`, `1d`, `auto`, or `0` for one.")] = "0",
    top: Annotated[int, Query(description="Groups kept; the others become one, Other. 0 keeps all.")] = 0,
) -> Response:
    """Answer a question: exact totals, groups and buckets.

    Percentiles may be approximate: `errors` is then not empty and has the largest relative error of each column.
    """
    resources = _resources(request)
    text = QueryText(
        kind=kind,
        measures=split_list(measures),
        by=split_list(by),
        where=tuple(where),
        start=start,
        end=end,
        width=width,
        top=top,
    )
    query = parse_query(text, resources.kinds, datetime.now(UTC))
    began = time.perf_counter()
    store = seen_by(request)
    answer = _asked(lambda: store().query(query))
    return json_response(document(answer, (time.perf_counter() - began) * 1000))


def list_values(
    request: Request,
    kind: KindName,
    field: Annotated[str, Path(description="A dimension of the kind.")],
    where: Where = [],  # noqa: B006  # FastAPI copies it.
    limit: Annotated[int, Query(ge=1, le=MOST_VALUES)] = 1000,
) -> Response:
    """The values of a dimension, most frequent first."""
    known = _known(request, kind)
    dimension = _found(lambda: find_dimension(field, known))
    filters = parse_filters(where, known)
    store = seen_by(request)
    values = _asked(lambda: store().values(known.name, dimension.name, filters, limit))
    return json_response({"values": values})


def list_records(
    request: Request,
    kind: KindName,
    id: Annotated[list[str], Query(description="Record ids; then nothing else is asked.")] = [],  # noqa: A002, B006  # see above.
    where: Where = [],  # noqa: B006  # FastAPI copies it.
    start: Start = BEGINNING,
    end: End = END,
    limit: Annotated[int, Query(ge=1, le=MOST_RECORDS)] = 100,
) -> Response:
    """Single records as they are stored, newest first, with where they came from."""
    known = _known(request, kind)
    window = parse_window(start, end, datetime.now(UTC))
    asked: dict[str, Any] = {"filters": parse_filters(where, known), "limit": limit}
    if id:
        asked["ids"] = [_id(text) for text in id]
    else:
        asked |= {"start": window[0], "end": window[1]}
    store = seen_by(request)
    return json_response({"records": _asked(lambda: store().records(known.name, **asked))})


def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


def _known(request: Request, name: str) -> Kind:
    return _found(lambda: find_kind(name, _resources(request).kinds))


def _found(find: Callable[[], Answered]) -> Answered:
    """What the path names; 404 where there is none."""
    try:
        return find()
    except QueryError as error:
        raise Problem(404, str(error)) from error


def _id(text: str) -> bytes:
    with suppress(ValueError):
        return id_bytes(text)
    message = f"id {text[:40]!r}: expected 32 hexadecimal digits"
    raise QueryError(message)


def _asked(ask: Callable[[], Answered]) -> Answered:
    """The store's answer; 503 where it cannot answer now."""
    try:
        with _turns.turn():
            return ask()
    except StoreError as error:
        status = 500 if error.permanent else 503
        raise Problem(status, f"store: {error}", headers={} if error.permanent else RETRY_AFTER) from error


def _kind(kind: Kind) -> dict[str, object]:
    return {
        "name": kind.name,
        "doc": kind.doc,
        "shape": kind.shape,
        "time": kind.time,
        "times": kind.times,
        "identity": kind.identity,
        "retention": kind.retention.total_seconds() if kind.retention else None,
        "dimensions": [_column(column) for column in kind.dimensions],
        "measures": [_column(column) for column in kind.measures],
        "products": [
            {"name": name, "type": "integer", "unit": product.unit, "doc": product.doc, "factors": product.factors}
            for name, product in kind.products.items()
        ],
        "ratios": [
            {
                "name": name,
                "unit": ratio.unit,
                "doc": ratio.doc,
                "numerator": ratio.numerator,
                "denominator": ratio.denominator,
                "times": ratio.times,
            }
            for name, ratio in kind.ratios.items()
        ],
        "bounds": [{"measure": bound.measure, "most": str(bound)} for bound in kind.bounds],
        "booked": kind.booked,
        "longest": None if kind.longest is None else kind.longest // MICROSECONDS,
        "tiers": [{"until_age": age, "width": width} for age, width in kind.tiers],
    }


def _column(column: Column) -> dict[str, object]:
    common: dict[str, object] = {"name": column.name, "type": column.type, "doc": column.doc}
    match column.role:
        case Dimension():
            return common | {"personal": column.role.personal, "values": column.values}
        case Measure():
            return common | {"unit": column.role.unit, "combine": column.role.combine, "limit": column.role.limit}
    return common
