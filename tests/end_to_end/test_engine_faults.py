"""RabbitMQ and OpenSearch disturbed in every way, under load: each record stored exactly once, nobody held up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from engine_grid import Grid, eventually
from opensearch_server import Node, Place
from rabbitmq_server import RabbitNode, Vhost
from urllib3 import HTTPConnectionPool

from collectors.database import database_path
from collectors.dead_letters import DeadLetters, Which
from monitoring.stores.opensearch import open_store
from siteward.kinds import load_kinds
from siteward.records import moment
from siteward.settings import Settings
from siteward.telemetry import OPENSEARCH_RETRIED, REDELIVERED

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


Tell = Callable[[str], None]
Fault = Callable[[Grid, float], str]
"""Disturbs a grid for some seconds, and says in words what that has done, beyond what is counted anyway."""


def stop_broker(grid: Grid, seconds: float) -> str:
    """The broker goes away and comes back."""
    grid.rabbit.stop()
    time.sleep(seconds)
    assert grid.has_spooled
    grid.rabbit.start()
    return ""


def kill_broker(grid: Grid, seconds: float) -> str:
    """The broker dies without a word."""
    grid.rabbit.kill()
    time.sleep(seconds)
    assert grid.has_spooled
    grid.rabbit.start()
    return ""


def fill_disk(grid: Grid, seconds: float) -> str:
    """The broker believes its disk to be full, and blocks whoever publishes."""
    grid.rabbit.ctl("set_disk_free_limit", "900000GB")
    time.sleep(seconds)
    assert grid.has_spooled
    grid.rabbit.ctl("set_disk_free_limit", "50MB")
    return ""


def cut_connections(grid: Grid, seconds: float) -> str:
    """Publisher and consumer are cut, again and again, whenever both are there, until messages came a second time."""
    until, rounds, closed = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until or grid.counted(REDELIVERED) == 0:
        assert time.monotonic() < until + LONG, "no collector was cut off from what it held"
        time.sleep(random.uniform(0.1, 1.0))
        eventually(lambda: {"publisher", "consumer"} <= set(connections(grid).values()), "who could be cut")
        cut = [close_connection(grid, name) for name in connections(grid)]
        assert any(cut), "nobody was cut"
        rounds, closed = rounds + 1, closed + sum(cut)
    again = grid.counted(REDELIVERED)
    return f", {closed} connections cut in {rounds} rounds, {again:.0f} messages delivered again"


def connections(grid: Grid) -> dict[str, str]:
    """Those to the grid's virtual host: RabbitMQ's name, and the second word of what they call themselves."""
    found = grid.rabbit.api("GET", f"vhosts/{grid.vhost.path}/connections")
    return {each["name"]: each.get("user_provided_name", "? ?").split()[1] for each in found}


def close_connection(grid: Grid, name: str) -> bool:
    """Whether it was still there to be cut."""
    try:
        grid.rabbit.api("DELETE", f"connections/{quote(name, safe='')}")
    except HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return False
    return True


def restart_store(grid: Grid, seconds: float) -> str:
    """OpenSearch is stopped and comes back with its data."""
    grid.node.stop()
    time.sleep(seconds)
    grid.node.start()
    again = grid.counted(OPENSEARCH_RETRIED, "job")
    assert again > 0, "the collector has not missed it"
    return f", {again:,.0f} records were not taken and sent again"


def crowd_store(grid: Grid, seconds: float) -> str:
    """So many others write that OpenSearch answers 429, to them and to the collector."""
    lines = '{"index":{}}\n{"text":"others"}\n' * 3_000
    done, refused = threading.Event(), 0

    def write() -> None:
        nonlocal refused
        with HTTPConnectionPool("127.0.0.1", grid.node.port) as pool:
            while not done.is_set():
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
    try:
        time.sleep(seconds)
        eventually(lambda: grid.counted(OPENSEARCH_RETRIED, "job", "429") > 0, "a collector that meets 429", LONG)
    finally:
        done.set()
        for thread in others:
            thread.join()
    grid.place.ask("DELETE", f"/{grid.place.prefix}-others")
    assert refused > 0, "OpenSearch was not crowded"
    return f", {grid.counted(OPENSEARCH_RETRIED, 'job', '429'):,.0f} records were refused with 429 and sent again"


def block_writes(block: str) -> Fault:
    """Every index becomes read-only, as an operator or the disk watermark makes it."""

    def blocked(grid: Grid, seconds: float) -> str:
        path = f"/{grid.place.prefix}-*/_settings"
        grid.place.ask("PUT", path, {f"index.blocks.{block}": True})
        time.sleep(seconds / 2)
        reached = grid.indexed()
        time.sleep(seconds / 2)
        assert grid.indexed() == reached, "the indices were not read-only"
        again = grid.counted(OPENSEARCH_RETRIED, "job")
        assert again > 0, "the collector has not met it"
        grid.place.ask("PUT", path, {f"index.blocks.{block}": None})
        return f", {again:,.0f} records were refused and sent again"

    return blocked


FAULTS: dict[str, Fault] = {
    "broker stopped": stop_broker,
    "broker killed": kill_broker,
    "broker's disk full": fill_disk,
    "connections cut": cut_connections,
    "store restarted": restart_store,
    "store answers 429": crowd_store,
    "indices read-only": block_writes("write"),
    "flood-stage watermark": block_writes("read_only_allow_delete"),
}


def _survives(grid: Grid, fault: str, seconds: float, tell: Tell) -> None:
    grid.start()
    effect = FAULTS[fault](grid, seconds)
    grid.progress()
    counted = grid.finish()
    tell(f"{fault} for {seconds:.0f} s{effect}: {counted}")
    counted.check()
    if grid.has_spooled:
        assert counted.told.spooled > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_delays_and_loses_nothing(grid: Grid, fault: str, tell_counts: Tell) -> None:
    """Whatever is disturbed for a few seconds: every record is stored once, and emit() never waits."""
    _survives(grid, fault, SHORT, tell_counts)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_a_long_fault_delays_and_loses_nothing(grid: Grid, fault: str, tell_counts: Tell) -> None:
    """The same for a minute."""
    _survives(grid, fault, LONG, tell_counts)


def _killed(grid: Grid, kills: int, collectors: int, tell: Tell) -> None:
    chance = random.Random(kills)
    grid.start(collectors)
    for _ in range(kills):
        time.sleep(chance.uniform(0.1, 2.0))
        grid.kill_collector(chance.randrange(collectors))
    grid.progress()
    counted = grid.finish()
    tell(f"{collectors} collectors on one queue, {grid.kills} kills: {counted}")
    counted.check()
    assert grid.kills == kills


@pytest.mark.parametrize("collectors", [1, 2])
def test_killed_collectors_lose_nothing(grid: Grid, collectors: int, tell_counts: Tell) -> None:
    """One collector, or one of two on one queue, killed at random ten times."""
    _killed(grid, 10, collectors, tell_counts)


@pytest.mark.soak
@pytest.mark.parametrize("collectors", [1, 2])
def test_collectors_killed_a_hundred_times_lose_nothing(grid: Grid, collectors: int, tell_counts: Tell) -> None:
    """The same a hundred times; no envelope comes near its delivery limit."""
    _killed(grid, 100, collectors, tell_counts)


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


POISON = 3_210
"""Number of the record whose text is longer than what OpenSearch takes, somewhere in the second request."""
NOTES = f"""
from examples import NOON
from siteward.kinds import load_kinds
from siteward.records import microseconds
noted = load_kinds(load_settings().kinds)["noted"]

def emit(emitter, number):
    text = "x" * (40_000 if number == {POISON} else 10)
    values = {{"vo": "example", "time": microseconds(NOON) + number * 1_000_000, "number": number, "text": text}}
    row = noted.checked([values.get(name, noted.column[name].default) for name in noted.names], time.time_ns() // 1000)
    return emitter.emit_row(noted, row)
"""


def test_one_poison_record_in_a_bulk_of_five_thousand(grid: Grid, tmp_path: Path, tell_counts: Tell) -> None:
    """A write of 5,000, sent in requests of 2,500: the one is a dead letter with its reason, others are stored once."""
    toml = tmp_path / "siteward.toml"
    toml.write_text(NOTED)
    environ = grid.environ
    more = {"SITEWARD_CONFIG": str(toml), "SITEWARD_COLLECTOR__BATCH_AGE": "3"}
    grid.environ = lambda name: environ(name) | more  # type: ignore[method-assign]  # for this test.
    grid.emit(NOTES, 5_000)
    told = grid.settle()
    grid.add_collector()
    collector = Settings(data=grid.environ("collector-0")["SITEWARD_DATA"])
    eventually(lambda: database_path(collector).exists(), "the collector")
    with DeadLetters(database_path(collector)) as letters:
        eventually(lambda: letters.count() > 0, "the dead letter")
        (letter,) = letters.find(Which(kind="noted"))
    assert letter.field == "text"
    assert "32766" in letter.reason, letter.reason
    eventually(lambda: grid.stored() >= 4_999, "all others")
    counted = grid.count(told, "noted", "number")
    tell_counts(f"one poison record in 5,000: {counted}; the dead letter says: {letter.reason[:120]}")
    counted.check(poison={POISON})
    settings = grid.settings("test")
    with closing(open_store(settings.monitoring_url, settings, load_kinds(settings.kinds))) as store:
        received = [each.received for each in store.records("noted", limit=5_000)]
    assert received == [moment(letter.first_seen)] * 4_999, "it was not one write"
