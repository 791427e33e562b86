"""Duplicates that are none: records that came again, in the same revision, with other values.

What was booked first stays, as with every duplicate. But a producer that mends a record has to raise its revision, and
one that gives an id twice loses a record: somebody ought to know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from accounting.booking.rows import Row, plain
from accounting.tables import SERIES, is_bucketed
from siteward.log import get_logger
from siteward.records import Kind, id_text
from siteward.server.database import Values
from siteward.sinks import Batch
from siteward.telemetry import LEDGER_DIFFERING, telemetry

log = get_logger(__name__)


def differs(kind: Kind, known: Row, rows: Mapping[str, Values], position: int) -> bool:
    """Whether a record says otherwise than the one that is known.

    Args:
        kind: whose.
        known: as it came first.
        rows: those that came, as columns of the table of records.
        position: of the record among them.
    """
    if known["revision"] != rows["revision"][position]:
        return False
    names = [SERIES, *(column.name for column in kind.columns if not is_bucketed(column))]
    return any(known[name] != plain(rows[name][position]) for name in names)


def differing_within(batch: Batch, newest: Sequence[int], refused: Collection[int]) -> list[int]:
    """Positions of records of a batch that say otherwise than those of the same id and revision that stand for them."""
    if len(newest) + len(refused) == len(batch):
        return []
    place_of = {batch.ids[place]: place for place in newest}
    columns = [batch.columns[name] for name in batch.kind.names]
    pairs = ((place, place_of.get(identifier, place)) for place, identifier in enumerate(batch.ids))
    revisions = batch.columns["revision"]
    return [
        place
        for place, first in pairs
        if place != first
        and place not in refused
        and revisions[first] == revisions[place]
        and any(values[first] != values[place] for values in columns)
    ]


def tell_differing(batch: Batch, positions: Sequence[int]) -> None:
    """Count them, and name one."""
    if not positions:
        return
    first = positions[0]
    telemetry.add(LEDGER_DIFFERING, len(positions), batch.kind.name)
    log.warning(
        "records came again with other values, and were not booked; what is mended needs a higher revision",
        kind=batch.kind.name,
        records=len(positions),
        first=id_text(batch.ids[first]),
        producer=batch.producers[first],
    )
