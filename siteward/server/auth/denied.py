"""The deny-list: tokens and subjects that are refused although their issuer still vouches for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import Connection, MetaData, Select, Table, delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from siteward.log import get_logger
from siteward.server.auth.identity import Identity
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.database import Conflict, Database
from siteward.server.database.columns import integer_column, text_column

SECONDS: Final = 5.0
"""After which every process has seen what was denied in another one."""
LONGEST_REASON: Final = 1000
EVERY_TOKEN: Final = ""
"""Stands for all tokens of a subject."""

log = get_logger(__name__)


class Denied(Protocol):
    """Knows which tokens and subjects are denied."""

    def is_denied(self, identity: Identity) -> bool:
        """Whether the token, or its subject at that issuer, is."""


class Denial(msgspec.Struct, frozen=True):
    """One entry.

    Attributes:
        issuer: whose.
        subject: who; "" where a single token is denied.
        token: which one (`jti`); "" where all of a subject are.
        at: when it was entered, microseconds since 1970 UTC.
        by: who entered it.
        reason: why.
    """

    issuer: str
    subject: str
    token: str
    at: int
    by: str
    reason: str


class DenyList:
    """Kept in a database, known in memory, so that asking never waits; any thread may ask.

    Until it is closed, a thread reads it again every few seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database; its table is made at need.

        Args:
            database: that of access; it is closed with the list.
            clock: seconds since 1970 UTC.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it cannot be read.
        """
        metadata = MetaData()
        self._table = Table(
            "access_denied",
            metadata,
            *(text_column(name, LONGEST_NAME, key=True) for name in ("issuer", "subject", "token")),
            integer_column("at"),
            text_column("by", LONGEST_NAME),
            text_column("reason", LONGEST_REASON),
            sqlite_strict=True,
            mysql_engine="InnoDB",
        )
        self._database = database
        self._clock = clock
        with database.alone("siteward access") as connection:
            metadata.create_all(connection)
        self._known = self._read()
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read_again, name="deny-list", daemon=True)
        self._reader.start()

    def is_denied(self, identity: Identity) -> bool:
        """Whether a token, or its subject, is; as of a few seconds ago at most while the database answers."""
        known, issuer = self._known, identity.issuer
        return (issuer, "", identity.token) in known or (issuer, identity.subject, EVERY_TOKEN) in known

    def deny(self, issuer: str, *, subject: str = "", token: str = "", by: str, reason: str) -> Denial | None:
        """Enter a subject, or a single token; the entry that this takes the place of, if there was one.

        Raises:
            ValueError: neither or both are named, or there is no reason.
            sqlalchemy.exc.SQLAlchemyError: the database does not take it.
        """
        if bool(subject) is bool(token) or not issuer or not reason:
            message = "name an issuer, a subject or else a token, and a reason"
            raise ValueError(message)
        if max(map(len, (issuer, subject, token))) > LONGEST_NAME:
            message = f"no issuer, subject or token has a name of more than {LONGEST_NAME} characters"
            raise ValueError(message)
        mine = self._table.c
        row = {"issuer": issuer, "subject": subject, "token": token, "by": by, "reason": reason[:LONGEST_REASON]}
        chosen = (mine.issuer == issuer) & (mine.subject == subject) & (mine.token == token)
        with self._database.write() as connection:
            replaced = self._taken(connection, chosen)
            connection.execute(self._table.insert(), row | {"at": int(self._clock() * 1_000_000)})
        self._known = self._read()
        return replaced

    def allow(self, issuer: str, *, subject: str = "", token: str = "") -> Denial | None:
        """Take an entry out again; which one it was, if there was one."""
        mine = self._table.c
        chosen = (mine.issuer == issuer) & (mine.subject == subject) & (mine.token == token)
        with self._database.write() as connection:
            found = self._taken(connection, chosen)
        self._known = self._read()
        return found

    def all(self) -> list[Denial]:
        """Every entry, the newest first."""
        with self._database.read() as connection:
            return [Denial(*row) for row in connection.execute(self._entries().order_by(self._table.c["at"].desc()))]

    def _entries(self) -> Select[Any]:
        return select(*(self._table.c[name] for name in Denial.__struct_fields__))

    def _taken(self, connection: Connection, chosen: ColumnElement[bool]) -> Denial | None:
        """An entry, which is no more."""
        row = connection.execute(self._entries().where(chosen).with_for_update()).first()
        connection.execute(delete(self._table).where(chosen))
        return None if row is None else Denial(*row)

    def close(self) -> None:
        """Stop reading, and close the database."""
        self._closed.set()
        self._reader.join()
        self._database.close()

    def _read(self) -> frozenset[tuple[str, str, str]]:
        return frozenset((each.issuer, each.subject, each.token) for each in self.all())

    def _read_again(self) -> None:
        while not self._closed.wait(SECONDS):
            try:
                self._known = self._read()
            except (SQLAlchemyError, Conflict) as error:
                # What was denied stays denied.
                log.warning("the deny-list is not read", error=self._database.told(error))
