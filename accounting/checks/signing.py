"""A month is signed only where its buckets are what its records say: else what is signed could never be made right."""

from __future__ import annotations

from pathlib import Path

import msgspec

from accounting.booking.adjustments import ALL_VOS
from accounting.booking.buckets import SECOND
from accounting.checks.verifying import Counts, Scope, Untold, checked_buckets, checked_numbers
from accounting.ledger import Ledger
from accounting.periods.closed_months import ClosedMonth, PeriodError, closed_period, tables_of_kind
from accounting.periods.signatures import sign
from accounting.upkeep.months import month_end


class Signed(msgspec.Struct, frozen=True):
    """A month that was signed.

    Attributes:
        period: as it is now.
        untold: days that could not be compared with their records.
    """

    period: ClosedMonth
    untold: tuple[Untold, ...]


def sign_compared(ledger: Ledger, folder: Path, kind: str, month: int, by: str, vo: str = ALL_VOS) -> Signed:
    """Compare a closed month's buckets with its records, then stand for its figures.

    Args:
        ledger: whose.
        folder: of the archive; need not be there.
        kind: name of the kind.
        month: its first second since 1970 UTC.
        by: who signs it.
        vo: whose records; those of all by default.

    Raises:
        PeriodError: it is not closed, or its sums are not what its records say, or are counted under numbers that say
            something else by now.
    """
    tables_of_kind(ledger, kind)
    with ledger.database.read() as connection:
        period = closed_period(connection, ledger.common.periods, kind, month, vo)
    scope = Scope(folder, (kind,), month * SECOND, month_end(month) * SECOND)
    wrong, untold = 0, []
    for each in checked_buckets(ledger, scope, Counts()):
        if isinstance(each, Untold):
            untold.append(each)
        else:
            wrong += period.covers(str(each.series.get("vo", vo)))
    numbers = sum(1 for _ in checked_numbers(ledger, scope, Counts()))
    if numbers:
        # Of whichever VO they say that they are: what they were before, nobody knows.
        message = (
            "the month has rows of series or producers that are not what they were numbered as, "
            f"{numbers} of them: `siteward ledger verify` tells which"
        )
        raise PeriodError(message)
    if wrong:
        message = f"{wrong} sums of the month are not what its records say: `siteward ledger verify`, then `rebuild`"
        raise PeriodError(message)
    return Signed(sign(ledger, kind, month, by, vo), tuple(untold))
