"""What a correction changes in totals: the difference of each measure, by attribution, month and moved values; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from accounting.booking.buckets import BY_DAY
from accounting.booking.counters import booked_columns
from accounting.booking.measures import additive
from accounting.booking.postings import Account, account_of, by_end, joined, prorated
from accounting.booking.rows import Row
from accounting.tables import RECORDS, SERIES, START, STARTED
from accounting.upkeep.months import month_of
from siteward.records import Kind
from siteward.usage import Attribution
from siteward.usage_text import attributions_of

COUNTED: Final = {Attribution.PRORATED: STARTED, Attribution.BY_END: RECORDS, Attribution.AT_INSTANT: RECORDS}


class Figure(msgspec.Struct, frozen=True):
    """One difference.

    Attributes:
        attribution: to which time usage belongs.
        month: its first second since 1970 UTC.
        group: values of the dimensions that the correction moves, in the order of `Figures.by`; () where it moves none.
        measure: what differs; `_started` or `_records` for the number of records.
        difference: what it is afterwards less what it was.
    """

    attribution: Attribution
    month: int
    group: tuple[str | int | float | bool | None, ...]
    measure: str
    difference: int


class Figures(msgspec.Struct, frozen=True):
    """Everything that a correction changes in the totals of its kind.

    Attributes:
        records: how many it selects.
        by: dimensions that it moves.
        changes: differences other than nothing, in order of month, group, attribution, measure.
    """

    records: int = 0
    by: tuple[str, ...] = ()
    changes: tuple[Figure, ...] = ()


class Differences:
    """Adds up what becomes of records, some at a time."""

    def __init__(self, kind: Kind, moved: Collection[str], before: Figures | None = None) -> None:
        """Begin.

        Args:
            kind: of the records.
            moved: dimensions by whose values differences are told apart.
            before: what was added up already.
        """
        self._kind = kind
        self._by = tuple(name for name in kind.names if name in moved)
        self._records = before.records if before else 0
        self._sums: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        for each in before.changes if before else ():
            self._sums[each.month, each.group, each.attribution, each.measure] += each.difference

    def add(self, old: Sequence[Row], new: Sequence[Row], records: int) -> None:
        """Take records as they were and as they are now, those of counters with their steps.

        Those that counted in nothing are left out.
        """
        self._records += records
        numbers: dict[tuple[Any, ...], int] = {}
        parts = [self._account(rows, numbers, sign) for rows, sign in ((old, -1), (new, 1)) if rows]
        if not parts:
            return
        account, groups = joined(parts), list(numbers)
        names = additive(self._kind)
        for attribution in attributions_of(self._kind):
            posted = prorated(account, BY_DAY) if attribution is Attribution.PRORATED else by_end(account, BY_DAY)
            wanted = [name for name in (COUNTED[attribution], *names) if name in posted.sums]
            months = [month_of(start) for start in posted.keys[START].tolist()]
            of_row = list(zip(months, posted.keys[SERIES].tolist(), strict=True))
            for name in wanted:
                for (month, number), amount in zip(of_row, posted.sums[name].tolist(), strict=True):
                    if amount:
                        self._sums[month, groups[number], attribution, name] += amount

    def figures(self) -> Figures:
        """What was added up until now."""
        found = sorted(
            ((key, amount) for key, amount in self._sums.items() if amount),
            key=lambda item: (item[0][0], [(value is not None, value) for value in item[0][1]], *item[0][2:]),
        )
        changes = (
            Figure(attribution, month, group, measure, amount) for (month, group, attribution, measure), amount in found
        )
        return Figures(self._records, self._by, tuple(changes))

    def _account(self, rows: Sequence[Row], numbers: dict[tuple[Any, ...], int], sign: int) -> Account:
        """Records whose series is the number of their group."""
        of_row = [numbers.setdefault(tuple(row[name] for name in self._by), len(numbers)) for row in rows]
        return account_of(self._kind, booked_columns(self._kind, rows), np.array(of_row, np.int64), sign)
