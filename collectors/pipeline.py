"""The way of a haul from the broker to a sink, as one list of steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Final

from collectors.dead_letters import DeadLetters
from collectors.erased_names import without_erased
from collectors.pseudonymising import Enter, Pseudonymise, sealed_names
from collectors.receipts import Receipts
from collectors.steps import Decode, Enrich, Enrichment, Haul, Note, Park, Step, Write
from siteward.log import get_logger
from siteward.records import Kind
from siteward.server.people_table import PeopleTable
from siteward.sinks import Sink

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 30.0
log = get_logger(__name__)


class Stopped(Exception):  # noqa: N818  # reads as the state it is.
    """The process is asked to stop while something still fails; the haul stays with the broker."""


class Pipeline:
    """decode ▸ validate ▸ enrich ▸ pseudonymise ▸ enter names ▸ write ▸ park ▸ note receipts.

    The consumer acknowledges what came through. A sink that fails keeps its haul waiting, and so its queue; other sinks
    have pipelines of their own.
    """

    def __init__(
        self,
        queue: str,
        kinds: Mapping[str, Kind],
        open_sink: Callable[[], Sink],
        dead_letters: DeadLetters,
        receipts: Receipts,
        people: PeopleTable,
        enrichments: Sequence[Enrichment] = (),
    ) -> None:
        """Put the steps together; nothing is opened yet."""
        self._queue = queue
        self._write = Write(queue, open_sink, partial(sealed_names, people=people))
        self._people = people
        self._ahead: tuple[Step, ...] = (Decode(queue, kinds), Enrich(enrichments), Pseudonymise(people))
        hidden = partial(without_erased, kinds=kinds, people=people)
        self._behind: tuple[Step, ...] = (Enter(people), self._write, Park(dead_letters, hidden), Note(queue, receipts))

    def prepare(self, haul: Haul) -> Haul:
        """Decode to pseudonymise: no input or output, so that it may run while another haul is written."""
        for step in self._ahead:
            step(haul)
        return haul

    def commit(self, haul: Haul, stop: Event) -> Haul:
        """Write, park and note receipts, each until it succeeds; behind this the haul may be acknowledged.

        Raises:
            Stopped: `stop` was set while a step failed.
        """
        for step in self._behind:
            self._persist(partial(step, haul), type(step).__name__.lower(), stop)
        return haul

    def open(self, stop: Event) -> None:
        """Open the sink before the first record comes: its store is asked by others too. And see that names have a key.

        Raises:
            Stopped: `stop` was set while it could not be opened.
        """
        self._persist(self._people.check, "names", stop)
        self._persist(self._write.open, "open", stop)

    def close(self) -> None:
        """Close the sink."""
        self._write.close()

    def _persist(self, action: Callable[[], object], step: str, stop: Event) -> None:
        for delay in delays():
            try:
                action()
            except Exception as error:  # noqa: BLE001  # whatever fails here, giving up would lose the haul.
                why = str(error) or type(error).__name__
                log.warning("sink waits", sink=self._queue, step=step, error=why, seconds=round(delay, 1))
            else:
                return
            if stop.wait(delay):
                raise Stopped


def delays(first: float = FIRST_DELAY, longest: float = LONGEST_DELAY) -> Iterator[float]:
    """Seconds to wait before each further try: doubling up to `longest`, shortened at random by up to a half."""
    delay = first
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # so that waiting processes do not knock all at once.
        delay = min(2 * delay, longest)
