"""The shared store's promises: one owner, any number of callers, any of them killed at any moment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from examples import JOB, NOON, batch_of, job_rows

from monitoring.stores import StoreError
from monitoring.stores.duckdb import shared
from monitoring.stores.duckdb.addresses import connect, socket_path
from monitoring.stores.duckdb.frames import receive
from monitoring.stores.duckdb.shared import SharedStore, open_store
from siteward.query import Filter, Function, Query, QueryError, Wanted
from siteward.records import id_text, microseconds
from siteward.settings import MonitoringSettings, Settings
from siteward.sinks import Outcome, SinkUnavailable

KINDS = {"job": JOB}
ROOT = Path(__file__).parents[2]
OWNER = """
import sys
from pathlib import Path
from examples import JOB
from monitoring.stores.duckdb.frames import receive
from monitoring.stores.duckdb.shared import SharedStore
from siteward.settings import MonitoringSettings
store = SharedStore(Path(sys.argv[1]), MonitoringSettings(), {"job": JOB})
print("owner" if store.is_owner else "client", flush=True)
sys.stdin.read()
"""
WRITER = """
import sys
from pathlib import Path
from examples import JOB, batch_of, job_rows
from monitoring.stores.duckdb.frames import receive
from monitoring.stores.duckdb.shared import SharedStore
from siteward.settings import MonitoringSettings
store = SharedStore(Path(sys.argv[1]), MonitoringSettings(), {"job": JOB})
first = int(sys.argv[2])
rows = job_rows(first + 400)[first:]
print("ready", flush=True)
for at in range(0, 400, 20):
    store.write(batch_of(JOB, rows[at:at + 20]))
    print(first + at, flush=True)
    sys.stdin.readline()
store.close()
"""


def opened(path: Path) -> SharedStore:
    return SharedStore(path, MonitoringSettings(), KINDS)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process of ours, and let go of it."""
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=20)


@contextmanager
def owner_of(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the file."""
    process = start(OWNER, path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "owner\n"
        yield process
    finally:
        end(process)


def count(store: SharedStore) -> int:
    """Records stored, each counted as often as it is there."""
    day = timedelta(days=1)
    answer = store.query(Query(kind="job", wanted=(Wanted(Function.COUNT),), start=NOON - day, end=NOON + day))
    return int(answer.totals[0] or 0)


def test_another_process_asks_the_owner(tmp_path: Path) -> None:
    """While one process owns the file, every call of another one is answered by it."""
    with owner_of(tmp_path / "store.duckdb"), opened(tmp_path / "store.duckdb") as store:
        batch = batch_of(JOB, job_rows(100), received=microseconds(NOON))
        assert store.write(batch).outcomes == [Outcome.STORED] * 100
        assert store.write(batch).outcomes == [Outcome.DUPLICATE] * 100
        assert count(store) == 100
        assert len(store.values("job", "site")) == 7
        assert [record.id for record in store.records("job", ids=batch.ids[:1])] == [id_text(batch.ids[0])]
        assert store.forget("job", NOON + timedelta(seconds=40)) == 40
        assert not store.is_owner


def test_errors_arrive_as_they_were_raised(tmp_path: Path) -> None:
    """A client gets the same exception with the same words as the owner's own process would."""
    with opened(tmp_path / "store.duckdb") as owner, opened(tmp_path / "store.duckdb") as client:
        said = []
        for store in (owner, client):
            with pytest.raises(QueryError) as caught:
                store.values("job", "sote")
            said.append(str(caught.value))
        assert said[0] == said[1]
        with pytest.raises(QueryError, match="cannot be sent"):
            client.values("job", "site", (Filter("wall_time", (2**70,)),))


@pytest.mark.parametrize("killed_at", [1, 5, 12])
def test_a_killed_owner_loses_and_doubles_nothing(tmp_path: Path, killed_at: int) -> None:
    """When the owner is killed while a client writes, the client takes over and every record is there once."""
    path = tmp_path / "store.duckdb"
    rows = job_rows(600)
    with owner_of(path) as process, opened(path) as store:
        for number in range(20):
            if number == killed_at:
                killer = threading.Timer(0.003 * killed_at, process.kill)
                killer.start()
            written = store.write(batch_of(JOB, rows[number * 30 : number * 30 + 30]))
            assert set(written.outcomes) <= {Outcome.STORED, Outcome.DUPLICATE}
        killer.join()
        process.wait(timeout=20)
        assert count(store) == 600
        assert store.is_owner
        assert set(store.write(batch_of(JOB, rows)).outcomes) == {Outcome.DUPLICATE}


def test_writers_survive_each_other(tmp_path: Path) -> None:
    """Of three writing processes any two may be killed: what each was told is stored is there, once."""
    path = tmp_path / "store.duckdb"
    writers = [start(WRITER, path, first) for first in (0, 400, 800)]
    told: list[int] = []
    try:
        for number in range(20):
            for place, writer in enumerate(writers):
                assert writer.stdout is not None
                assert writer.stdin is not None
                if number == 0:
                    assert writer.stdout.readline() == "ready\n"
                if place < 2 and number == 5 + 6 * place:
                    writer.kill()
                if writer.poll() is None and (line := writer.stdout.readline()):
                    told.append(int(line))
                    try:
                        writer.stdin.write("\n")
                        writer.stdin.flush()
                    except BrokenPipeError:
                        continue
    finally:
        for writer in writers:
            try:
                writer.communicate(timeout=20)
            except BrokenPipeError:
                writer.wait(timeout=20)
    assert writers[2].returncode == 0
    with opened(path) as store:
        stored = {int(record.fields["local_job_id"]) for record in store.records("job", limit=10_000)}
        assert {number for first in told for number in range(first, first + 20)} <= stored
        assert count(store) == len(stored)


def test_whoever_closes_hands_over(tmp_path: Path) -> None:
    """After the owner has closed, a client becomes the owner at its next call and finds everything."""
    with opened(tmp_path / "store.duckdb") as first, opened(tmp_path / "store.duckdb") as second:
        first.write(batch_of(JOB, job_rows(5)))
        assert count(second) == 5
        first.close()
        assert count(second) == 5
        assert second.is_owner
        with pytest.raises(StoreError, match="closed"):
            count(first)


def test_a_call_gives_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody holds the lock and does not answer, calls end with an error that names the socket."""
    monkeypatch.setattr(shared, "PATIENCE", 0.1)
    with opened(tmp_path / "store.duckdb") as owner, opened(tmp_path / "store.duckdb") as client:
        socket_path(owner.path).unlink()
        with pytest.raises(StoreError, match=r"does not answer at .*store\.duckdb\.socket"):
            count(client)
        with pytest.raises(SinkUnavailable, match="does not answer"):
            client.write(batch_of(JOB, job_rows(1)))


def test_readers_and_writers_work_at_once(tmp_path: Path) -> None:
    """Eight threads that write and read through one client see only whole batches, and lose none."""
    with opened(tmp_path / "store.duckdb"), opened(tmp_path / "store.duckdb") as client:
        rows = job_rows(800)
        seen: list[int] = []

        def work(place: int) -> None:
            client.write(batch_of(JOB, rows[place * 100 : place * 100 + 100]))
            seen.append(count(client))

        threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert all(number % 100 == 0 for number in seen)
        assert max(seen) == 800


def test_long_folders_and_names_are_no_obstacle(tmp_path: Path) -> None:
    """The socket is reached where the path is longer than a socket's address may be."""
    folder = tmp_path / ("long-" * 30) / ("folder-" * 20)
    for name in ("store.duckdb", f"{'name-' * 20}.duckdb"):
        with opened(folder / name) as owner, opened(folder / name) as client:
            owner.write(batch_of(JOB, job_rows(2)))
            assert count(client) == 2


def test_the_socket_is_for_this_user_only(tmp_path: Path) -> None:
    """Nobody else may connect, and the socket goes when its owner does."""
    with opened(tmp_path / "store.duckdb") as store:
        assert stat.S_IMODE(socket_path(store.path).stat().st_mode) == 0o600
    assert not socket_path(store.path).exists()


@pytest.mark.parametrize("frame", [b"\0\0\0\x03abc", b"\xff\xff\xff\xff", b"\0\0\0\x05ab", b"\0\0\0\0"])
def test_nonsense_on_the_socket_does_no_harm(tmp_path: Path, frame: bytes) -> None:
    """What is no call is answered with an error or hung up on, and the owner goes on."""
    with opened(tmp_path / "store.duckdb") as owner, opened(tmp_path / "store.duckdb") as client:
        with connect(socket_path(owner.path), 5) as link:
            link.sendall(frame)
            link.shutdown(1)
            answer = receive(link)
            assert answer is None or answer[:1] == b"!"
        assert count(client) == 0


def test_a_forked_child_asks_its_parent(tmp_path: Path) -> None:
    """After fork the child is a client: it neither holds the parent's lock nor touches the parent's file."""
    with opened(tmp_path / "store.duckdb") as store:
        store.write(batch_of(JOB, job_rows(3)))
        child = os.fork()
        if child == 0:
            right = not store.is_owner and count(store) == 3
            os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert count(store) == 3


def test_the_url_names_the_file(tmp_path: Path) -> None:
    """`duckdb:///path` opens that file, folders made; a URL without a path is refused with the form expected."""
    with open_store(f"duckdb://{tmp_path}/new/store.duckdb", Settings(), KINDS) as store:
        assert store.path == tmp_path / "new" / "store.duckdb"
        assert store.path.exists()
    with pytest.raises(StoreError, match="duckdb:///path/to/file"):
        open_store("duckdb://", Settings(), KINDS)


def test_a_file_that_is_no_database_is_an_error_with_its_path(tmp_path: Path) -> None:
    """A damaged file is reported by name and the lock is let go, so that the next try is not blocked."""
    path = tmp_path / "store.duckdb"
    path.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"store\.duckdb"):
            opened(path)
    path.unlink()
    with opened(path) as store:
        assert store.is_owner
