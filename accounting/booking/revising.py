"""Newer revisions of records, under the corrections over them; older ones are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, select

from accounting.archive.archived_files import archived_days
from accounting.archive.archived_ids import day_of
from accounting.booking.dictionary import AT_ONCE
from accounting.booking.differing import differs
from accounting.booking.limits import beyond_limits
from accounting.booking.rows import Row, plain, put_rows, remove_rows, replace_rows
from accounting.corrections.correction import series_row
from accounting.corrections.originals import Original, layers_of, over_records
from accounting.tables import ENTRY, ID, REPLACED, SERIES
from siteward.records import Refused
from siteward.server.database import Values
from siteward.sinks import Batch, Outcome

if TYPE_CHECKING:
    from accounting.ledger import Ledger


class Revised(msgspec.Struct):
    """What has taken the place of what.

    Attributes:
        old: records as they were, as rows of the table of records.
        new: as they are now, in the same order, with all their fields.
    """

    old: list[Row]
    new: list[Row]


class Revising:
    """What one transaction does with the records of a batch that the ledger knows already.

    Attributes:
        differing: positions of duplicates that say otherwise than what was booked.
    """

    def __init__(
        self, connection: Connection, ledger: Ledger, batch: Batch, rows: Mapping[str, Values], entry: int
    ) -> None:
        """Take what was tried to insert.

        Args:
            connection: of the transaction, in which all that are new were inserted.
            ledger: whose.
            batch: each id once, in ascending order.
            rows: its columns as the table of records has them, without the entry.
            entry: under which they come.
        """
        self._connection = connection
        self._ledger = ledger
        self._tables = ledger.tables_of(batch.kind.name)
        self._batch = batch
        self._rows = rows
        self._entry = entry
        self._position = {identifier: position for position, identifier in enumerate(batch.ids)}
        self._superseded: list[Row] = []
        self.differing: list[int] = []

    def revised(self, inserted: int, found: list[Outcome], reasons: dict[int, Refused]) -> Revised:
        """Replace older revisions, and take out again what is void; outcomes and reasons are entered by position."""
        known = self._known() if inserted < len(self._batch) else {}
        layers = layers_of(self._connection, self._ledger.common, self._batch.kind.name)
        # A void record is not among those that are known.
        concerned = self._batch.ids if any(layer.is_void for layer in layers.values()) else list(known)
        originals = over_records(self._connection, self._tables, layers, concerned)
        void = {identifier: each for identifier, each in originals.items() if each.is_void}
        remove_rows(self._connection, self._tables.records, sorted(void))
        self._replace_void(void, found)
        closed = self._closed_days(known) if self._batch.kind.of_instants else set()
        old: list[Row] = []
        new: list[Row] = []
        received: list[Row] = []
        moved: list[Row] = []
        for identifier, row in known.items():
            position = self._position[identifier]
            if row["revision"] >= self._batch.columns["revision"][position]:
                found[position] = Outcome.DUPLICATE
                first = originals[identifier].row if identifier in originals else row
                if differs(self._batch.kind, first, self._rows, position):
                    self.differing.append(position)
                continue
            if day_of(identifier) in closed:
                found[position] = Outcome.REJECTED
                reasons[position] = Refused(
                    "its day is archived in part; restore its files, then replay this one",
                    kind=self._batch.kind.name,
                    field="revision",
                )
                continue
            came, original = self._came(position), originals.get(identifier)
            effective = self._effective(came, original, position, reasons)
            if effective is None:
                found[position] = Outcome.REJECTED
                continue
            moved += [effective] if original else []
            found[position] = Outcome.REPLACED
            self._superseded.append(original.row if original else row)
            received += [came] if original else []
            old.append(row)
            new.append(effective)
        self._number(moved)
        self._keep(received)
        replace_rows(self._connection, self._tables.records, new)
        return Revised(old, new)

    def _known(self) -> dict[bytes, Row]:
        """Records of the batch that were here before, locked."""
        table, ids = self._tables.records, self._batch.ids
        found: dict[bytes, Row] = {}
        for first in range(0, len(ids), AT_ONCE):
            mine = table.c[ID].in_(ids[first : first + AT_ONCE]), table.c[ENTRY] != self._entry
            chosen = select(table).where(*mine).order_by(table.c[ID]).with_for_update()
            found |= {bytes(row[ID]): dict(row) for row in self._connection.execute(chosen).mappings()}
        return found

    def _closed_days(self, ids: Iterable[bytes]) -> set[int]:
        """Days of which anything is archived: what was last or least on them cannot be told without it."""
        archived = self._ledger.common.archived
        return archived_days(self._connection, archived, self._batch.kind.name, list(ids))

    def _came(self, position: int) -> Row:
        """A record of the batch as it came."""
        own = {name: plain(values[position]) for name, values in self._rows.items()}
        return {**{name: values[position] for name, values in self._batch.columns.items()}, **own, ENTRY: self._entry}

    def _effective(
        self, came: Row, original: Original | None, position: int, reasons: dict[int, Refused]
    ) -> Row | None:
        """What a record is from now on; None, with the reason, where it would be beyond its kind's limits."""
        effective = original.over(came) if original else came
        if original is None or effective is None:
            return effective
        kind = self._batch.kind
        columns: Mapping[str, Sequence[Any]] = {name: [effective[name]] for name in kind.names}
        for refused in beyond_limits(kind, columns).values():
            numbers = ", ".join(map(str, original.layers))
            reason = f"{refused.reason}, under correction {numbers} that lies over it"
            reasons[position] = Refused(reason, kind=kind.name, field=refused.field, value=effective.get(refused.field))
            return None
        return effective

    def _number(self, rows: Sequence[Row]) -> None:
        """Give corrected records the numbers of the series in which they are now."""
        kind = self._batch.kind
        numbers = self._ledger.numbers.known_series(kind, [series_row(kind, row) for row in rows])
        for row, number in zip(rows, numbers, strict=True):
            row[SERIES] = number

    def _replace_void(self, void: Mapping[bytes, Original], found: list[Outcome]) -> None:
        received = []
        for identifier, original in void.items():
            position = self._position[identifier]
            is_newer = original.row["revision"] < self._batch.columns["revision"][position]
            found[position] = Outcome.REPLACED if is_newer else Outcome.DUPLICATE
            if is_newer:
                self._superseded.append(original.row)
                received.append(self._came(position))
        remove_rows(self._connection, self._tables.originals, [row[ID] for row in received])
        put_rows(self._connection, self._ledger.database.dialect, self._tables.originals, received)

    def _keep(self, received: Sequence[Row]) -> None:
        """Keep what was replaced, and the newest revisions of corrected records as they came."""
        dialect = self._ledger.database.dialect
        put_rows(
            self._connection,
            dialect,
            self._tables.superseded,
            [{**row, REPLACED: self._entry} for row in self._superseded],
        )
        replace_rows(self._connection, self._tables.originals, received)
