"""The deny-list: tokens and subjects that are refused although their issuer still vouches for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec
from sqlalchemy import Connection, MetaData, RowMapping, Table, delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from siteward.log import get_logger
from siteward.server.auth.identity import Identity
from siteward.server.auth.refusal import Reason, TokenRefused
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.database import Conflict, Database
from siteward.server.database.columns import integer_column, text_column
from siteward.telemetry import TOKENS_REFUSED, telemetry

SECONDS: Final = 5.0
"""After which every process has seen what was denied in another one."""
LONGEST_REASON: Final = 1000
EVERY_TOKEN: Final = ""
"""Stands for all tokens of a subject."""

log = get_logger(__name__)


class Denied(Protocol):
    """Knows which tokens and subjects are denied."""

    def is_denied(self, identity: Identity) -> bool:
        """Whether the token, or its subject at that issuer, is, or was when the token was issued."""


class Denial(msgspec.Struct, frozen=True):
    """One entry.

    Attributes:
        issuer: whose.
        subject: who; "" where a single token is denied.
        token: which one (`jti`); "" where all of a subject are.
        at: when it was entered, microseconds since 1970 UTC.
        by: who entered it.
        reason: why.
        before: only tokens that were issued before this instant are, microseconds since 1970 UTC; 0: all.
    """

    issuer: str
    subject: str
    token: str
    at: int
    by: str
    reason: str
    before: int = 0


class _Known(msgspec.Struct, frozen=True):
    denied: frozenset[tuple[str, str, str]]
    ended: Mapping[tuple[str, str], float]
    """Seconds since 1970 UTC before which nothing of a subject was issued that is good."""


def refuse_denied(denied: Denied, identity: Identity) -> None:
    """Refuse a proven identity whose token or subject is denied, and count that.

    Raises:
        TokenRefused: it is.
    """
    if denied.is_denied(identity):
        telemetry.add(TOKENS_REFUSED, 1, Reason.DENIED)
        message = (
            "the token, or its subject, was denied by an administrator, or the subject has logged out everywhere "
            "since it was issued"
        )
        raise TokenRefused(Reason.DENIED, message)


class DenyList:
    """Kept in a database, known in memory, so that asking never waits; any thread may ask.

    Until it is closed, a thread reads it again every few seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database; its tables are made at need.

        Args:
            database: that of access; it is closed with the list.
            clock: seconds since 1970 UTC.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it cannot be read.
        """
        metadata = MetaData()
        self._table = _table(metadata, "access_denied", ("issuer", "subject", "token"))
        self._ended = _table(metadata, "access_ended", ("issuer", "subject"))
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
        known, issuer, subject = self._known, identity.issuer, identity.subject
        if (issuer, "", identity.token) in known.denied or (issuer, subject, EVERY_TOKEN) in known.denied:
            return True
        return identity.issued < known.ended.get((issuer, subject), float("-inf"))

    def deny(self, issuer: str, *, subject: str = "", token: str = "", by: str, reason: str) -> Denial | None:
        """Enter a subject, or a single token; the entry that this takes the place of, if there was one.

        Raises:
            ValueError: neither or both are named, there is no reason, or one of them is too long.
            sqlalchemy.exc.SQLAlchemyError: the database does not take it.
        """
        if bool(subject) is bool(token) or not issuer or not reason:
            message = "name an issuer, a subject or else a token, and a reason"
            raise ValueError(message)
        if max(map(len, (issuer, subject, token))) > LONGEST_NAME:
            message = f"no issuer, subject or token has a name of more than {LONGEST_NAME} characters"
            raise ValueError(message)
        if len(reason) > LONGEST_REASON:
            message = f"a reason has at most {LONGEST_REASON} characters"
            raise ValueError(message)
        mine = self._table.c
        row = {"issuer": issuer, "subject": subject, "token": token, "by": by, "reason": reason}
        chosen = (mine.issuer == issuer) & (mine.subject == subject) & (mine.token == token)
        with self._database.write() as connection:
            replaced = self._taken(connection, chosen)
            connection.execute(self._table.insert(), row | {"at": int(self._clock() * 1_000_000)})
        self._known = self._read()
        return replaced

    def end_tokens(self, issuer: str, subject: str, *, by: str, reason: str, issued: float = 0.0) -> None:
        """Refuse whatever was issued to a subject until now, and nothing that is issued from now on.

        Of the second that is under way too, since most issuers write whole ones.

        Args:
            issuer: its own address.
            subject: whose tokens.
            by: who says so.
            reason: why.
            issued: when the token was issued that asks for it; an issuer's clock may be ahead of ours.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not take it.
        """
        mine = self._ended.c
        row = {"issuer": issuer, "subject": subject, "by": by[:LONGEST_NAME], "reason": reason[:LONGEST_REASON]}
        now = self._clock()
        at = int((issued + 1 if issued > now else now) * 1_000_000)
        with self._database.write() as connection:
            connection.execute(delete(self._ended).where((mine.issuer == issuer) & (mine.subject == subject)))
            connection.execute(self._ended.insert(), row | {"at": at})
        self._known = self._read()

    def allow(self, issuer: str, *, subject: str = "", token: str = "") -> Denial | None:
        """Take an entry out again; which one it was, if there was one.

        Of a subject that is not denied, what has ended its tokens: somebody who is allowed again is not given back
        those of which it has said itself that they are to end.
        """
        mine, ended = self._table.c, self._ended.c
        chosen = (mine.issuer == issuer) & (mine.subject == subject) & (mine.token == token)
        with self._database.write() as connection:
            found = self._taken(connection, chosen)
            if found is None and not token:
                of_subject = (ended.issuer == issuer) & (ended.subject == subject)
                row = connection.execute(select(self._ended).where(of_subject).with_for_update()).mappings().first()
                connection.execute(delete(self._ended).where(of_subject))
                found = _ending(row) if row is not None else None
        self._known = self._read()
        return found

    def all(self) -> list[Denial]:
        """Every entry, the newest first."""
        with self._database.read() as connection:
            denied = connection.execute(select(self._table)).mappings().all()
            ended = connection.execute(select(self._ended)).mappings().all()
        entries = [Denial(**row) for row in denied] + [_ending(row) for row in ended]
        return sorted(entries, key=lambda each: each.at, reverse=True)

    def _taken(self, connection: Connection, chosen: ColumnElement[bool]) -> Denial | None:
        """An entry, which is no more."""
        row = connection.execute(select(self._table).where(chosen).with_for_update()).mappings().first()
        connection.execute(delete(self._table).where(chosen))
        return None if row is None else Denial(**row)

    def close(self) -> None:
        """Stop reading, and close the database."""
        self._closed.set()
        self._reader.join()
        self._database.close()

    def _read(self) -> _Known:
        entries = self.all()
        return _Known(
            frozenset((each.issuer, each.subject, each.token) for each in entries if not each.before),
            {(each.issuer, each.subject): each.before / 1_000_000 for each in entries if each.before},
        )

    def _read_again(self) -> None:
        while not self._closed.wait(SECONDS):
            try:
                self._known = self._read()
            except (SQLAlchemyError, Conflict) as error:
                # What was denied stays denied.
                log.warning("the deny-list is not read", error=self._database.told(error))


def _ending(row: RowMapping) -> Denial:
    """What says that a subject's tokens of before are refused."""
    return Denial(**row, token="", before=row["at"])


def _table(metadata: MetaData, name: str, key: tuple[str, ...]) -> Table:
    """A table of who or what is concerned, since when, by whom and why."""
    return Table(
        name,
        metadata,
        *(text_column(each, LONGEST_NAME, key=True) for each in key),
        integer_column("at"),
        text_column("by", LONGEST_NAME),
        text_column("reason", LONGEST_REASON),
        sqlite_strict=True,
        mysql_engine="InnoDB",
    )
