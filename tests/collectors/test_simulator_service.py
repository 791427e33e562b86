"""The demonstration's simulator: its history once, then live, going on where it was after any stop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from collectors.simulator import service
from collectors.simulator.load import DAY, HOUR
from collectors.simulator.service import demo_faults, demo_grid, simulate
from collectors.simulator.timeline import Simulation
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.records import Record, Refused, kind_of, microseconds

LIVE_SPACE_SECONDS = service.LIVE_SPACE_SECONDS
"""As it is outside the tests."""


class Gathered:
    """Stands for the Emitter: keeps what is emitted, and calls back at each record."""

    def __init__(self, each: Callable[[Record], None] = lambda _: None, *, confirms: bool = True) -> None:
        self.records: list[Record] = []
        self.flushes = 0
        self._each = each
        self._confirms = confirms

    def emit(self, record: Record) -> Refused | None:
        self.records.append(record)
        self._each(record)
        return None

    def flush(self, timeout: float) -> bool:
        assert timeout > 0
        self.flushes += 1
        return self._confirms

    def ids(self) -> list[bytes]:
        """Ids of the records whose kind has an identity."""
        now = time.time_ns() // 1000
        kinds = [(kind_of(type(record)), record) for record in self.records]
        return [kind.id_of(kind.row_of(record, now)) for kind, record in kinds if kind.identity]


@pytest.fixture(autouse=True)
def short_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days instead of thirty, and live storages every second, keep the tests quick."""
    monkeypatch.setattr(service, "HISTORY", 3 * DAY)
    monkeypatch.setattr(service, "LIVE_SPACE_SECONDS", 1)


def stop_when_live(stop: threading.Event) -> Callable[[Record], None]:
    """Set the event at the first record that is sent as time passes."""
    began = time.time_ns() // 1000

    def each(record: Record) -> None:
        if isinstance(record, StorageOccupancy) and microseconds(record.time) > began:
            stop.set()

    return each


def test_history_then_live(tmp_path: Path) -> None:
    """The first start sends the history, notes how far it came, leaves the labels, and goes on live until stopped."""
    stop = threading.Event()
    emitter = Gathered(stop_when_live(stop))
    simulate(tmp_path, emitter, stop)
    ids = emitter.ids()
    assert len(ids) == len(set(ids)) > 4000
    assert all(record.simulated for record in emitter.records)
    progress = json.loads((tmp_path / "simulator.json").read_text())
    assert progress["anchor"] <= progress["until"] <= time.time_ns() // 1000
    assert len((tmp_path / "simulator-faults.jsonl").read_text().splitlines()) == 10


def test_next_start_goes_on(tmp_path: Path) -> None:
    """A second start sends nothing of the history again, and its faults are where they were."""
    stop = threading.Event()
    simulate(tmp_path, Gathered(stop_when_live(stop)), stop)
    faults = (tmp_path / "simulator-faults.jsonl").read_bytes()
    stop = threading.Event()
    emitter = Gathered(stop_when_live(stop))
    simulate(tmp_path, emitter, stop)
    assert len(emitter.records) < 500
    assert (tmp_path / "simulator-faults.jsonl").read_bytes() == faults


def test_interrupted_history(tmp_path: Path) -> None:
    """A start that ended in the middle of the history is continued with the same faults and ids."""
    stop = threading.Event()
    first = Gathered(lambda _: stop.set() if len(first.records) == 3000 else None)
    simulate(tmp_path, first, stop)
    assert len(first.records) < 4000
    anchor = json.loads((tmp_path / "simulator.json").read_text())["anchor"]
    stop = threading.Event()
    second = Gathered(stop_when_live(stop))
    simulate(tmp_path, second, stop)
    history = Simulation(demo_grid(), demo_faults(demo_grid(), anchor), service.HISTORY_SPACE_SECONDS)
    whole = Gathered()
    for emission in history.between(anchor - 3 * DAY, anchor):
        whole.emit(emission.record)
    assert set(whole.ids()) <= {*first.ids(), *second.ids()}
    assert len(first.records) + len(second.records) < 1.6 * len(whole.records) + 500


def test_unconfirmed_records_move_no_checkpoint(tmp_path: Path) -> None:
    """While the broker confirms nothing, the checkpoint stays, so that nothing is believed to be stored."""
    stop = threading.Event()
    emitter = Gathered(stop_when_live(stop), confirms=False)
    simulate(tmp_path, emitter, stop)
    assert emitter.flushes > 0
    progress = json.loads((tmp_path / "simulator.json").read_text())
    assert progress["until"] == progress["anchor"] - 3 * DAY


def test_long_pause(tmp_path: Path) -> None:
    """After a pause longer than the history, only the history's length is made up for."""
    now = time.time_ns() // 1000
    (tmp_path / "simulator.json").write_text(json.dumps({"anchor": now - 90 * DAY, "until": now - 80 * DAY}))
    stop = threading.Event()
    emitter = Gathered(stop_when_live(stop))
    simulate(tmp_path, emitter, stop)
    times = [microseconds(record.time) for record in emitter.records if isinstance(record, StorageOccupancy)]
    assert min(times) >= now - 3 * DAY - HOUR


def test_size_of_the_demonstration() -> None:
    """Thirty days of history are 60,000 to 100,000 records, and live there are 5 to 20 in a second."""
    grid = demo_grid()
    start = time.time_ns() // 1000 // HOUR * HOUR
    days = sum(1 for _ in Simulation(grid, [], service.HISTORY_SPACE_SECONDS).between(start - 10 * DAY, start))
    assert 60_000 < 3 * days < 100_000
    live = sum(1 for _ in Simulation(grid, [], LIVE_SPACE_SECONDS).between(start, start + HOUR // 6))
    assert 5 <= live / 600 <= 20
