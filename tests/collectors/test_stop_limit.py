"""The stop limit: both a count and a share, over the last minutes only."""

from __future__ import annotations

from collectors.stop_limit import WINDOW, StopLimit


def test_many_refused_records_among_far_more_good_ones_do_not_stop() -> None:
    """The share must be passed too."""
    limit = StopLimit(count=100, share=0.5)
    limit.note(0.0, 1_000, 400)
    assert limit.exceeded() == ""


def test_a_few_records_that_are_all_refused_do_not_stop() -> None:
    """The count must be passed too."""
    limit = StopLimit(count=100, share=0.5)
    limit.note(0.0, 100, 100)
    assert limit.exceeded() == ""
    limit.note(1.0, 1, 1)
    assert "101 of the last 101 records were refused" in limit.exceeded()


def test_what_was_long_ago_is_forgotten() -> None:
    """Refused records count for some minutes."""
    limit = StopLimit(count=100, share=0.5)
    limit.note(0.0, 100, 100)
    limit.note(WINDOW + 1, 100, 100)
    assert limit.exceeded() == ""


def test_after_a_person_has_looked_it_counts_from_zero() -> None:
    """Resuming does not stop again at once."""
    limit = StopLimit(count=1, share=0.5)
    limit.note(0.0, 10, 10)
    limit.reset()
    assert limit.exceeded() == ""
