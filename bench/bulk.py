"""What OpenSearch takes at most, from a program that does nothing else: the limits beside which our figure is read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import urllib3
from opensearchpy import OpenSearch, helpers

from bench.examples import job
from monitoring.stores.opensearch import open_store
from monitoring.stores.opensearch.bulk import IN_FLIGHT, MOST_RECORDS
from monitoring.stores.opensearch.documents import documents_of, lines_of, placed
from siteward.kinds import load_kinds
from siteward.kinds.job import Job
from siteward.records import kind_of
from siteward.settings import load_settings
from siteward.sinks import Batch

JOB = kind_of(Job)
SIZE: Final = 5_000
"""Records of one request where requests follow one another."""


class Way(msgspec.Struct, frozen=True):
    """How a bare loop sends: so many requests at once, of so many records each."""

    at_once: int
    size: int

    def __str__(self) -> str:
        """As the figures name it."""
        requests = "one request" if self.at_once == 1 else f"{self.at_once} requests"
        return f"{requests} of {self.size:,} at a time"


WAYS: Final = (Way(1, SIZE), Way(IN_FLIGHT, MOST_RECORDS))
"""The plain one, and that of our own store; the faster one is the machine's limit."""


def batches(first: int, count: int, size: int = SIZE) -> Iterator[Batch]:
    """Validated jobs, as a collector has them in hand."""
    now = time.time_ns() // 1000
    for start in range(first, first + count, size):
        rows = [JOB.row_of(job(number), now) for number in range(start, min(start + size, first + count))]
        columns = {name: [getattr(row, name) for row in rows] for name in JOB.names}
        messages = [start.to_bytes(16, "big")] * len(rows)
        yield Batch(JOB, [JOB.id_of(row) for row in rows], columns, ["bench@host"] * len(rows), messages, now)


def prepare(url: str, prefix: str, folder: Path) -> None:
    """Put our own templates there, so that every figure is of the same documents in the same kind of index."""
    settings = load_settings(environ={"SITEWARD_DATA": str(folder), "SITEWARD_MONITORING__PREFIX": prefix})
    open_store(url, settings, load_kinds()).close()


def bare_loop(url: str, prefix: str, count: int, way: Way) -> float:
    """Records per second of prebuilt bodies, ids included, over as many connections as requests are sent at once."""
    bodies = [lines_of(placed(batch, prefix).actions, documents_of(batch)) for batch in batches(0, count, way.size)]
    address = urlsplit(url)

    def send(body: bytes) -> None:
        answer = pool.request(
            "POST",
            "/_bulk?filter_path=errors,items.*.status,items.*.error",
            body=body,
            headers={"content-type": "application/x-ndjson"},
        )
        if b'"errors":false' not in answer.data:
            raise RuntimeError(answer.data[:500])

    with (
        urllib3.HTTPConnectionPool(str(address.hostname), address.port, maxsize=way.at_once) as pool,
        ThreadPoolExecutor(way.at_once) as senders,
    ):
        began = time.perf_counter()
        for _ in senders.map(send, bodies):
            pass
        return count / (time.perf_counter() - began)


def streaming_bulk(url: str, prefix: str, first: int, count: int) -> float:
    """Records per second of opensearch-py's own helper, given the same records as dictionaries."""
    actions = [action for batch in batches(first, count) for action in _actions(batch, prefix)]
    address = urlsplit(url)
    client = OpenSearch([{"host": address.hostname, "port": address.port}])
    try:
        began = time.perf_counter()
        done = sum(1 for is_good, _ in helpers.streaming_bulk(client, actions, chunk_size=SIZE) if is_good)
        seconds = time.perf_counter() - began
    finally:
        client.close()
    assert done == count
    return count / seconds


def _actions(batch: Batch, prefix: str) -> Sequence[dict[str, Any]]:
    encoded = lines_of(placed(batch, prefix).actions, documents_of(batch)).splitlines()
    decode = msgspec.json.decode
    made = []
    for action, source in zip(encoded[::2], encoded[1::2], strict=True):
        ((operation, where),) = decode(action).items()
        made.append({"_op_type": operation, **where, "_source": decode(source)})
    return made
