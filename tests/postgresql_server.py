"""A private PostgreSQL for tests: started when first asked for, one per session, with a database for each test."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from secrets import token_urlsafe
from typing import ClassVar, Final
from uuid import uuid4

import psycopg
import pytest
from database_server import DatabaseNode, closing_on, running
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier, Literal
from servers import missing

PROGRAMS: Final = sorted(
    Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
)
"""Where Debian puts each version's programs, the newest first; in the path are only scripts around the clients."""
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    # As in production: what is committed survives.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "16MB",
    # In the data folder: what a killed server leaves in /dev/shm stays there.
    "dynamic_shared_memory_type": "mmap",
}


def program(name: str) -> str:
    """One of PostgreSQL's programs."""
    path = shutil.which(name, path=os.pathsep.join((*map(str, PROGRAMS), os.environ["PATH"])))
    if path is None:
        missing(f"the PostgreSQL program {name}", "run `tests/services.sh postgresql`")
    return path


class PostgresNode(DatabaseNode):
    """One PostgreSQL with its own data."""

    ending: ClassVar = signal.SIGINT

    def __init__(self, settings: Mapping[str, str] = {}) -> None:  # never changed.
        """Find the programs; nothing runs yet.

        Args:
            settings: other than the tests', such as more memory.
        """
        self._more = settings
        self._initdb, self._server, psql = map(program, ("initdb", "postgres", "psql"))
        super().__init__("postgresql")
        self.psql = [
            psql,
            "--no-psqlrc",
            "--host",
            str(self.folder),
            "--port",
            str(self.port),
            "--username",
            "postgres",
        ]
        """psql, with what connects it as the superuser."""

    def making(self) -> list[str]:
        # Nobody else enters the folder that the socket is in.
        options = ("--username", "postgres", "--auth-local", "trust", "--auth-host", "scram-sha-256")
        places = ("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--pgdata", str(self.data))
        return [self._initdb, *options, *places]

    def command(self) -> list[str]:
        settings = [part for name, value in {**SETTINGS, **self._more}.items() for part in ("-c", f"{name}={value}")]
        return [self._server, "-D", str(self.data), "-k", str(self.folder), "-p", str(self.port), *settings]

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self) -> psycopg.Connection[TupleRow]:
        """A connection of the superuser, where each statement is committed by itself."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user="postgres",
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )


class PostgresPlace:
    """A test's own database on the node, and the user to whom it belongs."""

    def __init__(self, node: PostgresNode) -> None:
        """Make both."""
        self.node = node
        mark = uuid4().hex[:12]
        self.name = f"test_{mark}"
        self.user = f"user_{mark}"
        self.password = token_urlsafe()
        user, name = Identifier(self.user), Identifier(self.name)
        with node.connect() as server:
            server.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, Literal(self.password)))
            server.execute(SQL("CREATE DATABASE {} OWNER {}").format(name, user))
            server.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))

    @property
    def url(self) -> str:
        """Its URL in the settings, which has no password."""
        return f"postgresql://{self.user}@127.0.0.1:{self.node.port}/{self.name}"

    def connect(self) -> psycopg.Connection[TupleRow]:
        """A connection of the test's own; the caller closes it."""
        return psycopg.connect(self.url, password=self.password, connect_timeout=5)

    def close(self) -> None:
        """Delete both, whoever is still connected."""
        with self.node.connect() as server:
            server.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(self.name)))
            server.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(self.user)))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresNode]:
    """A running PostgreSQL."""
    with running(PostgresNode()) as node:
        yield node


@pytest.fixture
def postgresql_place(postgresql: PostgresNode) -> Iterator[PostgresPlace]:
    """An empty PostgreSQL database of the test's own."""
    place = PostgresPlace(postgresql)
    with closing_on(postgresql, place.close):
        yield place
