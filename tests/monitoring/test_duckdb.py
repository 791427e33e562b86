"""What is particular to DuckDB: tables that grow with their kinds, data on disk, a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from answers import EVENTS
from examples import JOB, NOON, batch_of, job_rows

from monitoring.stores import StoreError
from monitoring.stores.duckdb.arrow import MOST_RANGES, arrow_table, id_ranges
from monitoring.stores.duckdb.store import DuckStore
from monitoring.stores.duckdb.tables import TableMismatch
from siteward.query import Function, Query, Wanted
from siteward.records import Kind, kind_from_table, microseconds
from siteward.settings import MonitoringSettings
from siteward.sinks import Batch

ROOT = Path(__file__).parents[2]
LATE = NOON.replace(year=2027)


def declared(**changes: Any) -> Kind:
    """A kind with one dimension and one measure, and what a test adds."""
    table: dict[str, Any] = {
        "doc": "Anything.",
        "shape": "event",
        "identity": ["time", "name"],
        "dimensions": {"name": {"doc": "name"}},
        "measures": {"amount": {"doc": "amount", "unit": "B"}},
    }
    for part, fields in changes.items():
        table[part] = table[part] | fields
    return kind_from_table("a-kind", table)


def write(path: Path, kind: Kind, **fields: Any) -> None:
    """Write one record with a store of its own."""
    store = DuckStore(path, MonitoringSettings(), {kind.name: kind})
    record = {column.name: column.default for column in kind.columns} | fields
    record |= {"vo": "example", "time": microseconds(NOON)}
    columns = {name: [record[name]] for name in kind.names}
    identifier = str(fields["name"]).encode().rjust(16, b"\1")
    store.write(Batch(kind, [identifier], columns, ["test"], [b"\0" * 16], 0))
    store.close()


def stored(path: Path, kind: Kind) -> list[tuple[Any, ...]]:
    """The declared fields of all records, by name."""
    store = DuckStore(path, MonitoringSettings(), {kind.name: kind})
    names = [name for name in kind.names if name not in {"vo", "time", "simulated", "revision"}]
    found = sorted((tuple(r.fields[name] for name in names) for r in store.records(kind.name)), key=repr)
    store.close()
    return found


def test_a_field_that_a_kind_gains_is_added_with_its_default(tmp_path: Path) -> None:
    """Records stored before a field was declared have its default; those after have what they say."""
    path = tmp_path / "store.duckdb"
    write(path, declared(), name="old", amount=1)
    more = {"site": {"doc": "site", "optional": True}, "good": {"doc": "good", "type": "boolean", "optional": True}}
    grown = declared(dimensions=more)
    write(path, grown, name="new", amount=2, site="it's", good=True)
    assert stored(path, grown) == [("new", "it's", True, 2), ("old", "", None, 1)]


def test_a_field_that_a_kind_loses_stays_unread(tmp_path: Path) -> None:
    """A removed field stands in the way of nothing, and is there again if it is declared again."""
    path = tmp_path / "store.duckdb"
    wide = declared(measures={"size": {"doc": "size", "unit": "B"}})
    write(path, wide, name="a", amount=1, size=7)
    write(path, declared(), name="b", amount=2)
    assert stored(path, declared()) == [("a", 1), ("b", 2)]
    assert stored(path, wide) == [("a", 1, 7), ("b", 2, None)]


def test_a_field_that_changes_its_type_is_refused(tmp_path: Path) -> None:
    """A kind that contradicts its stored table is refused with kind, field, both types and the way out."""
    path = tmp_path / "store.duckdb"
    write(path, declared(), name="a", amount=1)
    changed = declared(measures={"amount": {"doc": "amount", "unit": "B", "type": "number"}})
    with pytest.raises(TableMismatch, match=r"'a-kind': field 'amount' is DOUBLE now, but BIGINT.*new name") as caught:
        DuckStore(path, MonitoringSettings(), {changed.name: changed})
    assert caught.value.permanent
    assert stored(path, declared()) == [("a", 1)], "nothing was changed and the file is free"


def test_kinds_that_would_share_a_table_are_refused(tmp_path: Path) -> None:
    """Two kinds whose names differ in - and _ only are refused before anything is written."""
    kinds = {name: kind_from_table(name, {"doc": "Any.", "shape": "event"}) for name in ("a-b", "a_b")}
    with pytest.raises(TableMismatch, match="'a-b' and 'a_b'"):
        DuckStore(tmp_path / "store.duckdb", MonitoringSettings(), kinds)


def test_names_of_sql_are_names_like_any_other(tmp_path: Path) -> None:
    """A kind and fields called as SQL's own words are stored and asked."""
    kind = kind_from_table(
        "select",
        {
            "doc": "Any.",
            "shape": "event",
            "dimensions": {"group": {"doc": "group"}, "order": {"doc": "order", "optional": True}},
            "measures": {"sum": {"doc": "sum", "unit": "1"}},
        },
    )
    write_like = {column.name: [column.default] for column in kind.columns}
    columns = write_like | {"vo": ["example"], "time": [microseconds(NOON)], "group": ["a"], "sum": [5]}
    store = DuckStore(tmp_path / "store.duckdb", MonitoringSettings(), {"select": kind})
    store.write(Batch(kind, [b"\1" * 16], columns, ["test"], [b"\0" * 16], 0))
    wanted = (Wanted(Function.SUM, "sum"),)
    answer = store.query(Query(kind="select", wanted=wanted, by=("group", "order"), start=NOON, end=LATE, top=3))
    assert [(row.group, row.values) for row in answer.rows] == [(("a", ""), (5,))]
    store.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """After close, which may come twice, every call is a StoreError."""
    store = DuckStore(tmp_path / "store.duckdb", MonitoringSettings(), {"job": JOB})
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.values("job", "site")


def test_id_ranges_leave_out_the_gaps() -> None:
    """Ranges hold every id, few of them however scattered, and nothing of the years between."""
    hour = 3600 * 1000
    times = [year * 365 * 24 * hour + second * 1000 for year in (30, 50, 56) for second in range(50)]
    ids = [time.to_bytes(6, "big") + bytes(10) for time in times]
    columns = {column.name: [column.default] * len(ids) for column in EVENTS.columns}
    columns |= {"vo": ["x"] * len(ids), "time": [0] * len(ids), "name": ["x"] * len(ids), "amount": [0] * len(ids)}
    table = arrow_table(Batch(EVENTS, ids, columns, ["x"] * len(ids), [b""] * len(ids), 0))
    ranges = id_ranges(table)
    assert len(ranges) == 3
    highs = [int.from_bytes(identifier[:8], "big") for identifier in ids]
    assert all(any(low <= high <= top for low, top in ranges) for high in highs)
    assert sum(top - low for low, top in ranges) < 3 * 60_000 << 16
    scattered = table.take(list(range(0, 150, 7)))
    assert len(id_ranges(scattered)) <= MOST_RANGES


KILLED = """
import os, sys
from pathlib import Path
from examples import JOB, batch_of, job_rows
from monitoring.stores.duckdb.store import DuckStore
from siteward.settings import MonitoringSettings
store = DuckStore(Path(sys.argv[1]), MonitoringSettings(), {"job": JOB})
store.write(batch_of(JOB, job_rows(500)))
os.kill(os.getpid(), 9)
"""
FULL = """
import resource, sys
from pathlib import Path
from examples import JOB, batch_of, job_rows
from monitoring.stores.duckdb.store import DuckStore
from siteward.settings import MonitoringSettings
from siteward.sinks import SinkUnavailable
path = Path(sys.argv[1])
store = DuckStore(path, MonitoringSettings(), {"job": JOB})
rows = job_rows(6000)
store.write(batch_of(JOB, rows[:100]))
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        store.write(batch_of(JOB, rows))
    except SinkUnavailable as error:
        print("unavailable")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
written = store.write(batch_of(JOB, rows))
print(*(written.outcomes.count(outcome) for outcome in ("stored", "duplicate")))
store.close()
"""


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, env=environment, check=False
    )


def test_what_is_committed_survives_a_kill(tmp_path: Path) -> None:
    """A process killed right after write() has returned leaves everything it wrote."""
    path = tmp_path / "store.duckdb"
    assert run(KILLED, path).returncode == -9
    store = DuckStore(path, MonitoringSettings(), {"job": JOB})
    assert set(store.write(batch_of(JOB, job_rows(500))).outcomes) == {"duplicate"}
    store.close()


def test_a_full_disk_is_a_sink_that_is_unavailable(tmp_path: Path) -> None:
    """While the disk is full batches are refused whole, and taken when there is room, in the same process."""
    done = run(FULL, tmp_path / "store.duckdb")
    assert done.stdout.split("\n")[:3] == ["unavailable", "unavailable", "5900 100"], done.stderr


def test_a_query_that_needs_too_much_memory_is_an_error(tmp_path: Path) -> None:
    """What does not fit into DuckDB's memory limit is a StoreError, and the store goes on."""
    store = DuckStore(tmp_path / "store.duckdb", MonitoringSettings(), {"job": JOB})
    store.write(batch_of(JOB, job_rows(10)))
    with pytest.raises(StoreError, match=r"store\.duckdb"), store._asking() as cursor:
        raise duckdb.OutOfMemoryException(str(cursor))
    assert len(store.records("job")) == 10
    store.close()
