"""Those who ask in tests, and the people whom records name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import msgspec

from accounting.ledger import Ledger
from accounting.query.usage import Usage
from siteward.pseudonyms import pseudonym
from siteward.sinks import Batch
from siteward.usage import UsageAnswer, UsageQuery
from siteward.viewer import Viewer, Visible

EVERYTHING: Final = Viewer(visible=Visible.ALL, names=True)
"""Sees all there is."""
KEY: Final = b"a key of tests, which nobody knows"


class KnownPeople:
    """People as their table knows them, in memory."""

    def __init__(self) -> None:
        """Nobody yet."""
        self.known: dict[str, tuple[str, str]] = {}

    def pseudonym(self, dimension: str, name: str) -> str:
        """What records hold in place of a name."""
        return pseudonym(KEY, dimension, name)

    def names(self, pseudonyms: Collection[str]) -> Mapping[str, str]:
        """The names behind some pseudonyms."""
        return {code: self.known[code][1] for code in pseudonyms if code in self.known}

    def all(self, dimension: str) -> Mapping[str, str]:
        """Every name of a dimension."""
        return {code: name for code, (of, name) in self.known.items() if of == dimension}

    def meet(self, dimension: str, name: str) -> str:
        """The pseudonym of somebody who is known from now on; "" is nobody's."""
        if not name:
            return name
        code = self.pseudonym(dimension, name)
        self.known[code] = (dimension, name)
        return code


PEOPLE: Final = KnownPeople()
"""Everybody who was named in this process."""


def without_names(batch: Batch) -> Batch:
    """A batch as collectors give it to sinks: with pseudonyms in place of names."""
    replaced = {
        column.name: [value and PEOPLE.meet(column.name, value) for value in batch.columns[column.name]]
        for column in batch.kind.columns
        if column.personal
    }
    return msgspec.structs.replace(batch, columns=batch.columns | replaced)


def answered(
    ledger: Ledger, query: UsageQuery, viewer: Viewer = EVERYTHING, archive: Path | None = None
) -> UsageAnswer:
    """The answer to a question."""
    return asking(ledger, archive).ask(query, viewer)


def asking(ledger: Ledger, archive: Path | None = None) -> Usage:
    """What answers questions to a ledger, with its archive at hand or without."""
    return Usage(ledger, PEOPLE, archive)
