"""Fixtures for every test: surroundings of its own, and what may be missing on a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from audits import clock, open_audit  # noqa: F401  # fixtures.
from counts import pytest_terminal_summary, tell_counts  # noqa: F401  # a hook, and a fixture.
from installed import stores  # noqa: F401  # a fixture.
from ledger_databases import database, ledger_place, open_database  # noqa: F401  # fixtures.
from mariadb_server import mariadb, mariadb_place  # noqa: F401  # fixtures.
from opensearch_server import opensearch, opensearch_nodes  # noqa: F401  # fixtures.
from postgresql_server import postgresql, postgresql_place  # noqa: F401  # fixtures.
from rabbitmq_server import rabbitmq, vhost  # noqa: F401  # fixtures.
from servers import LPC_LOG, chromium_path, data_file


def pytest_runtest_setup() -> None:
    """Let nobody's logging go where a test before had set it up: to that test's standard error."""
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep settings and data of whoever runs the tests out of them, in child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SITEWARD_")]:
            patch.delenv(name)
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        yield


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium browser, for Playwright's `executable_path`."""
    return chromium_path()


@pytest.fixture(scope="session")
def lpc_log() -> Path:
    """The LPC log, 234,889 real jobs."""
    return data_file(LPC_LOG)
