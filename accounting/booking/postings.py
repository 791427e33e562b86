"""From records to what is added to buckets: measures and products as columns of integers; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from accounting.booking.arithmetic import Integers, sums
from accounting.booking.buckets import Tier, bucket_of, pieces_of, spread
from accounting.booking.measures import (
    additive,
    averaged,
    factors,
    held,
    knowable,
    known_of,
    ratio_parts,
)
from accounting.tables import CARRIED, RECORDS, SERIES, START, STARTED, WIDTH, times_of
from siteward.records import Kind

MOST_PIECES: Final = 500_000
"""Parts of records in buckets that are in memory at once, a few hundred bytes each."""

Known = npt.NDArray[np.bool_]


class Account(msgspec.Struct):
    """Records as columns, ready to be booked.

    Attributes:
        series: number of each record's series.
        start: microseconds since 1970 UTC.
        end: the same; not before the start.
        sign: 1 to add the record, -1 to take it away.
        amounts: what is summed of each record, by bucket column; columns that are zero throughout are left out.
        whole: what is summed where the record ends and nowhere else, by bucket column: measures of which means are
            made, and 1 or 0 for whether the record knows a measure.
    """

    series: Integers
    start: Integers
    end: Integers
    sign: Integers
    amounts: dict[str, Integers]
    whole: dict[str, Integers]


class Postings(msgspec.Struct):
    """What is added to one table of buckets: rows by column, in ascending order of their key."""

    keys: dict[str, Integers]
    sums: dict[str, npt.NDArray[Any]]


def account_of(kind: Kind, columns: Mapping[str, Sequence[Any]], series: Integers, sign: int = 1) -> Account:
    """Records of a kind as an account.

    Args:
        kind: whose; what snapshots add up to, but not what was least, most or last.
        columns: values by field; times in microseconds since 1970 UTC. Within the limits of
            `accounting.booking.limits.beyond_limits`. Of counters the differences, as `accounting.booking.counters`
            gives them.
        series: number of each record's series.
        sign: 1 to add them, -1 to take them away.
    """
    values, known = amounts_of(kind, columns)
    amounts = {name: values[name] for name in additive(kind) if values[name].any()}
    for part in ratio_parts(kind):
        here = np.where(known[part.condition], values[part.measure], 0)
        if here.any():
            amounts[part.name] = here
    whole = {name: values[name] for name in averaged(kind) if values[name].any()}
    whole |= {known_of(name): known[name].astype(np.int64) for name in knowable(kind) if known[name].any()}
    first, last = times_of(kind)
    return Account(
        series=series,
        start=np.array(columns[first], np.int64),
        end=np.array(columns[last], np.int64),
        sign=np.full(len(series), sign, np.int64),
        amounts=amounts,
        whole=whole,
    )


def joined(accounts: Sequence[Account]) -> Account:
    """Several accounts of one kind as one."""
    lengths = [len(each.series) for each in accounts]

    def column(chosen: Sequence[dict[str, Integers]], name: str) -> Integers:
        return np.concatenate(
            [each.get(name, np.zeros(length, np.int64)) for each, length in zip(chosen, lengths, strict=True)]
        )

    amounts, whole = [each.amounts for each in accounts], [each.whole for each in accounts]
    return Account(
        series=np.concatenate([each.series for each in accounts]),
        start=np.concatenate([each.start for each in accounts]),
        end=np.concatenate([each.end for each in accounts]),
        sign=np.concatenate([each.sign for each in accounts]),
        amounts={name: column(amounts, name) for name in dict.fromkeys(name for each in amounts for name in each)},
        whole={name: column(whole, name) for name in dict.fromkeys(name for each in whole for name in each)},
    )


def chosen(account: Account, which: Known) -> Account:
    """Some of an account's records."""
    return Account(
        series=account.series[which],
        start=account.start[which],
        end=account.end[which],
        sign=account.sign[which],
        amounts={name: values[which] for name, values in account.amounts.items()},
        whole={name: values[which] for name, values in account.whole.items()},
    )


def prorated(account: Account, tiers: Iterable[Tier]) -> Postings:
    """What records add over the time in which they ran."""
    tiers = list(tiers)
    return merged([_spread_over(each, tiers) for each in _portions(account, tiers)])


def merged(parts: Sequence[Postings]) -> Postings:
    """Rows of several postings, those of the same key added up."""
    parts = [part for part in parts if part.keys]
    if len(parts) < 2:  # noqa: PLR2004  # one needs nothing.
        return parts[0] if parts else Postings({}, {})
    start, series, width = (np.concatenate([part.keys[name] for part in parts]) for name in (START, SERIES, WIDTH))
    names = dict.fromkeys(name for part in parts for name in part.sums)
    return posted(
        start, series, width, {name: np.concatenate([column_of(part, name) for part in parts]) for name in names}
    )


def column_of(postings: Postings, name: str) -> npt.NDArray[Any]:
    """A column; those that are zero throughout are left out of postings."""
    if name in postings.sums:
        return postings.sums[name]
    return np.zeros(len(postings.keys[START]) if postings.keys else 0, np.int64)


def _portions(account: Account, tiers: Sequence[Tier]) -> Iterator[Account]:
    """An account's records in order, so many at a time that memory holds their pieces, even if each lasts years."""
    number = np.cumsum(pieces_of(account.start, account.end, tiers))
    portion = number // MOST_PIECES
    if not len(portion) or portion[-1] == 0:
        yield account
        return
    for each in np.unique(portion).tolist():
        yield chosen(account, portion == each)


def _spread_over(account: Account, tiers: Sequence[Tier]) -> Postings:
    pieces = spread(account.start, account.end, tiers)
    sign = account.sign[pieces.record]
    started = pieces.started
    columns: dict[str, Integers] = {STARTED: sign * started, CARRIED: sign * (1 - started)}
    columns |= {name: sign * pieces.parts(amounts) for name, amounts in account.amounts.items()}
    return posted(pieces.start, account.series[pieces.record], pieces.width, columns)


def by_end(account: Account, tiers: Sequence[Tier]) -> Postings:
    """What records add to the bucket of their end, whole."""
    start, width = bucket_of(account.end, tiers)
    columns = {RECORDS: account.sign}
    columns |= {name: account.sign * amounts for name, amounts in (account.amounts | account.whole).items()}
    return posted(start, account.series, width, columns)


def posted(start: Integers, series: Integers, width: Integers, columns: Mapping[str, npt.NDArray[Any]]) -> Postings:
    """Rows of the same key added up.

    Args:
        start: of each row's bucket, seconds since 1970 UTC.
        series: number of its series.
        width: of the bucket, seconds.
        columns: what is added, by bucket column; integers of 64 bits, or Python's own.
    """
    if not len(start):
        return Postings({}, {})
    order = np.lexsort((width, series, start))
    start, series, width = start[order], series[order], width[order]
    is_new = np.r_[True, (start[1:] != start[:-1]) | (series[1:] != series[:-1]) | (width[1:] != width[:-1])]
    firsts = np.flatnonzero(is_new)
    keys = {START: start[firsts], SERIES: series[firsts], WIDTH: width[firsts]}
    return Postings(keys, {name: sums(values[order], firsts) for name, values in columns.items()})


def amounts_of(kind: Kind, columns: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Integers], dict[str, Known]]:
    """Values, zero where unknown, and whether they are known, of all measures and products whose sums are held."""
    needed = {name for measure in held(kind) for name in factors(kind, measure)}
    fields = {name: integers_of(columns[name], optional=kind.column[name].optional) for name in needed}
    values, known = {}, {}
    for measure in held(kind):
        parts = [fields[name] for name in factors(kind, measure)]
        values[measure] = reduce(np.multiply, (value for value, _ in parts))
        known[measure] = reduce(np.logical_and, (is_known for _, is_known in parts))
    return values, known


def integers_of(values: Sequence[Any], *, optional: bool) -> tuple[Integers, Known]:
    """Whole numbers, zero where unknown, and whether they are known."""
    if len(values) and values.count(values[0]) == len(values):
        # Most measures of a wide kind are not used.
        return np.full(len(values), values[0] or 0, np.int64), np.full(len(values), values[0] is not None)
    if optional and None in values:
        known = np.array([value is not None for value in values])
        return np.array([value or 0 for value in values], np.int64), known
    return np.array(values, np.int64), np.ones(len(values), np.bool_)
