"""Groups that are told from dimensions: asked by these, and named for each stretch of time as may be seen; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from accounting.booking.buckets import SECOND
from accounting.query.conditions import Group
from accounting.query.cuts import Stretch
from accounting.topology.attributes import Topology
from siteward.query import Filter, QueryError, is_met
from siteward.records import Kind
from siteward.sight import Sight
from siteward.usage import UsageQuery
from siteward.usage_text import bases_of


def is_derived(name: str) -> bool:
    """Whether a name is that of an attribute of a dimension, such as `site.country`."""
    return "." in name


class Derivation:
    """A question whose groups and filters may be derived from a topology, or from two ends."""

    def __init__(self, kind: Kind, query: UsageQuery, topology: Topology, sight: Sight) -> None:
        """Take the parts.

        Args:
            kind: the kind asked.
            query: the question; every name of it is known.
            topology: what the values of dimensions belong to.
            sight: what the viewer sees.
        """
        self._topology = topology
        self._query = query
        self._sight = sight
        self._bases = {name: bases_of(kind, name) for name in (*query.by, *(each.field for each in query.filters))}
        self._filters = [each for each in query.filters if not self._is_plain(each.field)]
        named = dict.fromkeys([*query.by, *(each.field for each in self._filters)])
        dimensions = dict.fromkeys(base for name in named for base in self._bases[name])
        self._places = {name: place for place, name in enumerate(dimensions)}
        self._derived = [name for name in named if is_derived(name)]
        self._is_base = not self._filters and all(map(self._is_plain, query.by))

    def _is_plain(self, name: str) -> bool:
        """Whether the database can compare its values."""
        return self._bases[name] == (name,)

    @property
    def base(self) -> UsageQuery:
        """What is asked of the buckets: the dimensions themselves, the conditions on them, and what is visible."""
        filters = (*(each for each in self._query.filters if self._is_plain(each.field)), *self._sight.conditions)
        return msgspec.structs.replace(self._query, by=tuple(self._places), filters=filters)

    def pieces(self, period: Stretch) -> Iterator[Stretch]:
        """Parts of a period, in order, within each of which every value belongs to the same."""
        changes = {
            instant * SECOND
            for name in self._derived
            for base in self._bases[name]
            for instant in self._topology.changes(base, name.partition(".")[2])
            if period[0] < instant * SECOND < period[1]
        }
        return pairwise(sorted({*period, *changes}))

    def group(self, base: Group, instant: int) -> Group | None:
        """The group to which a group of the base question belongs at an instant; None where a filter leaves it out."""
        if self._is_base:
            return base
        second = instant // SECOND
        if not all(is_met(each, self._value(each.field, base, second)) for each in self._filters):
            return None
        return tuple(self._value(name, base, second) for name in self._query.by)

    def filters_at(self, instant: int, values: Mapping[str, Iterable[str]]) -> tuple[Filter, ...] | None:
        """The question's filters as those of dimensions only, as they are at an instant; None where nothing meets them.

        Args:
            instant: microseconds since 1970 UTC.
            values: every value of each dimension of `filtered`.

        Raises:
            QueryError: a condition is on two dimensions at once.
        """
        found = list(self.base.filters)
        for each in self._filters:
            bases = self._bases[each.field]
            if len(bases) > 1:
                message = f"{each.field!r} is two dimensions; name {' and '.join(bases)} instead"
                raise QueryError(message)
            told = {value: self._told(each.field, (value,), instant // SECOND) for value in values[bases[0]]}
            met = tuple(value for value, shown in told.items() if is_met(each, shown))
            if not met:
                return None
            found.append(Filter(bases[0], met))
        return tuple(found)

    @property
    def filtered(self) -> list[str]:
        """The dimensions from which the conditions of `filters_at` are told."""
        return list(dict.fromkeys(base for each in self._filters for base in self._bases[each.field]))

    def _value(self, name: str, base: Group, second: int) -> Any:  # noqa: ANN401  # of any dimension.
        return self._told(name, [base[self._places[dimension]] for dimension in self._bases[name]], second)

    def _told(self, name: str, values: Sequence[Any], second: int) -> Any:  # noqa: ANN401  # of any dimension.
        """What the values of the dimensions that a name is told from come to, as the viewer sees it.

        A dimension itself stays what the ledger holds: whoever makes the answer names people, all at once.
        """
        if self._is_plain(name):
            return values[0]
        attribute = name.partition(".")[2]
        ends = [
            self._belongs((dimension, value, attribute), second) if attribute else self._sight.shown(dimension, value)
            for dimension, value in zip(self._bases[name], values, strict=True)
        ]
        return self._sight.shown(name, ends[0] if len(ends) == 1 else _channel(*ends))

    def _belongs(self, key: tuple[str, Any, str], second: int) -> str | None:
        dimension, value, attribute = key
        return None if value is None else self._topology.at((dimension, str(value), attribute), second)


def _channel(source: str | None, destination: str | None) -> str | None:
    """Both ends as one value; an end of which nothing is known is empty, and None or empty where neither is."""
    if not source and not destination:
        return source
    return "→".join((end or "").replace("\\", "\\\\").replace("→", "\\→") for end in (source, destination))
