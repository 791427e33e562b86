"""What cannot be computed anew, said before anything is changed: MariaDB takes back no change of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from sqlalchemy import Connection, MetaData, func, inspect, select

from accounting import LedgerError
from accounting.booking.adjustments import FINAL
from accounting.periods.closed_months import Meaning, meaning_of
from accounting.snapshot_tables import SnapshotTables, Tables
from accounting.tables import RECORDS, CommonTables
from accounting.upkeep.months import month_name
from siteward.records import Kind

SHOWN: Final = 5
"""Names of a sort that an error tells."""


def refuse_missing(connection: Connection, tables: Tables) -> None:
    """Refuse to compute from records that are not all there.

    Raises:
        LedgerError: some were archived, or are no longer there.
    """
    buckets = tables.buckets if isinstance(tables, SnapshotTables) else tables.by_end
    booked = int(connection.execute(select(func.sum(buckets.c[RECORDS]))).scalar() or 0)
    there = int(connection.execute(select(func.count()).select_from(tables.records)).scalar() or 0)
    if booked != there:
        message = (
            f"kind {tables.kind.name!r}: {booked} records are booked and {there} are in the database; sums can "
            "be computed anew only from all of them: restore first what was archived (`siteward ledger restore`), with "
            "the Siteward and the declaration of before, then upgrade"
        )
        raise LedgerError(message)


def refuse_lost(connection: Connection, kind: Kind) -> None:
    """Refuse to make buckets anew while closed months have sums of which the kind knows no more.

    Raises:
        LedgerError: there are such months; nothing would be left of those sums.
    """
    periods = CommonTables(MetaData()).periods
    if not inspect(connection).has_table(periods.name):
        return
    # By columns that it has had from the beginning: it may be as an older Siteward made it.
    mine = (periods.c.kind == kind.name) & periods.c.state.in_(FINAL)
    present = meaning_of(kind).sums
    lost: dict[str, None] = {}
    months: dict[str, None] = {}
    for month, meaning in connection.execute(
        select(periods.c.month, periods.c.meaning).where(mine).order_by(periods.c.month)
    ):
        names = [name for name in msgspec.json.decode(meaning, type=Meaning).sums if name not in present]
        lost |= dict.fromkeys(names)
        months |= dict.fromkeys([month_name(month)] if names else [])
    if lost:
        message = (
            f"kind {kind.name!r}: a dimension enters the buckets, which are made anew for it, and {_listed(months)} "
            f"closed with sums that the kind no longer has: {_listed(lost)}; they would be lost. Declare these still, "
            "upgrade, and take them away by a second upgrade; or reopen the months first, with the Siteward and the "
            "declaration of before"
        )
        raise LedgerError(message)


def _listed(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:SHOWN]) + (f" and {len(first) - SHOWN} more" if len(first) > SHOWN else "")
