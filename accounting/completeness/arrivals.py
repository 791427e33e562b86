"""How many new records came from whom for which hour: counted in the transaction that books them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from sqlalchemy import Connection, Table, bindparam, case, update

from accounting.booking.arithmetic import Integers
from accounting.tables import PRODUCER
from siteward.server.database import Columns, Dialect

_HOUR: Final = 3600
_PRODUCERS: Final = 40
"""Bits that the numbers of producers may fill."""
_WORDS: Final = 8
"""Of 16 bits, in a record id; the first three are milliseconds since 1970."""


def count_arrivals(
    connection: Connection,
    dialect: Dialect,
    table: Table,
    kind: str,
    ids: Sequence[bytes],
    producers: Integers,
    now: int,
) -> None:
    """Add new records to what came, in ascending order of the keys, as all writers do.

    Args:
        connection: of the transaction that books them.
        dialect: of its database.
        table: of arrivals.
        kind: of the records.
        ids: of the new records, at least one.
        producers: number of the producer of each.
        now: when they were received, microseconds since 1970 UTC.
    """
    # Both in one integer: ten times faster than by columns.
    keys, counts = np.unique((hours_of(ids) // _HOUR << _PRODUCERS) + producers, return_counts=True)
    hours, numbers = ((keys >> _PRODUCERS) * _HOUR).tolist(), (keys & ((1 << _PRODUCERS) - 1)).tolist()
    second = now // 1_000_000
    rows: Columns = {
        "kind": [kind] * len(hours),
        "hour": hours,
        PRODUCER: numbers,
        "records": [0] * len(hours),
        "first": [second] * len(hours),
        "last": [second] * len(hours),
    }
    dialect.insert_new(connection, table, rows)
    columns = table.c
    statement = (
        update(table)
        .where(
            columns.kind == kind, columns.hour == bindparam("the_hour"), columns[PRODUCER] == bindparam("the_number")
        )
        .values(
            records=columns.records + bindparam("more"),
            first=case((columns.first > second, second), else_=columns.first),
            last=case((columns.last < second, second), else_=columns.last),
        )
    )
    found = zip(hours, numbers, counts.tolist(), strict=True)
    parameters = [{"the_hour": hour, "the_number": number, "more": more} for hour, number, more in found]
    connection.execute(statement, parameters)


def hours_of(ids: Sequence[bytes]) -> Integers:
    """First second of the hour of each record's partition time."""
    words = np.frombuffer(b"".join(ids), ">u2").reshape(-1, _WORDS).astype(np.int64)
    milliseconds = (words[:, 0] << 32) + (words[:, 1] << 16) + words[:, 2]
    hours: Integers = milliseconds // (1000 * _HOUR) * _HOUR
    return hours
