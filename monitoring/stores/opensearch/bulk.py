"""Bulk requests: every item of every answer looked at, refused requests cut until the cause is found."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum, auto
from typing import Any, Final

from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException

from monitoring.stores.opensearch.documents import UNFIT, Document, Placed, lines_of, unfit_reason
from monitoring.stores.opensearch.errors import TOO_MANY, ClusterError, cluster_error, reason_of
from siteward.log import get_logger
from siteward.records import Refused
from siteward.sinks import Batch, Outcome, SinkUnavailable
from siteward.telemetry import OPENSEARCH_RETRIED, telemetry

MOST_RECORDS: Final = 2_500
"""Records of one request."""
IN_FLIGHT: Final = 2
"""Requests at once: the cluster works on one with one thread per shard, and rests while we prepare the next."""
MOST_BYTES: Final = 16 * 2**20
"""Largest request, unless a single record is larger; OpenSearch takes 100 MB by default, proxies less."""
BUDGET: Final = 10.0
"""Seconds for which one batch is tried again: a collector that is to stop waits for this."""
PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
"""Seconds between the tries; the last one again and again."""
MOST_REFUSED: Final = 100
"""Requests of one record that may be refused as a whole before it is thought to be no record's fault."""
_PATH: Final = "/_bulk?filter_path=errors,items.*.status,items.*.error&timeout=5s"
"""A shard that is away is waited for on our side, where a stop is noticed."""
_HEADERS: Final = {"content-type": "application/x-ndjson"}
_FIELD: Final = re.compile(r"field[ =]\[?\"?([\w.]+)")
_log = get_logger(__name__)


class Fate(Enum):
    """What an item's status means for its record."""

    STORED = auto()
    REPLACED = auto()
    DUPLICATE = auto()
    REJECTED = auto()
    """No cluster will ever take it so."""
    LATER = auto()
    """The cluster cannot take it now."""
    MISPLACED = auto()
    """Its index is not there, or lacks a field of its kind: that is mended, and then it is tried again."""


_BY_STATUS: Final = {200: Fate.REPLACED, 201: Fate.STORED, 404: Fate.MISPLACED, 409: Fate.DUPLICATE}
_BY_TYPE: Final = {
    "strict_dynamic_mapping_exception": Fate.MISPLACED,
    # These come with 400, as if the record were at fault: no more shards allowed, an index that somebody closed.
    "validation_exception": Fate.LATER,
    "index_closed_exception": Fate.LATER,
    "cluster_block_exception": Fate.LATER,
}
_INVALID: Final = 400
_TOO_LARGE: Final = 413


def fate_of(status: int, type_: str = "") -> Fate:
    """What became of a record.

    Args:
        status: of the item.
        type_: OpenSearch's word for the error, "" where there is none.
    """
    if status == _INVALID:
        return _BY_TYPE.get(type_, Fate.REJECTED)
    return _BY_TYPE.get(type_) or _BY_STATUS.get(status, Fate.LATER)


class Bulk:
    """One batch on its way into the cluster; `outcomes` and `reasons` are filled as its records arrive."""

    def __init__(
        self,
        client: OpenSearch,
        where: str,
        mend: Callable[[Sequence[str]], None],
        batch: Batch,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            client: of the cluster.
            where: the cluster, as messages name it.
            mend: makes the named indices and brings templates and indices up to the kinds.
            batch: records that all fit into documents, each id once.
            clock: seconds, for the time budget.
            wait: sleeps for so many seconds.
        """
        self._client = client
        self._where = where
        self._mend = mend
        self._batch = batch
        self._clock = clock
        self._wait = wait
        self._deadline = clock() + BUDGET
        self._refused = 0
        self._why = ""
        self.outcomes: list[Outcome] = [Outcome.STORED] * len(batch)
        self.reasons: dict[int, Refused] = {}

    def write(self, places: Placed, documents: Sequence[Document]) -> None:
        """Send all records, and again those that the cluster could not take, while the time budget lasts.

        Raises:
            SinkUnavailable: some are not stored yet; says how many and why.
        """
        waiting: Sequence[int] = range(len(documents))
        pauses = iter(PAUSES)
        while True:
            waiting = self._round(places, documents, waiting)
            if not waiting:
                self._doubt(len(documents))
                return
            pause = next(pauses, PAUSES[-1])
            if self._clock() + pause > self._deadline:
                message = f"{self._where}: {len(waiting)} of {len(documents)} records are not stored yet: {self._why}"
                raise SinkUnavailable(message)
            self._wait(pause)

    def _round(self, places: Placed, documents: Sequence[Document], waiting: Sequence[int]) -> list[int]:
        """Send what waits, in requests of a good size; which of it has to be sent again."""
        again: list[int] = []
        misplaced: list[int] = []
        parts = deque(waiting[start : start + MOST_RECORDS] for start in range(0, len(waiting), MOST_RECORDS))
        flying: deque[_Request] = deque()
        is_away = False
        with ThreadPoolExecutor(IN_FLIGHT, "bulk") as pool:
            while flying or (parts and not is_away):
                while parts and not is_away and len(flying) < IN_FLIGHT:
                    part = parts.popleft()
                    body = self._body(places, documents, part)
                    if body:
                        flying.append((part, pool.submit(self._send, body, len(part))))
                    elif len(part) > 1:
                        parts.extendleft(reversed(_halves(part)))
                if not flying:
                    continue
                part, request = flying.popleft()
                try:
                    found = self._judge(part, request.result())
                except ClusterError as error:
                    if error.status in {_INVALID, _TOO_LARGE}:
                        parts.extendleft(reversed(self._cut(part, error)))
                    else:
                        is_away = True
                        again += part
                        self._count_again(len(part), error.status)
                        self._note(error)
                    continue
                again += found[Fate.LATER]
                misplaced += found[Fate.MISPLACED]
        if misplaced:
            self._mend_for(places, misplaced)
        return sorted([*again, *misplaced, *(position for part in parts for position in part)])

    def _note(self, error: ClusterError) -> None:
        """Keep why a whole request failed; go on only where asking again can help by itself."""
        self._why = str(error)
        if error.status is not None and error.status < 500 and error.status != TOO_MANY:  # noqa: PLR2004  # HTTP.
            raise SinkUnavailable(self._why) from error

    def _count_again(self, records: int, status: int | None) -> None:
        telemetry.add(OPENSEARCH_RETRIED, records, self._batch.kind.name, str(status or "none"))

    def _body(self, places: Placed, documents: Sequence[Document], part: Sequence[int]) -> bytes:
        """The body for some records; empty where it has to be cut first, or its one record cannot be written."""
        try:
            body = lines_of([places.actions[i] for i in part], [documents[i] for i in part])
        except UNFIT as error:
            if len(part) == 1:
                self._reject(part[0], unfit_reason(self._batch, part[0], error))
            return b""
        return body if len(body) <= MOST_BYTES or len(part) == 1 else b""

    def _send(self, body: bytes, count: int) -> list[Mapping[str, Any]]:
        """One request; its items.

        Raises:
            ClusterError: it was refused as a whole, or nobody knows.
        """
        try:
            answer = self._client.transport.perform_request("POST", _PATH, headers=_HEADERS, body=body)
        except OpenSearchException as error:
            raise cluster_error(error, self._where) from error
        items = answer.get("items") if isinstance(answer, Mapping) else None
        if not isinstance(items, list) or len(items) != count:
            message = (
                f"{self._where} answers a bulk request of {count} records with something else: {str(answer)[:200]}"
            )
            raise ClusterError(message)
        return [next(iter(item.values())) for item in items]

    def _cut(self, part: Sequence[int], error: ClusterError) -> list[Sequence[int]]:
        """Halve a refused request; one that is down to a single record has found the cause."""
        if len(part) > 1:
            if self._clock() > self._deadline:
                raise SinkUnavailable(str(error)) from error
            return _halves(part)
        self._refused += 1
        self._why = str(error)
        self._doubt(MOST_REFUSED)
        self._reject(part[0], Refused(f"is refused: {error}", kind=self._batch.kind.name))
        return []

    def _doubt(self, most: int) -> None:
        """Reject nothing where so many requests of a single record were refused that no record is to blame."""
        if self._refused >= max(most, 2):
            message = f"{self._why}; it refuses every request in this way, so that no record is to blame"
            raise SinkUnavailable(message)

    def _judge(self, part: Sequence[int], items: Sequence[Mapping[str, Any]]) -> dict[Fate, list[int]]:
        """Note what became of each record; which ones are to be sent again."""
        found: dict[Fate, list[int]] = {Fate.LATER: [], Fate.MISPLACED: []}
        for position, item in zip(part, items, strict=True):
            status = item["status"]
            if status == 201:  # noqa: PLR2004  # the usual case, which is to cost nothing.
                continue
            error = item.get("error") or {}
            fate = fate_of(status, error.get("type", ""))
            if fate in found:
                found[fate].append(position)
                self._count_again(1, status)
                self._why = f"answers {status}: {reason_of(error)}"
            elif fate is Fate.REJECTED:
                self._reject(position, self._refusal(position, reason_of(error)))
            else:
                self.outcomes[position] = _OUTCOMES[fate]
        return found

    def _reject(self, position: int, reason: Refused) -> None:
        self.outcomes[position] = Outcome.REJECTED
        self.reasons[position] = reason

    def _refusal(self, position: int, said: str) -> Refused:
        """OpenSearch's reason, with the field that it names."""
        named = _FIELD.search(said)
        field = named[1].rpartition(".")[2] if named else ""
        values = self._batch.columns.get(field)
        value = values[position] if values else None
        reason = f"cannot be stored by OpenSearch: {said}"
        return Refused(reason, kind=self._batch.kind.name, field=field if values else "", value=value)

    def _mend_for(self, places: Placed, misplaced: Sequence[int]) -> None:
        _log.warning("indices are mended", cluster=self._where, records=len(misplaced), why=self._why)
        self._mend(places.indices)


_Request = tuple[Sequence[int], Future[list[Mapping[str, Any]]]]
"""Records on their way, and what will become of them."""
_OUTCOMES: Final = {
    Fate.STORED: Outcome.STORED,
    Fate.REPLACED: Outcome.REPLACED,
    Fate.DUPLICATE: Outcome.DUPLICATE,
}


def _halves(part: Sequence[int]) -> list[Sequence[int]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]]
