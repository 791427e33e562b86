"""The tables of the audit: entries, the VOs that they are about, and how far they go; kept from being changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Index, MetaData, Select, Table, inspect, select, update

from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.database import Database
from siteward.server.database.columns import blob_column, integer_column, text_column

LONGEST_ACTION: Final = 255
NAMES: Final = ("issuer", "subject", "token", "outcome")
FOUND_BY: Final = ("issuer", "subject", "token", "action", "at")
"""Each has an index."""
DIGITS: Final = 64
"""Of a digest, in hexadecimal."""
_SEALED: Final = ("number", "at", *NAMES, "action", "of", "before", "after")
"""What a digest is of, with the VOs and the digest before."""
_AT_ONCE: Final = 1_000
_OLD_VO: Final = "vo"
"""A column of before entries could be about several VOs."""


class AuditTables:
    """How they are laid out.

    Attributes:
        entries: what was done; `digest` follows from the entry and the digest of the one before.
        vos: the VOs that each entry is about.
        head: one row, the last number and digest; whoever adds an entry holds it.
    """

    def __init__(self) -> None:
        """Lay them out."""
        self.metadata = MetaData()
        own: dict[str, Any] = {"sqlite_strict": True, "mysql_engine": "InnoDB"}
        by_key = {**own, "sqlite_with_rowid": False}
        self.entries = Table(
            "access_audit",
            self.metadata,
            integer_column("number", key=True),
            integer_column("at"),
            *(text_column(name, LONGEST_NAME) for name in NAMES),
            text_column("action", LONGEST_ACTION),
            integer_column("of"),
            blob_column("before"),
            blob_column("after"),
            text_column("digest", DIGITS, default=""),
            *(Index(f"access_audit_by_{name}", name, "number") for name in FOUND_BY),
            **own,
        )
        self.vos = Table(
            "access_audit_vos",
            self.metadata,
            text_column("vo", LONGEST_NAME, key=True),
            integer_column("number", key=True),
            Index("access_audit_vos_by_number", "number"),
            **by_key,
        )
        self.head = Table(
            "access_audit_head",
            self.metadata,
            integer_column("one", key=True),
            integer_column("number"),
            text_column("digest", DIGITS),
            **by_key,
        )

    def prepare(self, database: Database) -> None:
        """Make what is missing, also of entries from before there were digests, and let rows be added only.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: the database cannot be used now.
            DatabaseError: its user may not make triggers.
        """
        with database.alone("siteward access") as connection:
            self.metadata.create_all(connection)
            # The head comes last: whoever died before finds all else to do, or done, again.
            if connection.execute(select(self.head.c.number)).first() is None:
                self._bring_up(connection)
                self._seal(connection)
            for table in (self.entries, self.vos):
                database.dialect.let_add_only(connection, table)

    def vos_of(self, connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, ...]]:
        """The VOs of some entries that are about any."""
        mine = self.vos.c
        rows = connection.execute(select(mine.number, mine.vo).where(mine.number.in_(numbers)))
        found: dict[int, tuple[str, ...]] = {}
        for number, vo in sorted((int(row[0]), str(row[1])) for row in rows):
            found[number] = (*found.get(number, ()), vo)
        return found

    def _bring_up(self, connection: Connection) -> None:
        """Give a table of before what it lacks."""
        from alembic.operations import Operations  # noqa: PLC0415  # most have nothing to bring up.
        from alembic.runtime.migration import MigrationContext  # noqa: PLC0415  # as above.

        there = {column["name"] for column in inspect(connection).get_columns(self.entries.name)}
        operations = Operations(MigrationContext.configure(connection))
        if "digest" not in there:
            operations.add_column(self.entries.name, text_column("digest", DIGITS, default=""))
        if _OLD_VO in there:
            old = Table(self.entries.name, MetaData(), integer_column("number"), text_column(_OLD_VO, LONGEST_NAME))
            noted = select(self.vos.c.number)
            named = select(old.c.vo, old.c.number).where(old.c.vo != "", old.c.number.not_in(noted))
            connection.execute(self.vos.insert().from_select(["vo", "number"], named))
            # From here on, older processes cannot add an entry that nobody would seal.
            operations.drop_column(self.entries.name, _OLD_VO)
        for index in self.entries.indexes:
            index.create(connection, checkfirst=True)

    def _seal(self, connection: Connection) -> None:
        """Chain the entries that are there, if any, and begin from them."""
        last, digest = 0, ""
        mine = self.entries.c
        while rows := connection.execute(self.following(last)).mappings().all():
            vos = self.vos_of(connection, [row["number"] for row in rows])
            for row in rows:
                last = int(row["number"])
                digest = digest_of(digest, dict(row), vos.get(last, ()))
                connection.execute(update(self.entries).where(mine.number == last).values(digest=digest))
        connection.execute(self.head.insert(), {"one": 1, "number": last, "digest": digest})

    def following(self, last: int) -> Select[Any]:
        """The question for the entries that come after one, many at a time."""
        mine = self.entries.c
        return select(self.entries).where(mine.number > last).order_by(mine.number).limit(_AT_ONCE)


def digest_of(previous: str, row: Mapping[str, Any], vos: Sequence[str]) -> str:
    """What seals an entry: nothing of it, nor of any one before, can be another without the digest being so, too."""
    values = [bytes(row[name]).hex() if name in {"before", "after"} else row[name] for name in _SEALED]
    return sha256(msgspec.json.encode([previous, *values, sorted(vos)])).hexdigest()
