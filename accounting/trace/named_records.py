"""The records whose single values tell a figure: those between which a percentile lies, or that were last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import mul
from typing import Any, Final

from sqlalchemy import Connection, Double, FromClause, and_, cast, false, func, or_, select
from sqlalchemy.sql import ColumnElement

from accounting.booking.counters import counted
from accounting.booking.measures import factors
from accounting.query.observed import Observed
from accounting.snapshot_tables import Tables
from accounting.tables import ID, SERIES, times_of
from accounting.trace.traced import NamedRecord
from siteward.query import Value
from siteward.records import id_text
from siteward.usage import Quantity, WantedUsage

LASTS: Final = frozenset({Quantity.LAST, Quantity.LAST_KNOWN})
MOST_NAMED: Final = 100
"""Records that one figure names."""


Single = tuple[Any, bytes]
"""A record's own value, and its id."""


class NamedRecords:
    """Those of one question within one state of the database."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        within: Sequence[Sequence[ColumnElement[bool]]],
        archived: Mapping[str, Sequence[Single]],
    ) -> None:
        """Take them.

        Args:
            connection: a transaction that sees one state.
            tables: of the kind.
            within: what the question's records meet; one of several lists of conditions.
            archived: values of those that are in files of the archive instead, by measure.
        """
        self._archived = archived
        self._connection = connection
        self._tables = tables
        self._within = or_(false(), *(and_(*conditions) for conditions in within))

    def of(self, wanted: WantedUsage, value: Value, observed: Observed) -> tuple[NamedRecord, ...]:
        """What tells a column, the smallest value first; none where sums do, or where what was last is archived.

        Args:
            wanted: the column.
            value: what it comes to.
            observed: what snapshots were.
        """
        if value is None:
            return ()
        if wanted.quantity in LASTS:
            return self._last(wanted, observed)
        hundredths = wanted.quantity.hundredths
        if hundredths is None:
            return ()
        found = self._around(wanted.measure, hundredths)
        is_one = wanted.quantity in {Quantity.MIN, Quantity.MAX}
        return () if is_one and found and found[0].value != value else found

    def _around(self, measure: str, hundredths: int) -> tuple[NamedRecord, ...]:
        value, known = self._value(measure)
        archived = self._archived.get(measure, ())
        count = (
            len(archived)
            + self._connection.execute(
                select(func.count()).select_from(self._joined).where(self._within, known)
            ).scalar_one()
        )
        if not count:
            return ()
        place, rest = divmod((count - 1) * hundredths, 100)
        wanted = 2 if rest else 1
        # So many of the database lie before it at least, and so many more do if none of the archive does.
        before = max(place - len(archived), 0)
        identifier = self._tables.records.c[ID]
        stored = self._connection.execute(
            select(identifier, value)
            .select_from(self._joined)
            .where(self._within, known)
            .order_by(value, identifier)
            .offset(before)
            .limit(place - before + wanted)
        )
        around = sorted([*((each, bytes(found)) for found, each in stored), *archived])
        return _named((found, each) for each, found in around[place - before :][:wanted])

    def _last(self, wanted: WantedUsage, observed: Observed) -> tuple[NamedRecord, ...]:
        there = sorted(
            (number, seen.last)
            for number, seen in observed.series.items()
            if wanted.quantity is Quantity.LAST_KNOWN or seen.last == observed.cycles[seen.producer].last
        )
        if not there:
            return ()
        records = self._tables.records
        value, known = self._value(wanted.measure)
        time = records.c[times_of(self._tables.kind)[1]]
        last = or_(*(and_(records.c[SERIES] == number, time == at) for number, at in there[:MOST_NAMED]))
        found = self._connection.execute(
            select(records.c[ID], value)
            .select_from(self._joined)
            .where(self._within, known, last)
            .order_by(value, records.c[ID])
            .limit(MOST_NAMED)
        )
        return _named(found)

    def _value(self, measure: str) -> tuple[ColumnElement[Any], ColumnElement[bool]]:
        """A measure, product or ratio of a record, and whether it is known."""
        ratio = self._tables.kind.ratios.get(measure)
        if ratio is not None:
            above, above_known = self._value(ratio.numerator)
            below, below_known = self._value(ratio.denominator)
            return ratio.times * cast(above, Double) / below, and_(above_known, below_known, below != 0)
        fields = [counted(self._tables, name) for name in factors(self._tables.kind, measure)]
        return reduce(mul, fields), and_(*(field.is_not(None) for field in fields))

    @property
    def _joined(self) -> FromClause:
        records, series = self._tables.records, self._tables.series
        return records.join(series, records.c[SERIES] == series.c[SERIES])


def is_single(quantity: Quantity) -> bool:
    """Whether single records tell it."""
    return quantity in LASTS or quantity.hundredths is not None


def _named(rows: Iterable[Any]) -> tuple[NamedRecord, ...]:
    return tuple(NamedRecord(id=id_text(bytes(identifier)), value=value) for identifier, value in rows)
