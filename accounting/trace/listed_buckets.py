"""The buckets that a figure is made of, in portions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Table, or_, select

from accounting.booking.buckets import DAY, SECOND
from accounting.booking.numbers import series_in
from accounting.query.conditions import conditions_of
from accounting.snapshot_tables import SnapshotTables
from accounting.tables import CARRIED, SERIES, START, WIDTH
from accounting.trace.followed import Followed, Piece, beyond, place_in
from accounting.trace.traced import Page, TracedBucket
from siteward.records import moment


def list_buckets(followed: Followed, page: Page) -> tuple[list[TracedBucket], str]:
    """Some of the buckets, and where the next ones begin.

    Raises:
        QueryError: no answer said to go on there.
    """
    number, *after = place_in(page.after_bucket, 4, "after_bucket")
    rows: list[tuple[Piece, Any]] = []
    for piece in followed.pieces:
        if piece.number >= number and len(rows) <= page.limit:
            question = _buckets_of(followed, piece, after if piece.number == number else [])
            found = followed.connection.execute(question.limit(page.limit + 1 - len(rows)))
            rows += [(piece, row) for row in found]
    listed = rows[: page.limit]
    series = followed.shown(series_in(followed.connection, followed.tables, [row[1] for _, row in listed]))
    traced = []
    for piece, (start, number_of_series, width, *amounts) in listed:
        first, last = piece.stretch
        sums = dict(zip(followed.names, amounts, strict=True))
        if CARRIED in sums and start * SECOND != followed.window[0]:
            sums[CARRIED] = 0
        whole = first <= start * SECOND and (start + width) * SECOND <= last
        traced.append(
            TracedBucket(
                start=moment(start * SECOND),
                width=width,
                series=series[number_of_series],
                amounts=followed.values(sums),
                whole=whole,
            )
        )
    if len(rows) <= page.limit:
        return traced, ""
    piece, (start, number_of_series, width, *_) = listed[-1]
    return traced, f"{piece.number}-{start}-{number_of_series}-{width}"


def buckets_of(followed: Followed) -> Table:
    """The table of buckets that a figure is made of."""
    tables = followed.tables
    if isinstance(tables, SnapshotTables):
        return tables.buckets
    return tables.prorated if followed.is_prorated else tables.by_end


def _buckets_of(followed: Followed, piece: Piece, after: Sequence[int]) -> Select[Any]:
    buckets, series = buckets_of(followed), followed.tables.series
    start, number, width = (buckets.c[name] for name in (START, SERIES, WIDTH))
    first, last = piece.stretch[0] // SECOND, -(-piece.stretch[1] // SECOND)
    conditions = [start + width > first, start > first - DAY, start < last]
    if after:
        conditions.append(beyond((start, number, width), after))
    holds = or_(*(buckets.c[name] != 0 for name in followed.names))
    return (
        select(start, number, width, *(buckets.c[name] for name in followed.names))
        .select_from(buckets.join(series, number == series.c[SERIES]))
        .where(*conditions, holds, *conditions_of(series, piece.filters))
        .order_by(start, number, width)
    )
