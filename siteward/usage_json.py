"""A usage answer as JSON: what `GET /v1/accounting/usage` sends and every client reads."""

from __future__ import annotations

from datetime import UTC, tzinfo

import msgspec

from siteward.query import Value
from siteward.usage import ClosedPeriod, UsageAnswer, UsageRow, ValueType
from siteward.usage_text import format_usage


class AskedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The question as it was understood: every member as in UsageText, the window absolute and in UTC."""

    kind: str
    measures: tuple[str, ...]
    by: tuple[str, ...]
    where: tuple[str, ...]
    start: str
    end: str
    attribution: str
    period: str
    top: int
    as_of: str = "present"


class UsageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A UsageAnswer as it travels.

    Attributes:
        query: the question as understood.
        attribution: to which time each of the figures belongs: `prorated` or `by-end`.
        time_zone: in which the rows' instants are written. Periods are those of UTC, whatever it is.
        columns: names of the wanted columns.
        units: unit of each column.
        types: of each column's values.
        rows: groups and periods, by period, then by group, Other last.
        totals: one value per column, over all groups and the whole window.
        groups: number of distinct groups, those within Other included.
        visible: conditions that every record counted here met: what the viewer may see; () where that is everything.
        pseudonyms: what has pseudonyms in place of people's names.
        closed: the closed months within the window of a question by end, and whether what was asked has changed since.
        unfinished: corrections of the kind that are half applied or half reversed.
        of_records: what was asked for, as groups or in conditions, that only records say: everything was computed
            from these.
        took_ms: milliseconds that the ledger took.
    """

    query: AskedUsage
    attribution: str
    time_zone: str
    columns: tuple[str, ...]
    units: tuple[str, ...]
    types: tuple[ValueType, ...]
    rows: tuple[UsageRow, ...]
    totals: tuple[Value, ...]
    groups: int
    visible: tuple[str, ...] = ()
    pseudonyms: tuple[str, ...] = ()
    closed: tuple[ClosedPeriod, ...] = ()
    unfinished: tuple[int, ...] = ()
    of_records: tuple[str, ...] = ()
    took_ms: float = 0.0


def usage_document(answer: UsageAnswer, took_ms: float, zone: tzinfo = UTC) -> UsageDocument:
    """An answer as its document.

    Args:
        answer: the answer.
        took_ms: milliseconds that it took.
        zone: in which instants are written; no figure depends on it.
    """
    text = format_usage(answer.query)
    return UsageDocument(
        query=msgspec.convert(text, AskedUsage, from_attributes=True),
        attribution=text.attribution,
        time_zone=str(zone),
        columns=text.measures,
        units=answer.units,
        types=answer.types,
        rows=tuple(
            msgspec.structs.replace(row, start=row.start.astimezone(zone), end=row.end.astimezone(zone))
            for row in answer.rows
        ),
        totals=answer.totals,
        groups=answer.groups,
        visible=answer.visible,
        pseudonyms=answer.pseudonyms,
        closed=answer.closed,
        unfinished=answer.unfinished,
        of_records=answer.of_records,
        took_ms=round(took_ms, 3),
    )
