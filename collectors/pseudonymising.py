"""The steps that keep people's names apart: pseudonyms in their place, names into the table of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from collectors.steps import Haul
from siteward.records import Kind
from siteward.server.people_table import PeopleTable
from siteward.sight import pseudonym_of
from siteward.sinks import Batch

MOST_KNOWN: Final = 200_000
"""Names of one dimension whose pseudonyms are remembered."""
Names = dict[str, tuple[str, str]]
"""Dimension and name by pseudonym."""


class Pseudonymise:
    """Put pseudonyms in place of people's names: no store holds any, nor an id that is made of one."""

    def __init__(self, people: PeopleTable) -> None:
        """Take what makes pseudonyms."""
        self._people = people
        self._known: dict[str, dict[str | None, str | None]] = {}

    def __call__(self, haul: Haul) -> None:
        """Replace the personal columns of every batch, and leave the names in the haul.

        Raises:
            siteward.settings.SettingsError, OSError: there is no key of pseudonyms.
        """
        for batch in haul.batches.values():
            haul.people |= self.replace(batch)
            if names_people(batch.kind):
                batch.ids = list(map(self._people.keyed, batch.ids))

    def replace(self, batch: Batch) -> Names:
        """Replace the personal columns of a batch; whom they named."""
        names: Names = {}
        personal = [column.name for column in batch.kind.columns if column.personal]
        batch.columns = batch.columns | {name: self._replaced(batch.columns, name, names) for name in personal}
        return names

    def _replaced(self, columns: Mapping[str, list[Any]], dimension: str, names: Names) -> list[Any]:
        known = self._known.setdefault(dimension, {})
        if len(known) > MOST_KNOWN:
            known.clear()
        for name in set(columns[dimension]):
            if name not in known:
                # What has the form of a pseudonym was one for its sender already.
                known[name] = pseudonym_of(self._people, dimension, name) if name else name
            code = known[name]
            if name and code and code != name:
                names[code] = (dimension, name)
        return list(map(known.__getitem__, columns[dimension]))


class Enter:
    """Commit the names to the table of people, before any record that holds their pseudonyms."""

    def __init__(self, people: PeopleTable) -> None:
        """Take the table."""
        self._people = people

    def __call__(self, haul: Haul) -> None:
        """Enter everybody who is not there yet.

        Raises:
            siteward.people.PeopleUnavailable: the table cannot be written now; try again later.
        """
        if haul.people:
            self._people.enter(haul.people)


def names_people(kind: Kind) -> bool:
    """Whether the ids of a kind's records are made of people's names, among others."""
    return any(kind.column[name].personal for name in kind.identity)
