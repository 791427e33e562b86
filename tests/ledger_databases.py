"""An empty database of each sort for tests of the ledger, and ledgers on it whose tables were made as in production."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest
from mariadb_server import MariaNode, MariaPlace
from postgresql_server import PostgresNode, PostgresPlace

from accounting.ledger import Ledger
from accounting.migrations.upgrade import prepare
from siteward.records import Kind, microseconds
from siteward.server.database import Database

SORTS: Final = ("sqlite", "postgresql", "mariadb")
in_brief: Final = pytest.mark.parametrize("ledger_place", ["postgresql"], indirect=True)
"""Of faults that the soak repeats on every database."""


class Place(msgspec.Struct):
    """Where a database is."""

    sort: str
    url: str
    password: str = ""
    server: PostgresPlace | MariaPlace | None = None


@pytest.fixture(params=SORTS)
def ledger_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty database of each sort, of the test's own."""
    if request.param == "sqlite":
        return Place("sqlite", f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    server: PostgresPlace | MariaPlace = request.getfixturevalue(f"{request.param}_place")
    return Place(request.param, server.url, server.password, server)


@pytest.fixture
def open_database(ledger_place: Place) -> Iterator[Callable[[], Database]]:
    """Opens the database, as often as processes would."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Database(ledger_place.url, ledger_place.password)))


def prepared(database: Database, kind: Kind, now: int) -> Ledger:
    """A ledger of one kind as the sink opens it, at an instant."""
    return Ledger(database, {kind.name: kind}, lambda: now, prepare(database, {kind.name: kind}))


@pytest.fixture(scope="module", params=SORTS)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database of each sort, for all tests of a file."""
    if request.param == "sqlite":
        with closing(Database(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite'}")) as opened:
            yield opened
        return
    node: PostgresNode | MariaNode = request.getfixturevalue(request.param)
    with (
        closing(PostgresPlace(node) if isinstance(node, PostgresNode) else MariaPlace(node)) as place,
        closing(Database(place.url, place.password)) as opened,
    ):
        yield opened


def emptied(database: Database, kind: Kind, now: datetime) -> Ledger:
    """A ledger of one kind without anything in it, at an instant."""
    made = Ledger(database, {kind.name: kind}, lambda: microseconds(now))
    made.metadata.create_all(database.engine)
    clear(made)
    return made


def clear(ledger: Ledger) -> None:
    """Take everything out of a ledger."""
    with ledger.database.write() as connection:
        for table in ledger.metadata.sorted_tables:
            connection.execute(table.delete())
