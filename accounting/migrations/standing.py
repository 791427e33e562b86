"""What the database remembers of the kinds for which its tables were made."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, MetaData, Table, inspect, select

from accounting.migrations.differences import Standing
from accounting.migrations.meaning import Meaning, Meanings, Place, Spot
from accounting.tables import DIGEST_BYTES, PREFIX
from siteward.server.database.columns import bytes_column, integer_column, text_column

_metadata: Final = MetaData()
KINDS: Final = Table(
    f"{PREFIX}kinds", _metadata, text_column("kind", 255, key=True), bytes_column("digest", DIGEST_BYTES)
)
"""A digest of what the tables of each kind mean: whoever writes compares it, in the same transaction."""
COLUMNS: Final = Table(
    f"{PREFIX}columns",
    _metadata,
    text_column("kind", 255, key=True),
    text_column("place", 20, key=True),
    text_column("name", 255, key=True),
    text_column("meaning", 4000),
    integer_column("lost"),
)
"""What each column means, also one that its kind has lost."""
CHANGING: Final = bytes(DIGEST_BYTES)
"""In place of a digest while the tables are changed, and after a process that died over it."""


def digest_in(connection: Connection, kind: str, *, mine: bool = False) -> bytes | None:
    """The digest of what a kind's tables mean; None where there are none.

    Until the end of the transaction nobody changes it. With `mine`, nobody reads it either: they wait, and whoever
    writes has ended.
    """
    chosen = select(KINDS.c.digest).where(KINDS.c.kind == kind)
    locked = chosen.with_for_update() if mine else chosen.with_for_update(read=True, key_share=True)
    found = connection.execute(locked).scalar()
    return None if found is None else bytes(found)


def standing_in(connection: Connection, kind: str) -> dict[Spot, Standing]:
    """What a kind's tables hold; nothing where there are none."""
    if not inspect(connection).has_table(COLUMNS.name):
        return {}
    return {
        (Place(row.place), row.name): Standing(msgspec.json.decode(row.meaning, type=Meaning), bool(row.lost))
        for row in connection.execute(select(COLUMNS).where(COLUMNS.c.kind == kind))
    }


def begin(connection: Connection, kind: str) -> None:
    """Wait until nobody writes records of the kind, and let nobody begin."""
    if digest_in(connection, kind, mine=True) is None:
        connection.execute(KINDS.insert().values(kind=kind, digest=CHANGING))
    else:
        connection.execute(KINDS.update().where(KINDS.c.kind == kind).values(digest=CHANGING))


def settle(connection: Connection, kind: str, wanted: Meanings, digest: bytes) -> None:
    """Remember what the kind's tables mean from now on; what is not wanted is lost, and stays."""
    before = standing_in(connection, kind)
    rows: dict[Spot, tuple[Meaning, bool]] = {spot: (each.meaning, True) for spot, each in before.items()}
    rows |= {spot: (meaning, False) for spot, meaning in wanted.items()}
    connection.execute(COLUMNS.delete().where(COLUMNS.c.kind == kind))
    connection.execute(COLUMNS.insert(), [_row(kind, spot, *each) for spot, each in rows.items()])
    connection.execute(KINDS.update().where(KINDS.c.kind == kind).values(digest=digest))


def _row(kind: str, spot: Spot, meaning: Meaning, lost: bool) -> dict[str, Any]:  # noqa: FBT001  # a column's value.
    place, name = spot
    text = msgspec.json.encode(meaning).decode()
    return {"kind": kind, "place": place.value, "name": name, "meaning": text, "lost": int(lost)}
