"""Texts and combinations of texts as numbers: each is written once, and known by its number from then on."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final, cast

import msgspec
from sqlalchemy import Connection, Table, select

from accounting.tables import DIGEST, DIGEST_BYTES
from siteward.server.database import Columns, Conflict, Database

REMEMBERED: Final = 500_000
"""Numbers kept in memory; beyond it all are looked up again."""
Row = tuple[Any, ...]
_encode: Final = msgspec.msgpack.Encoder().encode


class Unnumbered(Conflict):
    """Rows were wanted within a transaction that have no number yet: number them, and do it again.

    Attributes:
        rows: which.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        """Take the rows."""
        super().__init__(f"{len(rows)} rows have no number yet")
        self.rows = rows


class Dictionary:
    """The numbers of the rows of one table, which are added and never changed. Several threads may use it at once."""

    def __init__(self, database: Database, table: Table, defaults: Sequence[Any]) -> None:
        """Name the table.

        Args:
            database: where it is.
            table: its first column is the number, its second the digest, the others are the row.
            defaults: of the row's columns. A value that is its column's default leaves the digest as it is, so that
                a column can be added and old rows stay what they are.
        """
        self._database = database
        self._table = table
        self._number, _, *columns = table.columns
        self._names = [str(column.name) for column in columns]
        self._defaults = tuple(defaults)
        self._known: dict[Row, int] = {}
        self._recent: dict[bytes, int] = {}
        self._held = threading.local()

    def numbers(self, rows: Sequence[Row]) -> list[int]:
        """The number of each row; new rows are committed first, in a transaction of their own.

        Raises:
            Conflict: do it again.
        """
        # A row of many texts takes long to look up: once, where all are known.
        known = self._known
        found = list(map(known.get, rows))
        if None not in found:
            return cast("list[int]", found)
        missing = {row for row, number in zip(rows, found, strict=True) if number is None}
        if len(known) + len(missing) > REMEMBERED:
            # Others may be reading the old ones still.
            self.forget()
            known, missing = self._known, set(rows)
        self._learn(known, missing)
        return [known[row] for row in rows]

    def known(self, rows: Sequence[Row]) -> list[int]:
        """The number of each row, for use within another transaction: nothing is asked or written.

        Raises:
            Unnumbered: some are not known; `numbers` makes them so.
        """
        found = list(map(self._known.get, rows))
        if None in found:
            raise Unnumbered([row for row, number in zip(rows, found, strict=True) if number is None])
        return cast("list[int]", found)

    def holds(self, connection: Connection) -> bool:
        """Whether the rows that were numbered or read since `settle` have the same numbers in a transaction."""
        recent = self._recent.copy()
        self._held.digests = recent.keys()
        return not recent or self._found_in(connection, sorted(recent)) == recent

    def settle(self) -> None:
        """Know that the rows that `holds` has looked at, in this thread's transaction, are there to stay."""
        for digest in getattr(self._held, "digests", ()):
            self._recent.pop(digest, None)
        self._held.digests = ()

    def forget(self) -> None:
        """Look all rows up again from now on."""
        self._known = {}
        self._recent = {}

    def _learn(self, known: dict[Row, int], rows: Iterable[Row]) -> None:
        by_digest = {self._digest(row): row for row in rows}
        # In one order for all writers, so that no two wait for each other.
        digests = sorted(by_digest)
        found = self._found(digests)
        new = [digest for digest in digests if digest not in found]
        if new:
            values = zip(*(by_digest[digest] for digest in new), strict=True)
            columns: Columns = {DIGEST: new, **dict(zip(self._names, map(list, values), strict=True))}
            with self._database.write() as connection:
                self._database.dialect.insert_new(connection, self._table, columns)
            found |= self._found(new)
        self._recent |= found
        for digest, number in found.items():
            known[by_digest[digest]] = number

    def _found(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        with self._database.read() as connection:
            return self._found_in(connection, digests)

    def _found_in(self, connection: Connection, digests: Sequence[bytes]) -> dict[bytes, int]:
        digest = self._table.c[DIGEST]
        found: dict[bytes, int] = {}
        for first in range(0, len(digests), AT_ONCE):
            chosen = select(digest, self._number).where(digest.in_(digests[first : first + AT_ONCE]))
            found |= {bytes(key): int(number) for key, number in connection.execute(chosen)}
        return found

    def _digest(self, row: Row) -> bytes:
        return digest_of(self._names, row, self._defaults)


def digest_of(names: Sequence[str], row: Row, defaults: Sequence[Any]) -> bytes:
    """By what a row is known: the values of its columns that are not their defaults."""
    named = zip(names, row, defaults, strict=True)
    said = sorted(
        (name, value) for name, value, default in named if value != default or type(value) is not type(default)
    )
    return blake2b(_encode(said), digest_size=DIGEST_BYTES).digest()


AT_ONCE: Final = 1_000
"""Keys of one question; SQLite takes 32,766 parameters, and all of them plan again for each number."""
