"""From what SQL returns to records."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from monitoring.stores.duckdb.tables import OWN_COLUMNS
from siteward.query import StoredRecord
from siteward.records import Kind, Type


def record_of(kind: Kind, row: tuple[Any, ...]) -> StoredRecord:
    """One row of a records statement."""
    high, low, producer, message, received = row[: len(OWN_COLUMNS)]
    fields = dict(zip(kind.names, row[len(OWN_COLUMNS) :], strict=True))
    for column in kind.columns:
        if column.type is Type.TIME and fields[column.name] is not None:
            fields[column.name] = fields[column.name].replace(tzinfo=UTC)
    return StoredRecord(
        id=f"{high:016x}{low:016x}",
        fields=fields,
        producer=producer,
        message=bytes(message).hex(),
        received=received.replace(tzinfo=UTC),
    )
