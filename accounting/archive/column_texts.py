"""Columns of many rows of SQLite, each of them as one text: row by row they cost half as much again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Column, Connection, String, func, select
from sqlalchemy.sql import ColumnElement

from accounting.archive.archive_file import ArchiveError, Listed

_EXACT: Final = frozenset({int, str, bytes})
"""Types whose values a text tells as they are. Numbers with a binary point it rounds."""
LONGEST: Final = 1000
"""Characters of a text: of as many rows as a file of the archive has, they fit into a text of SQLite, 10^9 bytes long,
also where each is written in six bytes, as a control character is."""
_NO_NUMBER: Final = ('"', ".", "n")
"""One of them is in whatever else than whole numbers a list may hold, such as `null`."""
_NOTHING: Final = "[]"
_texts: Final = msgspec.json.Decoder(list[str])
_optional_numbers: Final = msgspec.json.Decoder(list[int | None])


def are_told_by_texts(connection: Connection, columns: Sequence[Column[Any]]) -> bool:
    """Whether columns can be read by `read_by_texts`."""
    return connection.dialect.name == "sqlite" and all(map(_is_told, columns))


def _is_told(column: Column[Any]) -> bool:
    longest = column.type.length if isinstance(column.type, String) else None
    return column.type.python_type in _EXACT and (longest or 0) <= LONGEST


def read_by_texts(connection: Connection, columns: Sequence[Column[Any]], chosen: ColumnElement[bool]) -> list[Listed]:
    """Columns of the same rows of one table, all in one order, which SQLite chooses.

    Raises:
        ArchiveError: a row has something in a column that is not of its type.
    """
    texts = connection.execute(select(*map(_text_of, columns)).where(chosen)).one()
    return [_values(column, text) for column, text in zip(columns, texts, strict=True)]


def _text_of(column: Column[Any]) -> ColumnElement[str]:
    """A column as a list in JSON, which holds no bytes."""
    shown = func.hex(column) if column.type.python_type is bytes else column
    text: ColumnElement[str] = func.json_group_array(shown)
    return text


def _values(column: Column[Any], text: str) -> Listed:
    try:
        return _read(column.type.python_type, text)
    except ValueError as error:
        message = f"{column} holds what is not of its type: {error}"
        raise ArchiveError(message) from error


def _read(type_: type, text: str) -> Listed:
    if type_ is str:
        return _texts.decode(text)
    if type_ is bytes:
        return list(map(bytes.fromhex, _texts.decode(text)))
    if text == _NOTHING or any(mark in text for mark in _NO_NUMBER):
        return _optional_numbers.decode(text)
    return np.fromstring(text[1:-1], np.int64, sep=",")
