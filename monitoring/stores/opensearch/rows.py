"""From documents to records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitoring.stores.opensearch.documents import microseconds_of
from monitoring.stores.opensearch.templates import MESSAGE, PRODUCER, RECEIVED
from siteward.query import StoredRecord
from siteward.records import Column, Kind, Type, moment


def record_of(kind: Kind, hit: Mapping[str, Any]) -> StoredRecord:
    """One hit of a search for whole documents."""
    source = hit["_source"]
    return StoredRecord(
        id=hit["_id"],
        fields={column.name: _value(column, source.get(column.name)) for column in kind.columns},
        producer=source[PRODUCER],
        message=source[MESSAGE],
        received=moment(source[RECEIVED]),
    )


def _value(column: Column, value: Any) -> Any:  # noqa: ANN401  # a value of whatever type the field has.
    if value is None:
        return None if column.optional else column.default
    if column.type is Type.NUMBER:
        return float(value)
    return moment(microseconds_of(value)) if column.type is Type.TIME else value
