"""The DuckDB store for any number of processes: the first one owns the file, the others ask it, any may die."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final, Self, TypeVar

from monitoring.stores import Store, StoreError
from monitoring.stores.duckdb.client import OwnerGone, StoreClient
from monitoring.stores.duckdb.owner import Owner, lock_file
from siteward.query import Answer, Filter, Query, StoredRecord
from siteward.records import Kind
from siteward.settings import MonitoringSettings, Settings
from siteward.sinks import Batch, SinkUnavailable, Written

T = TypeVar("T")
PATIENCE: Final = 30.0
"""Seconds for which a call looks for an owner: one that takes over may have to read a write-ahead log first."""
PAUSE: Final = 0.02
SCHEME: Final = "duckdb://"


class SharedStore:
    """A Store in a file that this process owns, or asks the owner for; which of both changes as processes die.

    Every call is idempotent, so that one whose owner died before it answered is simply made again.
    """

    def __init__(self, path: Path, settings: MonitoringSettings, kinds: Mapping[str, Kind]) -> None:
        """Own the file if nobody does.

        Raises:
            StoreError: nobody owns it, and it cannot be opened.
        """
        self.path = path
        self._settings = settings
        self._kinds = kinds
        self._turn = Lock()
        self._owner: Owner | None = None
        self._client = StoreClient(path)
        self._closed = False
        _open_stores.add(self)
        self._own()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    @property
    def is_owner(self) -> bool:
        """Whether this process has the file open now."""
        return self._owner is not None

    def close(self) -> None:
        """Let go of the file or of the owner; another process takes over when it next calls. May be called twice."""
        with self._turn:
            self._closed = True
            owner, self._owner = self._owner, None
            if owner is not None:
                owner.close()
        self._client.close()

    def write(self, batch: Batch) -> Written:
        """See Store.write."""
        try:
            return self._call(lambda store: store.write(batch))
        except StoreError as error:
            raise SinkUnavailable(str(error)) from error

    def query(self, query: Query) -> Answer:
        """See Store.query."""
        return self._call(lambda store: store.query(query))

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """See Store.values."""
        return self._call(lambda store: store.values(kind, field, filters, limit))

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
        """See Store.records."""
        return self._call(
            lambda store: store.records(kind, ids=ids, start=start, end=end, filters=filters, limit=limit)
        )

    def forget(self, kind: str, before: datetime) -> int:
        """See Store.forget."""
        return self._call(lambda store: store.forget(kind, before))

    def _call(self, ask: Callable[[Store], T]) -> T:
        """Ask whoever owns the file, this process included, for as long as PATIENCE lasts."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._refuse_closed()
            owner = self._owner
            try:
                return ask(owner.store if owner else self._client)
            except OwnerGone:
                if time.monotonic() > deadline:
                    raise
                if self._own() is None:
                    time.sleep(PAUSE)

    def _own(self) -> Owner | None:
        """Become the owner, unless another process is."""
        with self._turn:
            self._refuse_closed()
            if self._owner is None:
                try:
                    lock = lock_file(self.path)
                    if lock is not None:
                        self._owner = Owner(lock, self.path, self._settings, self._kinds)
                except OSError as error:
                    message = f"monitoring store {self.path}: {error}"
                    raise StoreError(message) from error
            return self._owner

    def _refuse_closed(self) -> None:
        if self._closed:
            message = f"monitoring store {self.path} is closed"
            raise StoreError(message)

    def after_fork(self) -> None:
        """In a forked child: threads and the lock stayed with the parent, so ask the parent from now on."""
        self._turn = Lock()
        self._client = StoreClient(self.path)
        if self._owner is not None:
            self._owner.abandon()
            # Kept alive, because to close the file here would write to what the parent has open.
            _parents.append(self._owner)
            self._owner = None


_open_stores: Final[weakref.WeakSet[SharedStore]] = weakref.WeakSet()
_parents: Final[list[Owner]] = []


def _close_all() -> None:
    for store in list(_open_stores):
        store.close()


def _after_fork() -> None:
    for store in list(_open_stores):
        store.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def open_store(url: str, settings: Settings, kinds: Mapping[str, Kind]) -> SharedStore:
    """Open `duckdb:///path/to/file`; the entry point of the scheme `duckdb`.

    Raises:
        StoreError: the URL names no file, or the file cannot be opened.
    """
    path = url.removeprefix(SCHEME)
    if not url.startswith(SCHEME) or not path.strip("/"):
        message = f"monitoring.url {url!r} names no file; write duckdb:///path/to/file"
        raise StoreError(message)
    return SharedStore(Path(path).expanduser(), settings.monitoring, kinds)
