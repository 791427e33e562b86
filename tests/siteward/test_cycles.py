"""Whoever makes Python's search for cycles rare gives it back as it was."""

from __future__ import annotations

import gc
import threading

import pytest

from siteward.cycles import RARELY, cycles_sought_rarely


def test_the_last_who_leaves_gives_it_back() -> None:
    """Also where one begins within the other and ends after it, and after an error."""
    usual = gc.get_threshold()
    within, done = threading.Event(), threading.Event()

    def other() -> None:
        with cycles_sought_rarely():
            within.set()
            done.wait()

    thread = threading.Thread(target=other)

    def fail() -> None:
        with cycles_sought_rarely():
            thread.start()
            within.wait()
            assert gc.get_threshold() == RARELY
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.get_threshold() == RARELY
    done.set()
    thread.join()
    assert gc.get_threshold() == usual


def test_they_are_sought_all_the_same() -> None:
    """Where one question follows the other for ever, what has cycles is found."""
    found = sum(each["collections"] for each in gc.get_stats())
    with cycles_sought_rarely():
        kept = [[number] for number in range(20 * RARELY[0])]
    assert sum(each["collections"] for each in gc.get_stats()) > found
    assert len(kept) == 20 * RARELY[0]
