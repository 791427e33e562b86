"""Corrections as the ledger keeps them: a row each, whose state changes and whose question never does."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, func, select
from sqlalchemy.engine import RowMapping

from accounting.corrections.correction import UNFINISHED, Action, Correction, CorrectionError, Draft, Selection, State
from accounting.corrections.figures import Figures
from accounting.ledger import Ledger
from siteward.records.identity import ID_BYTES

NOTHING: Final = bytes(ID_BYTES)
"""Where a correction that has not begun has come to."""


def insert_correction(connection: Connection, table: Table, draft: Draft, figures: Figures, at: int) -> int:
    """Keep a proposal; its number."""
    row = {
        "kind": draft.kind,
        "action": str(draft.action),
        "state": str(State.PROPOSED),
        "selection": msgspec.json.encode(draft.selection),
        "given": msgspec.json.encode(draft.given),
        "author": draft.author,
        "reason": draft.reason,
        **dict.fromkeys(("decided_by", "reversed_by", "decided_reason", "reversed_reason"), ""),
        "proposed_at": at,
        "entry": 0,
        "reached": NOTHING,
        "figures": msgspec.json.encode(figures),
        "undone": msgspec.json.encode(Figures()),
    }
    made = connection.execute(table.insert().values(row)).inserted_primary_key
    assert made is not None
    return int(made[0])


def find_correction(connection: Connection, table: Table, number: int) -> Correction:
    """The correction of a number.

    Raises:
        CorrectionError: there is none.
    """
    found = connection.execute(select(table).where(table.c.number == number)).mappings().one_or_none()
    if found is None:
        message = f"there is no correction {number}; `siteward ledger corrections` lists them"
        raise CorrectionError(message)
    return _correction(found)


def corrections_in(ledger: Ledger, kind: str = "") -> list[Correction]:
    """Every correction, of a kind or of all, by number."""
    table = ledger.common.corrections
    chosen = select(table).order_by(table.c.number)
    with ledger.database.read() as connection:
        rows = connection.execute(chosen.where(table.c.kind == kind) if kind else chosen).mappings()
        return [_correction(row) for row in rows]


def unfinished_in(connection: Connection, table: Table, kind: str) -> list[int]:
    """Numbers of the corrections that have come half way; their kind's totals are neither the old nor the new ones."""
    mine = select(table.c.number).where(table.c.kind == kind, table.c.state.in_(UNFINISHED))
    return [int(number) for number in connection.execute(mine.order_by(table.c.number)).scalars()]


def next_turn(connection: Connection, table: Table, kind: str) -> int:
    """The turn of the next correction of a kind that is applied."""
    last = connection.execute(select(func.max(table.c.turn)).where(table.c.kind == kind)).scalar()
    return int(last or 0) + 1


def update_correction(connection: Connection, table: Table, number: int, **values: Any) -> None:  # noqa: ANN401  # of any column.
    """Change what may change: state, who decided, how far it is, what it has changed."""
    encoded = {name: msgspec.json.encode(value) for name, value in values.items() if isinstance(value, Figures)}
    connection.execute(table.update().where(table.c.number == number).values(values | encoded))


def _correction(row: RowMapping) -> Correction:
    values = dict(row)
    values["action"], values["state"] = Action(row["action"]), State(row["state"])
    values["selection"] = msgspec.json.decode(row["selection"], type=Selection)
    values["given"] = msgspec.json.decode(row["given"], type=dict[str, Any])
    for name in ("figures", "undone"):
        values[name] = msgspec.json.decode(row[name], type=Figures)
    values["reached"] = bytes(row["reached"])
    return Correction(**values)
