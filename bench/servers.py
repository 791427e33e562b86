"""The section about real servers: private nodes as the tests start them, each measurement with its limits beside it."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec
import urllib3

from bench import bulk, engines
from bench.engines import Engines

if TYPE_CHECKING:
    from opensearch_server import Node
    from rabbitmq_server import RabbitNode

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
VERSION: Final = "3.3.2"
TITLE: Final = "## Emit → RabbitMQ (quorum queue, confirmed) → collectors → OpenSearch"


class EngineSize(msgspec.Struct):
    """How much is measured."""

    stored: int
    collectors: tuple[int, ...]
    confirmed: int
    backlog: int
    latency_seconds: int


ENGINE_SIZES: Final = {
    "full": EngineSize(600_000, (1, 2, 4), 4_000_000, 1_000_000, 30),
    "short": EngineSize(60_000, (1,), 400_000, 60_000, 5),
}


def report(size: EngineSize) -> Iterator[str]:
    """Measure; the lines of the section, or why there are none."""
    try:
        yield from _measured(size)
    except BaseException as error:
        # The tests' word for a server that is not on this machine; what was measured before is to be written down.
        if type(error).__name__ not in {"Skipped", "Failed"}:
            raise
        yield f"\nNot measured: {error}"


def _measured(size: EngineSize) -> Iterator[str]:
    yield f"\n{TITLE} {VERSION}\n"
    yield f"Made by `make bench ARGS=engines`, or as the end of `make bench`, on {datetime.now(UTC):%Y-%m-%d}."
    yield "All share the machine. Every figure is of the same documents in the same kind of index, none repeated.\n"
    with ExitStack() as stack:
        rabbit, node = stack.enter_context(_nodes())
        yield "| what | records/s | of the bare loop | asked |\n|---|---|---|---|"
        yield from _throughput(rabbit, node, size)
        yield "\n| what | figure | asked |\n|---|---|---|"
        for records in (5_000, 500):
            with _fresh(rabbit, node) as fresh:
                rate = engines.confirmed(fresh, size.confirmed, records)
            asked = "at least 250,000 records/s" if records == 5_000 else ""
            yield f"| confirmed publishing, {records:,} records per envelope | {rate:,.0f} records/s | {asked} |"
        with _fresh(rabbit, node) as fresh:
            drained = engines.backlog(fresh, size.backlog)
        yield f"| backlog of {size.backlog:,}, one collector drains | {drained.rate:,.0f} records/s | |"
        yield f"| … its memory, peak | {drained.collector_megabytes:.0f} MB | under 300 MB |"
        yield f"| … the emitter's memory, peak | {drained.emitter_megabytes:.0f} MB | under 300 MB |"
        with _fresh(rabbit, node) as fresh:
            delays = engines.seconds_to_visible(fresh, 1000, size.latency_seconds)
        yield f"| from emit() to visible at 1,000 records/s, median | {delays[len(delays) // 2]:.2f} s | |"
        yield f"| … 99th percentile | {delays[len(delays) * 99 // 100]:.2f} s | at most 3 s |"


def _throughput(rabbit: RabbitNode, node: Node, size: EngineSize) -> Iterator[str]:
    _bare(rabbit, node, size.stored // 2)  # The server compiles what it runs often; that is not measured.
    before = _bare(rabbit, node, size.stored)
    rates = {}
    for count in size.collectors:
        with _fresh(rabbit, node) as fresh:
            rates[count] = engines.through(fresh, size.stored, count).rate
    after = _bare(rabbit, node, size.stored)
    with _fresh(rabbit, node) as fresh:
        bulk.prepare(fresh.store, fresh.prefix, fresh.folder)
        helper = bulk.streaming_bulk(fresh.store, fresh.prefix, 0, size.stored // 2)
    bare = (before + after) / 2
    yield f"| bare `_bulk` loop, prebuilt bodies and ids, before and after | {before:,.0f}, {after:,.0f} | 1 | |"
    yield f"| opensearch-py `streaming_bulk`, prebuilt dictionaries | {helper:,.0f} | {helper / bare:.2f} | |"
    for count, rate in rates.items():
        asked = "at least 0.6 (aim 0.8), and `streaming_bulk`" if count == 1 else ""
        name = "one collector" if count == 1 else f"{count} collectors"
        yield f"| the whole path, {name} | {rate:,.0f} | {rate / bare:.2f} | {asked} |"


def _bare(rabbit: RabbitNode, node: Node, count: int) -> float:
    with _fresh(rabbit, node) as fresh:
        bulk.prepare(fresh.store, fresh.prefix, fresh.folder)
        return bulk.bare_loop(fresh.store, fresh.prefix, 0, count)


@contextmanager
def _nodes() -> Iterator[tuple[RabbitNode, Node]]:
    """Running servers of our own."""
    from opensearch_server import Node  # noqa: PLC0415  # beside the tests.
    from rabbitmq_server import RabbitNode  # noqa: PLC0415  # as above.

    with ExitStack() as stack:
        rabbit = RabbitNode()
        stack.callback(rabbit.remove)
        rabbit.start()
        node = Node(VERSION)
        stack.callback(node.remove)
        node.start()
        yield rabbit, node


@contextmanager
def _fresh(rabbit: RabbitNode, node: Node) -> Iterator[Engines]:
    """An empty place on both; gone at the end, so that its merges disturb no later measurement."""
    from rabbitmq_server import Vhost  # noqa: PLC0415  # beside the tests.

    vhost, prefix = Vhost(rabbit), f"bench-{uuid4().hex[:8]}"
    try:
        with tempfile.TemporaryDirectory(prefix="siteward-bench-") as folder:
            yield Engines(vhost.url, f"http://127.0.0.1:{rabbit.management}", node.url, prefix, Path(folder))
    finally:
        vhost.remove()
        with urllib3.HTTPConnectionPool("127.0.0.1", node.port) as pool:
            names = msgspec.json.decode(pool.request("GET", f"/{prefix}-*/_settings/index.uuid").data)
            for name in names:
                pool.request("DELETE", f"/{name}")
        time.sleep(2)
