"""The store on an OpenSearch cluster: writes here, questions in `asking`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from opensearchpy import OpenSearch

from monitoring.stores import StoreError
from monitoring.stores.batches import newest
from monitoring.stores.opensearch import upgrading
from monitoring.stores.opensearch.asking import Asking
from monitoring.stores.opensearch.bulk import Bulk
from monitoring.stores.opensearch.documents import UNFIT, documents_of, placed, unfit_records
from monitoring.stores.opensearch.errors import CONFIGURED, ClusterError
from monitoring.stores.opensearch.forgetting import forget_indices
from monitoring.stores.opensearch.templates import check_names
from monitoring.stores.questions import known_kind, utc
from siteward.log import get_logger
from siteward.query import Answer, Filter, Query, StoredRecord
from siteward.records import Kind
from siteward.settings import MonitoringSettings
from siteward.sinks import Batch, Outcome, SinkUnavailable, Written

_log = get_logger(__name__)


class OpenSearchStore:
    """A Store in the indices of one prefix. Any number of processes may write and ask at once."""

    def __init__(self, client: OpenSearch, where: str, settings: MonitoringSettings, kinds: Mapping[str, Kind]) -> None:
        """Bring the cluster's templates and indices up to the kinds.

        A user who may only ask is not let near the templates; the store then opens all the same, and a write looks
        again.

        Raises:
            StoreError: the cluster does not answer; permanent where a kind has changed as its indices cannot follow.
        """
        check_names(kinds, settings.prefix)
        self.where = where
        self.kinds = kinds
        self._client = client
        self._settings = settings
        self._asking = Asking(client, kinds, settings.prefix, where)
        self._daily: dict[str, bool] = {}
        self._seen: set[str] = set()
        try:
            self._bring_up(kinds.values())
        except ClusterError as error:
            if error.status not in CONFIGURED:
                raise
            _log.warning("templates were not looked at", cluster=where, why=str(error))

    def close(self) -> None:
        """Let go of the connections; may be called twice."""
        self._client.close()

    def query(self, query: Query) -> Answer:
        """See Store.query."""
        return self._asking.query(query)

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        """See Store.values."""
        return self._asking.values(kind, field, filters, limit)

    def records(
        self,
        kind: str,
        *,
        ids: Sequence[bytes] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 100,
    ) -> list[StoredRecord]:
        """See Store.records."""
        return self._asking.records(kind, ids=ids, start=start, end=end, filters=filters, limit=limit)

    def forget(self, kind: str, before: datetime) -> int:
        """See Store.forget: whole indices, whose period is over and which received nothing since."""
        known = known_kind(self.kinds, kind)
        return forget_indices(self._client, self.where, self._settings.prefix, known, utc(before, "before"))

    def write(self, batch: Batch) -> Written:
        """See Store.write."""
        kind = self.kinds.get(batch.kind.name)
        if kind is None or kind.names != batch.kind.names:
            message = (
                f"this process knows no kind {batch.kind.name!r} with these fields; restart it, so that it reads the "
                "present declarations"
            )
            raise SinkUnavailable(message)
        if not batch.ids:
            return Written([])
        if kind.name not in self._daily:
            self._bring_up_for([kind])
        kept = newest(batch) if len(set(batch.ids)) < len(batch) else range(len(batch))
        part = batch.part(kept)
        written = self._write(part)
        if part is batch:
            return written
        outcomes = [Outcome.DUPLICATE] * len(batch)
        for position, outcome in zip(kept, written.outcomes, strict=True):
            outcomes[position] = outcome
        return Written(outcomes, {kept[place]: reason for place, reason in written.reasons.items()})

    def _write(self, batch: Batch) -> Written:
        """Write records of different ids; without those that have a value that no document can hold."""
        try:
            return self._commit(batch)
        except UNFIT:
            unfit = unfit_records(batch)
        rest = [position for position in range(len(batch)) if position not in unfit]
        outcomes = [Outcome.REJECTED] * len(batch)
        reasons = dict(unfit)
        if rest:
            written = self._commit(batch.part(rest))
            for place, position in enumerate(rest):
                outcomes[position] = written.outcomes[place]
            reasons |= {rest[place]: reason for place, reason in written.reasons.items()}
        return Written(outcomes, reasons)

    def _commit(self, batch: Batch) -> Written:
        documents = documents_of(batch)
        places = placed(batch, self._settings.prefix, daily=self._daily[batch.kind.name])
        if not self._seen.issuperset(places.indices):
            self._bring_up_for([batch.kind])
            # Whoever made the template meanwhile has chosen the period.
            places = placed(batch, self._settings.prefix, daily=self._daily[batch.kind.name])
            self._seen.update(places.indices)
        bulk = Bulk(self._client, self.where, lambda indices: self._mend(batch.kind, indices), batch)
        bulk.write(places, documents)
        return Written(bulk.outcomes, bulk.reasons)

    def _mend(self, kind: Kind, indices: Sequence[str]) -> None:
        """Put right what is missing: the cluster makes no index by itself, or an index lacks a field."""
        daily = self._daily[kind.name]
        self._bring_up_for([kind])
        if self._daily[kind.name] != daily:
            message = f"{self.where}: the indices of kind {kind.name!r} are of another period now; write again"
            raise SinkUnavailable(message)
        try:
            upgrading.make_indices(self._client, self.where, indices)
        except ClusterError as error:
            raise SinkUnavailable(str(error)) from error

    def _bring_up_for(self, kinds: Iterable[Kind]) -> None:
        """Look at the templates before an index is written for the first time: without one, the cluster would guess."""
        try:
            self._bring_up(kinds)
        except StoreError as error:
            raise SinkUnavailable(str(error)) from error

    def _bring_up(self, kinds: Iterable[Kind]) -> None:
        for kind in kinds:
            brought = upgrading.bring_up(self._client, self.where, self._settings, kind)
            for change in brought.changes:
                _log.info("store is brought up", place=change.place, what=change.what, wanted=change.wanted)
            self._daily[kind.name] = brought.is_daily
