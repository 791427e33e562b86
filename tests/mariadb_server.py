"""A private MariaDB for tests: started when first asked for, one per session, with a database for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Iterator, Mapping
from secrets import token_urlsafe
from typing import Final
from uuid import uuid4

import pymysql
import pytest
from database_server import DatabaseNode, closing_on, running
from pymysql.connections import Connection
from pymysql.cursors import Cursor
from servers import missing

SETTINGS: Final = {
    "bind-address": "127.0.0.1",
    "skip-name-resolve": "ON",
    # As in production: what is committed survives.
    "innodb-flush-log-at-trx-commit": "1",
    "innodb-doublewrite": "ON",
    # What Debian's configuration makes the default; without that, which is not read here, it is latin1.
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "key-buffer-size": "1M",
    "aria-pagecache-buffer-size": "8M",
}


def program(name: str) -> str:
    """One of MariaDB's programs."""
    # Debian leaves the folder of the server out of the path of whoever is not root.
    path = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))
    if path is None:
        missing(f"the MariaDB program {name}", "run `tests/services.sh mariadb`")
    return path


class MariaNode(DatabaseNode):
    """One MariaDB with its own data."""

    def __init__(self, settings: Mapping[str, str] = {}) -> None:  # never changed.
        """Find the programs; nothing runs yet.

        Args:
            settings: other than the tests', such as more memory.
        """
        self._install, self._server = map(program, ("mariadb-install-db", "mariadbd"))
        program("my_print_defaults")  # the first calls it, and it comes with the clients.
        super().__init__("mariadb")
        self._socket = self.folder / "socket"
        self._operator = pwd.getpwuid(os.geteuid()).pw_name
        given = [f"--{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
        self._settings = ["--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.folder}", *given]

    def making(self) -> list[str]:
        # Whoever runs the tests is the superuser, by the account and over the socket only.
        return [self._install, *self._settings, "--skip-test-db", f"--auth-root-socket-user={self._operator}"]

    def command(self) -> list[str]:
        places = (f"--socket={self._socket}", f"--pid-file={self.folder / 'pid'}", f"--port={self.port}")
        return [self._server, *self._settings, *places]

    def answers(self) -> bool:
        # PyMySQL forgets to close a socket that nobody listens at, and an unclosed one is a warning, thus an error.
        with socket.socket(socket.AF_UNIX) as caller:
            if caller.connect_ex(str(self._socket)) != 0:
                return False
        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(self) -> Connection[Cursor]:
        """A connection of the superuser, where each statement is committed by itself."""
        return pymysql.connect(
            unix_socket=str(self._socket), user=self._operator, autocommit=True, connect_timeout=5, read_timeout=30
        )


class MariaPlace:
    """A test's own database on the node, and a user who may do anything in it and nothing elsewhere."""

    def __init__(self, node: MariaNode) -> None:
        """Make both."""
        self.node = node
        mark = uuid4().hex[:12]
        self.name = f"test_{mark}"
        self.user = f"user_{mark}"
        self.password = token_urlsafe()
        with node.connect() as server, server.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {self.name}")
            cursor.execute(f"CREATE USER {self.user}@127.0.0.1 IDENTIFIED BY %s", (self.password,))
            cursor.execute(f"GRANT ALL ON {self.name}.* TO {self.user}@127.0.0.1")

    @property
    def url(self) -> str:
        """Its URL in the settings, which has no password."""
        return f"mariadb://{self.user}@127.0.0.1:{self.node.port}/{self.name}"

    def connect(self) -> Connection[Cursor]:
        """A connection of the test's own; the caller closes it."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.node.port,
            user=self.user,
            password=self.password,
            database=self.name,
            connect_timeout=5,
        )

    def close(self) -> None:
        """Delete both, whoever is still connected."""
        with self.node.connect() as server, server.cursor() as cursor:
            cursor.execute(f"DROP USER IF EXISTS {self.user}@127.0.0.1")
            # Without its user a connection still holds its locks, for which the database would wait.
            cursor.execute(f"KILL HARD USER {self.user}@127.0.0.1")
            cursor.execute(f"DROP DATABASE IF EXISTS {self.name}")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaNode]:
    """A running MariaDB."""
    with running(MariaNode()) as node:
        yield node


@pytest.fixture
def mariadb_place(mariadb: MariaNode) -> Iterator[MariaPlace]:
    """An empty MariaDB database of the test's own."""
    place = MariaPlace(mariadb)
    with closing_on(mariadb, place.close):
        yield place
