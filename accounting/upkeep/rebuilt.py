"""What a rebuild tells of its progress."""

from __future__ import annotations

import msgspec

from accounting.checks.verifying import Untold


class Rebuilt(msgspec.Struct, frozen=True):
    """A portion of days of a kind that is right now.

    Attributes:
        kind: whose buckets.
        first: first second of the first day.
        last: first second of the day after the last.
        records: looked at.
        changed: buckets that were not what their records come to.
        untold: days that were left alone, since not all of their records are there.
    """

    kind: str
    first: int
    last: int
    records: int
    changed: int
    untold: tuple[Untold, ...]
