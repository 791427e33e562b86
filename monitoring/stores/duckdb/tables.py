"""The tables of a DuckDB store, derived from the kinds: their columns, how they are made and how they grow."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from monitoring.stores import StoreError
from siteward.records import Column, Kind, Type

TYPES: Final[dict[Type, str]] = {
    Type.STRING: "VARCHAR",
    Type.INTEGER: "BIGINT",
    Type.NUMBER: "DOUBLE",
    Type.BOOLEAN: "BOOLEAN",
    Type.TIME: "TIMESTAMP",
}
OWN_COLUMNS: Final[dict[str, str]] = {
    "_id_high": "UBIGINT",
    "_id_low": "UBIGINT",
    "_producer": "VARCHAR",
    "_message": "BLOB",
    "_received": "TIMESTAMP",
}
"""What every table has beside the kind's fields. A field cannot begin with `_`, so that they never clash.

The id is two integers, first and last 8 bytes, big-endian: they compress and join faster than 16 bytes of a blob.
"""


class TableMismatch(StoreError):  # noqa: N818  # reads as the state it is.
    """A table that was made for another declaration of its kind, in a way that no added column can mend."""

    permanent = True


def table_name(kind: Kind) -> str:
    """The kind's table, quoted."""
    return quoted(kind.name.replace("-", "_"))


def quoted(name: str) -> str:
    """A name from a kind's declaration as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def columns_of(kind: Kind) -> dict[str, str]:
    """Names and SQL types of all columns, in the order in which they are written."""
    return OWN_COLUMNS | {column.name: TYPES[column.type] for column in kind.columns}


def create_table(kind: Kind) -> str:
    """The statement that makes the table where it is not there.

    No column is NOT NULL, so that one removed from the kind does not stand in the way of later records. There is
    no primary key: its index would have to fit into memory.
    """
    columns = ", ".join(f"{quoted(name)} {sql_type}" for name, sql_type in columns_of(kind).items())
    return f"CREATE TABLE IF NOT EXISTS {table_name(kind)} ({columns})"


def added_columns(kind: Kind, existing: Mapping[str, str]) -> list[str]:
    """The statements that bring an older table up to the kind.

    Args:
        kind: as it is declared now.
        existing: names and SQL types of the columns that the table has.

    Raises:
        TableMismatch: a column has another type than the kind now declares.
    """
    statements = []
    for name, sql_type in columns_of(kind).items():
        if name not in existing:
            default = f" DEFAULT {_literal(kind.column[name])}" if name in kind.column else ""
            statements.append(f"ALTER TABLE {table_name(kind)} ADD COLUMN {quoted(name)} {sql_type}{default}")
        elif existing[name] != sql_type:
            message = (
                f"kind {kind.name!r}: field {name!r} is {sql_type} now, but {existing[name]} in the stored table; "
                "give the changed field a new name, or move the store's file away"
            )
            raise TableMismatch(message)
    return statements


def _literal(column: Column) -> str:
    """A declared default as SQL; a column's definition takes no parameters."""
    match column.default:
        case None:
            return "NULL"
        case str() as text:
            return "'" + text.replace("'", "''") + "'"
        case value:
            return repr(value).upper()


def check_names(kinds: Mapping[str, Kind]) -> None:
    """Refuse kinds that would share a table.

    Raises:
        TableMismatch: naming both kinds.
    """
    taken: dict[str, str] = {}
    for kind in kinds.values():
        other = taken.setdefault(table_name(kind), kind.name)
        if other != kind.name:
            message = f"kinds {other!r} and {kind.name!r} would share the table {table_name(kind)}; rename one of them"
            raise TableMismatch(message)


def insert_statement(kind: Kind, present: Container[str]) -> str:
    """Append the registered batch to the table.

    Args:
        kind: whose.
        present: columns of the batch; all others of the table are at their default.
    """
    names = columns_of(kind)
    columns = ", ".join(map(quoted, names))
    values = ", ".join(quoted(name) if name in present else _literal(kind.column[name]) for name in names)
    return f"INSERT INTO {table_name(kind)} ({columns}) SELECT {values} FROM _batch"  # noqa: S608  # names and literals.


def match_statement(kind: Kind) -> str:
    """Which records of the registered batch are stored already, and whether the batch has a newer revision.

    The bounds keep the scan to the row groups that can hold the ids, whatever the table's size.
    """
    return (
        "SELECT b._position, coalesce(b.revision > s.revision, false) "  # noqa: S608  # names only.
        f"FROM {table_name(kind)} AS s JOIN _batch AS b ON s._id_high = b._id_high AND s._id_low = b._id_low "
        "WHERE s._id_high BETWEEN $low AND $high"
    )


def outdate_statement(kind: Kind) -> str:
    """Delete the stored records of which the registered batch has a newer revision."""
    return (
        f"DELETE FROM {table_name(kind)} AS s USING _batch AS b "  # noqa: S608  # names only.
        "WHERE s._id_high = b._id_high AND s._id_low = b._id_low AND s._id_high BETWEEN $low AND $high "
        "AND b.revision > s.revision"
    )
