"""What one viewer sees of the monitoring store: the one way from a route to records, whichever store holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from fastapi import Request

from siteward.people import People, personal_names
from siteward.query import Answer, AnswerRow, Filter, Query, StoredRecord
from siteward.records import Column, Kind
from siteward.server.auth.viewing import viewer_of
from siteward.server.resources import AskedStore, Resources
from siteward.sight import MOST_PEOPLE, Sight
from siteward.viewer import Viewer


class SeenStore:
    """A store behind a viewer's eyes: its conditions are added to every question, who may see names sees names."""

    def __init__(self, store: AskedStore, kinds: Mapping[str, Kind], viewer: Viewer, people: People) -> None:
        """Look at a store.

        Args:
            store: whose.
            kinds: by name.
            viewer: who asks.
            people: their names.
        """
        self._store = store
        self._kinds = kinds
        self._viewer = viewer
        self._people = people

    def query(self, query: Query) -> Answer:
        """The answer, from what the viewer may see; its query says by which conditions.

        Raises:
            QueryError: it cannot be answered, or the viewer may not ask it.
        """
        sight = self._sight(query.kind)
        filters = self._asked(query.kind, sight, query.filters)
        answer = self._store.query(msgspec.structs.replace(query, filters=(*filters, *sight.conditions)))
        rows = answer.rows
        if sight.names_people(query.by):
            for place, name in enumerate(query.by):
                sight.look_up(name, (row.group[place] for row in rows if not row.other))
            # They come in the order of the pseudonyms.
            rows = tuple(sorted((self._shown(sight, query.by, row) for row in rows), key=_order))
        told = msgspec.structs.replace(answer.query, filters=(*query.filters, *sight.told))
        # A cycle is of whoever is in it: how many came in part is for those who see all of them.
        incomplete = None if sight.conditions else answer.incomplete
        return msgspec.structs.replace(answer, rows=rows, query=told, incomplete=incomplete)

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """Distinct values of a dimension that the viewer may see, most frequent first."""
        sight = self._sight(kind)
        found = self._store.values(kind, field, (*self._asked(kind, sight, filters), *sight.conditions), limit)
        sight.look_up(field, found)
        return [sight.shown(field, value) for value in found]

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
        conditions = (*self._asked(kind, sight, filters), *sight.conditions)
        found = self._store.records(kind, ids=ids, start=start, end=end, filters=conditions, limit=limit)
        for name in personal_names([self._kinds[kind]]):
            sight.look_up(name, (record.fields.get(name) for record in found))
        return [
            msgspec.structs.replace(
                record, fields={name: sight.shown(name, value) for name, value in record.fields.items()}
            )
            for record in found
        ]

    def _sight(self, name: str) -> Sight:
        kind = self._kinds[name]
        return Sight(kind, self._viewer, _dimensions(kind), kind.column, self._people)

    def _asked(self, kind: str, sight: Sight, filters: Sequence[Filter]) -> tuple[Filter, ...]:
        return sight.asked(
            filters, lambda field: self._store.values(kind, field, sight.conditions, limit=MOST_PEOPLE + 1)
        )

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
    viewer = viewer_of(request, resources.settings)
    return lambda: SeenStore(resources.store, resources.kinds, viewer, resources.people)


def _dimensions(kind: Kind) -> dict[str, Column]:
    return {column.name: column for column in kind.dimensions}


def _order(row: AnswerRow) -> tuple[Any, ...]:
    """By time, then by group, unknown values first, Other last."""
    return (
        row.time is not None,
        row.time,
        row.other,
        [(value is not None, value) for value in row.group],
    )
