"""Which records nobody should book without a look at them: what lies beyond their kind's limits; pure.

A wall time of a million years, a job of twenty, an exabyte of memory: one of these would spoil a year's totals, or be
the answer to every question for the largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accounting.booking.arithmetic import Integers
from accounting.booking.measures import MOST, MOST_OF_PRODUCT, factors, held
from accounting.booking.postings import integers_of
from siteward.records import Bound, Column, Kind, Measure, Refused, Type

Columns = Mapping[str, Sequence[Any]]
Floats = npt.NDArray[np.float64]


def beyond_limits(kind: Kind, columns: Columns) -> dict[int, Refused]:
    """Records that nobody should book without a look at them, by position, each with field, value and reason.

    Args:
        kind: whose.
        columns: values by field; times in microseconds since 1970 UTC.
    """
    found: dict[int, Refused] = {}
    for excesses in every_excess(kind, columns).values():
        for position, refused in excesses:
            found.setdefault(position, refused)
    return found


def every_excess(kind: Kind, columns: Columns) -> dict[str, Iterator[tuple[int, Refused]]]:
    """The same with all that is wrong with each record, by what the kind says against it."""
    rules: dict[str, Iterator[tuple[int, Refused]]] = {}
    if kind.longest is not None:
        rules["longest"] = _too_long(kind, columns, kind.longest)
    rules |= {f"limit of {name}": _too_large(kind, columns, name, limit) for name, limit in _limits(kind).items()}
    rules |= {f"product {name}": _large_products(kind, columns, name) for name in kind.products}
    return rules | {f"{bound.measure} at most {bound}": _out_of_bounds(kind, columns, bound) for bound in kind.bounds}


def _too_long(kind: Kind, columns: Columns, longest: int) -> Iterator[tuple[int, Refused]]:
    first, last = _ends(kind)
    for position in np.flatnonzero(_lasting(kind, columns) > longest).tolist():
        seconds = (columns[last][position] - columns[first][position]) // 1_000_000
        reason = f"lasts longer than {longest // 1_000_000} s; mend it, or raise the kind's `longest`"
        yield position, Refused(reason, kind=kind.name, field=last, value=f"{seconds} s after its {first}")


def _ends(kind: Kind) -> tuple[str, str]:
    return (kind.since, kind.time) if kind.since else ("start", "end")


def _lasting(kind: Kind, columns: Columns) -> Integers:
    """How long each record lasts, microseconds."""
    starts, ends = (np.array(columns[name], np.int64) for name in _ends(kind))
    return ends - starts


def _limits(kind: Kind) -> dict[str, int]:
    """What is limited: that of which sums are held in any case, since these have bounds, and what the kind says."""
    limits = {name: MOST for measure in held(kind) for name in factors(kind, measure)}
    roles = {column.name: column.role for column in kind.columns}
    return limits | {
        name: role.limit for name, role in roles.items() if isinstance(role, Measure) and role.limit is not None
    }


def _too_large(kind: Kind, columns: Columns, name: str, limit: int) -> Iterator[tuple[int, Refused]]:
    for position in _beyond(kind.column[name], columns[name], limit):
        reason = f"is beyond {limit}; mend it, or raise the measure's `limit`"
        yield position, Refused(reason, kind=kind.name, field=name, value=columns[name][position])


def _beyond(column: Column, values: Sequence[Any], limit: int) -> list[int]:
    """Positions of values beyond a limit. What is no number is, too."""
    if column.type is Type.NUMBER:
        if not any(values):
            return []
        numbers = np.array([value or 0.0 for value in values], np.float64)
        return np.flatnonzero(~(np.abs(numbers) <= limit)).tolist()
    whole, _ = integers_of(values, optional=column.optional)
    if not len(whole) or (int(whole.max()) <= limit and int(whole.min()) >= -limit):
        return []
    return np.flatnonzero((whole > limit) | (whole < -limit)).tolist()


def _large_products(kind: Kind, columns: Columns, name: str) -> Iterator[tuple[int, Refused]]:
    parts = [columns[factor] for factor in kind.products[name].factors]
    if prod(map(_largest, parts)) <= MOST_OF_PRODUCT:
        return
    for position, values in enumerate(zip(*parts, strict=True)):
        product = reduce(lambda one, other: one * other, (value or 0 for value in values))
        if abs(product) > MOST_OF_PRODUCT:
            reason = f"is beyond {MOST_OF_PRODUCT}, more than a bucket holds; look at its factors"
            yield position, Refused(reason, kind=kind.name, field=name, value=product)


def _out_of_bounds(kind: Kind, columns: Columns, bound: Bound) -> Iterator[tuple[int, Refused]]:
    # In floats: none of these bounds is one that the last digits decide, and no product is too large.
    most: Floats = np.full(len(columns[bound.measure]), bound.factor, np.float64)
    if bound.lasting:
        most = most * (_lasting(kind, columns) / 1_000_000)
    for name in bound.of:
        most = most * _floats(columns[name])
    # What is unknown is above nothing, and below nothing.
    for position in np.flatnonzero(_floats(columns[bound.measure]) > most + bound.slack).tolist():
        reason = f"is more than {bound} = {most[position] + bound.slack:.6g} allows; mend it, or its kind's `bounds`"
        value = columns[bound.measure][position]
        yield position, Refused(reason, kind=kind.name, field=bound.measure, value=value)


def _floats(values: Sequence[Any]) -> Floats:
    """Values, NaN where they are unknown."""
    if values.count(None) == len(values):
        return np.full(len(values), np.nan)
    return np.array(values, np.float64)


def _largest(values: Sequence[Any]) -> int:
    """The largest amount of any value, unknown ones left aside."""
    known = [value for value in values if value is not None] if None in values else values
    largest: int = max(abs(max(known, default=0)), abs(min(known, default=0)))
    return largest
