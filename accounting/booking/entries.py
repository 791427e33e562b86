"""Entries: everything that ever changed a total, or says which totals count; each is numbered, and never changed."""

from __future__ import annotations

import secrets
import time
from typing import Final

import msgspec
from sqlalchemy import Connection, Table

from accounting.tables import ENTRY

_RANDOM_BITS: Final = 21
"""Of an entry's number, below its milliseconds since 1970; what 63 bits leave until 2109."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a kind's records or periods.

    Attributes:
        kind: whose.
        action: what was done, such as `received`.
        at: microseconds since 1970 UTC.
        author: who did it; "" for records that came in.
        reason: why.
        vo: whose period it is; "*" of all VOs, "" for what is of no period.
    """

    kind: str
    action: str
    at: int
    author: str = ""
    reason: str = ""
    vo: str = ""


def entry_number() -> int:
    """A number that no other entry has, later ones larger."""
    return (time.time_ns() // 1_000_000 << _RANDOM_BITS) + secrets.randbelow(1 << _RANDOM_BITS)


def enter(connection: Connection, entries: Table, number: int, entry: Entry) -> None:
    """Keep an entry.

    Raises:
        sqlalchemy.exc.IntegrityError: another one has the number, as unlikely as harmless: do it again.
    """
    connection.execute(entries.insert().values({ENTRY: number, **msgspec.structs.asdict(entry)}))
