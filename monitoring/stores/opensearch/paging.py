"""Groups and buckets as sources of a composite aggregation, and back: the way to have all of them, page by page."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from monitoring.stores.answers import SECOND
from monitoring.stores.opensearch.conditions import Clause, Group
from monitoring.stores.opensearch.defaults import default_of
from monitoring.stores.opensearch.templates import TIME
from monitoring.stores.opensearch.view import Bucket
from siteward.records import Kind

T = TypeVar("T")
Cell = tuple[int | None, Group]
"""A bucket of time by its number (its start divided by the width), None where all is one, and a group within it."""
EVERYTHING: Final[Cell] = (None, ())
OTHER: Final[Group] = ()
"""The group of all records that are in none of the groups told apart."""


class Cells:
    """How records are divided into cells, and which of the cluster's buckets belong to one cell.

    The cluster keeps documents without a field apart from those with its default, and knows no Other.

    Attributes:
        by: dimensions to group by.
        width: of the buckets of time in seconds; 0 is one bucket for all.
    """

    def __init__(self, kind: Kind, by: Sequence[str], width: int, kept: Container[Group] | None = None) -> None:
        """Divide.

        Args:
            kind: of the records.
            by: dimensions to group by.
            width: of the buckets of time in seconds; 0 is one bucket for all.
            kept: groups that are told apart, all others are Other; None for all groups.
        """
        self.by = by
        self.width = width
        self._kind = kind
        self._kept = kept

    def sources(self, more: Sequence[str] = ()) -> list[Clause]:
        """The sources that make at least one bucket of each cell; see sources_of."""
        return sources_of(self.by, self.width, more)

    def cell(self, bucket: Bucket) -> Cell:
        """The cell of a bucket."""
        return self.placed(bucket)[0]

    def placed(self, bucket: Bucket) -> tuple[Cell, bool]:
        """The cell of a bucket, and whether no later bucket belongs to it.

        Buckets without a value come before all that have one, so that the bucket which is named as its cell is the
        cell's last one. Other has none of that name.
        """
        key = bucket["key"]
        number = round(key["time"]) // (self.width * SECOND) if self.width else None
        found = tuple([key[f"by{place}"] for place in range(len(self.by))])
        group = self._group(found)
        return (number, group), group == found

    def cell_of_record(self, source: Mapping[str, Any]) -> Cell:
        """The cell of a record as the cluster holds it."""
        number = source[TIME] // (self.width * SECOND) if self.width else None
        return number, self._group(tuple([source.get(name) for name in self.by]))

    def values(self, names: Sequence[str], found: Sequence[Any]) -> Group:
        """Values of fields, with the default of each that a bucket lacks."""
        if None not in found:
            return tuple(found)
        pairs = zip(names, found, strict=True)
        return tuple([default_of(self._kind, name) if value is None else value for name, value in pairs])

    def _group(self, found: Group) -> Group:
        group = self.values(self.by, found)
        return group if self._kept is None or group in self._kept else OTHER


def gathered(found: Iterable[tuple[Cell, bool, T]], add: Callable[[T, T], T]) -> Iterator[tuple[Cell, T]]:
    """One value of each cell, of one or more buckets.

    Args:
        found: cell, whether it is the cell's last bucket, and value of each bucket; see Cells.placed.
        add: puts two values together.
    """
    held: dict[Cell, T] = {}
    for cell, is_last, value in found:
        whole = add(held.pop(cell), value) if cell in held else value
        if is_last:
            yield cell, whole
        else:
            held[cell] = whole
    yield from held.items()


def sources_of(by: Sequence[str], width: int, more: Sequence[str] = ()) -> list[Clause]:
    """The sources of a composite aggregation.

    Args:
        by: dimensions to group by.
        width: of the buckets of time in seconds; 0 is one bucket for all.
        more: further fields that cells are divided by, see more_of.
    """
    sources: list[Clause] = []
    if width:
        # Exact although it computes in doubles: times lie below 2^53 microseconds, and what is divided is floored.
        sources.append({"time": {"histogram": {"field": TIME, "interval": width * SECOND}}})
    sources += [_terms(f"by{place}", name) for place, name in enumerate(by)]
    return sources + [_terms(f"more{place}", name) for place, name in enumerate(more)]


def _terms(name: str, field: str) -> Clause:
    # Their order is what Cells.placed counts on.
    return {name: {"terms": {"field": field, "missing_bucket": True, "missing_order": "first", "order": "asc"}}}


def more_of(bucket: Bucket, place: int) -> Any:  # noqa: ANN401  # a value of whatever type the field has.
    """A bucket's value of a further field."""
    return bucket["key"][f"more{place}"]


def order_of(group: Group) -> tuple[tuple[bool, Any], ...]:
    """What groups are sorted by: unknown values come last."""
    return tuple((value is None, 0 if value is None else value) for value in group)
