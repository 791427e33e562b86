"""Batches as collectors give them to sinks: with people's names in their table, and pseudonyms in their place."""

from __future__ import annotations

from contextlib import closing

import msgspec

from collectors.pseudonymising import Enter, Pseudonymise
from collectors.steps import Haul
from siteward.server.people_table import PeopleTable
from siteward.settings import Settings
from siteward.sinks import Batch


def collected(batch: Batch, settings: Settings) -> Batch:
    """A batch as the collector of an installation would hand it on."""
    haul = Haul((), 0)
    haul.batches[batch.kind.name] = msgspec.structs.replace(batch)
    with closing(PeopleTable(settings)) as people:
        Pseudonymise(people)(haul)
        Enter(people)(haul)
    return haul.batches[batch.kind.name]
