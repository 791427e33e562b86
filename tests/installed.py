"""Installations for tests of all routes: each monitoring store, and each database, is in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any, Final

import msgspec
import pytest
from mariadb_server import MariaPlace
from opensearch_server import Nodes, Place
from postgresql_server import PostgresPlace

from monitoring.stores.opensearch import bulk
from siteward.settings import Settings

COMBINATIONS: Final = ("duckdb-sqlite", "opensearch-postgresql", "duckdb-mariadb")
"""The monitoring store, and the database both of the ledger and of access."""
NEWEST: Final = "3.3.2"
PATIENCE: Final = 60.0
"""Seconds of one write, in which a collector would try again: many new indices take a busy machine long."""
DATABASES: Final[Mapping[str, Callable[[Any], PostgresPlace | MariaPlace]]] = {
    "postgresql": PostgresPlace,
    "mariadb": MariaPlace,
}


class Stores:
    """Where the installations of a test are to keep what they know; each has places that no other one has.

    Attributes:
        clusters: the places on OpenSearch, if any.
    """

    def __init__(self, combination: str, request: pytest.FixtureRequest, opened: ExitStack) -> None:
        """Start what is needed.

        Args:
            combination: one of COMBINATIONS.
            request: of the fixture; it knows the servers.
            opened: closes the places.
        """
        self._opened = opened
        self.clusters: list[Place] = []
        store, database = combination.split("-")
        nodes: Nodes = request.getfixturevalue("opensearch_nodes")
        self._search = nodes.node(NEWEST) if store == "opensearch" else None
        self._node = request.getfixturevalue(database) if database in DATABASES else None
        self._place_on = DATABASES.get(database)

    def of(self, settings: Settings) -> Settings:
        """The settings of one more installation, with new places in place of files."""
        changed: dict[str, Any] = {}
        if self._place_on is not None:
            place = self._opened.enter_context(closing(self._place_on(self._node)))
            where = {"url": place.url, "password": place.password}
            changed["accounting"] = msgspec.structs.replace(settings.accounting, **where)
            changed["access"] = msgspec.structs.replace(settings.access, **where)
        if self._search is not None:
            cluster = self._opened.enter_context(closing(Place(self._search)))
            self.clusters.append(cluster)
            changed["monitoring"] = cluster.settings.monitoring
        return msgspec.structs.replace(settings, **changed)

    def show(self) -> None:
        """Have whatever was written found now, and not within a second."""
        for cluster in self.clusters:
            cluster.refresh()


@pytest.fixture(scope="module", params=COMBINATIONS)
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Places for installations on each combination, for all tests of a file."""
    with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "BUDGET", PATIENCE)
        yield Stores(request.param, request, opened)
