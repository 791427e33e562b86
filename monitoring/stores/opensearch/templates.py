"""Index names and index templates, derived from the kinds: pure, and the same wherever they are derived."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

from monitoring.stores import StoreError
from siteward.records import Column, Dimension, Kind, Type
from siteward.settings import MonitoringSettings

LAYOUT: Final = 1
"""Number of the way in which documents are laid out; a template made by a newer Siteward has a larger one."""
PRIORITY: Final = 500
"""Above the catch-all templates that clusters tend to have."""
OWN: Final = "siteward"
"""The object that holds what every document has beside its kind's fields."""
TIME: Final = f"{OWN}.time"
"""The partition time in microseconds: windows, buckets and order are computed from it, never from a date field."""
PRODUCER: Final = f"{OWN}.producer"
MESSAGE: Final = f"{OWN}.message"
RECEIVED: Final = f"{OWN}.received"
WIDE: Final = f"{OWN}.wide"
"""Names of the products that do not fit 64 bits in this record and are therefore missing from it."""
LOW: Final = f"{OWN}.low"
HIGH: Final = f"{OWN}.high"
LOW_BITS: Final = 26
"""A byte measure is also stored as `value >> 26` and the 26 bits below: OpenSearch adds up in doubles, which stay
exact for either part where they do not for the whole."""
DAILY: Final = timedelta(days=45)
"""Kinds kept no longer than this get an index per day, so that whole indices can be deleted in time."""
DAY: Final = "day"
MONTH: Final = "month"
LONGEST_NAME: Final = 255
"""Bytes of an index's name, as clusters limit them."""
_PERIOD: Final = "-2026.11.30"
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_DAY_MS: Final = 86_400_000
_BYTES: Final = "B"
_TYPES: Final[dict[Type, dict[str, Any]]] = {
    Type.STRING: {"type": "keyword"},
    Type.INTEGER: {"type": "long"},
    Type.NUMBER: {"type": "double"},
    Type.BOOLEAN: {"type": "boolean"},
    Type.TIME: {"type": "date", "format": "epoch_millis"},
}
_UNINDEXED: Final[dict[str, Any]] = {"type": "long", "index": False}
"""Measures are aggregated and compared by their doc values alone; an index of each would double the writing."""


class KindsClash(StoreError):  # noqa: N818  # reads as the state it is.
    """Kinds that one cluster cannot keep apart."""

    permanent = True


def family(prefix: str, kind: Kind) -> str:
    """How the names of all indices of a kind begin; also the name of their template."""
    return f"{prefix}-{kind.name}"


def index_patterns(prefix: str, kind: Kind) -> list[str]:
    """Which indices are the kind's. Years begin with 1 or 2, so that `job` does not take those of `job-step`."""
    return [f"{family(prefix, kind)}-{century}*" for century in (1, 2)]


def searched(prefix: str, kind: Kind) -> str:
    """All indices of a kind, as a request's path names them; there may be none."""
    return ",".join(index_patterns(prefix, kind))


def is_daily(kind: Kind) -> bool:
    """Whether a kind that is new to a cluster gets an index per day rather than per month."""
    return kind.retention is not None and kind.retention <= DAILY


def index_name(prefix: str, kind: Kind, identifier: bytes, *, daily: bool = False) -> str:
    """The index of a record id, such as `siteward-job-2026.11`: of the id's own time, which no revision moves."""
    day = _EPOCH_DAY + int.from_bytes(identifier[:6], "big") // _DAY_MS
    found = date.fromordinal(min(day, date.max.toordinal()))
    return f"{family(prefix, kind)}-{found:%Y.%m.%d}" if daily else f"{family(prefix, kind)}-{found:%Y.%m}"


def period_end(prefix: str, kind: Kind, index: str) -> date | None:
    """The first day after an index's period; None where the name is not one of ours."""
    parts = index.removeprefix(f"{family(prefix, kind)}-").split(".")
    if len(parts) not in {2, 3} or not all(part.isdecimal() for part in parts):
        return None
    try:
        first = date(int(parts[0]), int(parts[1]), int(parts[2]) if parts[2:] else 1)
    except ValueError:
        return None
    if parts[2:]:
        return first + timedelta(days=1)
    return (first + timedelta(days=31)).replace(day=1)


def is_named_by_day(prefix: str, kind: Kind, index: str) -> bool:
    """Whether the period of one of a kind's indices is a day, not a month."""
    return index.removeprefix(f"{family(prefix, kind)}-").count(".") > 1


def split_names(kind: Kind) -> tuple[str, ...]:
    """Measures and products in bytes, whose sums may pass 2^53 and which are therefore stored as two parts too."""
    measures = [column.name for column in kind.measures if column.type is Type.INTEGER and column.unit == _BYTES]
    products = [
        name
        for name, product in kind.products.items()
        if product.unit == _BYTES or any(kind.column[factor].unit == _BYTES for factor in product.factors)
    ]
    return (*measures, *products)


def properties_of(kind: Kind) -> dict[str, Any]:
    """The mapping of every field: those of the kind, its products, and our own object."""
    fields = {column.name: _mapped(column) for column in kind.columns}
    fields |= {name: dict(_UNINDEXED) for name in kind.products}
    own: dict[str, Any] = {
        "time": {"type": "long"},
        "producer": {"type": "keyword"},
        "message": {"type": "keyword", "doc_values": False},
        "received": dict(_UNINDEXED),
    }
    if kind.products:
        own["wide"] = {"type": "keyword"}
    parts = {name: dict(_UNINDEXED) for name in split_names(kind)}
    if parts:
        own |= {"low": {"properties": dict(parts)}, "high": {"properties": dict(parts)}}
    return fields | {OWN: {"properties": own}}


def _mapped(column: Column) -> dict[str, Any]:
    mapped = dict(_TYPES[column.type])
    if column.type in {Type.INTEGER, Type.NUMBER} and not isinstance(column.role, Dimension):
        mapped["index"] = False
    return mapped


def settings_of(settings: MonitoringSettings) -> dict[str, Any]:
    """The settings of a new index, in the words and types in which OpenSearch shows them again."""
    copies = "number_of_replicas" if settings.replicas.isdecimal() else "auto_expand_replicas"
    return {
        "index": {
            "number_of_shards": str(settings.shards),
            copies: settings.replicas,
            "refresh_interval": f"{round(settings.refresh * 1000)}ms",
        }
    }


def template_of(kind: Kind, settings: MonitoringSettings, *, daily: bool) -> dict[str, Any]:
    """The index template of a kind, as `PUT _index_template` takes it and `GET` shows it.

    It keeps in mind whether the kind's indices are of a day or a month: once it is made, a changed retention changes
    that no more, or a record that is sent again would go into another index and count twice.
    """
    return {
        "index_patterns": index_patterns(settings.prefix, kind),
        "priority": PRIORITY,
        "version": LAYOUT,
        "_meta": {OWN: {"prefix": settings.prefix, "kind": kind.name, "period": DAY if daily else MONTH}},
        "template": {
            "settings": settings_of(settings),
            "mappings": {"dynamic": "strict", "properties": properties_of(kind)},
        },
    }


def check_names(kinds: Mapping[str, Kind], prefix: str = "") -> None:
    """Refuse kinds whose indices or fields could not be told apart, or named at all.

    Args:
        kinds: by name.
        prefix: of the installation.

    Raises:
        KindsClash: naming them and what to rename.
    """
    for kind in kinds.values():
        length = len(f"{family(prefix, kind)}{_PERIOD}".encode())
        if length > LONGEST_NAME:
            message = (
                f"the names of the indices of kind {kind.name!r} would have {length} bytes, and OpenSearch takes "
                f"{LONGEST_NAME}; shorten monitoring.prefix or the kind's name"
            )
            raise KindsClash(message)
        if OWN in kind.column or OWN in kind.products:
            message = f"kind {kind.name!r} has a field {OWN!r}, where OpenSearch documents keep our own; rename it"
            raise KindsClash(message)
        for other in kinds:
            rest = other.removeprefix(f"{kind.name}-")
            if rest != other and rest[:1] in {"1", "2"}:
                message = f"the indices of kind {other!r} could be taken for those of {kind.name!r}; rename one of them"
                raise KindsClash(message)
