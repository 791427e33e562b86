"""Questions to an index whose shards are not there yet: a moment's wait, or an error, never a smaller answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from examples import JOB, NOON, batch_of, job_rows
from opensearch_server import Place

from monitoring.stores.opensearch import view
from monitoring.stores.opensearch.errors import ClusterError
from monitoring.stores.opensearch.store import OpenSearchStore
from siteward.query import Function, Query, Wanted

NOBODY = "index.routing.allocation.require._name"
COUNT = Query(
    kind="job", wanted=(Wanted(Function.COUNT),), start=NOON - timedelta(days=60), end=NOON + timedelta(days=1)
)


@pytest.fixture
def store(opensearch: Place) -> Iterator[OpenSearchStore]:
    """A store with five jobs of this month, and an index of the month before whose shard no node may hold."""
    with closing(opensearch.open({"job": JOB})) as opened:
        opened.write(batch_of(JOB, job_rows(5)))
        opensearch.refresh()
        index = f"/{opensearch.prefix}-job-2026.02?wait_for_active_shards=0"
        opensearch.ask("PUT", index, {"settings": {NOBODY: "nobody"}})
        yield opened


def test_a_question_waits_for_a_starting_index(opensearch: Place, store: OpenSearchStore) -> None:
    """In the first moments of a month its index has no shard yet: the answer comes when it has."""
    settings = f"/{opensearch.prefix}-job-2026.02/_settings"
    started = threading.Timer(0.7, opensearch.ask, ("PUT", settings, {NOBODY: None}))
    started.start()
    try:
        assert store.query(COUNT).totals == (5,)
        assert len(store.records("job")) == 5
    finally:
        started.join()


def test_a_missing_shard_is_an_error(store: OpenSearchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays without its shard gives no answer instead of one without its records."""
    monkeypatch.setattr(view, "STARTING_SECONDS", 0.3)
    with pytest.raises(ClusterError, match="answers 503"):
        store.query(COUNT)
    with pytest.raises(ClusterError, match="answers 503"):
        store.records("job")
