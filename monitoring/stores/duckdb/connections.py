"""A DuckDB file that this process has open, and its cursors: one for each call that is under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition
from typing import Any, Final

import duckdb

from monitoring.stores import StoreError
from monitoring.stores.duckdb.tables import added_columns, check_names, create_table
from siteward.private_files import PRIVATE
from siteward.records import Kind
from siteward.settings import MonitoringSettings

CHECKPOINT: Final = "128MB"
"""Size of the write-ahead log at which it is moved into the file; also the most that is read again after a crash."""


class Connections:
    """The open file. Calls do not wait for each other; DuckDB shows each one state of the data."""

    def __init__(self, path: Path, settings: MonitoringSettings, kinds: Mapping[str, Kind]) -> None:
        """Open the file, or make it, and bring its tables up to the kinds.

        Raises:
            StoreError: the file cannot be opened; permanent where a kind has changed as its table cannot follow.
        """
        check_names(kinds)
        self.path = path
        self._settings = settings
        self._kinds = kinds
        self._turns = Condition()
        self._busy: set[duckdb.DuckDBPyConnection] = set()
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._database: duckdb.DuckDBPyConnection | None = None
        self._closed = False
        self._broken = False
        self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, Any] = {
            "memory_limit": self._settings.memory,
            "threads": self._settings.threads,
            "checkpoint_threshold": CHECKPOINT,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        is_new = not self.path.exists()
        try:
            self._database = duckdb.connect(str(self.path), config=config)
            if is_new:
                # It takes no empty file that was made beforehand; not every file system knows rights.
                with suppress(OSError):
                    self.path.chmod(PRIVATE)
            self._database.execute("BEGIN")
            for kind in self._kinds.values():
                _prepare(self._database, kind)
            self._database.execute("COMMIT")
        except StoreError:
            self._drop()
            raise
        except duckdb.Error as error:
            self._drop()
            message = f"monitoring store {self.path}: {error}"
            raise StoreError(message) from error
        return self._database

    def close(self) -> None:
        """Interrupt what runs, wait for it, move the log into the file and close it; may be called twice."""
        with self._turns:
            self._closed = True
            for cursor in self._busy:
                cursor.interrupt()
            self._turns.wait_for(lambda: not self._busy)
            self._drop()

    def _drop(self) -> None:
        for connection in (*self._idle, self._database):
            if connection is not None:
                with suppress(duckdb.Error):
                    connection.close()
        self._idle.clear()
        self._database = None
        self._broken = False

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor within a transaction that is committed at the end, or rolled back.

        Raises:
            StoreError: the file is closed, or cannot be opened again after a fatal error.
            duckdb.Error: what went wrong within, or at the commit.
        """
        cursor = self._take()
        try:
            cursor.execute("BEGIN")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException as error:
            # After a fatal error, such as a full disk, DuckDB refuses everything until the file is opened again.
            self._broken |= isinstance(error, (duckdb.FatalException, duckdb.InternalException))
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        finally:
            self._give(cursor)

    def _take(self) -> duckdb.DuckDBPyConnection:
        with self._turns:
            if self._broken and self._turns.wait_for(lambda: not self._busy):
                self._drop()
            if self._closed:
                message = f"monitoring store {self.path} is closed"
                raise StoreError(message)
            cursor = self._idle.pop() if self._idle else (self._database or self._open()).cursor()
            self._busy.add(cursor)
            return cursor

    def _give(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._turns:
            self._busy.discard(cursor)
            self._idle.append(cursor)
            self._turns.notify_all()


def _prepare(database: duckdb.DuckDBPyConnection, kind: Kind) -> None:
    """Make the kind's table, or add the columns that the kind has gained."""
    database.execute(create_table(kind))
    existing = database.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?",
        [kind.name.replace("-", "_")],
    ).fetchall()
    for statement in added_columns(kind, dict(existing)):
        database.execute(statement)


@contextmanager
def registered(cursor: duckdb.DuckDBPyConnection, table: Any) -> Iterator[None]:  # noqa: ANN401  # pyarrow has no types.
    """Show a pyarrow table to SQL as `_batch`."""
    cursor.register("_batch", table)
    try:
        yield
    finally:
        # In a transaction that failed, DuckDB refuses this too; the next register replaces the name.
        with suppress(duckdb.Error):
            cursor.unregister("_batch")
