"""Answers of the ledger: exact sums by any dimensions and calendar periods, computed from the buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Final, NoReturn

import msgspec
from sqlalchemy import Connection, Table, and_, case, func, not_, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.buckets import DAY
from accounting.calendar import periods_of
from accounting.ledger import Ledger
from accounting.quantities import Sums, added, check_wanted, columns_of, unit_of, value_of
from accounting.tables import CARRIED, SERIES, START, WIDTH, KindTables, is_bucketed
from siteward.query import Filter, QueryError, Value
from siteward.records import Kind, Type
from siteward.usage import Attribution, Quantity, UsageAnswer, UsageQuery, UsageRow

MOST_PERIODS: Final = 10_000
Group = tuple[Any, ...]
Groups = dict[Group, Sums]
Edges = tuple[datetime, datetime]
"""First instant of a period, and the first after it."""


class Usage:
    """Asks one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the ledger."""
        self._ledger = ledger

    def ask(self, query: UsageQuery) -> UsageAnswer:
        """The answer to a question, from one state of the ledger.

        Raises:
            QueryError: it names what the kind does not have, or a time within a bucket.
        """
        tables = self._ledger.tables.get(query.kind)
        if tables is None:
            _refuse(f"kind {query.kind!r} is not in the ledger; there are {', '.join(self._ledger.tables)}")
        query = _checked(tables.kind, query)
        periods = list(periods_of(query.start, query.end, query.period))
        if len(periods) > MOST_PERIODS:
            _refuse(f"the window has {len(periods)} periods, more than {MOST_PERIODS}; ask for longer ones")
        with self._ledger.database.read() as connection:
            reading = _Reading(connection, self._ledger, tables, query)
            reading.refuse_cuts({edge for edges in periods for edge in edges})
            window = (query.start, query.end)
            whole = reading.groups(window)
            parts = [whole] if periods == [window] else [reading.groups(edges) for edges in periods]
        return _answer(tables.kind, query, periods, whole, parts)


class _Reading:
    """One question within one state of the database."""

    def __init__(self, connection: Connection, ledger: Ledger, tables: KindTables, query: UsageQuery) -> None:
        self._connection = connection
        self._dialect = ledger.database.dialect
        self._series = tables.series
        self._query = query
        self._buckets = tables.prorated if query.attribution is Attribution.PRORATED else tables.by_end
        self._names = columns_of(tables.kind, query)
        self._readers = [_reader(tables.kind.column[name].type) for name in query.by]

    def groups(self, edges: Edges) -> Groups:
        """The sums of each group within a period."""
        start, end = map(_seconds, edges)
        buckets, series = self._buckets, self._series
        by = [series.c[name] for name in self._query.by]
        sums = [self._dialect.exact_sum(self._summed(name, start)) for name in self._names]
        question = (
            select(*by, *(part for parts in sums for part in parts))
            .select_from(buckets.join(series, buckets.c[SERIES] == series.c[SERIES]))
            .where(buckets.c[START] >= start, buckets.c[START] < end, *_conditions(series, self._query.filters))
            .group_by(*by)
            .having(func.count() > 0)
        )
        found: Groups = {}
        for row in self._connection.execute(question):
            values = iter(row[len(by) :])
            found[tuple(read(value) for read, value in zip(self._readers, row, strict=False))] = {
                name: self._dialect.whole([next(values) for _ in parts])
                for name, parts in zip(self._names, sums, strict=True)
            }
        return found

    def _summed(self, name: str, start: int) -> ColumnElement[int]:
        column = self._buckets.c[name]
        # Who was running when the period began is in its first buckets; later ones tell of the same records again.
        return case((self._buckets.c[START] == start, column), else_=0) if name == CARRIED else column

    def refuse_cuts(self, edges: Iterable[datetime]) -> None:
        """Refuse instants that lie within a bucket that holds something.

        Raises:
            QueryError: naming the bucket.
        """
        buckets = self._buckets
        start, width = buckets.c[START], buckets.c[WIDTH]
        for edge in sorted(map(_seconds, edges)):
            if edge % DAY:
                around = (start > edge - DAY, start < edge, start + width > edge)
                cut = self._connection.execute(select(start, width).where(*around).limit(1)).first()
                if cut is not None:
                    _refuse(
                        f"{_text(edge)} lies within a bucket of {cut[1]} s, from {_text(cut[0])} on; ask for whole ones"
                    )


def _reader(type_: Type) -> Callable[[Any], Any]:
    """Truth values lie in columns of integers."""
    return (lambda value: None if value is None else bool(value)) if type_ is Type.BOOLEAN else (lambda value: value)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _checked(kind: Kind, query: UsageQuery) -> UsageQuery:
    for name, moment in (("start", query.start), ("end", query.end)):
        if moment.tzinfo is None:
            _refuse(f"{name} {moment.isoformat()} has no time zone")
        if moment.microsecond:
            _refuse(f"{name} {moment.isoformat()} lies within a second, and so within a bucket; ask for whole ones")
    if query.end <= query.start:
        _refuse(f"the window ends at {query.end.isoformat()}, not after its start at {query.start.isoformat()}")
    bucketed = [column.name for column in kind.columns if is_bucketed(column)]
    for name in (*query.by, *(condition.field for condition in query.filters)):
        if name not in bucketed:
            _refuse(f"{name!r} is not in the buckets of {kind.name}; there are {', '.join(bucketed)}")
    if query.top < 0:
        _refuse(f"top {query.top} is negative; 0 keeps all groups")
    check_wanted(kind, query)
    return msgspec.structs.replace(query, start=query.start.astimezone(UTC), end=query.end.astimezone(UTC))


def _conditions(series: Table, filters: Iterable[Filter]) -> list[ColumnElement[bool]]:
    return [_condition(series.c[each.field], each) for each in filters]


def _condition(column: ColumnElement[Any], condition: Filter) -> ColumnElement[bool]:
    parts: list[ColumnElement[bool]] = []
    if condition.values:
        if condition.wildcard:
            parts.append(or_(*(column.like(_pattern(str(value)), escape="!") for value in condition.values)))
        else:
            parts.append(column.in_([int(value) if isinstance(value, bool) else value for value in condition.values]))
    if condition.minimum is not None:
        parts.append(column >= condition.minimum)
    if condition.maximum is not None:
        parts.append(column <= condition.maximum)
    met = and_(*parts)
    return or_(not_(met), column.is_(None)) if condition.negated else met


def _pattern(text: str) -> str:
    for character in "!%_":
        text = text.replace(character, f"!{character}")
    return text.replace("*", "%").replace("?", "_")


def _answer(
    kind: Kind, query: UsageQuery, periods: Sequence[Edges], whole: Groups, parts: Sequence[Groups]
) -> UsageAnswer:
    def values(sums: Sums, edges: Edges, so_far: Sums) -> tuple[Value, ...]:
        seconds = _seconds(edges[1]) - _seconds(edges[0])
        return tuple(
            value_of(kind, wanted, query, so_far if wanted.quantity is Quantity.CUMULATIVE else sums, seconds)
            for wanted in query.wanted
        )

    nothing = dict.fromkeys(columns_of(kind, query), 0)
    window = (query.start, query.end)
    top = _top(query, {group: values(sums, window, sums)[0] for group, sums in whole.items()})
    is_cumulative = any(wanted.quantity is Quantity.CUMULATIVE for wanted in query.wanted)
    so_far: dict[Group | None, Sums] = {}
    rows: list[UsageRow] = []
    for edges, groups in zip(periods, parts, strict=True):
        here = _others_joined(groups, top)
        so_far |= {group: added(so_far.get(group, nothing), sums) for group, sums in here.items()}
        # What was used before stays used, also in a period without anything.
        shown = so_far if is_cumulative else here
        rows += [
            UsageRow(*edges, group or (), values(here.get(group, nothing), edges, so_far[group]), other=group is None)
            for group in sorted(shown, key=_order)
        ]
    total = reduce(added, whole.values(), nothing)
    return UsageAnswer(
        query=query,
        rows=tuple(rows),
        totals=values(total, window, total),
        units=tuple(unit_of(kind, wanted) for wanted in query.wanted),
        groups=len(whole),
    )


def _top(query: UsageQuery, firsts: Mapping[Group, Value]) -> set[Group] | None:
    """The groups that are kept, the largest first, ties in order of the group; None where all are."""
    if not query.top or not query.by:
        return None
    ranked = sorted(firsts, key=lambda group: (firsts[group] is None, -(firsts[group] or 0), _order(group)))
    return set(ranked[: query.top])


def _others_joined(groups: Groups, top: set[Group] | None) -> dict[Group | None, Sums]:
    """Groups with those beyond the top as one, whose group is None."""
    if top is None:
        return dict(groups)
    joined: dict[Group | None, Sums] = {}
    for group, sums in groups.items():
        key = group if group in top else None
        joined[key] = added(joined[key], sums) if key in joined else sums
    return joined


def _order(group: Group | None) -> tuple[Any, ...]:
    """Other last, unknown values before known ones."""
    return (group is None, *((value is not None, value) for value in group or ()))


def _refuse(message: str) -> NoReturn:
    raise QueryError(message)
