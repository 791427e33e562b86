"""What of one question is followed to its parts, within one state of the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec
from sqlalchemy import Connection, and_, or_
from sqlalchemy.sql import ColumnElement

from accounting.ledger import Ledger
from accounting.query.conditions import conditions_in
from accounting.query.cuts import Stretch
from accounting.query.record_sums import id_from, id_times
from accounting.snapshot_tables import Tables
from accounting.tables import ID, times_of
from accounting.trace.bases import Basis
from siteward.people import personal_names
from siteward.query import Filter, QueryError
from siteward.records import Kind
from siteward.sight import Sight

MOST: Final = {10: 2**63, 16: 2**128}
"""Numbers of buckets and of records, by the base in which they are told."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the window within which every site belongs to the same, with the filters as they are then."""

    number: int
    stretch: Stretch
    filters: tuple[Filter, ...]


class Followed(msgspec.Struct, frozen=True):
    """A question to be followed.

    Attributes:
        connection: a transaction that sees one state.
        ledger: whose.
        tables: of the kind.
        sight: what the viewer sees.
        bases: the sums that are followed.
        names: the columns of buckets that these need.
        window: half-open.
        pieces: the window's parts, in order.
        is_prorated: records have a part while they run, else when they end.
    """

    connection: Connection
    ledger: Ledger
    tables: Tables
    sight: Sight
    bases: Sequence[Basis]
    names: Sequence[str]
    window: Stretch
    pieces: Sequence[Piece]
    is_prorated: bool

    @property
    def kind(self) -> Kind:
        """Of the records."""
        return self.tables.kind

    def values(self, sums: Mapping[str, int]) -> tuple[int, ...]:
        """The sums that are followed, from those of bucket columns."""
        return tuple(sum(sums[name] for name in basis.columns) for basis in self.bases)

    def of_piece(self, piece: Piece) -> list[ColumnElement[bool]]:
        """What the records of a piece meet."""
        records = self.tables.records
        first, last = piece.stretch
        start, end = (records.c[name] for name in times_of(self.kind))
        within = [start < last, or_(end > first, start >= first)] if self.is_prorated else [end >= first, end < last]
        earliest, latest = id_times(self.kind, piece.stretch, is_prorated=self.is_prorated)
        if latest is not None:
            within.append(records.c[ID] < id_from(latest + 999))
        if earliest is not None:
            within.append(records.c[ID] >= id_from(earliest))
        return [*within, *conditions_in(self.tables, piece.filters)]

    def shown(self, series: Mapping[int, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
        """The dimensions of series, by number, as the viewer may see them."""
        for name in personal_names([self.kind]):
            self.sight.look_up(name, (each.get(name) for each in series.values()))
        return {
            number: {name: self.sight.shown(name, value) for name, value in each.items()}
            for number, each in series.items()
        }


def beyond(columns: Sequence[Any], values: Sequence[Any]) -> Any:  # noqa: ANN401  # a condition of SQL.
    """Whether a key of several columns comes after another one; in a form that every database reads by its index."""
    first, *rest = columns
    value, *others = values
    return or_(first > value, and_(first == value, beyond(rest, others))) if rest else first > value


def place_in(text: str, parts: int, name: str, base: int = 10) -> list[int]:
    """Where to go on, as an answer told it; from the first piece on where it is empty.

    Raises:
        QueryError: no answer told that.
    """
    if not text:
        return [0]
    try:
        found = [int(part, base) for part in text.split("-")]
    except ValueError:
        found = []
    if len(found) != parts or not all(0 <= each < MOST[base] for each in found):
        refuse_place(text, name)
    return found


def refuse_place(text: str, name: str) -> NoReturn:
    """Say that no answer told where to go on like this.

    Raises:
        QueryError: always.
    """
    message = f"{name} {text[:80]!r}: give what the answer before said, or nothing"
    raise QueryError(message)
