"""People in a topology: a file names them, the ledger holds pseudonyms."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from accounting.topology.attributes import Entry
from siteward.people import People
from siteward.server.people_table import PeopleTable


def without_names(entries: Sequence[Entry], personal: Collection[str], people: PeopleTable) -> list[Entry]:
    """Entries of personal dimensions with pseudonyms for values; the names are entered.

    Raises:
        siteward.people.PeopleUnavailable: they cannot be entered now.
    """
    found, names = [], {}
    for entry in entries:
        code = people.pseudonym(entry.dimension, entry.value) if entry.dimension in personal else entry.value
        if code != entry.value:
            names[code] = (entry.dimension, entry.value)
        found.append(msgspec.structs.replace(entry, value=code))
    if names:
        people.enter(names)
    return found


def with_names(entries: Sequence[Entry], personal: Collection[str], people: People) -> list[Entry]:
    """The same entries for somebody who may see names."""
    names = people.names({entry.value for entry in entries if entry.dimension in personal})
    return [msgspec.structs.replace(entry, value=names.get(entry.value, entry.value)) for entry in entries]
