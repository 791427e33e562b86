"""The text form of a question for what a figure is made of, for HTTP and CLI."""

from __future__ import annotations

from datetime import datetime

import msgspec

from accounting.ledger import Ledger
from accounting.query.usage import attributes_of
from accounting.trace.traced import Page
from siteward.query import QueryError
from siteward.records import id_bytes
from siteward.usage import AsOf, UsageQuery
from siteward.usage_text import UsageText, parse_usage


class TraceText(msgspec.Struct, frozen=True, kw_only=True):
    """A question as it is typed; see siteward.usage_text.UsageText and accounting.trace.traced.Page."""

    kind: str
    measures: tuple[str, ...] = ("records",)
    where: tuple[str, ...] = ()
    window: str = ""
    start: str = ""
    end: str = ""
    attribution: str = ""
    limit: int = 100
    after_bucket: str = ""
    after_record: str = ""
    after_adjustment: str = ""
    as_of: str = str(AsOf.PRESENT)


def parse_trace(text: TraceText, ledger: Ledger, now: datetime) -> tuple[UsageQuery, Page]:
    """The question that a text asks, and which portion of its answer.

    Raises:
        QueryError: naming the part at fault and what is possible.
    """
    asked = UsageText(
        kind=text.kind,
        measures=text.measures,
        where=text.where,
        window=text.window,
        start=text.start,
        end=text.end,
        attribution=text.attribution,
        as_of=text.as_of,
    )
    query = parse_usage(asked, ledger.kinds, now, attributes_of(ledger))
    page = Page(
        limit=text.limit,
        after_bucket=text.after_bucket,
        after_record=text.after_record,
        after_adjustment=text.after_adjustment,
    )
    return query, page


def parse_record_id(text: str) -> bytes:
    """A record's id.

    Raises:
        QueryError: it is none.
    """
    try:
        return id_bytes(text)
    except ValueError as error:
        raise QueryError(str(error)) from error
