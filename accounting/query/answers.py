"""From what groups hold in each period to a whole answer: top groups, exact Other, totals; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from accounting.query.amounts import NO_SAMPLE, Amounts, together
from accounting.query.conditions import Group
from accounting.query.quantities import added, columns_of, sampled_of, type_of, unit_of, value_of
from siteward.query import QueryError, Value
from siteward.records import Kind, microseconds
from siteward.usage import Quantity, UsageAnswer, UsageQuery, UsageRow

Groups = dict[Group, Amounts]
Edges = tuple[datetime, datetime]
"""First instant of a period, and the first after it."""
Periods = Sequence[Edges]
MOST_ROWS: Final = 500_000
"""Groups in periods of one answer; nobody reads more, and the process has to hold them."""


def bounded(parts: Iterable[Groups]) -> list[Groups]:
    """What each group holds in each period, one period after the other.

    Raises:
        QueryError: they are too many.
    """
    found: list[Groups] = []
    rows = 0
    for part in parts:
        found.append(part)
        rows += len(part)
        if rows > MOST_ROWS:
            message = f"the answer has more than {MOST_ROWS} rows; ask for longer periods, or fewer dimensions"
            raise QueryError(message)
    return found


def answer_of(kind: Kind, query: UsageQuery, periods: Periods, whole: Groups, parts: Sequence[Groups]) -> UsageAnswer:
    """The answer to a question.

    Args:
        kind: the kind asked.
        query: the question.
        periods: of the window, in order.
        whole: what each group holds in the whole window.
        parts: what each group holds in each period.
    """

    def values(amounts: Amounts, lasting: int, so_far: Amounts) -> tuple[Value, ...]:
        return tuple(
            [
                value_of(kind, wanted, query, so_far if wanted.quantity is Quantity.CUMULATIVE else amounts, lasting)
                for wanted in query.wanted
            ]
        )

    sampled = sampled_of(kind, query)
    nothing = Amounts(dict.fromkeys(columns_of(kind, query), 0), dict.fromkeys(sampled, NO_SAMPLE))
    window = _lasting((query.start, query.end))
    top = _top(query, {group: values(amounts, window, amounts)[0] for group, amounts in whole.items()})
    is_cumulative = any(wanted.quantity is Quantity.CUMULATIVE for wanted in query.wanted)
    so_far: dict[Group | None, Amounts] = {}
    rows: list[UsageRow] = []
    for edges, groups in zip(periods, parts, strict=True):
        here, lasting = _others_joined(groups, top), _lasting(edges)
        if is_cumulative:
            so_far |= {group: _sums_of(so_far.get(group, nothing), amounts) for group, amounts in here.items()}
        # What was used before stays used, also in a period without anything.
        shown = so_far if is_cumulative else here
        for group in sorted(shown, key=order_of):
            told = values(here.get(group, nothing), lasting, shown[group])
            rows.append(UsageRow(*edges, group or (), told, other=group is None))
    total = together([nothing, *whole.values()])
    return UsageAnswer(
        query=query,
        rows=tuple(rows),
        totals=values(total, window, total),
        units=tuple(unit_of(kind, wanted) for wanted in query.wanted),
        groups=len(whole),
        types=tuple(type_of(kind, wanted) for wanted in query.wanted),
    )


def _lasting(edges: Edges) -> int:
    """Microseconds."""
    return microseconds(edges[1]) - microseconds(edges[0])


def _sums_of(one: Amounts, other: Amounts) -> Amounts:
    """Sums over both; single values are never asked for from the start of the window on."""
    return Amounts(added(one.sums, other.sums))


def _top(query: UsageQuery, firsts: Mapping[Group, Value]) -> set[Group] | None:
    """The groups that are kept, the largest first, ties in order of the group; None where all are."""
    if not query.top or not query.by:
        return None
    ranked = sorted(firsts, key=lambda group: (firsts[group] is None, -(firsts[group] or 0), order_of(group)))
    return set(ranked[: query.top])


def _others_joined(groups: Groups, top: set[Group] | None) -> dict[Group | None, Amounts]:
    """Groups with those beyond the top as one, whose group is None."""
    if top is None:
        return dict(groups)
    kept: dict[Group | None, Amounts] = {group: amounts for group, amounts in groups.items() if group in top}
    others = [amounts for group, amounts in groups.items() if group not in top]
    return kept | ({None: together(others)} if others else {})


def order_of(group: Group | None) -> tuple[Any, ...]:
    """By what groups are sorted: Other last, unknown values before known ones."""
    return (group is None, *((value is not None, value) for value in group or ()))
