"""Who has logged in with a browser: what its cookie stands for, until it ends, or somebody ends it."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec
from sqlalchemy import MetaData, Table, delete, select

from siteward.server.auth.identity import Identity
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.database import Database
from siteward.server.database.columns import blob_column, integer_column, text_column

SECONDS: Final = 5.0
"""After which every process has seen that a session was ended in another one."""
LONGEST: Final = 12 * 3600.0
"""Seconds of a session, whatever its token says."""
MOST: Final = 20
"""Sessions of one subject; with one more the oldest ends."""
MOST_KEPT: Final = 10_000
"""Sessions that a process knows without asking the database."""
_DIGITS: Final = 64


class Session(msgspec.Struct, frozen=True):
    """One log-in.

    Attributes:
        identity: who; it says until when.
        begun: seconds since 1970 UTC.
    """

    identity: Identity
    begun: float


class Sessions:
    """Kept in a database under a digest of the cookie, so that reading it makes nobody anybody; any thread may ask."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database; its table is made at need.

        Args:
            database: that of access; it is closed with the sessions.
            clock: seconds since 1970 UTC.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, siteward.server.database.Conflict: it cannot be read.
        """
        metadata = MetaData()
        self._table = Table(
            "access_sessions",
            metadata,
            text_column("session", _DIGITS, key=True),
            *(text_column(name, LONGEST_NAME) for name in ("issuer", "subject", "token")),
            blob_column("identity"),
            integer_column("begun"),
            integer_column("ends"),
            sqlite_strict=True,
            mysql_engine="InnoDB",
        )
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, Session]] = OrderedDict()
        with database.alone("siteward access") as connection:
            metadata.create_all(connection)

    def begin(self, identity: Identity) -> tuple[str, Session]:
        """A new session; its cookie is told this once."""
        now = self._clock()
        cookie = secrets.token_urlsafe(32)
        session = Session(msgspec.structs.replace(identity, expires=min(identity.expires, now + LONGEST)), now)
        row = {
            "session": _key(cookie),
            "issuer": identity.issuer,
            "subject": identity.subject,
            "token": identity.token,
            "identity": msgspec.json.encode(session.identity),
            "begun": int(now * 1_000_000),
            "ends": int(session.identity.expires),
        }
        mine = self._table.c
        of_subject = (mine.issuer == identity.issuer) & (mine.subject == identity.subject)
        with self._database.write() as connection:
            connection.execute(delete(self._table).where(mine.ends <= int(now)))
            chosen = select(mine.session).where(of_subject).order_by(mine.begun.desc()).offset(MOST - 1)
            surplus = list(connection.execute(chosen.limit(MOST_KEPT)).scalars())
            connection.execute(delete(self._table).where(mine.session.in_(surplus)))
            connection.execute(self._table.insert(), row)
        self._forget(surplus)
        return cookie, session

    def known(self, cookie: str) -> Session | None:
        """What a cookie stands for, without waiting; None where that is not known."""
        with self._lock:
            at, session = self._kept.get(_key(cookie), (float("-inf"), None))
        return self._valid(session) if self._clock() < at + SECONDS else None

    def find(self, cookie: str) -> Session | None:
        """What a cookie stands for; None where it is over, was ended, or never was one. May wait for the database."""
        session = self.known(cookie)
        if session is not None:
            return session
        key, now = _key(cookie), self._clock()
        mine = self._table.c
        with self._database.read() as connection:
            row = connection.execute(select(mine.identity, mine.begun).where(mine.session == key)).one_or_none()
        if row is None:
            # Not kept: strangers' cookies would take the place of those that are good.
            self._forget([key])
            return None
        found = Session(msgspec.json.decode(row[0], type=Identity), row[1] / 1_000_000)
        with self._lock:
            self._kept[key] = now, found
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return self._valid(found)

    def end(self, cookie: str) -> int:
        """End one session; how many there were, 0 where it is over already."""
        key = _key(cookie)
        with self._database.write() as connection:
            count = connection.execute(delete(self._table).where(self._table.c.session == key)).rowcount
        self._forget([key])
        return count

    def end_all(self, issuer: str, *, subject: str = "", token: str = "") -> int:
        """End every session of a subject, or those that a single token has begun; how many there were."""
        mine = self._table.c
        of_subject = (mine.issuer == issuer) & (mine.subject == subject if subject else mine.token == token)
        with self._database.write() as connection:
            keys = list(connection.execute(select(mine.session).where(of_subject)).scalars())
            connection.execute(delete(self._table).where(of_subject))
        self._forget(keys)
        return len(keys)

    def of_person(self, name: str) -> list[Session]:
        """The sessions of everybody who is called like that, by an issuer or by records."""
        return [session for _, session in self._of_person(name)]

    def end_person(self, name: str) -> int:
        """End them; how many they were."""
        keys = [key for key, _ in self._of_person(name)]
        with self._database.write() as connection:
            connection.execute(delete(self._table).where(self._table.c.session.in_(keys)))
        self._forget(keys)
        return len(keys)

    def _of_person(self, name: str) -> list[tuple[str, Session]]:
        mine = self._table.c
        with self._database.read() as connection:
            rows = connection.execute(select(mine.session, mine.identity, mine.begun)).all()
        found = [(key, Session(msgspec.json.decode(of, type=Identity), at / 1_000_000)) for key, of, at in rows]
        return [(key, each) for key, each in found if name in {each.identity.subject, each.identity.person}]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _valid(self, session: Session | None) -> Session | None:
        return session if session is not None and self._clock() < session.identity.expires else None

    def _forget(self, keys: list[str]) -> None:
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)


def _key(cookie: str) -> str:
    return sha256(cookie.encode(errors="surrogatepass")).hexdigest()
