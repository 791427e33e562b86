"""Corrections and closed months on every database: whatever is done, totals are those of a plain computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from corrected_model import Model, Step, check, emptied, steps
from hypothesis import HealthCheck, given, settings
from mariadb_server import MariaNode, MariaPlace
from postgresql_server import PostgresNode, PostgresPlace

from siteward.server.database import Database


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database of each sort."""
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


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(done=steps())
def test_totals_are_those_of_the_records_under_corrections(database: Database, done: list[Step]) -> None:
    """Records, revisions, corrections, reversals, closings, compaction, in any order: present totals are exact.

    Figures as of closing never change afterwards, and a signature stays right.
    """
    ledger, model = emptied(database), Model()
    for step in done:
        step(ledger, model)
    check(ledger, model)
