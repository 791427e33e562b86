"""What has changed a figure since its months were closed, one change after the other, in portions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, or_, select

from accounting.booking.adjustments import Cause
from accounting.booking.buckets import SECOND
from accounting.booking.numbers import series_in
from accounting.query.conditions import conditions_of
from accounting.tables import CAUSE, CLOSING, ENTRY, SERIES, START, KindTables
from accounting.trace.followed import Followed, Piece, beyond, place_in, refuse_place
from accounting.trace.traced import Page, TracedAdjustment
from siteward.records import moment

CAUSES = sorted(Cause)
_AT_ONCE = 20_000


class Place(NamedTuple):
    """Where an adjustment stands among those of a piece: no VO is in two periods of a month, so no two stand there."""

    entry: int
    cause: str
    day: int
    series: int


class ListedAdjustments:
    """Those of one question by end."""

    def __init__(self, followed: Followed, tables: KindTables, closings: Sequence[int]) -> None:
        """Take those since some closings, which are given by their entries."""
        self._followed = followed
        self._tables = tables
        self._closings = closings

    def sums(self) -> tuple[int, ...]:
        """What all of them come to, added up one by one."""
        sums = dict.fromkeys(self._followed.names, 0)
        options = {"yield_per": _AT_ONCE}
        for piece in self._followed.pieces:
            with self._followed.connection.execute(self._chosen(piece), execution_options=options) as found:
                for row in found.mappings():
                    sums = {name: value + row[name] for name, value in sums.items()}
        return self._followed.values(sums)

    def page(self, page: Page) -> tuple[list[TracedAdjustment], str]:
        """Some of them, and where the next ones begin.

        Raises:
            QueryError: no answer said to go on there.
        """
        number, after = _place(page.after_adjustment)
        rows: list[tuple[Piece, Any]] = []
        for piece in self._followed.pieces:
            if piece.number >= number and len(rows) <= page.limit:
                question = self._chosen(piece, after if piece.number == number else None)
                found = self._followed.connection.execute(question.limit(page.limit + 1 - len(rows))).mappings()
                rows += [(piece, row) for row in found]
        listed = rows[: page.limit]
        numbers = [row[SERIES] for _, row in listed]
        series = self._followed.shown(series_in(self._followed.connection, self._tables, numbers))
        told = [
            TracedAdjustment(
                at=moment(row["at"]),
                entry=row[ENTRY],
                cause=row[CAUSE],
                action=row["action"],
                day=moment(row[START] * SECOND),
                series=series[row[SERIES]],
                amounts=self._followed.values(row),
            )
            for _, row in listed
        ]
        if len(rows) <= page.limit:
            return told, ""
        piece, row = listed[-1]
        place = (piece.number, row[ENTRY], CAUSES.index(row[CAUSE]), row[START], row[SERIES])
        return told, "-".join(map(str, place))

    def _chosen(self, piece: Piece, after: Place | None = None) -> Select[Any]:
        table, series, entries = self._tables.adjustments, self._tables.series, self._followed.ledger.common.entries
        key = [table.c[name] for name in (ENTRY, CAUSE, START, SERIES)]
        # As sums of buckets are taken of a stretch, so that both are those of the same days.
        first, last = (-(-instant // SECOND) for instant in piece.stretch)
        within = [table.c[CLOSING].in_(self._closings), table.c[START] >= first, table.c[START] < last]
        if after is not None:
            within.append(beyond(key, after))
        holds = or_(*(table.c[name] != 0 for name in self._followed.names))
        return (
            select(*key, *(table.c[name] for name in self._followed.names), entries.c.at, entries.c.action)
            .select_from(
                table.join(series, table.c[SERIES] == series.c[SERIES]).join(
                    entries, table.c[ENTRY] == entries.c[ENTRY]
                )
            )
            .where(*within, holds, *conditions_of(series, piece.filters))
            .order_by(*key)
        )


def _place(text: str) -> tuple[int, Place | None]:
    number, *rest = place_in(text, 5, "after_adjustment")
    if not rest:
        return number, None
    entry, cause, day, series = rest
    if cause >= len(CAUSES):
        refuse_place(text, "after_adjustment")
    return number, Place(entry, str(CAUSES[cause]), day, series)
