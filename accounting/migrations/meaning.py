"""What the columns of a kind's tables mean, said so that two declarations of the kind can be compared; pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import msgspec

from accounting.booking.measures import averaged, combine_of, factors, held, knowable, known_of, ratio_parts
from accounting.tables import DIGEST_BYTES, PREVIOUS, is_bucketed, length_of
from siteward.records import Kind, Type

PRACTICE: Final = 4
"""What writers do beside filling columns: from 2 on they keep older revisions, corrections and closed periods; from 3
on corrections of snapshots and counters; from 4 on they tell closed periods of one VO from those of all."""


class Place(StrEnum):
    """Where a column is."""

    SERIES = "series"
    RECORDS = "records"
    SUMS = "sums"
    """In the buckets of both attributions, or of one."""


class Meaning(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a column holds.

    Attributes:
        type: of a field, "" for a sum.
        length: of the longest text.
        optional: a field may be unknown.
        default: of a dimension in the series: it takes no part in their digest.
        formula: what is summed, and what for where it does not add up.
    """

    type: str = ""
    length: int = 0
    optional: bool = False
    default: str | int | float | bool | None = None
    formula: str = ""

    def __str__(self) -> str:
        """For people."""
        words = f"{self.type} of {self.length}" if self.length else self.type
        return self.formula or (f"{words} or unknown" if self.optional else words)


Spot = tuple[Place, str]
"""A column: its place and its name."""
Meanings = Mapping[Spot, Meaning]


def meanings_of(kind: Kind) -> dict[Spot, Meaning]:
    """Everything that the tables of a kind hold."""
    found: dict[Spot, Meaning] = {}
    for column in kind.columns:
        place = Place.SERIES if is_bucketed(column) else Place.RECORDS
        found[place, column.name] = Meaning(
            type=f"{column.type} counter" if column.name in kind.counters else str(column.type),
            length=length_of(column) if column.type is Type.STRING else 0,
            optional=column.optional,
            default=column.default if is_bucketed(column) else None,
        )
    if kind.since:
        found[Place.RECORDS, PREVIOUS] = Meaning(type="instant of the record before", optional=True)
    return found | {(Place.SUMS, name): Meaning(formula=formula) for name, formula in _formulas(kind).items()}


def used_by(kind: Kind, name: str) -> tuple[list[str], list[str]]:
    """The fields whose product a sum adds up, and those that must be known for it."""
    for part in ratio_parts(kind):
        if part.name == name:
            return list(factors(kind, part.measure)), list(factors(kind, part.condition))
    for measure in knowable(kind):
        if known_of(measure) == name:
            return [], list(factors(kind, measure))
    return list(factors(kind, name)), []


def _formulas(kind: Kind) -> dict[str, str]:
    names = [*held(kind), *(part.name for part in ratio_parts(kind)), *map(known_of, knowable(kind))]
    purposes = {name: _purpose(kind, measure) for measure in averaged(kind) for name in (measure, known_of(measure))}
    return {name: _formula(*used_by(kind, name)) + purposes.get(name, "") for name in names}


def _purpose(kind: Kind, measure: str) -> str:
    """What is held of a measure that does not add up: other columns, of snapshots other values in the same ones, too.

    Buckets of other kinds hold the same of all such measures, however they combine.
    """
    return f", combined by {combine_of(kind, measure)}" if kind.of_instants else ", for its mean"


def _formula(multiplied: list[str], known: list[str]) -> str:
    summed = " * ".join(multiplied) or "records"
    return f"{summed} where {' and '.join(known)} known" if known else summed


def digest_of(meanings: Meanings) -> bytes:
    """One value for all of them, and for what writers do with them: whoever writes compares it."""
    listed = sorted((*spot, msgspec.json.encode(meaning)) for spot, meaning in meanings.items())
    return blake2b(msgspec.msgpack.encode((PRACTICE, listed)), digest_size=DIGEST_BYTES).digest()
