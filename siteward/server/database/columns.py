"""Columns of tables that mean the same in every database: exact integers, exact texts, bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import BigInteger, Column, Double, LargeBinary, String, text
from sqlalchemy.dialects import mysql, postgresql, sqlite

_WITHIN_ROW: Final = 1000
"""Characters of a text that MariaDB keeps within the row, which holds 65,535 bytes, four for each character."""
_MOST_WITHIN_ROW: Final = 15_000
"""Characters of all such texts of a table; if they may be more, none of them is kept there."""
# SQLite's strict tables know five types only, and refuse what does not fit, as the others do.
_INTEGER: Final = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def integer_column(name: str, *, key: bool = False, optional: bool = False, default: int | None = None) -> Column[int]:
    """64-bit integers; rows that do not give one have the default, if there is one."""
    given = None if default is None else text(str(int(default)))
    return Column(name, _INTEGER, primary_key=key, autoincrement=False, nullable=optional, server_default=given)


def float_column(name: str, *, optional: bool = False, default: float | None = None) -> Column[float]:
    """Numbers of 64 bits with a binary point."""
    kind: Double[float] = Double().with_variant(sqlite.REAL(), "sqlite")
    return Column(name, kind, nullable=optional, server_default=None if default is None else text(repr(float(default))))


def number_column(name: str) -> Column[int]:
    """A primary key that the database counts up by itself."""
    return Column(name, _INTEGER, primary_key=True, autoincrement=True)


def bytes_column(name: str, length: int, *, key: bool = False, unique: bool = False) -> Column[bytes]:
    """Texts of so many bytes."""
    kind = LargeBinary().with_variant(mysql.BINARY(length), "mysql", "mariadb")
    return Column(name, kind, primary_key=key, unique=unique, nullable=False)


def blob_column(name: str) -> Column[bytes]:
    """Bytes, as many as there are."""
    kind = LargeBinary().with_variant(sqlite.BLOB(), "sqlite").with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    return Column(name, kind, nullable=False)


def fit_into_row(lengths: Iterable[int]) -> bool:
    """Whether a table's texts of at most so many characters each fit into its rows in every database."""
    return sum(length for length in lengths if length <= _WITHIN_ROW) <= _MOST_WITHIN_ROW


def text_column(
    name: str, length: int, *, key: bool = False, default: str | None = None, apart: bool = False
) -> Column[str]:
    """Texts, equal only if every character is: neither case nor accents nor blanks at the end are folded.

    Those of a table in whose rows they do not all fit are kept apart from them.
    """
    varchar = mysql.TEXT if apart or length > _WITHIN_ROW else mysql.VARCHAR
    kind = (
        String(length)
        .with_variant(sqlite.TEXT(), "sqlite")
        .with_variant(varchar(length, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb")
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
    )
    return Column(name, kind, primary_key=key, nullable=False, server_default=default)
