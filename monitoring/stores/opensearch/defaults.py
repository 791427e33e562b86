"""What a document lacks because its kind gained the field later: such a record has the field's default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siteward.records import Kind


def default_of(kind: Kind, name: str) -> Any:  # noqa: ANN401  # a value of whatever type the field has.
    """What a record has whose document lacks a field; None is unknown.

    Documents hold every value that is known. One without a field that cannot be unknown is therefore older than the
    field. Products are in no column, and have no default: their factors have.
    """
    column = kind.column.get(name)
    return None if column is None or column.optional else column.default


def value_of(kind: Kind, name: str, source: Mapping[str, Any]) -> Any:  # noqa: ANN401  # the same.
    """A document's value of a field."""
    value = source.get(name)
    return default_of(kind, name) if value is None else value
