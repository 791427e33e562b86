"""Records that are corrected: what came of them, and the corrections that lie over each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from accounting.booking.dictionary import AT_ONCE
from accounting.booking.rows import Row, rows_of
from accounting.corrections.correction import Action, Layer, State, corrected, layer_of
from accounting.snapshot_tables import Tables
from accounting.tables import CORRECTION, ID, CommonTables


class Original(msgspec.Struct, frozen=True):
    """One corrected record.

    Attributes:
        row: its newest revision, as it came.
        layers: the corrections over it by number, from the earliest to the latest.
    """

    row: Row
    layers: dict[int, Layer]

    def over(self, row: Row, *, without: int | None = None) -> Row | None:
        """What a revision of the record is under its corrections, or under all but one; None where it is void."""
        return corrected(row, [layer for number, layer in self.layers.items() if number != without])

    @property
    def is_void(self) -> bool:
        """Whether it counts in nothing."""
        return any(layer.is_void for layer in self.layers.values())


def originals_of(
    connection: Connection, common: CommonTables, tables: Tables, ids: Sequence[bytes]
) -> dict[bytes, Original]:
    """Those of the records with these ids that are corrected."""
    return over_records(connection, tables, layers_of(connection, common, tables.kind.name), ids)


def over_records(
    connection: Connection, tables: Tables, layers: Mapping[int, Layer], ids: Sequence[bytes]
) -> dict[bytes, Original]:
    """The same, where the corrections of the kind are known."""
    if not layers:
        return {}
    over = _numbers(connection, tables, ids)
    rows = rows_of(connection, tables, tables.originals, list(over))
    return {
        identifier: Original(row, {number: layer for number, layer in layers.items() if number in over[identifier]})
        for identifier, row in rows.items()
    }


def layers_of(connection: Connection, common: CommonTables, kind: str) -> dict[int, Layer]:
    """The corrections of a kind that lie over records, by number, from the earliest to the latest."""
    table = common.corrections
    lying = table.c.state.in_((State.APPLYING, State.APPLIED, State.REVERSING))
    applied = select(table.c.number, table.c.action, table.c.given).where(table.c.kind == kind, lying)
    return {
        int(number): layer_of(Action(action), msgspec.json.decode(given, type=dict[str, Any]))
        for number, action, given in connection.execute(applied.order_by(table.c.turn))
    }


def _numbers(connection: Connection, tables: Tables, ids: Sequence[bytes]) -> dict[bytes, set[int]]:
    corrected_ids = tables.corrected
    found: defaultdict[bytes, set[int]] = defaultdict(set)
    for first in range(0, len(ids), AT_ONCE):
        mine = corrected_ids.c[ID].in_(ids[first : first + AT_ONCE])
        for identifier, number in connection.execute(
            select(corrected_ids.c[ID], corrected_ids.c[CORRECTION]).where(mine)
        ):
            found[bytes(identifier)].add(int(number))
    return found
