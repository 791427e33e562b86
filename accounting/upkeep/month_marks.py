"""Which months of buckets have sums that hold, and what is read from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import Connection, FromClause, Table, delete, select

from accounting.upkeep.months import month_end, month_of


class Piece(msgspec.Struct, frozen=True):
    """Rows of one table that start within a half-open stretch of seconds."""

    table: FromClause
    first: int
    last: int


def marked_months(connection: Connection, summed: Table, buckets: Table) -> list[int]:
    """First seconds of the months whose sums hold, ascending."""
    question = select(summed.c.month).where(summed.c.bucket_table == buckets.name).order_by(summed.c.month)
    return [int(month) for month in connection.execute(question).scalars()]


def forget_months(connection: Connection, summed: Table, buckets: Table, starts: Iterable[int]) -> None:
    """Take the marks of the months in which buckets change, in the transaction that changes them.

    Args:
        connection: of the transaction.
        summed: the table of marks.
        buckets: the table of what changes.
        starts: of the buckets that change, seconds since 1970 UTC.
    """
    marked = marked_months(connection, summed, buckets)
    if not marked:
        return
    last = marked[-1]
    touched = {month_of(start) for start in set(starts) if start < month_end(last)}
    for month in sorted(touched.intersection(marked)):
        connection.execute(delete(summed).where(summed.c.bucket_table == buckets.name, summed.c.month == month))


def pieces_of(buckets: FromClause, sums: Table, marked: Sequence[int], first: int, last: int) -> list[Piece]:
    """The tables from which a stretch is read: sums of months where it holds whole ones, buckets elsewhere.

    Args:
        buckets: the table of buckets.
        sums: that of sums of months.
        marked: first seconds of months whose sums hold, ascending.
        first: second at which the stretch starts.
        last: first second after it.
    """
    pieces: list[Piece] = []
    at = first
    for month in marked:
        end = month_end(month)
        if month < at or end > last:
            continue
        if month > at:
            pieces.append(Piece(buckets, at, month))
        if pieces and pieces[-1].table is sums and pieces[-1].last == month:
            pieces[-1] = Piece(sums, pieces[-1].first, end)
        else:
            pieces.append(Piece(sums, month, end))
        at = end
    if at < last:
        pieces.append(Piece(buckets, at, last))
    return pieces
