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
from bench.asked import Asked
from bench.engines import Engines

if TYPE_CHECKING:
    from opensearch_server import Node
    from rabbitmq_server import RabbitNode

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
VERSION: Final = "3.3.2"
LEAST_SHARE: Final = 0.6
"""Of the faster bare loop, for the whole path with one collector."""
LEAST_CONFIRMED: Final = 250_000
"""Records per second that are published and confirmed."""
MOST_MEGABYTES: Final = 300
"""Memory of each process that a backlog passes through; this is too much."""
MOST_SECONDS: Final = 3
"""Until all but one of a hundred records can be found."""
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


class Speeds(msgspec.Struct, frozen=True):
    """Records per second: of each bare loop before and after the path, of opensearch-py's helper, by collectors."""

    bare: dict[bulk.Way, tuple[float, float]]
    helper: float
    path: dict[int, float]


def report(size: EngineSize, asked: Asked) -> Iterator[str]:
    """Measure; the lines of the section, or why there are none."""
    try:
        yield from _measured(size, asked)
    except BaseException as error:
        # The tests' words for a server that is not on this machine; what was measured before is to be written down.
        if type(error).__name__ not in {"Skipped", "Failed"}:
            raise
        # At home it is left out. CI may not go without, as tests/servers.py says.
        if type(error).__name__ == "Failed":
            asked.lack(str(error))
        yield f"\nNot measured: {error}"


def _measured(size: EngineSize, asked: Asked) -> Iterator[str]:
    yield f"\n{TITLE} {VERSION}\n"
    yield f"Made by `make bench ARGS=engines`, or as the end of `make bench`, on {datetime.now(UTC):%Y-%m-%d}."
    yield "All share the machine. Every figure is of the same documents in the same kind of index, none repeated.\n"
    with ExitStack() as stack:
        rabbit, node = stack.enter_context(_nodes())
        yield "| what | records/s | of the faster bare loop | asked |\n|---|---|---|---|"
        yield from speed_lines(_speeds(rabbit, node, size), asked)
        yield "\n| what | figure | asked |\n|---|---|---|"
        for records in (5_000, 500):
            with _fresh(rabbit, node) as fresh:
                rate = engines.confirmed(fresh, size.confirmed, records)
            cell = confirmed_asked(rate, asked) if records == 5_000 else ""
            yield f"| confirmed publishing, {records:,} records per envelope | {rate:,.0f} records/s | {cell} |"
        with _fresh(rabbit, node) as fresh:
            drained = engines.backlog(fresh, size.backlog)
        yield f"| backlog of {size.backlog:,}, one collector drains | {drained.rate:,.0f} records/s | |"
        for what, megabytes in (
            ("its memory, peak", drained.collector_megabytes),
            ("the emitter's memory, peak", drained.emitter_megabytes),
        ):
            yield f"| … {what} | {megabytes:.0f} MB | {memory_asked(what, megabytes, asked)} |"
        with _fresh(rabbit, node) as fresh:
            delays = engines.seconds_to_visible(fresh, 1000, size.latency_seconds)
        yield f"| from emit() to visible at 1,000 records/s, median | {delays[len(delays) // 2]:.2f} s | |"
        late = delays[len(delays) * 99 // 100]
        yield f"| … 99th percentile | {late:.2f} s | {visible_asked(late, asked)} |"


def _speeds(rabbit: RabbitNode, node: Node, size: EngineSize) -> Speeds:
    _bare(rabbit, node, size.stored // 2, bulk.WAYS[0])  # The server compiles what it runs often; that is not measured.
    before = {way: _bare(rabbit, node, size.stored, way) for way in bulk.WAYS}
    path = {}
    for count in size.collectors:
        with _fresh(rabbit, node) as fresh:
            path[count] = engines.through(fresh, size.stored, count).rate
    bare = {way: (before[way], _bare(rabbit, node, size.stored, way)) for way in bulk.WAYS}
    with _fresh(rabbit, node) as fresh:
        bulk.prepare(fresh.store, fresh.prefix, fresh.folder)
        helper = bulk.streaming_bulk(fresh.store, fresh.prefix, 0, size.stored // 2)
    return Speeds(bare, helper, path)


def speed_lines(speeds: Speeds, asked: Asked) -> Iterator[str]:
    """Rows of the table; every share is of the faster bare loop, which is what this machine can do."""
    means = {way: sum(both) / 2 for way, both in speeds.bare.items()}
    fastest = max(means.values())
    yield "| bare `_bulk` loops, prebuilt bodies and ids, before and after: | | | |"
    for way, (before, after) in speeds.bare.items():
        yield f"| … {way} | {before:,.0f}, {after:,.0f} | {means[way] / fastest:.2f} | |"
    helper = speeds.helper
    yield f"| opensearch-py `streaming_bulk`, prebuilt dictionaries | {helper:,.0f} | {helper / fastest:.2f} | |"
    for count, rate in speeds.path.items():
        what, cell = f"the whole path, {count} collectors", ""
        if count == 1:
            what = "the whole path, one collector"
            met = rate >= LEAST_SHARE * fastest and rate >= helper
            cell = asked.judge(what, f"at least {LEAST_SHARE} (aim 0.8), and `streaming_bulk`", met=met)
        yield f"| {what} | {rate:,.0f} | {rate / fastest:.2f} | {cell} |"


def confirmed_asked(rate: float, asked: Asked) -> str:
    """What is asked of confirmed publishing, in envelopes of the emitter's size."""
    return asked.judge("confirmed publishing", f"at least {LEAST_CONFIRMED:,} records/s", met=rate >= LEAST_CONFIRMED)


def memory_asked(what: str, megabytes: float, asked: Asked) -> str:
    """What is asked of the processes that a backlog passes through."""
    return asked.judge(f"backlog, {what}", f"under {MOST_MEGABYTES} MB", met=megabytes < MOST_MEGABYTES)


def visible_asked(seconds: float, asked: Asked) -> str:
    """What is asked of the time until nearly every record can be found."""
    return asked.judge("visible, 99th percentile", f"at most {MOST_SECONDS} s", met=seconds <= MOST_SECONDS)


def _bare(rabbit: RabbitNode, node: Node, count: int, way: bulk.Way) -> float:
    with _fresh(rabbit, node) as fresh:
        bulk.prepare(fresh.store, fresh.prefix, fresh.folder)
        return bulk.bare_loop(fresh.store, fresh.prefix, count, way)


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
