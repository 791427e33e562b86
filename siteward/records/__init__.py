"""What a record kind is: dimensions, measures, time, identity; declared once, everything else derived."""

from siteward.records.declaration import Column, DeclarationError, Shape, Type
from siteward.records.declare import kind_from_table, kind_of
from siteward.records.fields import UNITS, Bound, Combine, Dimension, Former, Measure, Product, Ratio
from siteward.records.identity import anonymous_id, id_bytes, id_text, microseconds, moment, record_id
from siteward.records.kind import Kind, Row
from siteward.records.refusal import Refused
from siteward.records.shapes import Event, Interval, Record, Snapshot

__all__ = [
    "UNITS",
    "Bound",
    "Column",
    "Combine",
    "DeclarationError",
    "Dimension",
    "Event",
    "Former",
    "Interval",
    "Kind",
    "Measure",
    "Product",
    "Ratio",
    "Record",
    "Refused",
    "Row",
    "Shape",
    "Snapshot",
    "Type",
    "anonymous_id",
    "id_bytes",
    "id_text",
    "kind_from_table",
    "kind_of",
    "microseconds",
    "moment",
    "record_id",
]
