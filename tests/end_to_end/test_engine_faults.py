"""RabbitMQ and OpenSearch disturbed in every way, under load: each record stored exactly once, nobody held up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_grid import Grid, eventually
from opensearch_server import Node, Place
from rabbitmq_server import RabbitNode, Vhost
from urllib3 import HTTPConnectionPool

from collectors.database import database_path
from collectors.dead_letters import DeadLetters, Which
from siteward.emit import Emitter
from siteward.kinds import load_kinds
from siteward.settings import Settings

pytestmark = pytest.mark.filterwarnings("error")
VERSION = "3.3.2"
SHORT, LONG = 5.0, 60.0
"""Seconds that an outage lasts, in CI and in `make soak`."""


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitNode]:
    """A node that the tests of this module may stop."""
    node = RabbitNode()
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node that the tests of this module may stop; it answers 429 when a few write at once."""
    opened = Node(VERSION, {"thread_pool.write.size": 1, "thread_pool.write.queue_size": 2})
    try:
        opened.start()
        yield opened
    finally:
        opened.remove()


@pytest.fixture
def grid(tmp_path: Path, rabbit: RabbitNode, node: Node) -> Iterator[Grid]:
    """An installation between the two."""
    vhost, place = Vhost(rabbit), Place(node)
    opened = Grid(tmp_path, rabbit, vhost, node, place)
    try:
        yield opened
    finally:
        opened.end()
        place.close()
        vhost.remove()


def stop_broker(grid: Grid, seconds: float) -> None:
    """The broker goes away and comes back."""
    grid.rabbit.stop()
    time.sleep(seconds)
    assert grid.has_spooled()
    grid.rabbit.start()


def kill_broker(grid: Grid, seconds: float) -> None:
    """The broker dies without a word."""
    grid.rabbit.kill()
    time.sleep(seconds)
    assert grid.has_spooled()
    grid.rabbit.start()


def fill_disk(grid: Grid, seconds: float) -> None:
    """The broker believes its disk to be full, and blocks whoever publishes."""
    grid.rabbit.ctl("set_disk_free_limit", "900000GB")
    time.sleep(seconds)
    assert grid.has_spooled()
    grid.rabbit.ctl("set_disk_free_limit", "50MB")


def cut_connections(grid: Grid, seconds: float) -> None:
    """All connections are cut, again and again, while messages are published and consumed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        grid.rabbit.ctl("close_all_connections", "cut by the test")
        time.sleep(random.uniform(0.1, 1.0))


def restart_store(grid: Grid, seconds: float) -> None:
    """OpenSearch is stopped and comes back with its data."""
    grid.node.stop()
    time.sleep(seconds)
    grid.node.start()


def crowd_store(grid: Grid, seconds: float) -> None:
    """So many others write that OpenSearch answers 429."""
    lines = '{"index":{}}\n{"text":"others"}\n' * 3_000
    until, refused = time.monotonic() + seconds, 0

    def write() -> None:
        nonlocal refused
        with HTTPConnectionPool("127.0.0.1", grid.node.port) as pool:
            while time.monotonic() < until:
                answer = pool.request(
                    "POST",
                    f"/{grid.place.prefix}-others/_bulk?filter_path=items.*.status",
                    body=lines,
                    headers={"content-type": "application/x-ndjson"},
                )
                refused += answer.data.count(b"429")

    others = [threading.Thread(target=write) for _ in range(8)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    grid.place.ask("DELETE", f"/{grid.place.prefix}-others")
    assert refused > 0, "OpenSearch was not crowded"


def block_writes(block: str) -> Callable[[Grid, float], None]:
    """Every index becomes read-only, as an operator or the disk watermark makes it."""

    def blocked(grid: Grid, seconds: float) -> None:
        path = f"/{grid.place.prefix}-*/_settings"
        grid.place.ask("PUT", path, {f"index.blocks.{block}": True})
        time.sleep(seconds / 2)
        reached = grid.indexed()
        time.sleep(seconds / 2)
        assert grid.indexed() == reached, "the indices were not read-only"
        grid.place.ask("PUT", path, {f"index.blocks.{block}": None})

    return blocked


FAULTS: dict[str, Callable[[Grid, float], None]] = {
    "broker stopped": stop_broker,
    "broker killed": kill_broker,
    "broker's disk full": fill_disk,
    "connections cut": cut_connections,
    "store restarted": restart_store,
    "store answers 429": crowd_store,
    "indices read-only": block_writes("write"),
    "flood-stage watermark": block_writes("read_only_allow_delete"),
}


def _survives(grid: Grid, fault: str, seconds: float) -> None:
    grid.start()
    FAULTS[fault](grid, seconds)
    grid.progress()
    counted = grid.finish()
    print(f"{fault} for {seconds:.0f} s: {counted}")
    counted.check()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_delays_and_loses_nothing(grid: Grid, fault: str) -> None:
    """Whatever is disturbed for a few seconds: every record is stored once, and emit() never waits."""
    _survives(grid, fault, SHORT)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_a_long_fault_delays_and_loses_nothing(grid: Grid, fault: str) -> None:
    """The same for a minute."""
    _survives(grid, fault, LONG)


def _killed(grid: Grid, kills: int, collectors: int) -> None:
    chance = random.Random(kills)
    grid.start(collectors)
    for _ in range(kills):
        time.sleep(chance.uniform(0.1, 2.0))
        grid.kill_collector(chance.randrange(collectors))
    grid.progress()
    counted = grid.finish()
    print(f"{collectors} collectors on one queue, {grid.kills} kills: {counted}")
    counted.check()
    assert grid.kills == kills


@pytest.mark.parametrize("collectors", [1, 2])
def test_killed_collectors_lose_nothing(grid: Grid, collectors: int) -> None:
    """One collector, or one of two on one queue, killed at random ten times."""
    _killed(grid, 10, collectors)


@pytest.mark.soak
@pytest.mark.parametrize("collectors", [1, 2])
def test_collectors_killed_a_hundred_times_lose_nothing(grid: Grid, collectors: int) -> None:
    """The same a hundred times; no envelope comes near its delivery limit."""
    _killed(grid, 100, collectors)


NOTED = """
[kinds.noted]
doc = "Anything with a long text."
shape = "event"
identity = ["number"]
[kinds.noted.dimensions.number]
doc = "its number"
type = "integer"
[kinds.noted.dimensions.text]
doc = "a text"
max_length = 60000
"""


def test_one_poison_record_in_a_bulk_of_five_thousand(grid: Grid, tmp_path: Path) -> None:
    """OpenSearch refuses one text; it is in the dead letters with OpenSearch's reason, all others are stored."""
    toml = tmp_path / "siteward.toml"
    toml.write_text(NOTED)
    environ = grid.environ
    grid.environ = lambda name: environ(name) | {"SITEWARD_CONFIG": str(toml)}  # type: ignore[method-assign]  # for this test.
    grid.add_collector()
    settings = grid.settings("test")
    kinds = load_kinds(settings.kinds)
    noted = kinds["noted"]
    now = time.time_ns() // 1000
    with Emitter(settings) as emitter:
        for number in range(5_000):
            text = "x" * (40_000 if number == 2_500 else 10)
            values = {"vo": "example", "time": now, "number": number, "text": text}
            row = noted.checked([values.get(name, noted.column[name].default) for name in noted.names], now)
            assert emitter.emit_row(noted, row) is None
    collector = Settings(data=grid.environ("collector-0")["SITEWARD_DATA"])
    eventually(lambda: database_path(collector).exists(), "the collector")
    with DeadLetters(database_path(collector)) as letters:
        eventually(lambda: letters.count() > 0, "the dead letter")
        (letter,) = letters.find(Which(kind="noted"))
    assert letter.field == "text"
    assert "32766" in letter.reason, letter.reason
    eventually(lambda: grid.indexed() >= 4_999, "all others")
    grid.place.refresh()
    assert grid.place.ask("GET", f"/{grid.place.prefix}-noted-*/_count")["count"] == 4_999
    print(f"one poison record in 5,000: 4,999 stored, 1 dead letter: {letter.reason[:120]}")
