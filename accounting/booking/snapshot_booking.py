"""From snapshots to what is added to buckets: sums over instants, and what was least, most and last; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from accounting.booking.arithmetic import Integers, sums
from accounting.booking.buckets import Tier, bucket_of
from accounting.booking.measures import combine_of, is_knowable, known_of, ratio_parts
from accounting.booking.postings import Known, Postings, amounts_of
from accounting.snapshot_tables import COMPLETE, CYCLES, INSTANTS, LAST, last_of, lasts_of, least_of, most_of
from accounting.tables import PRODUCER, RECORDS, SERIES, START, WIDTH
from siteward.records import Combine, Kind

_LARGEST: Final = np.iinfo(np.int64).max
_SMALLEST: Final = np.iinfo(np.int64).min


class _Instants(msgspec.Struct):
    """One row for each series and instant, ascending by series, then by instant.

    Attributes:
        series: number of the series.
        time: microseconds since 1970 UTC.
        records: how many there are.
        totals: by bucket column, summed over the records that know it.
        knowing: by measure, how many records know it.
        least: by measure, the smallest value of a record that knows it.
        most: by measure, the largest.
    """

    series: Integers
    time: Integers
    records: Integers
    totals: dict[str, npt.NDArray[Any]]
    knowing: dict[str, Integers]
    least: dict[str, Integers]
    most: dict[str, Integers]


def seen(kind: Kind, columns: Mapping[str, Sequence[Any]], series: Integers, tiers: Iterable[Tier]) -> Postings:
    """What snapshots add to the buckets of their series.

    Args:
        kind: theirs.
        columns: values by field, within the limits of `accounting.booking.limits.beyond_limits`.
        series: number of each record's series. All records of a series and instant have to be among them.
        tiers: that cover all of them.
    """
    if not len(series):
        return Postings({}, {})
    instants = _instants(kind, columns, series)
    start, width = bucket_of(instants.time, tiers)
    # Stable: within a bucket instants stay in order.
    order = np.lexsort((width, instants.series, start))
    keys = {START: start[order], SERIES: instants.series[order], WIDTH: width[order]}
    firsts = _firsts(*keys.values())
    lasts = np.r_[firsts[1:], len(order)] - 1
    values: dict[str, Any] = {
        RECORDS: sums(instants.records[order], firsts),
        INSTANTS: lasts - firsts + 1,
        LAST: instants.time[order][lasts],
    }
    values |= {name: sums(totals[order], firsts) for name, totals in instants.totals.items()}
    for measure, each in instants.knowing.items():
        combine, knowing = combine_of(kind, measure), each[order]
        # What adds up is averaged over instants, anything else over records.
        count = np.add.reduceat(np.minimum(knowing, 1) if combine is Combine.SUM else knowing, firsts)
        if is_knowable(kind, measure):
            values[known_of(measure)] = count
        values[least_of(measure)] = _where(count > 0, np.minimum.reduceat(instants.least[measure][order], firsts))
        values[most_of(measure)] = _where(count > 0, np.maximum.reduceat(instants.most[measure][order], firsts))
        is_added = combine in {Combine.SUM, Combine.MEAN}
        at_last = (instants.totals if is_added else instants.most)[measure][order][lasts]
        values[last_of(measure)] = _where(knowing[lasts] > 0, at_last)
        if combine is Combine.MEAN:
            values[lasts_of(measure)] = _where(knowing[lasts] > 0, knowing[lasts])
    return Postings({name: each[firsts] for name, each in keys.items()}, values)


def _instants(kind: Kind, columns: Mapping[str, Sequence[Any]], series: Integers) -> _Instants:
    values, known = amounts_of(kind, columns)
    time = np.array(columns[kind.time], np.int64)
    order = np.lexsort((time, series))
    firsts = _firsts(series[order], time[order])
    totals = {name: sums(each[order], firsts) for name, each in values.items()}
    for part in ratio_parts(kind):
        totals[part.name] = sums(np.where(known[part.condition], values[part.measure], 0)[order], firsts)
    return _Instants(
        series=series[order][firsts],
        time=time[order][firsts],
        records=np.diff(np.r_[firsts, len(order)]),
        totals=totals,
        knowing={name: np.add.reduceat(each[order].astype(np.int64), firsts) for name, each in known.items()},
        least={
            name: np.minimum.reduceat(np.where(known[name], each, _LARGEST)[order], firsts)
            for name, each in values.items()
        },
        most={
            name: np.maximum.reduceat(np.where(known[name], each, _SMALLEST)[order], firsts)
            for name, each in values.items()
        },
    )


def looked(
    times: Sequence[int], producers: Sequence[int], changes: Mapping[str, Sequence[int]], tiers: Iterable[Tier]
) -> Postings:
    """What cycles add to the buckets of their producers.

    Args:
        times: of cycles, microseconds since 1970 UTC.
        producers: number of each cycle's producer.
        changes: by column, 1 for a cycle that is there now, or complete, and was not; -1 for the contrary.
        tiers: that cover all of them.
    """
    if not times:
        return Postings({}, {})
    instants, numbers = np.array(times, np.int64), np.array(producers, np.int64)
    start, width = bucket_of(instants, tiers)
    order = np.lexsort((instants, width, numbers, start))
    keys = {START: start[order], PRODUCER: numbers[order], WIDTH: width[order]}
    firsts = _firsts(*keys.values())
    values: dict[str, Any] = {
        name: sums(np.array(changes[name], np.int64)[order], firsts) for name in (CYCLES, COMPLETE)
    }
    values[LAST] = np.maximum.reduceat(instants[order], firsts)
    return Postings({name: each[firsts] for name, each in keys.items()}, values)


def _firsts(*columns: Integers) -> Integers:
    """Where rows begin that differ from the one before."""
    is_new = np.zeros(len(columns[0]), np.bool_)
    is_new[:1] = True
    for column in columns:
        is_new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(is_new)


def _where(known: Known, values: npt.NDArray[Any]) -> Any:  # noqa: ANN401  # an array, or a list with None.
    if known.all():
        return values
    return [value if is_known else None for value, is_known in zip(values.tolist(), known.tolist(), strict=True)]
