"""What a correction is, and what records are under corrections; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from accounting.booking.rows import Row
from accounting.corrections.figures import Figures
from accounting.tables import is_bucketed
from siteward.records import Kind, moment


class CorrectionError(Exception):
    """A correction cannot be as it was asked for; the message says why, and what to do."""

    permanent = True


class Action(StrEnum):
    """What a correction does to its records."""

    CHANGE = "change"
    """Measures have other values."""
    MOVE = "move"
    """Dimensions have other values."""
    VOID = "void"
    """They count in nothing, and stay known by their ids."""


class State(StrEnum):
    """How far a correction is."""

    PROPOSED = "proposed"
    REJECTED = "rejected"
    APPLYING = "applying"
    """Approved, and not yet done with all records; whoever approves it again goes on."""
    APPLIED = "applied"
    REVERSING = "reversing"
    """Being taken back; whoever reverses it again goes on."""
    REVERSED = "reversed"


UNFINISHED = (State.APPLYING, State.REVERSING)


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which records a correction is about: those that meet all of it when it is applied.

    Attributes:
        where: conditions on fields, as they are typed in questions.
        start: first partition time, microseconds since 1970 UTC; None where there are ids.
        end: first partition time after them; None where there are ids.
        ids: of single records, in hexadecimal digits; () for all of the window.
    """

    where: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    ids: tuple[str, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A correction before anybody has proposed it.

    Attributes:
        kind: whose records.
        action: what is done.
        selection: to which.
        given: the new value of each field.
        author: who wants it.
        reason: why.
    """

    kind: str
    action: Action
    selection: Selection
    given: dict[str, str | int | float | bool | None] = {}
    author: str
    reason: str


class Correction(Draft, frozen=True, kw_only=True):
    """A correction that was proposed. Times are microseconds since 1970 UTC.

    Attributes:
        number: by which people and entries name it.
        state: how far it is.
        proposed_at: when.
        decided_by: who approved or rejected it.
        decided_at: when.
        decided_reason: why it was rejected.
        reversed_by: who took it back.
        reversed_at: when.
        reversed_reason: why.
        turn: its place among the corrections of its kind that were ever applied; later ones lie over earlier ones.
        entry: of its application.
        reached: the last record id that is done with, while it is unfinished.
        figures: what it would change, as proposed; what it has changed, once applied.
        undone: what its reversal has changed.
    """

    number: int
    state: State
    proposed_at: int
    decided_by: str = ""
    decided_at: int | None = None
    decided_reason: str = ""
    reversed_by: str = ""
    reversed_at: int | None = None
    reversed_reason: str = ""
    turn: int | None = None
    entry: int = 0
    reached: bytes
    figures: Figures
    undone: Figures


def selection_text(selection: Selection) -> str:
    """A selection for people."""
    times = [
        moment(each).isoformat().replace("+00:00", "Z") for each in (selection.start, selection.end) if each is not None
    ]
    parts = [*selection.where, *selection.ids, *([f"from {times[0]} to {times[1]}"] if times else [])]
    return ", ".join(parts)


class Layer(msgspec.Struct, frozen=True):
    """One correction as it lies over a record.

    Attributes:
        is_void: the record counts in nothing.
        given: the new value of each field.
    """

    is_void: bool
    given: Mapping[str, Any]


def layer_of(action: Action, given: Mapping[str, Any]) -> Layer:
    """A correction as a layer."""
    values = {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}
    return Layer(action is Action.VOID, values)


def corrected(row: Row, layers: Sequence[Layer]) -> Row | None:
    """What a record is under corrections, from the earliest to the latest; None where it is void."""
    if any(layer.is_void for layer in layers):
        return None
    found = dict(row)
    for layer in layers:
        found |= layer.given
    return found


def series_row(kind: Kind, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The bucketed dimensions of a record, which make its series."""
    return tuple(
        bool(row[column.name]) if column.type == "boolean" and row[column.name] is not None else row[column.name]
        for column in kind.columns
        if is_bucketed(column)
    )
