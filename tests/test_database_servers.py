"""The private PostgreSQL and MariaDB keep what is committed, and give each test a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymysql
import pytest
from database_server import closing_on
from mariadb_server import MariaNode, MariaPlace
from postgresql_server import PostgresNode, PostgresPlace

Place = PostgresPlace | MariaPlace
REFUSED = (psycopg.OperationalError, pymysql.err.OperationalError)


@pytest.fixture(params=["postgresql_place", "mariadb_place"])
def place(request: pytest.FixtureRequest) -> Place:
    """A place on either server."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def other(place: Place) -> Iterator[Place]:
    """Another place on the same server."""
    found = PostgresPlace(place.node) if isinstance(place, PostgresPlace) else MariaPlace(place.node)
    with closing_on(place.node, found.close):
        yield found


def ask(connection: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What a statement answers, in the connection's open transaction."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


def tables(place: Place) -> list[str]:
    """The tables of a place."""
    schema = "public" if isinstance(place, PostgresPlace) else place.name
    with closing(place.connect()) as connection:
        rows = ask(connection, "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", schema)
    return [name for (name,) in rows]


def test_place_is_empty_and_its_own(place: Place, other: Place) -> None:
    """A new place has no tables, does not show in another, and its user may not enter that."""
    with closing(place.connect()) as connection:
        ask(connection, "CREATE TABLE facts (id BIGINT PRIMARY KEY)")
        connection.commit()
    assert tables(place) == ["facts"]
    assert tables(other) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other, "name", place.name)
        with pytest.raises(REFUSED):
            other.connect()


def test_place_wants_its_password(place: Place) -> None:
    """The URL names user, address and database; who has no password does not get in."""
    url = urlsplit(place.url)
    assert (url.username, url.hostname, url.port, url.path) == (
        place.user,
        "127.0.0.1",
        place.node.port,
        f"/{place.name}",
    )
    assert url.password is None
    place.password = ""
    with pytest.raises(REFUSED):
        place.connect()


def test_closed_place_is_gone(place: Place, other: Place) -> None:
    """Closing deletes the database under the open transaction of a forgotten connection; closing again does nothing."""
    with closing(other.connect()) as connection:
        ask(connection, "CREATE TABLE facts (id BIGINT PRIMARY KEY)")
        ask(connection, "INSERT INTO facts VALUES (1)")
        other.close()
    with pytest.raises(REFUSED):
        other.connect()
    with closing(place.node.connect()) as server:
        listed = ask(
            server, "SELECT datname FROM pg_database" if isinstance(place, PostgresPlace) else "SHOW DATABASES"
        )
    names = {name for (name,) in listed}
    assert place.name in names
    assert other.name not in names
    other.close()


def test_killed_server_keeps_what_is_committed(place: Place) -> None:
    """After a kill and a start what was committed is there, and what was not is not."""
    with closing(place.connect()) as connection:
        ask(connection, "CREATE TABLE facts (id BIGINT PRIMARY KEY)")
        ask(connection, "INSERT INTO facts VALUES (1)")
        connection.commit()
        ask(connection, "INSERT INTO facts VALUES (2)")
        place.node.kill()
        assert not place.node.is_running
        with pytest.raises(REFUSED):
            place.connect()
    place.node.start()
    with closing(place.connect()) as connection:
        assert ask(connection, "SELECT id FROM facts") == [(1,)]


def test_stopped_server_starts_as_it_was(place: Place) -> None:
    """After a stop, which waits for no client, and a start the place is there at the same URL."""
    with closing(place.connect()) as connection:
        ask(connection, "CREATE TABLE facts (id BIGINT PRIMARY KEY)")
        connection.commit()
        place.node.stop()
    place.node.start()
    assert tables(place) == ["facts"]


def test_servers_are_as_durable_as_in_production(postgresql: PostgresNode, mariadb: MariaNode) -> None:
    """A commit is on the disk when it returns; MariaDB's text is utf8mb4 unless a table says otherwise."""
    with closing(postgresql.connect()) as server:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert ask(server, f"SHOW {name}") == [("on",)]
    with closing(mariadb.connect()) as connection:
        wanted = "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_doublewrite, @@character_set_server"
        assert ask(connection, wanted) == [(1, 1, "utf8mb4")]
