"""Groups by what a dimension's values belong to: asked by the dimension, named anew for each stretch of time; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from accounting.buckets import SECOND
from accounting.conditions import Group
from accounting.cuts import Stretch
from accounting.topology import Topology
from siteward.query import Filter
from siteward.usage import UsageQuery


def is_derived(name: str) -> bool:
    """Whether a name is that of an attribute of a dimension, such as `site.country`."""
    return "." in name


class Derivation:
    """A question whose groups and filters may be derived from a topology."""

    def __init__(self, query: UsageQuery, topology: Topology) -> None:
        """Take both.

        Args:
            query: the question; every name of it is known.
            topology: what the values of dimensions belong to.
        """
        self._topology = topology
        self._query = query
        self._filters = [each for each in query.filters if is_derived(each.field)]
        named = [*query.by, *(each.field for each in self._filters)]
        self._places = {name: place for place, name in enumerate(dict.fromkeys(_base(name) for name in named))}
        self._derived = [name for name in dict.fromkeys(named) if is_derived(name)]

    @property
    def base(self) -> UsageQuery:
        """What is asked of the buckets: the dimensions themselves, and the conditions on them."""
        filters = tuple(each for each in self._query.filters if not is_derived(each.field))
        return msgspec.structs.replace(self._query, by=tuple(self._places), filters=filters)

    def pieces(self, period: Stretch) -> Iterator[Stretch]:
        """Parts of a period, in order, within each of which every value belongs to the same."""
        changes = {
            instant * SECOND
            for name in self._derived
            for instant in self._topology.changes(*name.split(".", 1))
            if period[0] < instant * SECOND < period[1]
        }
        return pairwise(sorted({*period, *changes}))

    def group(self, base: Group, instant: int) -> Group | None:
        """The group to which a group of the base question belongs at an instant; None where a filter leaves it out."""
        second = instant // SECOND
        if not all(_is_met(each, self._value(each.field, base, second)) for each in self._filters):
            return None
        return tuple(self._value(name, base, second) for name in self._query.by)

    def filters_at(self, instant: int, values: Mapping[str, Iterable[str]]) -> tuple[Filter, ...] | None:
        """The question's filters as those of dimensions only, as they are at an instant; None where nothing meets them.

        Args:
            instant: microseconds since 1970 UTC.
            values: every value of each dimension of which an attribute is filtered by.
        """
        found = list(self.base.filters)
        for each in self._filters:
            dimension, attribute = each.field.split(".", 1)
            told = {
                value: self._topology.at((dimension, value, attribute), instant // SECOND)
                for value in values[dimension]
            }
            met = tuple(value for value, belongs_to in told.items() if _is_met(each, belongs_to))
            if not met:
                return None
            found.append(Filter(dimension, met))
        return tuple(found)

    @property
    def filtered(self) -> list[str]:
        """The dimensions of which an attribute is filtered by."""
        return list(dict.fromkeys(_base(each.field) for each in self._filters))

    def _value(self, name: str, base: Group, second: int) -> Any:  # noqa: ANN401  # of any dimension.
        value = base[self._places[_base(name)]]
        if not is_derived(name) or value is None:
            return value
        dimension, attribute = name.split(".", 1)
        return self._topology.at((dimension, str(value), attribute), second)


def _base(name: str) -> str:
    return name.partition(".")[0]


def _is_met(condition: Filter, value: str | None) -> bool:
    if condition.wildcard:
        is_met = value is not None and any(_pattern(str(each)).fullmatch(value) for each in condition.values)
    else:
        is_met = value in condition.values
    return is_met is not condition.negated


def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if character == "*" else "." if character == "?" else re.escape(character) for character in text)
    return re.compile("".join(parts), re.DOTALL)
