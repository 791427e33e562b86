"""Which files of the archive hold what somebody needs, for whoever has to name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Table, func, select

from accounting.archive.archive_file import DAY
from accounting.archive.archived_ids import days_of
from accounting.booking.buckets import SECOND
from accounting.booking.parted import Missing

SHOWN: Final = 3
"""Files that a message names."""


def nearest_files(connection: Connection, archived: Table, kind: str, missing: Missing) -> list[str]:
    """The files of the first day on which there are any, between two instants.

    Args:
        connection: of a transaction.
        archived: the table of files.
        kind: of the records.
        missing: between which instants an archived record lies.
    """
    day, mine = archived.c.day, archived.c.kind == kind
    within = (mine, day >= missing.first // SECOND // DAY * DAY, day <= missing.last // SECOND)
    first = select(func.min(day)).where(*within).scalar_subquery()
    return list(
        connection.execute(select(archived.c.file).where(mine, day == first).order_by(archived.c.file)).scalars()
    )


def archived_days(connection: Connection, archived: Table, kind: str, ids: Sequence[bytes]) -> set[int]:
    """Those days of some ids of which records are archived.

    Args:
        connection: of a transaction.
        archived: the table of files.
        kind: of the records.
        ids: whose days.

    Returns:
        The first second of each.
    """
    days = archived.c.day.in_(days_of(ids))
    return set(connection.scalars(select(archived.c.day).where(archived.c.kind == kind, days).distinct()))


def listed(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def beside(files: Sequence[str]) -> str:
    """Why a record of a counter cannot be changed, or come between others."""
    where = f"archived in {listed(files)}" if files else "archived in a file that was restored a moment ago"
    return f"a record of its counter beside it is {where}"
