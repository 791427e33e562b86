"""Filters and windows as SQL conditions: names from the kind, values as bound parameters only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil, floor, inf
from typing import Final

from monitoring.stores.duckdb.tables import quoted
from siteward.query import Filter
from siteward.records import Kind, Type

Parameter = str | int | float | bool | bytes | datetime | None
Parameters = dict[str, Parameter]
FARTHEST: Final = 2**64
_ESCAPE: Final = "\\"
_PATTERN: Final = str.maketrans(
    {"*": "%", "?": "_", "%": f"{_ESCAPE}%", "_": f"{_ESCAPE}_", _ESCAPE: f"{_ESCAPE}{_ESCAPE}"}
)
"""Wildcards as LIKE spells them; what LIKE would take for a wildcard is escaped."""


class Conditions:
    """A growing conjunction and its parameters.

    Attributes:
        parameters: values by name, for every `$name` in the texts returned.
    """

    def __init__(self, kind: Kind) -> None:
        """Begin without a condition."""
        self.kind = kind
        self.parameters: Parameters = {}
        self._parts: list[str] = []

    def __str__(self) -> str:
        """The conditions so far, joined; TRUE where there are none."""
        return " AND ".join(self._parts) or "TRUE"

    def bind(self, value: Parameter) -> str:
        """A placeholder for a value."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = naive(value) if isinstance(value, datetime) else value
        return f"${name}"

    def within(self, start: datetime | None, end: datetime | None) -> Conditions:
        """Add a half-open window on the kind's partition time."""
        time = quoted(self.kind.time)
        if start is not None:
            self._parts.append(f"{time} >= {self.bind(start)}")
        if end is not None:
            self._parts.append(f"{time} < {self.bind(end)}")
        return self

    def received_before(self, end: datetime) -> Conditions:
        """Add that the store took the record before an instant."""
        self._parts.append(f"_received < {self.bind(end)}")
        return self

    def meet(self, filters: Sequence[Filter]) -> Conditions:
        """Add checked filters."""
        for condition in filters:
            self._parts += self._filter(condition)
        return self

    def have_ids(self, ids: Sequence[bytes]) -> Conditions:
        """Add that the record is one of these."""
        pairs = ", ".join(
            f"({self.bind(int.from_bytes(identifier[:8], 'big'))}::UBIGINT, "
            f"{self.bind(int.from_bytes(identifier[8:], 'big'))}::UBIGINT)"
            for identifier in ids
        )
        highs = [int.from_bytes(identifier[:8], "big") for identifier in ids]
        self._parts.append(f"_id_high BETWEEN {self.bind(min(highs))} AND {self.bind(max(highs))}")
        self._parts.append(f"(_id_high, _id_low) IN ({pairs})")
        return self

    def _filter(self, condition: Filter) -> list[str]:
        name = quoted(condition.field)
        parts = []
        if condition.values:
            accepted = self._accepted(name, condition)
            # An unknown value is none of these, so that a negated filter accepts it: SQL's NULL would drop it.
            parts.append(f"NOT coalesce({accepted}, false)" if condition.negated else f"({accepted})")
        whole = self.kind.column[condition.field].type is Type.INTEGER
        if condition.minimum is not None or condition.maximum is not None:
            # Bounds without an end take every value that is known.
            parts.append(f"{name} IS NOT NULL")
        if condition.minimum is not None and condition.minimum != -inf:
            bound = self.bind(_ceiling(condition.minimum) if whole else condition.minimum)
            parts.append(f"{name} >= {bound}")
        if condition.maximum is not None and condition.maximum != inf:
            bound = self.bind(_floor(condition.maximum) if whole else condition.maximum)
            parts.append(f"{name} <= {bound}")
        return parts

    def _accepted(self, name: str, condition: Filter) -> str:
        if condition.wildcard:
            patterns = (str(value).translate(_PATTERN) for value in condition.values)
            return " OR ".join(f"{name} LIKE {self.bind(pattern)} ESCAPE '{_ESCAPE}'" for pattern in patterns)
        known = [value for value in condition.values if value is not None]
        options = [f"{name} IN ({', '.join(map(self.bind, known))})"] if known else []
        options += [f"{name} IS NULL"] if None in condition.values else []
        return " OR ".join(options)


def _ceiling(bound: float) -> float | int:
    """The bound as an integer: compared with a float, large integers would lose their last digits."""
    return bound if bound == inf else _bindable(ceil(bound))


def _floor(bound: float) -> float | int:
    return bound if bound == -inf else _bindable(floor(bound))


def _bindable(bound: int) -> int:
    """An integer that DuckDB takes; no stored one lies beyond it."""
    return min(max(bound, -FARTHEST), FARTHEST)


def naive(moment: datetime) -> datetime:
    """An aware instant as a table's TIMESTAMP holds it: in UTC without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None)
