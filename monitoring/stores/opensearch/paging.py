"""Groups and buckets as sources of a composite aggregation, and back: the way to have all of them, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from monitoring.stores.answers import SECOND
from monitoring.stores.opensearch.conditions import Clause, Group
from monitoring.stores.opensearch.templates import TIME
from monitoring.stores.opensearch.view import Bucket

Cell = tuple[int | None, Group]
"""A bucket of time by its number (its start divided by the width), None where all is one, and a group within it."""
EVERYTHING: Final[Cell] = (None, ())


def sources_of(by: Sequence[str], width: int, more: Sequence[str] = ()) -> list[Clause]:
    """The sources that make one bucket of each cell.

    Args:
        by: dimensions to group by.
        width: of the buckets of time in seconds; 0 is one bucket for all.
        more: further fields that cells are divided by, see field_of.
    """
    sources: list[Clause] = []
    if width:
        # Exact although it computes in doubles: times lie below 2^53 microseconds, and what is divided is floored.
        sources.append({"time": {"histogram": {"field": TIME, "interval": width * SECOND}}})
    sources += [_terms(f"by{place}", name) for place, name in enumerate(by)]
    return sources + [_terms(f"more{place}", name) for place, name in enumerate(more)]


def _terms(name: str, field: str) -> Clause:
    return {name: {"terms": {"field": field, "missing_bucket": True}}}


def cell_of(bucket: Bucket, by: Sequence[str], width: int) -> Cell:
    """The cell of a bucket."""
    key = bucket["key"]
    number = round(key["time"]) // (width * SECOND) if width else None
    return number, tuple([key[f"by{place}"] for place in range(len(by))])


def cell_of_record(source: Mapping[str, Any], by: Sequence[str], width: int) -> Cell:
    """The cell of a record as the cluster holds it."""
    number = source[TIME] // (width * SECOND) if width else None
    return number, tuple([source.get(name) for name in by])


def more_of(bucket: Bucket, place: int) -> Any:  # noqa: ANN401  # a value of whatever type the field has.
    """A bucket's value of a further field."""
    return bucket["key"][f"more{place}"]


def order_of(group: Group) -> tuple[tuple[bool, Any], ...]:
    """What groups are sorted by: unknown values come last."""
    return tuple((value is None, 0 if value is None else value) for value in group)
