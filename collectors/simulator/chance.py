"""Repeatable chance: generators named by what they decide, so that any part of a simulation can be made by itself."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from random import Random
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
_MANY: Final = 30.0
"""Mean from which a Poisson number is drawn from its normal approximation."""


def generator(seed: int, *path: object) -> Random:
    """The generator of one decision, such as `generator(7, "jobs", "SIM-T1-DE-1", 496128)`.

    Equal arguments give equal numbers on any machine, and no other decision changes them.
    """
    text = "\0".join(map(str, (seed, *path)))
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return Random(number)  # noqa: S311  # a simulation wants numbers that repeat.


def poisson(chance: Random, mean: float) -> int:
    """How often something happens that happens `mean` times on average."""
    if mean <= 0:
        return 0
    if mean > _MANY:
        return max(0, round(chance.normalvariate(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, chance.random()
    while product > limit:
        count += 1
        product *= chance.random()
    return count


class Weighted(Generic[Item]):
    """Items of which some are chosen more often than others."""

    def __init__(self, items: Sequence[Item], weights: Sequence[float]) -> None:
        """Take as many positive weights as items, at least one."""
        self.items = tuple(items)
        self._cumulative = list(accumulate(weights))

    def choose(self, chance: Random) -> Item:
        """One of them; draws exactly one number."""
        point = chance.random() * self._cumulative[-1]
        return self.items[min(bisect_right(self._cumulative, point), len(self.items) - 1)]


def zipf(count: int, exponent: float = 1.1) -> list[float]:
    """Weights of which the first is the largest and the k-th about 1/k of it: few users do most of the work."""
    return [1 / (rank + 1) ** exponent for rank in range(count)]
