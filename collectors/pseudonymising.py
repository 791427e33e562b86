"""The steps that keep people's names apart: pseudonyms in their place, names into the table of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from collectors.steps import Haul
from siteward.envelope import Columns
from siteward.pseudonyms import is_pseudonym
from siteward.records import Kind, Row
from siteward.records.identity import record_ids
from siteward.server.people_table import PeopleTable
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
            siteward.people.PeopleUnavailable, SettingsError: as `PeopleTable.check`, where that was not asked.
        """
        for batch in haul.batches.values():
            before = batch.columns
            haul.people |= self.replace(batch)
            if has_named_ids(batch.kind):
                batch.ids = _ids(batch, before)

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
                known[name] = name and self._people.received(dimension, name)
            code = known[name]
            if name and code and not name.startswith(code):
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


def has_named_ids(kind: Kind) -> bool:
    """Whether the ids of a kind's records are made of people's names, among others."""
    return any(kind.column[name].personal for name in kind.identity)


def final_id(kind: Kind, row: Row, people: PeopleTable, anonymous: bytes) -> bytes:
    """The id that stores know a record by: that of its identity with pseudonyms in place of names.

    Args:
        kind: of the record.
        row: as it was sent.
        people: what makes pseudonyms.
        anonymous: the id of a record without identity.
    """
    if has_named_ids(kind):
        personal = [name for name in kind.identity if kind.column[name].personal and getattr(row, name)]
        codes = {name: people.received(name, getattr(row, name)) for name in personal}
        row = msgspec.structs.replace(row, **codes)
    return kind.id_of(row, anonymous)


def sealed_names(batch: Batch, position: int, people: PeopleTable) -> list[Any]:
    """The values of a record of a batch for it to come again, by which no name is told."""
    values = [batch.columns[name][position] for name in batch.kind.names]
    return [
        people.sealed(value) if column.personal and value and is_pseudonym(value) else value
        for column, value in zip(batch.kind.columns, values, strict=True)
    ]


def _ids(batch: Batch, before: Columns) -> list[bytes]:
    """The ids of records whose identity names people; those without identity keep theirs."""
    of_names, of_codes = (_by_identity(batch.kind, columns) for columns in (before, batch.columns))
    return [new if known == old else known for known, old, new in zip(batch.ids, of_names, of_codes, strict=True)]


def _by_identity(kind: Kind, columns: Columns) -> list[bytes]:
    return record_ids(columns[kind.time], kind.name, columns["vo"], [columns[name] for name in kind.identity])
