"""Questions as SQL: pure text from kinds and queries, every value bound."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Self

import msgspec

from monitoring.stores.answers import SECOND
from monitoring.stores.duckdb.conditions import Conditions, Parameters
from monitoring.stores.duckdb.grouping import Grouping, cycles_select
from monitoring.stores.duckdb.tables import OWN_COLUMNS, quoted, table_name
from monitoring.stores.questions import MOST_ROWS, is_by_cycle
from siteward.query import Filter, Query
from siteward.records import Kind

_PLACEHOLDER: Final = re.compile(r"\$(\w+)")


class Statement(msgspec.Struct, frozen=True):
    """SQL and the values of its `$names`."""

    text: str
    parameters: Parameters

    @classmethod
    def of(cls, text: str, conditions: Conditions) -> Self:
        """A text with those of the bound values that it names; DuckDB refuses others."""
        names = set(_PLACEHOLDER.findall(text))
        return cls(text, {name: value for name, value in conditions.parameters.items() if name in names})


class Question(msgspec.Struct, frozen=True):
    """The statements that answer a query.

    Attributes:
        rows: bucket if the query has a width, rank and number of all groups if it has a top, then the groups'
            values and the wanted values; in the answer's order.
        totals: wanted values over everything, computed by itself.
        incomplete: the number of cycles left out; None where no column looks at cycles.
    """

    rows: Statement
    totals: Statement
    incomplete: Statement | None


def question(kind: Kind, query: Query) -> Question:
    """The statements for a checked query."""
    conditions = Conditions(kind)
    window = str(conditions.within(query.start, query.end))
    filtered = str(conditions.meet(query.filters))
    everything = Grouping(kind, window, filtered, {})
    groups = {f"_g{i}": quoted(name) for i, name in enumerate(query.by)}
    bucket = f"epoch_us({quoted(kind.time)}) // {conditions.bind(query.width * SECOND)}" if query.width else ""
    rows = msgspec.structs.replace(everything, keys=({"_bucket": bucket} if bucket else {}) | groups, bucket=bucket)
    if query.top and groups:
        text = _top_rows(rows, msgspec.structs.replace(everything, keys=groups), query, conditions.bind(query.top))
    else:
        order = ", ".join(f"{key} NULLS LAST" for key in rows.keys)
        text = rows.select(query.wanted, occupied=True) + (f" ORDER BY {order}" if order else "")
    by_cycle = any(is_by_cycle(kind, wanted) for wanted in query.wanted)
    incomplete = f"SELECT count(*) FROM ({cycles_select(kind, window)}) WHERE NOT _complete"  # noqa: S608  # bound.
    return Question(
        Statement.of(f"{text} LIMIT {conditions.bind(MOST_ROWS + 1)}", conditions),
        Statement.of(everything.select(query.wanted), conditions),
        Statement.of(incomplete, conditions) if by_cycle else None,
    )


def _top_rows(rows: Grouping, ranked: Grouping, query: Query, top: str) -> str:
    """Rank all groups over the whole window, then group the records once more: all beyond the top are one group."""
    ranking = ", ".join(["_v0 DESC NULLS LAST", *(f"{group} NULLS LAST" for group in ranked.keys)])
    same = " AND ".join(f"{name} IS NOT DISTINCT FROM _top.{group}" for group, name in ranked.keys.items())
    bucket = {"_bucket": rows.bucket} if rows.bucket else {}
    again = bucket | {"_place": "_top._rank"} | {group: f"_top.{group}" for group in ranked.keys}
    regrouped = msgspec.structs.replace(rows, keys=again, join=f" LEFT JOIN _top ON {same}")
    order = ", ".join([*bucket, "_place IS NULL", *(f"{group} NULLS LAST" for group in ranked.keys)])
    names = ", ".join(
        [
            *bucket,
            "_place",
            "(SELECT count(*) FROM _ranked)",
            *ranked.keys,
            *(f"_v{i}" for i in range(len(query.wanted))),
        ]
    )
    return (
        f"WITH _ranked AS MATERIALIZED (SELECT *, row_number() OVER (ORDER BY {ranking}) AS _rank "  # noqa: S608  # bound.
        f"FROM ({ranked.select(query.wanted[:1])})), "
        f"_top AS MATERIALIZED (SELECT {', '.join(ranked.keys)}, _rank FROM _ranked WHERE _rank <= {top}) "
        f"SELECT {names} FROM ({regrouped.select(query.wanted, occupied=True)}) ORDER BY {order}"
    )


def values_statement(kind: Kind, field: str, filters: Sequence[Filter], limit: int) -> Statement:
    """Distinct values of a dimension, most frequent first."""
    conditions = Conditions(kind).meet(filters)
    name = quoted(field)
    text = (
        f"SELECT {name} FROM {table_name(kind)} WHERE {conditions} GROUP BY 1 "  # noqa: S608  # bound.
        f"ORDER BY count(*) DESC, {name} NULLS LAST LIMIT {conditions.bind(limit)}"
    )
    return Statement.of(text, conditions)


def records_statement(kind: Kind, conditions: Conditions, limit: int) -> Statement:
    """Single records, newest first: our own columns, then the kind's."""
    columns = ", ".join(map(quoted, (*OWN_COLUMNS, *kind.names)))
    text = (
        f"SELECT {columns} FROM {table_name(kind)} WHERE {conditions} "  # noqa: S608  # bound.
        f"ORDER BY {quoted(kind.time)} DESC, _id_high DESC, _id_low DESC LIMIT {conditions.bind(limit)}"
    )
    return Statement.of(text, conditions)


def forget_statement(kind: Kind, conditions: Conditions) -> Statement:
    """Delete records."""
    return Statement.of(f"DELETE FROM {table_name(kind)} WHERE {conditions}", conditions)  # noqa: S608  # bound.
