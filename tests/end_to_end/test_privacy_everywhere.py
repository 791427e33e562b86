"""On every store and database, a name stands in one table and nowhere else, and an erasure leaves it in none."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import pytest
from accounted import ran
from examples import JOB, NOON, job, job_rows
from fastapi.testclient import TestClient
from installed import Stores
from sqlalchemy import MetaData, select

from accounting.archive.archiving import archive
from accounting.opening import archive_folder, open_ledger
from accounting.periods.closing import close
from accounting.periods.signatures import sign, verified_periods
from collectors.service import collect
from siteward.broker import Message
from siteward.broker.opening import open_declared
from siteward.broker.topology import routing_key
from siteward.emit import Emitter
from siteward.envelope import seal
from siteward.kinds import load_kinds
from siteward.records import microseconds
from siteward.server.app import create_app
from siteward.server.database import Database
from siteward.server.people_table import TABLE, PeopleTable
from siteward.settings import CollectorSettings, Settings

NAME: Final = "/DC=org/DC=example/CN=Somebody Special"
ACCOUNT: Final = "special007"
MARCH: Final = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
APRIL: Final = datetime(2026, 4, 1, tzinfo=UTC)
PATIENCE: Final = 120.0
WINDOW: Final = {"start": "2026-03-01", "end": "2026-04-01"}
PASSING: Final = frozenset({"broker.sqlite", "broker.sqlite-wal"})
"""What records pass, with the names in them, until they are collected and written over."""
REFUSED: Final = frozenset({"collectors.sqlite", "collectors.sqlite-wal"})
"""Records as they came, which were refused."""


class Installation:
    """One on a combination of stores, which can be searched for a text."""

    def __init__(self, settings: Settings, stores: Stores) -> None:
        self.settings = settings
        self._stores = stores

    def collected(self, *jobs: Any) -> None:
        """Emit jobs, and have them collected into both stores."""
        with closing(Emitter(self.settings)) as emitter:
            for each in jobs:
                assert emitter.emit(each) is None
        stop = threading.Event()
        thread = threading.Thread(target=collect, args=(self.settings, stop, ["monitoring", "ledger"]))
        thread.start()
        try:
            with closing(open_declared(self.settings)) as broker:
                deadline = time.monotonic() + PATIENCE
                while any(queue.records for queue in broker.status()):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            stop.set()
            thread.join()
        self._stores.show()

    def holding(self, text: str) -> set[str]:
        """Every place that holds a text: tables, indices, files."""
        return {*self._tables(text), *self._indices(text), *self._files(text)}

    def _tables(self, text: str) -> Iterator[str]:
        """Tables of the ledger and of access, on whatever database; and those of the embedded store."""
        for url, password in (
            (self.settings.accounting_url, self.settings.accounting.password),
            (self.settings.access_url, self.settings.access.password),
        ):
            with closing(Database(url, password)) as database, database.read() as connection:
                there = MetaData()
                there.reflect(connection)
                for table in there.sorted_tables:
                    if any(_holds(value, text) for row in connection.execute(select(table)) for value in row):
                        yield table.name
        path = self.settings.folder / "monitoring.duckdb"
        if path.exists():
            with duckdb.connect(str(path), read_only=True) as store:
                for (name,) in store.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                    rows = store.execute(f'SELECT * FROM "{name}"').fetchall()  # a name of our own.
                    if any(_holds(value, text) for row in rows for value in row):
                        yield f"duckdb {name}"

    def _indices(self, text: str) -> Iterator[str]:
        for cluster in self._stores.clusters:
            for index in cluster.indices():
                found = cluster.ask("POST", f"/{index}/_search", {"size": 10_000})["hits"]["hits"]
                if any(_holds(json.dumps(hit, ensure_ascii=False), text) for hit in found):
                    yield f"index {index}"

    def _files(self, text: str) -> Iterator[str]:
        for file in self.settings.folder.rglob("*"):
            if file.is_file() and text.encode() in file.read_bytes():
                yield file.name

    def figures(self) -> list[Any]:
        """What both stores answer, by person and by site, whoever they are."""
        with TestClient(create_app(self.settings), "http://localhost") as client:
            answers = [
                client.get(path, params=WINDOW | {"kind": "job", "measures": measures, "by": by})
                for path, measures in (("/v1/accounting/usage", "wall_time,records"), ("/v1/query", "count"))
                for by in ("user", "site")
            ]
        assert {each.status_code for each in answers} == {200}
        told = [each.json() for each in answers]
        return [(sorted(row["values"] for row in each["rows"]), each["totals"]) for each in told]


def _holds(value: object, text: str) -> bool:
    if isinstance(value, (bytes, memoryview)):
        return text.encode() in bytes(value)
    return text in str(value)


@pytest.fixture
def installation(stores: Stores, tmp_path: Path) -> Installation:
    """One that has collected jobs of several people, and refused one of somebody's."""
    collector = CollectorSettings(leave_out=("prometheus",), batch_age=0.05)
    made = Installation(stores.of(Settings(data=str(tmp_path), collector=collector)), stores)
    with closing(open_declared(made.settings)) as broker, closing(broker.publisher()) as publisher:
        # Of a sender that does not look at its records.
        right = seal(JOB, job_rows(1, user=NAME, wall_time=77_777), "test", microseconds(NOON))
        wrong = right.replace(msgspec.msgpack.encode(77_777), msgspec.msgpack.encode(-1))
        publisher.publish([Message(routing_key("example", "job"), wrong, 1)])
    named = [job(number, user=NAME, local_user=ACCOUNT, site="S") for number in range(20, 25)]
    made.collected(*(job(number, site="S") for number in range(20)), *named)
    return made


def test_an_erased_name_is_found_nowhere_and_no_figure_is_another(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, it stands in the table of people, and where records pass and are refused; afterwards nowhere, not even
    when records come again; totals, groups and signed digests are what they were."""
    settings = installation.settings
    with closing(open_ledger(settings, load_kinds())) as ledger:
        close(ledger, "job", MARCH, "somebody")
        signed = sign(ledger, "job", MARCH, "somebody")
        assert list(archive(ledger, archive_folder(settings), APRIL))
    figures = installation.figures()
    with closing(PeopleTable(settings)) as people:
        code = people.pseudonym("user", NAME)
    access = {"access.sqlite", "access.sqlite-wal"}
    for text in (NAME, ACCOUNT):
        assert TABLE in installation.holding(text)
        assert installation.holding(text) <= {TABLE, *access, *PASSING, *REFUSED}
    # What is searched does hold the person's records.
    in_stores = {each.partition(" ")[0] for each in installation.holding(code)}
    assert in_stores & {"duckdb", "index"}
    assert TABLE in in_stores
    assert ran(monkeypatch, settings, "privacy", "export", NAME) == 0
    assert json.loads(capsys.readouterr().out)["dead_letters"] == [1, 2]
    assert ran(monkeypatch, settings, "privacy", "erase", NAME) == 0
    assert ran(monkeypatch, settings, "privacy", "erase", ACCOUNT) == 0
    assert "erased: 1 name, 2 refused records, 0 log-ins" in capsys.readouterr().err
    for text in (NAME, ACCOUNT):
        assert installation.holding(text) <= PASSING
    assert installation.figures() == figures
    with closing(open_ledger(settings, load_kinds())) as ledger:
        assert [(each.is_right, each.signed) for each in verified_periods(ledger)] == [(True, signed.digest)]
    installation.collected(job(40, user=NAME, local_user=ACCOUNT, site="S"))
    for text in (NAME, ACCOUNT):
        assert installation.holding(text) <= PASSING
