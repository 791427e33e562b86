"""A new file of SQLite that many open at the same moment."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from siteward import write_ahead as module
from siteward.write_ahead import write_ahead

MANY = 8


def test_whoever_opens_a_new_file_beside_others_waits_for_them(tmp_path: Path) -> None:
    """SQLite itself refuses some of them in most of these rounds."""
    errors: list[BaseException] = []

    def start(path: Path, together: threading.Barrier) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            together.wait()
            try:
                write_ahead(connection)
                connection.execute("CREATE TABLE IF NOT EXISTS thing (number INTEGER)")
            except sqlite3.Error as error:
                errors.append(error)

    for round_ in range(20):
        together = threading.Barrier(MANY)
        threads = [threading.Thread(target=start, args=(tmp_path / f"{round_}.sqlite", together)) for _ in range(MANY)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_file_that_stays_locked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    path = tmp_path / "held.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder, closing(sqlite3.connect(path)) as late:
        holder.execute("BEGIN EXCLUSIVE")
        holder.execute("CREATE TABLE thing (number INTEGER)")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_ahead(late)
