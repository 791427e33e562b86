"""Cycles of snapshots: which of them are complete, and how a question is kept to them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from monitoring.stores.answers import SECOND
from monitoring.stores.opensearch.conditions import Clause, all_of, among, any_of, count_clauses, none_of
from monitoring.stores.opensearch.paging import more_of, sources_of
from monitoring.stores.opensearch.templates import TIME
from monitoring.stores.opensearch.totals import Inexact
from monitoring.stores.opensearch.view import View
from siteward.query import QueryError

MOST_CYCLES: Final = 1_000_000
"""Cycles of one question; each is looked at."""
_PRODUCER: Final = "producer"
_SIZE: Final = "cycle_size"


class Cycles:
    """The cycles within a window, whatever is filtered: a filter chooses records, never which cycles there were.

    Attributes:
        incomplete: number of cycles that arrived in part.
    """

    def __init__(self, view: View, window: Sequence[Clause]) -> None:
        """Look at every cycle.

        Raises:
            QueryError: there are more than MOST_CYCLES.
            ClusterError: the cluster does not answer.
        """
        self._complete: defaultdict[str, list[int]] = defaultdict(list)
        self._partial: defaultdict[str, list[int]] = defaultdict(list)
        self.incomplete = 0
        sizes = {_SIZE: {"max": {"field": _SIZE}}}
        found = view.buckets(all_of(window), sources_of((), 0, (_PRODUCER, TIME)), sizes)
        for number, bucket in enumerate(found):
            if number == MOST_CYCLES:
                message = f"the window has more than {MOST_CYCLES} cycles of snapshots; ask for a shorter one"
                raise QueryError(message)
            whole = bucket[_SIZE]["value"] == bucket["doc_count"]
            (self._complete if whole else self._partial)[more_of(bucket, 0)].append(more_of(bucket, 1))
            self.incomplete += not whole

    def counts(self, width: int) -> Counter[tuple[str, int | None]]:
        """How many complete cycles each producer has in each bucket of time."""
        return Counter((producer, _bucket(time, width)) for producer, times in self._complete.items() for time in times)

    def seen(self, room: int) -> list[Clause]:
        """The records of complete cycles, as clauses to be asked one after the other: no record meets two of them.

        Args:
            room: clauses that one request still takes.

        Raises:
            Inexact: these are too few.
        """
        partial = sorted(self._partial)
        others = none_of([among(_PRODUCER, partial)]) if partial else {"match_all": {}}
        return [others, *_joined(((producer, times, True) for producer, times in self._partial.items()), room)]

    def last(self, width: int, room: int) -> list[Clause]:
        """The records of each producer's last complete cycle of each bucket of time; clauses as those of `seen`."""
        lasts = {
            producer: list({_bucket(time, width): time for time in sorted(times)}.values())
            for producer, times in self._complete.items()
        }
        return list(_joined(((producer, times, False) for producer, times in lasts.items()), room))


def _bucket(time: int, width: int) -> int | None:
    return time // (width * SECOND) if width else None


def _joined(chosen: Iterable[tuple[str, Sequence[int], bool]], room: int) -> Iterable[Clause]:
    """Producers and their times, those to leave out or those to keep, as few clauses.

    Producers that look at the same instants are one condition.

    Raises:
        Inexact: one condition alone is more than a request takes.
    """
    together: defaultdict[tuple[tuple[int, ...], bool], list[str]] = defaultdict(list)
    for producer, times, is_left_out in chosen:
        together[tuple(times), is_left_out].append(producer)
    clauses = []
    for (times, is_left_out), producers in together.items():
        at = among(TIME, times)
        clauses.append(all_of([among(_PRODUCER, producers), none_of([at]) if is_left_out else at]))
    part: list[Clause] = []
    left = room
    for clause in clauses:
        size = count_clauses([clause])
        if size > room:
            raise Inexact
        if size > left:
            yield any_of(part)
            part, left = [], room
        part.append(clause)
        left -= size
    if part:
        yield any_of(part)
