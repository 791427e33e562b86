"""How fast the ledger books jobs, beside bare prepared SQL with the same rows: what SQLite itself takes at most."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np
from sqlalchemy import Connection, Table

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from accounting.tables import START
from siteward.kinds.job import Job
from siteward.records import kind_of
from siteward.server.database import Columns, Database, Dialect
from siteward.sinks import Batch, Outcome

BATCH: Final = 10_000
SERIES: Final = 20_000
SHORTEST, LONGEST = 600, 12 * 3600
"""Seconds that a job lasts."""
SECOND: Final = 1_000_000
JOB: Final = kind_of(Job)


class Booked(msgspec.Struct):
    """Rates in records/s.

    Attributes:
        rate: of the ledger.
        bare: of the same rows, inserted and added by prepared statements, in the same transactions.
        first: of the ledger, over the first tenth of the batches.
        last: over the last tenth.
        rows: rows of buckets that a record touches, those of both attributions together.
    """

    rate: float
    bare: float
    first: float
    last: float
    rows: float


class _Recorded:
    """A dialect that remembers what it was told to write, as rows for the plain driver."""

    def __init__(self, dialect: Dialect) -> None:
        self.real = dialect
        self.statements: list[tuple[str, list[tuple[Any, ...]]]] = []
        self.rows = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def insert_new(self, connection: Connection, table: Table, columns: Columns) -> int:
        self._note(table, columns, "ON CONFLICT DO NOTHING")
        return self.real.insert_new(connection, table, columns)

    def accumulate(self, connection: Connection, table: Table, keys: Columns, sums: Columns) -> None:
        adding = ", ".join(f'"{name}" = "{name}" + excluded."{name}"' for name in sums)
        self._note(table, {**keys, **sums}, f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {adding}")
        self.rows += len(keys[START])
        self.real.accumulate(connection, table, keys, sums)

    def _note(self, table: Table, columns: Columns, conflict: str) -> None:
        names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks}) {conflict}"  # noqa: S608  # our own names.
        lists = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns.values()]
        self.statements.append((statement, list(zip(*lists, strict=True))))


def booked(folder: Path, records: int) -> Booked:
    """Book batches of different jobs into a new ledger, and their rows again with nothing but SQL."""
    database = Database(f"sqlite:///{folder / 'ledger.sqlite'}")
    with closing(Ledger(database, {"job": JOB}, digests=prepare(database, {"job": JOB}))) as ledger:
        recorded = _Recorded(database.dialect)
        seconds = []
        bare = _Bare(folder / "bare.sqlite", folder / "ledger.sqlite")
        with closing(bare):
            for batch in _batches(records // BATCH):
                # Series and producers are known to both; they are looked up once for the life of a collector.
                ledger.series_of(JOB, batch.columns)
                ledger.producers_of(batch.producers)
                database.dialect = cast("Dialect", recorded)
                began = time.perf_counter()
                written = ledger.write(batch)
                seconds.append(time.perf_counter() - began)
                database.dialect = recorded.real
                assert written.outcomes == [Outcome.STORED] * BATCH
                bare.write(recorded.statements)
                recorded.statements.clear()
    tenth = max(1, len(seconds) // 10)
    return Booked(
        rate=BATCH * len(seconds) / sum(seconds),
        bare=BATCH * len(seconds) / bare.seconds,
        first=BATCH * tenth / sum(seconds[:tenth]),
        last=BATCH * tenth / sum(seconds[-tenth:]),
        rows=recorded.rows / (BATCH * len(seconds)),
    )


class _Bare:
    """The same tables, written by the plain driver."""

    def __init__(self, path: Path, like: Path) -> None:
        self.seconds = 0.0
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            self._connection.execute(f"PRAGMA {pragma}")
        with closing(sqlite3.connect(like)) as source:
            for (statement,) in source.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND sql NOT NULL"):
                if "sqlite_sequence" not in statement:
                    self._connection.execute(statement)

    def write(self, statements: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        """One transaction."""
        began = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        for statement, rows in statements:
            self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")
        self.seconds += time.perf_counter() - began

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _batches(count: int) -> Iterator[Batch]:
    """Jobs as they end, one after the other, over two days."""
    chance = random.Random(1)
    end = time.time_ns() // 1000 - 2 * 86_400 * SECOND
    step = 2 * 86_400 * SECOND // (count * BATCH)
    defaults = {column.name: column.default for column in JOB.columns}
    for _ in range(count):
        columns: dict[str, list[Any]] = {name: [default] * BATCH for name, default in defaults.items()}
        series = [chance.randrange(SERIES) for _ in range(BATCH)]
        columns["vo"] = [f"vo{number % 10}" for number in series]
        columns["site"] = [f"SITE-{number // 10 % 100}" for number in series]
        columns["user"] = [f"user{number // 1000}" for number in series]
        columns["local_job_id"] = [f"{end}.{place}" for place in range(BATCH)]
        columns["end"] = [end := end + step for _ in range(BATCH)]
        columns["start"] = [each - chance.randrange(SHORTEST, LONGEST) * SECOND for each in columns["end"]]
        columns["wall_time"] = [
            (last - first) // SECOND for first, last in zip(columns["start"], columns["end"], strict=True)
        ]
        columns["processors"] = [chance.choice((1, 1, 4, 8)) for _ in range(BATCH)]
        used = zip(columns["wall_time"], columns["processors"], strict=True)
        columns["cpu_time"] = [seconds * processors * 9 // 10 for seconds, processors in used]
        ids = [(each // 1000).to_bytes(6, "big") + chance.randbytes(10) for each in columns["end"]]
        yield Batch(JOB, ids, columns, ["bench"] * BATCH, [bytes(16)] * BATCH, end)
