"""What one viewer sees of the monitoring store: the one way from a route to records, whichever store holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from fastapi import Request

from siteward.pseudonyms import is_pseudonym, pseudonym_key
from siteward.query import Answer, AnswerRow, Filter, Query, QueryError, StoredRecord
from siteward.records import Column, Kind
from siteward.server.auth.viewing import viewer_of
from siteward.server.resources import AskedStore, Resources
from siteward.sight import Key, Sight
from siteward.viewer import Viewer

MOST_PEOPLE: Final = 100_000
"""Names among which a pseudonym that is asked for is sought."""


class SeenStore:
    """A store behind a viewer's eyes: its conditions are added to every question, names become pseudonyms."""

    def __init__(self, store: AskedStore, kinds: Mapping[str, Kind], viewer: Viewer, key: Key) -> None:
        """Look at a store.

        Args:
            store: whose.
            kinds: by name.
            viewer: who asks.
            key: gives the key of pseudonyms.
        """
        self._store = store
        self._kinds = kinds
        self._viewer = viewer
        self._key = key

    def query(self, query: Query) -> Answer:
        """The answer, from what the viewer may see; its query says by which conditions.

        Raises:
            QueryError: it cannot be answered, or the viewer may not ask it.
        """
        sight = self._sight(query.kind)
        filters = self._filters(query.kind, sight, query.filters)
        answer = self._store.query(msgspec.structs.replace(query, filters=(*filters, *sight.conditions)))
        rows = [self._shown(sight, query.by, row) for row in answer.rows]
        if sight.hidden.intersection(query.by):
            # In the order of the names, the pseudonyms would tell something of them.
            rows.sort(key=_order)
        shown = msgspec.structs.replace(answer.query, filters=(*query.filters, *sight.conditions))
        return msgspec.structs.replace(answer, rows=tuple(rows), query=shown)

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """Distinct values of a dimension that the viewer may see, most frequent first."""
        sight = self._sight(kind)
        conditions = (*self._filters(kind, sight, filters), *sight.conditions)
        found = self._store.values(kind, field, conditions, limit)
        shown = [sight.shown(field, value) for value in found]
        # Of those that are as frequent, the order would be that of the names.
        return sorted(shown, key=lambda value: (value is not None, value)) if field in sight.hidden else shown

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        """Single records that the viewer may see, newest first."""
        sight = self._sight(kind)
        conditions = (*self._filters(kind, sight, filters), *sight.conditions)
        found = self._store.records(kind, ids=ids, start=start, end=end, filters=conditions, limit=limit)
        return [
            msgspec.structs.replace(
                record, fields={name: sight.shown(name, value) for name, value in record.fields.items()}
            )
            for record in found
        ]

    def _sight(self, name: str) -> Sight:
        kind = self._kinds[name]
        return Sight(kind, self._viewer, _dimensions(kind), kind.column, self._key)

    def _filters(self, kind: str, sight: Sight, filters: Sequence[Filter]) -> list[Filter]:
        """Conditions on the store's records, pseudonyms in them as the names that they stand for."""
        sight.check(filters)
        return [self._named(kind, sight, each) if each.field in sight.hidden else each for each in filters]

    def _named(self, kind: str, sight: Sight, condition: Filter) -> Filter:
        if not any(map(_stands_for, condition.values)):
            return condition
        people = self._store.values(kind, condition.field, sight.conditions, MOST_PEOPLE)
        if len(people) == MOST_PEOPLE:
            message = f"{kind} has too many values of {condition.field} to find a pseudonym among them"
            raise QueryError(message)
        name_of = {sight.shown(condition.field, person): person for person in people}
        # One that nobody stands behind is nobody's name either.
        return msgspec.structs.replace(condition, values=tuple(name_of.get(each, each) for each in condition.values))

    @staticmethod
    def _shown(sight: Sight, by: Sequence[str], row: AnswerRow) -> AnswerRow:
        group = tuple(sight.shown(name, value) for name, value in zip(by, row.group, strict=False))
        return msgspec.structs.replace(row, group=group)


def seen_by(request: Request) -> Callable[[], SeenStore]:
    """What opens the monitoring store for the caller of a route.

    Raises:
        siteward.server.problems.Problem: 403, the caller may not read; 400, it has to say which VO is asked.
    """
    resources: Resources = request.app.state.resources
    settings = resources.settings
    viewer = viewer_of(request, settings)
    return lambda: SeenStore(resources.store, resources.kinds, viewer, lambda: pseudonym_key(settings))


def _dimensions(kind: Kind) -> dict[str, Column]:
    return {column.name: column for column in kind.dimensions}


def _stands_for(value: object) -> bool:
    return isinstance(value, str) and is_pseudonym(value)


def _order(row: AnswerRow) -> tuple[Any, ...]:
    """By time, then by group, unknown values first, Other last."""
    return (
        row.time is not None,
        row.time,
        row.other,
        [(value is not None, value) for value in row.group],
    )
