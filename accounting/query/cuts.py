"""Where a period lies within buckets: which part of it whole buckets answer, and which only the records; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from accounting.booking.buckets import SECOND

Stretch = tuple[int, int]
"""First instant and first after it, microseconds since 1970 UTC."""


class Plan(msgspec.Struct, frozen=True):
    """How one period is answered.

    Attributes:
        whole: what whole buckets answer; None where there is no such part.
        cut: what the records answer, in order.
    """

    whole: Stretch | None
    cut: tuple[Stretch, ...]


def blocks_of(buckets: Iterable[tuple[int, int]]) -> list[Stretch]:
    """Stretches of buckets that lie over each other: no bucket reaches beyond its block.

    A day's buckets may have several widths until it is compacted; then only the block as a whole equals its records.

    Args:
        buckets: start and width in seconds, any number of times, in any order.
    """
    blocks: list[Stretch] = []
    for start, width in sorted(set(buckets)):
        first, last = start * SECOND, (start + width) * SECOND
        if blocks and first < blocks[-1][1]:
            blocks[-1] = (blocks[-1][0], max(blocks[-1][1], last))
        else:
            blocks.append((first, last))
    return blocks


def plan_of(period: Stretch, blocks: Sequence[Stretch]) -> Plan:
    """How a period is answered.

    Args:
        period: half-open.
        blocks: those that lie around instants within buckets, in order.
    """
    start, end = period
    first, last = _around(start, blocks), _around(end, blocks)
    if first and first == last:
        return Plan(None, (period,))
    cut = [(start, first[1])] if first else []
    cut += [(last[0], end)] if last else []
    whole = first[1] if first else start, last[0] if last else end
    return Plan(whole if whole[0] < whole[1] else None, tuple(cut))


def cut_blocks(instants: Iterable[int], blocks: Iterable[Stretch]) -> list[Stretch]:
    """The blocks within which instants lie, in order, each once."""
    return sorted({around for instant in set(instants) if (around := _around(instant, blocks))})


def joined_blocks(blocks: Iterable[Stretch]) -> list[Stretch]:
    """The same time in as few stretches as there can be."""
    joined: list[Stretch] = []
    for first, last in sorted(blocks):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def days_of(instants: Iterable[int], day: int) -> list[Stretch]:
    """The UTC days within which instants lie that are no day's start, joined where they follow each other."""
    return joined_blocks((instant // day * day, (instant // day + 1) * day) for instant in instants if instant % day)


def edges_of(periods: Iterable[Stretch]) -> list[int]:
    """Every instant at which a period starts or ends, ascending."""
    return sorted(set(chain.from_iterable(periods)))


def _around(instant: int, blocks: Iterable[Stretch]) -> Stretch | None:
    return next((block for block in blocks if block[0] < instant < block[1]), None)
