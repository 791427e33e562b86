"""What is asked of the figures: each is judged where it is printed, and a full run that falls short fails."""

from __future__ import annotations

from collections.abc import Iterator


class Asked:
    """Judges figures, and remembers which are short of what is asked and which could not be taken."""

    def __init__(self) -> None:
        """Nothing is short yet."""
        self._missed: list[str] = []
        self._absent: list[str] = []

    def judge(self, what: str, asked: str, *, met: bool) -> str:
        """What stands in the column `asked` beside a figure."""
        if met:
            return asked
        self._missed.append(f"{what}: {asked}")
        return f"{asked}: **missed**"

    def lack(self, why: str) -> None:
        """Note a server that has to be there and is not."""
        self._absent.append(why)

    def failures(self, *, full: bool) -> Iterator[str]:
        """Why the run fails, if it does; in a short run figures are too noisy to fail it."""
        yield from (f"not measured: {why}" for why in self._absent)
        if full:
            yield from (f"missed: {what}" for what in self._missed)
