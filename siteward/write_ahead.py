"""Files of SQLite that many processes open at once: readers and a writer work beside each other."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

PATIENCE: Final = 30.0
"""Seconds to wait for others that open the same file."""
PAUSE: Final = 0.01


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, and wait for others that do so: SQLite refuses all but one at once.

    The connection's own timeout does not hold here: nobody who reads the file already waits for it to be locked
    (https://www.sqlite.org/c3ref/busy_handler.html). A file stays switched.

    Raises:
        sqlite3.OperationalError: others had the file locked for `PATIENCE`.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # The lower byte says what it is, the upper one why: another process may be recovering the file.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(PAUSE)
        else:
            return
