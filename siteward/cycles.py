"""Python's search for cycles, made rarer while very many objects are made that have none."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RARELY: Final = (50_000, 20, 20)
"""New objects before the youngest are looked through, and how often that happens before older ones are."""


class _Pause:
    """How many are within one; Python has one search for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._usual = gc.get_threshold()

    def begin(self) -> None:
        with self._lock:
            if not self._within:
                self._usual = gc.get_threshold()
                gc.set_threshold(*RARELY)
            self._within += 1

    def end(self) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                gc.set_threshold(*self._usual)


_pause: Final = _Pause()


@contextmanager
def cycles_sought_rarely() -> Iterator[None]:
    """Within it cycles are sought rarely; when the last one leaves, in whatever thread, all is as it was.

    Each search goes through much of what the process holds, and many new objects start many of them: a fourth of the
    time of a question with 15,000 rows. What has no cycles is freed as ever.
    """
    _pause.begin()
    try:
        yield
    finally:
        _pause.end()
