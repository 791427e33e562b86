"""The audit: who changed what, when, with which token, from what to what; entries are added and never changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import MetaData, Table, select

from siteward.server.auth.caller import Caller
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.database import Database
from siteward.server.database.columns import blob_column, integer_column, number_column, text_column

LONGEST_ACTION: Final = 255
LONGEST_STATE: Final = 100_000
"""Bytes of what something was, or became; more is cut off, and said to be."""
CUT: Final = {"cut": "it was too long to be kept here"}
MOST: Final = 1_000
"""Entries of one answer."""


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """One entry.

    Attributes:
        number: ascending in the order of entries.
        at: microseconds since 1970 UTC.
        issuer: of the token; "" for whoever ran a command on the machine.
        subject: whom it named.
        token: its own name (`jti`).
        action: what was asked for: method and path of a route, or a command.
        vo: of what was changed; "" where that is no VO's.
        outcome: "asked" before anything is done; then the HTTP status, or "done" or the error of a command.
        of: the number of the entry in which it was asked for; 0 in that one.
        before: what it was, where that is known.
        after: what it became.
    """

    number: int = 0
    at: int = 0
    issuer: str
    subject: str
    token: str
    action: str
    vo: str = ""
    outcome: str = "asked"
    of: int = 0
    before: Any = None
    after: Any = None


class Audit:
    """Kept in a database; any number of processes add to it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database; its table is made at need.

        Args:
            database: that of access; it is closed with the audit.
            clock: seconds since 1970 UTC.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it cannot be used now.
        """
        metadata = MetaData()
        self._table = Table(
            "access_audit",
            metadata,
            number_column("number"),
            integer_column("at"),
            *(text_column(name, LONGEST_NAME) for name in ("issuer", "subject", "token", "vo", "outcome")),
            text_column("action", LONGEST_ACTION),
            integer_column("of"),
            blob_column("before"),
            blob_column("after"),
            sqlite_strict=True,
            # A number is never given again, also when the last entry was taken away by somebody.
            sqlite_autoincrement=True,
            mysql_engine="InnoDB",
        )
        self._database = database
        self._clock = clock
        with database.alone("siteward access") as connection:
            metadata.create_all(connection)

    def ask(self, caller: Caller, action: str) -> Audited:
        """Note that something is asked for, before it is done; the entry.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it is not noted, so it must not be done.
        """
        who = caller.identity
        entry = Audited(issuer=who.issuer, subject=who.subject, token=who.token, action=action[:LONGEST_ACTION])
        return self._add(entry)

    def end(self, asked: Audited, outcome: str, *, vo: str = "", before: object = None, after: object = None) -> None:
        """Note what became of it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it is not noted.
        """
        self._add(
            msgspec.structs.replace(
                asked, of=asked.number, outcome=outcome[:LONGEST_NAME], vo=vo[:LONGEST_NAME], before=before, after=after
            )
        )

    def find(self, *, subject: str = "", vo: str = "", after: int = 0, limit: int = 100) -> list[Audited]:
        """Entries, the newest first.

        Args:
            subject: only this one's.
            vo: only those that changed something of this VO.
            after: only entries with smaller numbers: the last one of the page before; 0 for the first page.
            limit: at most so many, no more than MOST.
        """
        mine = self._table.c
        question = select(*(mine[name] for name in Audited.__struct_fields__)).order_by(mine.number.desc())
        for column, wanted in ((mine.subject, subject), (mine.vo, vo)):
            question = question.where(column == wanted) if wanted else question
        question = question.where(mine.number < after) if after else question
        with self._database.read() as connection:
            rows = connection.execute(question.limit(min(limit, MOST))).all()
        names = Audited.__struct_fields__
        entries = (Audited(**dict(zip(names, row, strict=True))) for row in rows)
        return [msgspec.structs.replace(each, before=_read(each.before), after=_read(each.after)) for each in entries]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _add(self, entry: Audited) -> Audited:
        entry = msgspec.structs.replace(entry, at=int(self._clock() * 1_000_000))
        row = msgspec.structs.asdict(entry) | {"before": _written(entry.before), "after": _written(entry.after)}
        del row["number"]
        with self._database.write() as connection:
            (number,) = connection.execute(self._table.insert(), row).inserted_primary_key or (0,)
        return msgspec.structs.replace(entry, number=int(number))


def _written(state: object) -> bytes:
    data = msgspec.json.encode(state, enc_hook=str)
    return data if len(data) <= LONGEST_STATE else msgspec.json.encode(CUT)


def _read(data: bytes) -> Any:  # noqa: ANN401  # whatever was noted.
    return msgspec.json.decode(bytes(data))
