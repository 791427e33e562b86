"""How a database finds rows: the statements that it was sent, explained by itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, MetaData, event

from siteward.server.database import Database

Statement = tuple[str, Any]


def analyze(database: Database, metadata: MetaData) -> None:
    """Let the database look at what is in its tables."""
    with database.write() as connection:
        for table in metadata.sorted_tables:
            word = "ANALYZE TABLE" if database.engine.dialect.name == "mariadb" else "ANALYZE"
            connection.exec_driver_sql(f"{word} {table.name}")


@contextmanager
def recorded(database: Database) -> Iterator[list[Statement]]:
    """Every statement that is sent meanwhile."""
    statements: list[Statement] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def scans(connection: Connection, sort: str, statement: Statement, large: Collection[str]) -> list[str]:
    """The large tables that a statement reads from end to end."""
    text, parameters = statement
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN (FORMAT JSON)", "mariadb": "EXPLAIN"}[sort]
    rows = connection.exec_driver_sql(f"{explain} {text}", parameters).all()
    match sort:
        case "sqlite":
            details = [str(row[3]) for row in rows]
            return [each for each in details if each.startswith("SCAN") and each.split()[1] in large]
        case "mariadb":
            return [str(row) for row in rows if row[2] in large and row[3] in {"ALL", "index"}]
    plan = rows[0][0]
    return list(_postgres_scans((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"], large))


def _postgres_scans(node: dict[str, Any], large: Collection[str]) -> Iterator[str]:
    is_scan = node["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan"}
    if is_scan and node["Relation Name"] in large and "Index Cond" not in node:
        yield f"{node['Node Type']} of {node['Relation Name']}"
    for inner in node.get("Plans", ()):
        yield from _postgres_scans(inner, large)


def unindexed(
    database: Database, sort: str, statements: Sequence[Statement], large: Collection[str]
) -> dict[str, list[str]]:
    """The statements that read a large table from end to end."""
    # What only adds rows has no plan; definitions have none either.
    asking = [each for each in statements if each[0].lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE"))]
    asking += [
        each
        for each in statements
        if " SELECT " in each[0] and each[0].startswith("INSERT") and "unnest" not in each[0]
    ]
    explained = {text: parameters for text, parameters in asking if any(name in text for name in large)}
    assert explained
    found = {}
    with database.write() as connection:
        if sort == "postgresql":
            # Tables of tests are small enough to be read whole; can it do without?
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_mergejoin = off")
        for text, parameters in explained.items():
            one = parameters[0] if isinstance(parameters, list) else parameters
            if seen := scans(connection, sort, (text, one), large):
                found[text] = seen
    return found
