"""The topology as the ledger keeps it: one row per entry, changed as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec
from sqlalchemy import Connection, Table, or_, select

from accounting.booking.buckets import DAY
from accounting.tables import DIGEST, DIGEST_BYTES
from accounting.topology.attributes import (
    NONE_CLOSED,
    Closed,
    Entry,
    Topology,
    TopologyError,
    past_changes,
    replaced,
)
from siteward.server.database import Columns, Database

_FIELDS = Entry.__struct_fields__
_SHOWN = 3
"""Changes of the past that an error names."""


class TopologyChange(msgspec.Struct, frozen=True):
    """What was made another.

    Attributes:
        gone: entries that are there no more.
        new: entries that were not there.
    """

    gone: list[Entry]
    new: list[Entry]


def read_topology(connection: Connection, table: Table) -> Topology:
    """The topology as a transaction sees it."""
    entries = select(*(table.c[name] for name in _FIELDS)).where(table.c.dimension != "")
    return Topology(Entry(*row) for row in connection.execute(entries))


def write_topology(
    database: Database,
    table: Table,
    entries: Sequence[Entry],
    now: int,
    closed: Closed = NONE_CLOSED,
    *,
    rewrite_past: bool = False,
) -> TopologyChange:
    """Say anew what the entries' attributes are, of all values: those that no entry names have none any more.

    Args:
        database: the ledger's.
        table: of the topology.
        entries: all that is known of the attributes that they name.
        now: seconds since 1970 UTC. The past is everything before this UTC day.
        closed: months of which the past includes what nobody said: signed figures have groups of unknown, too.
        rewrite_past: also where figures that somebody may have seen would then be of other groups.

    Raises:
        TopologyError: the entries contradict each other, or the past.
        siteward.server.database.Conflict: it gave way to another transaction; do it again.
    """
    with database.write() as connection:
        _wait_for_turn(connection, database, table)
        old = read_topology(connection, table)
        new = replaced(old, entries)
        changed = past_changes(old, new, now // DAY * DAY, closed)
        if changed and not rewrite_past:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            message = (
                f"the past would be rewritten: {'; '.join(changed[:_SHOWN])}{more}; give what is said a day from "
                "which it is valid, or rewrite the past (--rewrite-past)"
            )
            raise TopologyError(message)
        named = {(entry.dimension, entry.attribute) for entry in entries}
        same = ((table.c.dimension == dimension) & (table.c.attribute == attribute) for dimension, attribute in named)
        connection.execute(table.delete().where(or_(*same)))
        rows = sorted((_digest(entry), entry) for entry in entries)
        database.dialect.insert_new(connection, table, _columns(rows))
    before, after = set(old), set(new)
    return TopologyChange([each for each in old if each not in after], [each for each in new if each not in before])


def _wait_for_turn(connection: Connection, database: Database, table: Table) -> None:
    """One at a time, so that what is read is what is replaced: a row of no dimension is everybody's to hold."""
    nobody = Entry("", "", "", "")
    database.dialect.insert_new(connection, table, _columns([(_digest(nobody), nobody)]))
    connection.execute(select(table.c[DIGEST]).where(table.c.dimension == "").with_for_update()).all()


def _columns(rows: Sequence[tuple[bytes, Entry]]) -> Columns:
    return {
        DIGEST: [digest for digest, _ in rows],
        **{name: [getattr(entry, name) for _, entry in rows] for name in _FIELDS},
    }


def _digest(entry: Entry) -> bytes:
    return blake2b(msgspec.msgpack.encode((*entry.key, entry.valid_from)), digest_size=DIGEST_BYTES).digest()
