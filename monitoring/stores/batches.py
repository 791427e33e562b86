"""Which records of a batch a store takes."""

from __future__ import annotations

from siteward.sinks import Batch


def newest(batch: Batch) -> list[int]:
    """The position of each id's newest revision, the first of equals."""
    found: dict[bytes, int] = {}
    revisions = batch.columns["revision"]
    for position, identifier in enumerate(batch.ids):
        other = found.setdefault(identifier, position)
        if revisions[position] > revisions[other]:
            found[identifier] = position
    return sorted(found.values())
