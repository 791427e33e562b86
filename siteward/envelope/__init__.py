"""The wire format: many records of one kind and one VO in one message (docs/reference/envelope.md)."""

from siteward.envelope.dividing import cut, divide
from siteward.envelope.opening import Parcel, as_json, check_units, open_envelope
from siteward.envelope.sealing import JSON, MAX_BYTES, MAX_RECORDS, MSGPACK, ZSTD, Columns, Envelope, Header, seal

__all__ = [
    "JSON",
    "MAX_BYTES",
    "MAX_RECORDS",
    "MSGPACK",
    "ZSTD",
    "Columns",
    "Envelope",
    "Header",
    "Parcel",
    "as_json",
    "check_units",
    "cut",
    "divide",
    "open_envelope",
    "seal",
]
