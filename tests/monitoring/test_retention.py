"""Retention's promises: each kind is kept as long as it says, and the periodic task and the sink are in place."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from examples import JOB, NOON, batch_of, job_rows

from monitoring import retention
from monitoring.retention import forget_expired
from monitoring.sink import open_sink
from monitoring.stores.duckdb.store import DuckStore
from siteward.kinds import load_kinds
from siteward.records import kind_from_table, microseconds
from siteward.server.resources import Resources
from siteward.server.schedule import Task
from siteward.settings import MonitoringSettings, Settings
from siteward.sinks import Outcome


class Remembering:
    """A store that only notes what it is told to forget."""

    def __init__(self) -> None:
        self.told: list[tuple[str, datetime]] = []

    def forget(self, kind: str, before: datetime) -> int:
        self.told.append((kind, before))
        return 0


def test_a_kind_without_retention_is_kept_for_ever() -> None:
    """Only kinds that declare a retention are asked to forget, each from its own instant."""
    forever = kind_from_table("forever", {"doc": "Any.", "shape": "event"})
    brief = kind_from_table("brief", {"doc": "Any.", "shape": "event", "retention_days": 2})
    store = Remembering()
    assert forget_expired(store, {"forever": forever, "brief": brief}, NOON) == {}
    assert store.told == [("brief", NOON - timedelta(days=2))]


def test_expired_records_are_gone_and_counted(tmp_path: Path) -> None:
    """Records older than their retention are forgotten to the second; the others stay."""
    store = DuckStore(tmp_path / "store.duckdb", MonitoringSettings(), {"job": JOB})
    store.write(batch_of(JOB, job_rows(10), received=microseconds(NOON)))
    assert JOB.retention is not None
    now = NOON + timedelta(seconds=3) + JOB.retention
    assert forget_expired(store, {"job": JOB}, now) == {"job": 3}
    assert len(store.records("job")) == 7
    store.close()


def test_the_task_is_a_task() -> None:
    """`monitoring.retention:task` is what the scheduler expects, once an hour."""
    assert isinstance(retention.task, Task)
    assert (retention.task.name, retention.task.every) == ("retention", 3600.0)


def test_what_was_forgotten_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the audit, as the system's doing, where there was anything."""
    found = iter([{"job": 3}, {}])
    monkeypatch.setattr(retention, "forget_expired", lambda *_: next(found))
    with closing(Resources(Settings(data=str(tmp_path)), {"job": JOB})) as resources:
        retention.task.run(resources)
        retention.task.run(resources)
        (noted,) = resources.audit.find()
    assert (noted.subject, noted.action, noted.after) == ("system", "task retention", {"job": 3})


def test_the_sink_writes_into_the_store_of_the_settings(tmp_path: Path) -> None:
    """Batches given to the sink are in the monitoring store, and closing it frees the file."""
    settings = Settings(data=str(tmp_path))
    for expected in (Outcome.STORED, Outcome.DUPLICATE):
        sink = open_sink(settings, load_kinds())
        assert set(sink.write(batch_of(JOB, job_rows(5))).outcomes) == {expected}
        sink.close()
    assert (tmp_path / "monitoring.duckdb").exists()
