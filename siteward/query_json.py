"""An answer as JSON: what `GET /v1/query` sends and every client reads."""

from __future__ import annotations

import msgspec

from siteward.query import Answer, AnswerRow, Value
from siteward.query_text import format_query


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The question as it was understood: every member as in QueryText, the window absolute, the width in seconds."""

    kind: str
    measures: tuple[str, ...]
    by: tuple[str, ...]
    where: tuple[str, ...]
    start: str
    end: str
    width: int
    top: int


class AnswerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An Answer as it travels.

    Attributes:
        query: the question as understood.
        columns: names of the wanted columns, as asked.
        units: unit of each column.
        rows: groups and buckets, by time, then by group, Other last.
        totals: one value per column, over all groups and the whole window.
        groups: number of distinct groups, those within Other included.
        incomplete: cycles of snapshots left out because they arrived in part; null before who sees some records only.
        errors: () where every value is exact, else see siteward.query.Answer.
        took_ms: milliseconds that the store took.
    """

    query: Asked
    columns: tuple[str, ...]
    units: tuple[str, ...]
    rows: tuple[AnswerRow, ...]
    totals: tuple[Value, ...]
    groups: int
    incomplete: int | None = 0
    errors: tuple[float, ...] = ()
    took_ms: float = 0.0


def document(answer: Answer, took_ms: float) -> AnswerDocument:
    """An answer as its document."""
    text = format_query(answer.query)
    return AnswerDocument(
        # The width travels as the number that its text is.
        query=msgspec.convert(text, Asked, from_attributes=True, strict=False),
        columns=text.measures,
        units=answer.units,
        rows=answer.rows,
        totals=answer.totals,
        groups=answer.groups,
        incomplete=answer.incomplete,
        errors=answer.errors,
        took_ms=round(took_ms, 3),
    )
