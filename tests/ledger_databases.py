"""An empty database of each sort for tests of the ledger, and ledgers on it whose tables were made as in production."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
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
TIERS: Final = ((1, 24), (1, 6, 24), (1, 8, 24), (2, 12), (3, 24))
"""Hours of buckets, some of which do not divide others."""
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


def retiered(ledger: Ledger, kind: Kind, hours: Sequence[int]) -> Ledger:
    """The ledger of a process that is started with other tiers of the kind: so many hours wide after 8 and 20 days."""
    ages = ([timedelta(days=8), timedelta(days=20)])[: len(hours) - 1]
    tiers = tuple(zip([*ages, None], [timedelta(hours=width) for width in hours], strict=True))
    changed = Kind(msgspec.structs.replace(kind.declaration, tiers=tiers))
    return Ledger(ledger.database, {kind.name: changed}, ledger.clock)


def clear(ledger: Ledger) -> None:
    """Take everything out of a ledger."""
    with ledger.database.write() as connection:
        for table in ledger.metadata.sorted_tables:
            connection.execute(table.delete())
