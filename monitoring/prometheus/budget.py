"""The cardinality budget: which values labels keep when there would be too many series; pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

Labels = tuple[str, ...]
"""A value for each label, in the family's order; "" where it is unknown."""
OTHER: Final = "other"
"""In place of a value beyond the budget."""
RESERVED: Final = 0.1
"""Share of the budget that is kept for labels in which some values are `other`, and at least FEWEST of them."""
FEWEST: Final = 3


class Budget:
    """The label values in use, and at most so many combinations of them."""

    def __init__(self, most: int) -> None:
        """Allow `most` combinations; one, with all values `other`, is always allowed."""
        self._most = max(1, most)
        self._exact = self._most - (max(FEWEST, int(most * RESERVED)) if most > FEWEST else 1)
        self._used: Counter[Labels] = Counter()
        self._values: list[Counter[str]] = []

    @property
    def count(self) -> int:
        """How many combinations are in use."""
        return len(self._used)

    def admit(self, labels: Labels) -> Labels:
        """Use labels as they are or, over the budget, with `other` for the most diverse ones, as few as will do.

        Returns:
            The labels to count under. Each call is to be undone by one of release() with what it returned.
        """
        admitted = self._admissible(labels)
        if admitted not in self._used:
            self._values = self._values or [Counter() for _ in labels]
            for values, value in zip(self._values, admitted, strict=True):
                values[value] += 1
        self._used[admitted] += 1
        return admitted

    def release(self, labels: Labels) -> None:
        """Make room: one user less of these labels."""
        self._used[labels] -= 1
        if not self._used[labels]:
            del self._used[labels]
            for values, value in zip(self._values, labels, strict=True):
                values[value] -= 1
                if not values[value]:
                    del values[value]

    def _admissible(self, labels: Labels) -> Labels:
        if labels in self._used or len(self._used) < self._exact:
            return labels
        changed = list(labels)
        # Of two equally diverse ones the later: VO and site come first, and say most.
        diverse_first = sorted(range(len(self._values)), key=lambda label: (-len(self._values[label]), -label))
        for label in diverse_first:
            changed[label] = OTHER
            candidate = tuple(changed)
            # The last place is kept for the labels that are all `other`.
            if candidate in self._used or len(self._used) < self._most - 1:
                return candidate
        return (OTHER,) * len(labels)
