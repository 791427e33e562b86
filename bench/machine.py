"""What this machine can do at most: the limits beside which every figure is read."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from bench.examples import job
from siteward.kinds.job import Job
from siteward.records import kind_of


def fsync_milliseconds(folder: Path) -> float:
    """Median time of writing 64 KiB and forcing it to disk."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(bytes(65536))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def plain_loop(folder: Path, count: int, size: int = 5_000) -> float:
    """Records per second of the shortest program that does the same work in one process, without our code's care.

    Validates (msgspec), writes batches to a durable SQLite queue, reads them back, hashes ids, leaves out duplicates
    and commits to DuckDB. No routing, leases, refusals, dead letters, receipts, back pressure or other process.
    """
    kind = kind_of(Job)
    now = time.time_ns() // 1000
    records = [job(number) for number in range(count)]
    queue = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
    queue.execute("PRAGMA journal_mode = WAL")
    queue.execute("PRAGMA synchronous = FULL")
    queue.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, body BLOB)")
    store = duckdb.connect(str(folder / "plain.duckdb"), config={"memory_limit": "160MB", "threads": 2})
    names = kind.names
    began = time.perf_counter()
    made = False
    for first in range(0, count, size):
        rows = [kind.row_of(record, now) for record in records[first : first + size]]
        columns = {name: [getattr(row, name) for row in rows] for name in names}
        queue.execute("INSERT INTO queue (body) VALUES (?)", (msgspec.msgpack.encode(columns),))
        number, body = queue.execute("SELECT id, body FROM queue ORDER BY id LIMIT 1").fetchone()
        columns = msgspec.msgpack.decode(body)
        ids = [kind.id_of(row) for row in rows]
        batch = pa.table({"id": pa.array(ids, pa.binary(16)), **{name: pa.array(columns[name]) for name in names}})  # noqa: F841  # DuckDB finds it by its name.
        if not made:
            store.execute("CREATE TABLE job AS SELECT * FROM batch LIMIT 0")
            made = True
        store.execute(
            "INSERT INTO job SELECT * FROM batch WHERE id NOT IN (SELECT id FROM job WHERE id >= ?)", [min(ids)]
        )
        queue.execute("DELETE FROM queue WHERE id = ?", (number,))
    return count / (time.perf_counter() - began)
