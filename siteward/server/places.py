"""How few places are shared by all who want them: what somebody may hold shrinks as others come; pure."""

from __future__ import annotations


def may_take(*, held: int, most: int, free: int, places: int) -> bool:
    """Whether somebody who holds some places may take one more.

    Whoever holds some leaves so many free that what it holds is to these as `most` is to what it would leave alone, and
    so at least one. Who holds none is never kept out by this: it finds that one, and where several come at the same
    moment, each place that is given back is one of theirs first.

    Args:
        held: places that it holds.
        most: places that it may hold where nobody else wants any; at least one.
        free: places that nobody holds.
        places: all that there are.
    """
    return not held or (held + 1) * (places - most) <= most * (free - 1)
