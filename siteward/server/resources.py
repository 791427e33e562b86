"""What routes and tasks share: settings, kinds, broker, emitter and store, each opened when first used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Lock
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from siteward import extensions
from siteward.broker import Broker
from siteward.broker.opening import open_declared
from siteward.emit import Emitter
from siteward.kinds import Kinds, load_kinds
from siteward.log import get_logger
from siteward.query import Answer, Filter, Query, StoredRecord
from siteward.server.auth.audit import Audit
from siteward.server.auth.caller import Caller
from siteward.server.auth.denied import DenyList
from siteward.server.auth.identity import Identity
from siteward.server.auth.roles import EVERY
from siteward.server.auth.sessions import Sessions
from siteward.server.database import Conflict
from siteward.server.databases import access_database
from siteward.server.people_table import PeopleTable
from siteward.settings import Settings

SYSTEM: Final = Caller(Identity(issuer="", subject="system", token="", expires=float("inf")), ())
"""Whoever does what nobody asks for."""
log = get_logger(__name__)
Opened = TypeVar("Opened")


class AskedStore(Protocol):
    """What the app asks of a monitoring store; its whole contract is monitoring.stores.Store."""

    def query(self, query: Query) -> Answer:
        """Answer a question exactly."""

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """Distinct values of a dimension, most frequent first."""

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        """Single records, newest first."""

    def forget(self, kind: str, before: datetime) -> int:
        """Delete the records of a kind before an instant."""


class Closed(RuntimeError):  # noqa: N818  # reads as the state it is.
    """Something was asked for after the end."""


class Change(msgspec.Struct):
    """What something was, where that is known, what it became, and whose it is."""

    before: Any = None
    after: Any = None
    vos: Collection[str] = ()


def open_store(settings: Settings, kinds: Kinds) -> AskedStore:
    """The monitoring store chosen by the scheme of the settings' URL.

    Raises:
        siteward.extensions.ExtensionError: no store of that scheme is installed.
    """
    url = settings.monitoring_url
    return cast("AskedStore", extensions.load("siteward.stores", url.partition(":")[0])(url, settings, kinds))


class Resources:
    """Shared objects of one process. Any thread may ask; an object that fails to open is tried again when asked."""

    def __init__(self, settings: Settings, kinds: Kinds | None = None) -> None:
        """Open nothing yet.

        Args:
            settings: of this installation.
            kinds: every known kind by name; all that are installed and configured by default.

        Raises:
            siteward.records.DeclarationError: a kind contradicts itself.
        """
        self.settings = settings
        self.kinds = load_kinds(settings.kinds) if kinds is None else kinds
        self._lock = Lock()
        self._objects: dict[str, Any] = {}
        self._turns: dict[str, Lock] = {}
        self._closed = False

    @property
    def broker(self) -> Broker:
        """The broker, its queues declared.

        Raises:
            siteward.broker.BrokerUnavailable: it cannot be reached now.
        """
        return self.shared("broker", lambda: open_declared(self.settings))

    @property
    def emitter(self) -> Emitter:
        """An emitter for records of the app's own."""
        return self.shared("emitter", lambda: Emitter(self.settings))

    @property
    def store(self) -> AskedStore:
        """The monitoring store; what goes wrong when opening it is the store's to say."""
        return self.shared("store", lambda: open_store(self.settings, self.kinds))

    @property
    def people(self) -> PeopleTable:
        """People's names by pseudonym; its database is opened when it is first asked."""
        return self.shared("people", lambda: PeopleTable(self.settings))

    @property
    def denied(self) -> DenyList:
        """The deny-list; what goes wrong when opening it is the database's to say."""
        return self.shared("deny-list", lambda: DenyList(access_database(self.settings)))

    @property
    def sessions(self) -> Sessions:
        """Who has logged in with a browser; what goes wrong when opening it is the database's to say."""
        return self.shared("sessions", lambda: Sessions(access_database(self.settings)))

    @property
    def audit(self) -> Audit:
        """The audit; what goes wrong when opening it is the database's to say."""
        return self.shared("audit", lambda: Audit(access_database(self.settings)))

    @contextmanager
    def audited(self, caller: Caller, command: str, after: object, vos: Collection[str] = ()) -> Iterator[Change]:
        """Note a change that a command makes: before it, and how it ended.

        Args:
            caller: who runs it.
            command: its words.
            after: what it makes, for those who come later; no secret.
            vos: whose that is, where it is known already; `*` for all.

        Yields:
            The change, of which more may be said until it ends.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, siteward.server.database.Conflict: it is not noted, and must not be done.
        """
        asked, change = self.audit.ask(caller, command, vos), Change(after=after)
        outcome = "done"
        try:
            yield change
        except BaseException as error:
            # A command that ends with a code has done what it says; Typer's own errors have one, too.
            code = getattr(error, "exit_code", None)
            outcome = type(error).__name__ if code is None else f"exit {code}"
            raise
        finally:
            try:
                self.audit.end(asked, outcome, vos=change.vos, before=change.before, after=change.after)
            except (SQLAlchemyError, Conflict) as error:
                # As over HTTP: that it was asked for is noted, and it is done; how it ended, the log has to say.
                told = {"number": asked.number, "outcome": outcome, "error": str(error)}
                log.warning("the end of a change is not noted", **told)

    def note_task(self, name: str, changed: object) -> None:
        """Note what a periodic task has deleted or moved, of whatever VO.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, siteward.server.database.Conflict: it is not noted.
        """
        self.audit.note(SYSTEM, f"task {name}", "done", (EVERY,), changed)

    def close(self) -> None:
        """Close what was opened, the latest first; every object that cannot be closed is logged, not raised."""
        with self._lock:
            self._closed = True
            objects = list(self._objects.items())
            self._objects.clear()
        for name, opened in reversed(objects):
            self._close(name, opened)

    @staticmethod
    def _close(name: str, opened: object) -> None:
        close = getattr(opened, "close", None)
        try:
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001  # the others are closed all the same.
            log.warning("not closed cleanly", resource=name, error=str(error))

    def shared(self, name: str, opening: Callable[[], Opened]) -> Opened:
        """An object that all routes and tasks share, made when first asked for and closed with the others.

        Args:
            name: under which it is known; the first who asks makes it.
            opening: makes it; what goes wrong is its to say.

        Raises:
            Closed: everything was closed already.
        """
        with self._lock:
            found = self._found(name)
            turn = self._turns.setdefault(name, Lock())
        if found is not None:
            return cast("Opened", found)
        # What does not answer holds up those who want it, and nobody else.
        with turn:
            with self._lock:
                found = self._found(name)
            return cast("Opened", found) if found is not None else self._opened(name, opening)

    def _opened(self, name: str, opening: Callable[[], Opened]) -> Opened:
        made = opening()
        with self._lock:
            if not self._closed:
                self._objects[name] = made
                return made
        self._close(name, made)
        message = f"the {name} was opened after the end"
        raise Closed(message)

    def _found(self, name: str) -> Any:  # noqa: ANN401  # any of the objects.
        """What is open under a name; None where nothing is."""
        if self._closed:
            message = f"the {name} was asked for after the end"
            raise Closed(message)
        return self._objects.get(name)
