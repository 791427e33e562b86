"""How often something may be done: some times at once, and once more each so often; pure."""

from __future__ import annotations


class Allowance:
    """Counts; for one thread at a time."""

    def __init__(self, at_once: int, every: float) -> None:
        """Be full.

        Args:
            at_once: how often it may be done without any pause.
            every: seconds after which it may be done once more.
        """
        self._at_once = at_once
        self._every = every
        self._paid = float("-inf")

    def take(self, now: float) -> bool:
        """Do it, if it may be done now; whether it may.

        Args:
            now: seconds on any clock; one that is set back costs no more than a full allowance.
        """
        # The instant at which all would be there again; a sum of small parts would never be quite whole.
        paid = min(max(self._paid, now), now + self._at_once * self._every)
        may = paid - now <= (self._at_once - 1) * self._every
        self._paid = paid + self._every if may else paid
        return may
