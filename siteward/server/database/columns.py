"""Columns of tables that mean the same in every database: exact integers, exact texts, bytes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, text
from sqlalchemy.dialects import mysql, postgresql

_WITHIN_ROW: Final = 1000
"""Characters of a text that MariaDB keeps within the row, which holds 65,535 bytes, four for each character."""


def integer_column(name: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    """64-bit integers."""
    return Column(name, BigInteger, primary_key=key, autoincrement=False, nullable=optional)


def sum_column(name: str) -> Column[int]:
    """64-bit integers that are added to; zero unless given."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def number_column(name: str) -> Column[int]:
    """A primary key that the database counts up by itself."""
    # SQLite's own row number is an INTEGER and nothing else.
    return Column(name, BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def bytes_column(name: str, length: int, *, key: bool = False, unique: bool = False) -> Column[bytes]:
    """Texts of so many bytes."""
    kind = LargeBinary().with_variant(mysql.BINARY(length), "mysql", "mariadb")
    return Column(name, kind, primary_key=key, unique=unique, nullable=False)


def text_column(name: str, length: int) -> Column[str]:
    """Texts, equal only if every character is: neither case nor accents nor blanks at the end are folded."""
    kind = mysql.VARCHAR if length <= _WITHIN_ROW else mysql.TEXT
    exact = String(length).with_variant(kind(length, charset="utf8mb4", collation="utf8mb4_nopad_bin"), "mysql", "mariadb")
    return Column(name, exact.with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql"), nullable=False)
