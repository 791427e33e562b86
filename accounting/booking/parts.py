"""Parts of a batch that are booked by themselves, and what becomes of them as what becomes of the batch; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from siteward.sinks import Batch, Written


def newest_of(batch: Batch, refused: Mapping[int, object]) -> list[int]:
    """Positions of the newest revision of each id, in ascending order of the ids."""
    best: dict[bytes, int] = {}
    revisions = batch.columns["revision"]
    for position, identifier in enumerate(batch.ids):
        if position in refused:
            continue
        other = best.setdefault(identifier, position)
        if revisions[position] > revisions[other]:
            best[identifier] = position
    return [best[identifier] for identifier in sorted(best)]


def enter_part(written: Written, positions: Sequence[int], part: Written) -> None:
    """Enter what became of the records at some positions into what becomes of all."""
    for place, position in enumerate(positions):
        written.outcomes[position] = part.outcomes[place]
    written.reasons |= {positions[place]: reason for place, reason in part.reasons.items()}
