"""People's names, in one table apart from all records: entered as they come, found by pseudonym, erased for good."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec
from sqlalchemy import Connection, MetaData, Table, select
from sqlalchemy.exc import SQLAlchemyError

from siteward.log import get_logger
from siteward.people import PeopleUnavailable
from siteward.pseudonyms import pseudonym, pseudonym_key, sealed, unsealed
from siteward.records.declaration import LONGEST_PERSONAL
from siteward.server.database import Columns, Conflict, Database, DatabaseError, Misfit
from siteward.server.database.columns import integer_column, text_column
from siteward.server.databases import access_database
from siteward.settings import Settings, SettingsError

TABLE: Final = "people"
LONGEST_DIMENSION: Final = 255
AT_ONCE: Final = 500
"""Pseudonyms of one question to the database."""
TRUSTED: Final = 600.0
"""Seconds for which a name that was entered is not entered again: it may be allowed anew after an erasure."""
MOST_TRUSTED: Final = 200_000
_CODE: Final = 64
_KEY_CHECK: Final = ""
"""The dimension, and the name, of the row that tells whether this is the key with which names were entered."""

log = get_logger(__name__)


class Person(msgspec.Struct, frozen=True):
    """One name.

    Attributes:
        pseudonym: what records hold.
        dimension: in which it stands.
        name: "" where it was erased.
        entered: when it came first, microseconds since 1970 UTC.
        erased: when it was erased, the same; None where it was not.
    """

    pseudonym: str
    dimension: str
    name: str
    entered: int
    erased: int | None


class PeopleTable:
    """Kept in the database of access, which is opened at need; any thread may ask. See `siteward.people.People`."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Open nothing yet; the clock is in seconds since 1970 UTC."""
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._key = b""
        self._database: Database | None = None
        self._entered: dict[str, float] = {}
        self._table = Table(
            TABLE,
            MetaData(),
            text_column("pseudonym", _CODE, key=True),
            text_column("dimension", LONGEST_DIMENSION),
            text_column("name", LONGEST_PERSONAL),
            integer_column("entered"),
            integer_column("erased", optional=True),
            sqlite_strict=True,
            mysql_engine="InnoDB",
        )

    def pseudonym(self, dimension: str, name: str) -> str:
        """See `siteward.people.People`."""
        return pseudonym(self._secret, dimension, name)

    def received(self, dimension: str, text: str) -> str:
        """The pseudonym of what a record brings: of a name, whatever its form, or the one that was sealed here."""
        return unsealed(self._secret, text) or self.pseudonym(dimension, text)

    def sealed(self, code: str) -> str:
        """A pseudonym in the form that `received` knows, for records that come back without the name."""
        return sealed(self._secret, code)

    def check(self) -> None:
        """See that there is a key, and that it is that of the names.

        Raises:
            SettingsError: it is not.
            PeopleUnavailable: that is not known now.
        """
        assert self._secret

    def names(self, pseudonyms: Collection[str]) -> Mapping[str, str]:
        """See `siteward.people.People`."""
        mine = self._table.c
        found: dict[str, str] = {}
        with self._answering() as database, database.read() as connection:
            for some in _portions(pseudonyms):
                named = mine.pseudonym.in_(some) & (mine.name != "")
                rows = connection.execute(select(mine.pseudonym, mine.name).where(named))
                found |= {str(row[0]): str(row[1]) for row in rows}
        return found

    def enter(self, names: Mapping[str, tuple[str, str]]) -> None:
        """Note names that are not there yet, and were not erased; when it returns, they survive any process.

        Args:
            names: dimension and name by pseudonym.

        Raises:
            PeopleUnavailable: they are not noted; try again.
            SettingsError: they are those of another key.
        """
        now = self._clock()
        with self._lock:
            missing = sorted(code for code in names if self._entered.get(code, 0.0) < now - TRUSTED)
        if not missing:
            return
        columns: Columns = {
            "pseudonym": missing,
            "dimension": [names[code][0] for code in missing],
            "name": [names[code][1] for code in missing],
            "entered": [int(now * 1_000_000)] * len(missing),
            "erased": [None] * len(missing),
        }
        with self._answering() as database, database.write() as connection:
            database.dialect.insert_new(connection, self._table, columns)
        with self._lock:
            if len(self._entered) > MOST_TRUSTED:
                self._entered.clear()
            self._entered |= dict.fromkeys(missing, now)

    def find(self, pseudonyms: Collection[str]) -> list[Person]:
        """What is known of some pseudonyms, the erased ones included, in order of their dimensions."""
        mine = self._table.c
        found: list[Person] = []
        with self._answering() as database, database.read() as connection:
            for some in _portions(pseudonyms):
                rows = connection.execute(select(self._table).where(mine.pseudonym.in_(some)))
                found += [Person(*row) for row in rows]
        return sorted(found, key=lambda person: (person.dimension, person.pseudonym))

    def erase(self, people: Mapping[str, str]) -> int:
        """Take names away for good: records that come later do not bring them back.

        Args:
            people: dimension by pseudonym; also of those who have not come yet.

        Returns:
            How many names were there.
        """
        now = int(self._clock() * 1_000_000)
        mine = self._table.c
        codes = sorted(people)
        erased = {"name": "", "erased": now}
        with self._answering() as database, database.write() as connection:
            columns: Columns = {
                "pseudonym": codes,
                "dimension": [people[code] for code in codes],
                "name": [""] * len(codes),
                "entered": [now] * len(codes),
                "erased": [now] * len(codes),
            }
            database.dialect.insert_new(connection, self._table, columns)
            there = mine.pseudonym.in_(codes) & (mine.name != "")
            return connection.execute(self._table.update().where(there).values(erased)).rowcount

    def scrub(self) -> None:
        """Leave nothing of names that were erased in the database's files.

        Raises:
            PeopleUnavailable: others held the table; do it again.
        """
        with self._answering() as database:
            database.scrub(self._table)

    def allow(self, pseudonyms: Collection[str]) -> int:
        """Let names come in again that were erased, with the next records; how many they were."""
        mine = self._table.c
        with self._answering() as database, database.write() as connection:
            chosen = mine.pseudonym.in_(sorted(pseudonyms)) & mine.erased.is_not(None)
            return connection.execute(self._table.delete().where(chosen)).rowcount

    def close(self) -> None:
        """Close the database, if it is open."""
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            database.close()

    @property
    def _secret(self) -> bytes:
        """The key, once it is known to be that of the names: with another one everybody would be somebody else."""
        if not self._key:
            with self._answering():
                pass
        return self._key

    @contextmanager
    def _answering(self) -> Iterator[Database]:
        """The database; what goes wrong with it under a name that everybody knows, without what was asked."""
        database = None
        try:
            database = self._opened()
            yield database
        except (SQLAlchemyError, Conflict, Misfit, DatabaseError) as error:
            if database is not None:
                why = database.told(error)
            else:
                # Ours say what to set, and hold nothing that was asked.
                why = str(error) if isinstance(error, DatabaseError) else type(error).__name__
            log.warning("the table of people does not answer", error=why)
            message = "people's names cannot be looked up now: the database of access does not answer; the log says why"
            raise PeopleUnavailable(message) from error

    def _opened(self) -> Database:
        with self._lock:
            if self._database is None:
                key = pseudonym_key(self._settings)
                database = access_database(self._settings)
                try:
                    with database.alone("siteward access") as connection:
                        self._table.metadata.create_all(connection)
                        self._check_key(connection, database, pseudonym(key, _KEY_CHECK, _KEY_CHECK))
                except BaseException:
                    database.close()
                    raise
                self._database, self._key = database, key
            return self._database

    def _check_key(self, connection: Connection, database: Database, code: str) -> None:
        mine = self._table.c
        known = connection.execute(select(mine.pseudonym).where(mine.dimension == _KEY_CHECK)).scalars().all()
        if not known:
            now = int(self._clock() * 1_000_000)
            row: Columns = {
                "pseudonym": [code],
                "dimension": [_KEY_CHECK],
                "name": [""],
                "entered": [now],
                "erased": [None],
            }
            database.dialect.insert_new(connection, self._table, row)
        elif code not in known:
            message = (
                "the key of pseudonyms is not the one with which people's names were entered: give every process of "
                "this installation the same access.pseudonym_key, or the file pseudonym.key of the first one"
            )
            raise SettingsError(message)


def _portions(pseudonyms: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(pseudonyms)
    return (ordered[first : first + AT_ONCE] for first in range(0, len(ordered), AT_ONCE))
