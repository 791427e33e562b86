"""Whoever puts Python's search for cycles off gives it back."""

from __future__ import annotations

import gc
import threading

import pytest

from siteward.cycles import cycles_left_alone


def test_the_last_who_leaves_gives_it_back() -> None:
    """Also where one begins within the other and ends after it, and after an error."""
    within, done = threading.Event(), threading.Event()

    def other() -> None:
        with cycles_left_alone():
            within.set()
            done.wait()

    thread = threading.Thread(target=other)
    assert gc.isenabled()

    def fail() -> None:
        with cycles_left_alone():
            thread.start()
            within.wait()
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not gc.isenabled()
    done.set()
    thread.join()
    assert gc.isenabled()


def test_what_was_off_stays_off() -> None:
    """A process that never looks for cycles does not begin to."""
    gc.disable()
    try:
        with cycles_left_alone():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
