"""The audit: who changed what, when, with which token, from what to what; entries are added and never changed.

The database itself refuses to change one. Each has a digest of itself and of the one before, so that `verify` finds
what somebody has changed nevertheless who may do everything there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping, Select, delete, func, select, update
from sqlalchemy.sql import ColumnElement

from siteward.server.auth.audit_files import Begin, Kept, verified, write_entries
from siteward.server.auth.audit_tables import LONGEST_ACTION, AuditTables, digest_of
from siteward.server.auth.audit_texts import plain, read, vo_names, written
from siteward.server.auth.caller import Caller
from siteward.server.auth.roles import EVERY
from siteward.server.auth.token_text import LONGEST_NAME
from siteward.server.database import Conflict, Database

MOST: Final = 1_000
"""Entries of one answer."""
ASKED: Final = "asked"
"""The outcome of what is not done yet."""
SEEN: Final = "seen"
"""The outcome of an entry that says that somebody looks at what is others'."""
ARCHIVED: Final = "audit archived"
"""The action of an entry that says which ones have left for a file."""
FIRST: Final = Begin(0, "")
_GREATEST: Final = "\U0010ffff"


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """One entry.

    Attributes:
        number: ascending in the order of entries.
        at: microseconds since 1970 UTC.
        issuer: of the token; "" for whoever ran a command on the machine.
        subject: whom it named.
        token: its own name (`jti`).
        action: what was asked for: method and path of a route, or a command.
        vos: whose it is what was changed, or where that is not known yet, may be; EVERY for all, none for no VO's.
        outcome: "asked" before anything is done; then the HTTP status, or "done" or the error of a command.
        of: the number of the entry in which it was asked for; 0 in that one, and where there is no other one.
        before: what it was, where that is known.
        after: what it became.
    """

    number: int = 0
    at: int = 0
    issuer: str
    subject: str
    token: str
    action: str
    vos: tuple[str, ...] = ()
    outcome: str = ASKED
    of: int = 0
    before: Any = None
    after: Any = None


class Verified(msgspec.Struct, frozen=True):
    """What the digests say.

    Attributes:
        entries: how many there are.
        number: the last one's.
        digest: the last one's; who has noted it elsewhere can tell later that nothing up to it is another.
        wrong: the first number at which something was changed, put in or taken away; None where nothing was.
        begin: after which entry they begin; those before are in files.
    """

    entries: int
    number: int
    digest: str
    wrong: int | None
    begin: Begin = FIRST


class Audit:
    """Kept in a database; any number of processes add to it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database; its tables are made at need.

        Args:
            database: that of access; it is closed with the audit.
            clock: seconds since 1970 UTC.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it cannot be used now.
            DatabaseError: it cannot keep entries from being changed.
        """
        self._tables = AuditTables()
        self._database = database
        self._clock = clock
        self._tables.prepare(database)
        self._is_failing = False

    def check(self) -> None:
        """Pass while entries can be added, as far as is seen without one; after a failure only if it can be written to.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: they cannot.
        """
        head = self._tables.head
        if not self._is_failing:
            with self._database.read() as connection:
                connection.execute(select(head.c.number)).one()
            return
        with self._database.write() as connection:
            connection.execute(update(head).values(number=head.c.number))
        self._is_failing = False

    def ask(self, caller: Caller, action: str, vos: Collection[str] = ()) -> Audited:
        """Note that something is asked for, before it is done; the entry.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it is not noted, so it must not be done.
        """
        return self.note(caller, action, ASKED, vos)

    def end(
        self,
        asked: Audited,
        outcome: str,
        *,
        vos: Collection[str] = (),
        before: object = None,
        after: object = None,
    ) -> None:
        """Note what became of it; whose it is, where that is known better by now.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it is not noted.
        """
        self._add(
            msgspec.structs.replace(
                asked,
                of=asked.number,
                outcome=plain(outcome, LONGEST_NAME),
                vos=vo_names(vos or asked.vos),
                before=before,
                after=after,
            )
        )

    def note(
        self, caller: Caller, action: str, outcome: str, vos: Collection[str] = (), after: object = None
    ) -> Audited:
        """Note at once what is done, or is about to be; the entry.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: it is not noted.
        """
        who = caller.identity
        return self._add(
            Audited(
                issuer=who.issuer,
                subject=who.subject,
                token=who.token,
                action=plain(action, LONGEST_ACTION),
                vos=vo_names(vos),
                outcome=plain(outcome, LONGEST_NAME),
                after=after,
            )
        )

    def find(  # noqa: PLR0913  # what may be asked for.
        self,
        *,
        issuer: str = "",
        subject: str = "",
        token: str = "",
        action: str = "",
        vo: str = "",
        since: int = 0,
        until: int = 0,
        after: int = 0,
        limit: int = 100,
    ) -> list[Audited]:
        """Entries, the newest first.

        Args:
            issuer: only of tokens of this one.
            subject: only this one's.
            token: only of this token (`jti`).
            action: only what begins so: a method and path, or a command.
            vo: only what is about this VO, or about all.
            since: only from this instant on, microseconds since 1970 UTC.
            until: only before this one; 0 for no end.
            after: only entries with smaller numbers: the last one of the page before; 0 for the first page.
            limit: at most so many, no more than MOST.
        """
        mine = self._tables.entries.c
        wanted = [
            mine[name] == text for name, text in (("issuer", issuer), ("subject", subject), ("token", token)) if text
        ]
        is_range = not wanted
        wanted += [mine.action >= action, mine.action < action + _GREATEST] if action else []
        wanted += [mine["at"] >= since] if since else []
        wanted += [mine["at"] < until] if until else []
        is_range = is_range and bool(wanted)
        wanted += [mine.number < after] if after else []
        most = min(limit, MOST)
        with self._database.read() as connection:
            if vo:
                rows = [row for each in {vo, EVERY} for row in self._about(connection, each, wanted, most)]
                rows = sorted(rows, key=lambda row: -row["number"])[:most]
            else:
                # Else databases walk through all entries, the newest first, until so many are in the range.
                order = mine.number + 0 if is_range else mine.number
                question = self._columns().where(*wanted).order_by(order.desc()).limit(most)
                rows = list(connection.execute(question).mappings())
            vos = self._tables.vos_of(connection, [row["number"] for row in rows])
        told = ({**row, "before": read(row["before"]), "after": read(row["after"])} for row in rows)
        return [Audited(**each, vos=vos.get(each["number"], ())) for each in told]

    def verify(self) -> Verified:
        """Compute every digest again, as of now."""
        count = 0
        wrong: int | None = None
        with self._database.read() as connection:
            head = connection.execute(select(self._tables.head)).mappings().one()
            begin = self._begin(connection)
            last, digest = begin.number, begin.digest
            for row, vos in self._stored(connection, 0):
                last, count = int(row["number"]), count + 1
                digest = digest_of(digest, row, vos)
                wrong = last if wrong is None and digest != row["digest"] else wrong
                # One that is wrong does not make all others so.
                digest = row["digest"]
        if wrong is None and (last, digest) != (head["number"], head["digest"]):
            wrong = last + 1
        return Verified(count, last, digest, wrong, begin)

    def archive(self, folder: Path, until: int, caller: Caller) -> Kept | None:
        """Put the entries before an instant into a file, and take them out of the database, which is noted.

        It may be killed at any moment, and done again: the file is there and right before anything is taken out, and
        what is taken out and the note of it are one.

        Args:
            folder: of the file.
            until: microseconds since 1970 UTC; the first entry that is as young, and whatever came after it, stays.
            caller: who asks for it.

        Returns:
            What is in the file now; None where no entry is that old.

        Raises:
            OSError, siteward.server.auth.audit_files.AuditFileError: the file cannot be written or read, or one of its
                name has other entries.
            ValueError: entries are not what they were, so that they stay where they are.
            sqlalchemy.exc.SQLAlchemyError, Conflict: the database is in the way; do it again.
        """
        mine = self._tables.entries.c
        with self._database.read() as connection:
            begin = self._begin(connection)
            young = connection.execute(select(func.min(mine.number)).where(mine["at"] >= until)).scalar()
            last = int(young) - 1 if young else int(connection.execute(select(self._tables.head.c.number)).scalar_one())
            if last <= begin.number:
                return None
            path = write_entries(folder, begin, last, self._stored(connection, begin.number, last))
        kept = verified(path)
        if kept.wrong is not None or kept.number != last:
            message = f"{path} is not what was noted, from number {kept.wrong or kept.number} on; nothing is taken out"
            raise ValueError(message)
        who = caller.identity
        told = {"file": kept.file, "after": begin.number, "number": last, "digest": kept.digest}
        entry = Audited(
            issuer=who.issuer,
            subject=who.subject,
            token=who.token,
            action=ARCHIVED,
            vos=(EVERY,),
            outcome="done",
            before={"entries": kept.entries},
            after=told,
        )
        with self._database.alone("siteward access") as connection:
            # Whoever adds an entry waits from here on, so that nobody holds what has to be changed.
            if self._begin(connection) != begin or self._next(connection)[0] <= last:
                message = "another process has archived entries meanwhile"
                raise Conflict(message)
            for table in (self._tables.entries, self._tables.vos):
                self._database.dialect.let_take_away(connection, table)
            self._insert(connection, entry)
            for table in (self._tables.entries, self._tables.vos):
                connection.execute(delete(table).where(table.c.number <= last))
            for table in (self._tables.entries, self._tables.vos):
                self._database.dialect.let_add_only(connection, table)
        return kept

    def scrub(self) -> None:
        """Leave nothing of what was taken out in the database's files, and give back their room.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, Conflict: others held the tables; do it again.
        """
        for table in (self._tables.entries, self._tables.vos):
            self._database.scrub(table)

    def digest_at(self, number: int) -> str:
        """The digest of one entry, to be compared with one noted elsewhere; "" where there is none."""
        mine = self._tables.entries.c
        with self._database.read() as connection:
            return str(connection.execute(select(mine.digest).where(mine.number == number)).scalar() or "")

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _add(self, entry: Audited) -> Audited:
        try:
            return self._added(entry)
        except BaseException:
            self._is_failing = True
            raise

    def _added(self, entry: Audited) -> Audited:
        with self._database.write() as connection:
            return self._insert(connection, entry)

    def _insert(self, connection: Connection, entry: Audited) -> Audited:
        tables = self._tables
        number, digest = self._next(connection)
        entry = msgspec.structs.replace(entry, number=number, at=int(self._clock() * 1_000_000))
        row = msgspec.structs.asdict(entry) | {"before": written(entry.before), "after": written(entry.after)}
        del row["vos"]
        row["digest"] = digest_of(digest, row, entry.vos)
        connection.execute(tables.entries.insert(), row)
        if entry.vos:
            connection.execute(tables.vos.insert(), [{"vo": vo, "number": number} for vo in entry.vos])
        connection.execute(update(tables.head).values(number=number, digest=row["digest"]))
        return entry

    def _begin(self, connection: Connection) -> Begin:
        """After which entry the database goes on; the newest note of a file says it, and stays until the next one."""
        mine = self._tables.entries.c
        newest = select(mine.after).where(mine.action == ARCHIVED).order_by(mine.number.desc()).limit(1)
        told = connection.execute(newest).scalar()
        return FIRST if told is None else msgspec.json.decode(bytes(told), type=Begin)

    def _stored(
        self, connection: Connection, last: int, until: int | None = None
    ) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
        """Entries after one, and up to another one, as they are stored, with their VOs."""
        while rows := connection.execute(self._tables.following(last)).mappings().all():
            vos = self._tables.vos_of(connection, [row["number"] for row in rows])
            for row in rows:
                last = int(row["number"])
                if until is not None and last > until:
                    return
                yield dict(row), vos.get(last, ())

    def _columns(self) -> Select[Any]:
        return select(*(self._tables.entries.c[name] for name in Audited.__struct_fields__ if name != "vos"))

    def _about(
        self, connection: Connection, vo: str, wanted: Sequence[ColumnElement[bool]], most: int
    ) -> Sequence[RowMapping]:
        """Entries about one VO, the newest first."""
        mine, about = self._tables.entries.c, self._tables.vos.c
        question = self._columns().join(self._tables.vos, about.number == mine.number)
        question = question.where(about.vo == vo, *wanted).order_by(about.number.desc()).limit(most)
        return connection.execute(question).mappings().all()

    def _next(self, connection: Connection) -> tuple[int, str]:
        """The number of the next entry and the digest of the last one; nobody else adds any until this one is in."""
        head = self._tables.head.c
        number, digest = connection.execute(select(head.number, head.digest).with_for_update()).one()
        return int(number) + 1, str(digest)
