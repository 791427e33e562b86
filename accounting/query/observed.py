"""What one group of snapshots was within one period: of each series, and of those who looked; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec


class Seen(msgspec.Struct, frozen=True):
    """One series within one period.

    Attributes:
        producer: who looked.
        records: how many there are.
        instants: at how many different instants.
        last: the latest of them, microseconds since 1970 UTC.
        sums: by bucket column.
        least: the smallest value of a record, by measure; None where none is known.
        most: the largest.
        lasts: what was at the latest instant, by bucket column; None where it is not known.
    """

    producer: str
    records: int
    instants: int
    last: int
    sums: Mapping[str, int]
    least: Mapping[str, int | None]
    most: Mapping[str, int | None]
    lasts: Mapping[str, int | None]


class Cycles(msgspec.Struct, frozen=True):
    """How one producer looked within one period, whatever it saw.

    Attributes:
        count: how often.
        complete: how often of them with all its records.
        last: the last time, microseconds since 1970 UTC.
    """

    count: int
    complete: int
    last: int


class Observed(msgspec.Struct, frozen=True):
    """What one group was within one period.

    Attributes:
        series: by number.
        cycles: of every producer, those of other groups included.
    """

    series: Mapping[int, Seen]
    cycles: Mapping[str, Cycles]


def together(parts: Iterable[Observed]) -> Observed:
    """What several groups were within one period; a series may have been in several of them, one after the other."""
    series: dict[int, Seen] = {}
    cycles: dict[str, Cycles] = {}
    for part in parts:
        add_series(series, part.series)
        cycles |= part.cycles
    return Observed(series, cycles)


def add_series(found: dict[int, Seen], more: Mapping[int, Seen]) -> None:
    """Add what series were at other instants."""
    for number, seen in more.items():
        known = found.get(number)
        found[number] = seen if known is None else _both(known, seen)


def add_cycles(found: dict[str, Cycles], more: Mapping[str, Cycles]) -> None:
    """Add the cycles of another part of the period."""
    for producer, cycles in more.items():
        known = found.get(producer, Cycles(0, 0, cycles.last))
        found[producer] = Cycles(
            known.count + cycles.count, known.complete + cycles.complete, max(known.last, cycles.last)
        )


def _both(one: Seen, other: Seen) -> Seen:
    return Seen(
        producer=one.producer,
        records=one.records + other.records,
        instants=one.instants + other.instants,
        last=max(one.last, other.last),
        sums={name: value + other.sums[name] for name, value in one.sums.items()},
        least={name: _known(min, value, other.least[name]) for name, value in one.least.items()},
        most={name: _known(max, value, other.most[name]) for name, value in one.most.items()},
        lasts=one.lasts if one.last > other.last else other.lasts,
    )


def _known(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)
