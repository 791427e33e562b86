"""Batches cut and sorted out before a store takes them."""

from __future__ import annotations

from collections.abc import Sequence

from siteward.sinks import Batch


def picked(batch: Batch, positions: Sequence[int]) -> Batch:
    """A batch of some of a batch's records."""
    return Batch(
        kind=batch.kind,
        ids=[batch.ids[i] for i in positions],
        columns={name: [values[i] for i in positions] for name, values in batch.columns.items()},
        producers=[batch.producers[i] for i in positions],
        messages=[batch.messages[i] for i in positions],
        received=batch.received,
    )


def newest(batch: Batch) -> list[int]:
    """The position of each id's newest revision, the first of equals."""
    found: dict[bytes, int] = {}
    revisions = batch.columns["revision"]
    for position, identifier in enumerate(batch.ids):
        other = found.setdefault(identifier, position)
        if revisions[position] > revisions[other]:
            found[identifier] = position
    return sorted(found.values())
