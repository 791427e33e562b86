"""Writing to OpenSearch: every item looked at, nothing lost, and only what can never be stored is rejected."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from answers import EVENTS
from examples import JOB, NOON, batch_of, job_rows
from opensearch_server import VERSIONS, Node, Place
from opensearchpy.exceptions import ConnectionError as NoConnection
from opensearchpy.exceptions import ConnectionTimeout, TransportError

from monitoring.stores import StoreError
from monitoring.stores.opensearch import bulk, forgetting
from monitoring.stores.opensearch.bulk import Bulk, Fate, fate_of
from monitoring.stores.opensearch.documents import documents_of, placed
from monitoring.stores.opensearch.store import OpenSearchStore
from siteward.records import kind_from_table, microseconds
from siteward.sinks import Batch, Outcome, SinkUnavailable
from siteward.telemetry import OPENSEARCH_RETRIED, telemetry

KINDS = {kind.name: kind for kind in (JOB, EVENTS)}
Answer = Any
Cluster = Callable[[list[str]], Answer]
"""What a cluster answers to the ids of a bulk request, or raises."""


@pytest.mark.parametrize(
    ("status", "type_", "fate"),
    [
        (201, "", Fate.STORED),
        (200, "", Fate.REPLACED),
        (409, "version_conflict_engine_exception", Fate.DUPLICATE),
        (400, "mapper_parsing_exception", Fate.REJECTED),
        (400, "illegal_argument_exception", Fate.REJECTED),
        (400, "a_word_of_next_year", Fate.REJECTED),
        (400, "validation_exception", Fate.LATER),
        (400, "index_closed_exception", Fate.LATER),
        (403, "cluster_block_exception", Fate.LATER),
        (403, "security_exception", Fate.LATER),
        (429, "cluster_block_exception", Fate.LATER),
        (429, "rejected_execution_exception", Fate.LATER),
        (500, "illegal_state_exception", Fate.LATER),
        (503, "unavailable_shards_exception", Fate.LATER),
        (404, "index_not_found_exception", Fate.MISPLACED),
        (400, "strict_dynamic_mapping_exception", Fate.MISPLACED),
    ],
)
def test_a_verdict_blames_the_record_or_the_cluster(status: int, type_: str, fate: Fate) -> None:
    """Only what lies in the record itself rejects it; whatever the cluster may get over is tried again."""
    assert fate_of(status, type_) is fate


class Scripted:
    """A cluster of a test's own making, with a clock that only waiting moves."""

    def __init__(self, answer: Cluster) -> None:
        self.answer = answer
        self.transport = SimpleNamespace(perform_request=self.perform_request)
        self.requests: list[list[str]] = []
        self.mended: list[str] = []
        self.now = 0.0

    def perform_request(self, method: str, path: str, headers: object, body: bytes) -> Answer:
        """One bulk request."""
        assert (method, path.partition("?")[0], headers) == ("POST", "/_bulk", {"content-type": "application/x-ndjson"})
        ids = [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]
        self.requests.append(ids)
        return self.answer(ids)

    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds

    def write(self, batch: Batch) -> Bulk:
        """Write a batch."""
        made = Bulk(
            self,  # type: ignore[arg-type]  # all of a client that bulk requests need.
            "OpenSearch at test",
            self.mended.extend,
            batch,
            clock=lambda: self.now,
            wait=self.wait,
        )
        made.write(placed(batch, "test"), documents_of(batch))
        return made


def items(*statuses: int, error: dict[str, Any] | None = None) -> Answer:
    """An answer with these statuses."""
    found = [{"status": each} | ({"error": error or {}} if each >= 400 else {}) for each in statuses]
    return {"errors": any(each >= 400 for each in statuses), "items": [{"index": item} for item in found]}


def script(*answers: Answer) -> Cluster:
    """Answers, one after the other."""
    rest = list(answers)

    def answer(_ids: list[str]) -> Answer:
        given = rest.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return answer


def refused(status: int, type_: str = "", reason: str = "") -> TransportError:
    """A request that is refused as a whole."""
    return TransportError(status, type_, {"error": {"type": type_, "reason": reason}, "status": status})


def test_only_what_was_not_taken_is_sent_again() -> None:
    """After a partial failure the records that are stored are not sent a second time, and the cluster is given time."""
    batch = batch_of(JOB, job_rows(4))
    cluster = Scripted(script(items(201, 429, 200, 503), items(429, 201), items(409)))
    made = cluster.write(batch)
    ids = [identifier.hex() for identifier in batch.ids]
    assert cluster.requests == [ids, [ids[1], ids[3]], [ids[1]]]
    assert made.outcomes == [Outcome.STORED, Outcome.DUPLICATE, Outcome.REPLACED, Outcome.STORED]
    assert cluster.now == pytest.approx(bulk.PAUSES[0] + bulk.PAUSES[1])


@pytest.mark.parametrize(
    "error",
    [
        NoConnection("N/A", "refused", OSError("refused")),
        ConnectionTimeout("TIMEOUT", "timed out", OSError("timed out")),
        refused(429, "circuit_breaking_exception", "Data too large"),
        refused(503, "cluster_manager_not_discovered_exception"),
        TransportError(502, "<html>Bad gateway</html>", ""),
    ],
    ids=lambda error: str(error.args[0]),
)
def test_a_cluster_that_is_away_is_asked_again_for_a_while(error: Exception) -> None:
    """Within the time budget the same records are sent again; the outcome is as if nothing had happened."""
    made = Scripted(script(error, error, items(201, 201))).write(batch_of(JOB, job_rows(2)))
    assert made.outcomes == [Outcome.STORED] * 2


def test_what_is_sent_again_is_counted() -> None:
    """Each record and each time, by the status that the record or its whole request had; 5xx and silence too."""
    telemetry.reset()
    silent = NoConnection("N/A", "refused", OSError("refused"))
    cluster = Scripted(script(items(201, 429, 503), silent, refused(429), items(429, 201), items(201)))
    cluster.write(batch_of(JOB, job_rows(3)))
    counted = {status: telemetry.value(OPENSEARCH_RETRIED, "job", status) for status in ("429", "503", "none")}
    assert counted == {"429": 1 + 2 + 1, "503": 1, "none": 2}
    assert telemetry.total(OPENSEARCH_RETRIED) == 7


def test_the_time_budget_ends() -> None:
    """A cluster that never takes it makes the sink unavailable after ten seconds, with count and reason."""
    cluster = Scripted(lambda ids: items(*[201] * (len(ids) - 1), 429, error={"type": "x", "reason": "queue full"}))
    with pytest.raises(SinkUnavailable, match=r"at test: 1 of 3 records are not stored yet: .*429: queue full"):
        cluster.write(batch_of(JOB, job_rows(3)))
    assert bulk.BUDGET - bulk.PAUSES[-1] <= cluster.now <= bulk.BUDGET


@pytest.mark.parametrize("status", [401, 403])
def test_missing_rights_reject_nothing(status: int) -> None:
    """A password or right that is missing makes the sink unavailable at once and says what to look at."""
    cluster = Scripted(script(refused(status, "security_exception", "no permissions for [indices:data/write/bulk]")))
    with pytest.raises(SinkUnavailable, match=r"no permissions.*monitoring.password"):
        cluster.write(batch_of(JOB, job_rows(3)))
    assert cluster.now == 0


def poisoned(poison: set[str], error: Exception) -> Cluster:
    """A cluster that refuses any request with one of these ids."""

    def answer(ids: list[str]) -> Answer:
        if poison & set(ids):
            raise error
        return items(*[201] * len(ids))

    return answer


def test_a_refused_request_is_cut_until_the_record_is_found() -> None:
    """One record that spoils a whole request is rejected alone, in few requests; all others are stored."""
    batch = batch_of(JOB, job_rows(4000))
    bad = batch.ids[1234].hex()
    cluster = Scripted(poisoned({bad}, refused(400, "action_request_validation_exception", "id is too long")))
    made = cluster.write(batch)
    assert made.outcomes.count(Outcome.STORED) == 3999
    assert {place: reason.reason for place, reason in made.reasons.items()} == {
        1234: "is refused: OpenSearch at test answers 400: id is too long"
    }
    assert len(cluster.requests) < 30
    sent = [identifier for request in cluster.requests if bad not in request for identifier in request]
    assert len(sent) == len(set(sent)) == 3999


def test_a_request_that_is_too_large_is_cut() -> None:
    """What a proxy finds too large goes in smaller requests."""

    def answer(ids: list[str]) -> Answer:
        if len(ids) > 30:
            raise TransportError(413, "<html>Request Entity Too Large</html>", "")
        return items(*[201] * len(ids))

    assert set(Scripted(answer).write(batch_of(JOB, job_rows(100))).outcomes) == {Outcome.STORED}


def test_large_records_go_in_small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request of several records is larger than the limit."""
    monkeypatch.setattr(bulk, "MOST_BYTES", 5_000)
    cluster = Scripted(lambda ids: items(*[201] * len(ids)))
    cluster.write(batch_of(JOB, job_rows(40)))
    assert max(len(request) for request in cluster.requests) <= 7
    assert sum(len(request) for request in cluster.requests) == 40


@pytest.mark.parametrize("count", [2, 500])
def test_a_cluster_that_refuses_everything_rejects_nothing(count: int) -> None:
    """Where every request is refused, no record is to blame: all wait instead of being parked."""
    batch = batch_of(JOB, job_rows(count))
    cluster = Scripted(poisoned({identifier.hex() for identifier in batch.ids}, refused(400, "x")))
    with pytest.raises(SinkUnavailable, match="no record is to blame"):
        cluster.write(batch)
    assert len(cluster.requests) < 250


@pytest.mark.parametrize("answer", [{}, {"items": []}, {"took": 1}, "OK", items(201)], ids=str)
def test_an_answer_that_is_none_stores_nothing(answer: Answer) -> None:
    """An answer without an item for every record, such as a proxy's, is no proof of anything."""
    with pytest.raises(SinkUnavailable, match="answers a bulk request of 2 records with something else"):
        Scripted(lambda _ids: answer).write(batch_of(JOB, job_rows(2)))


def test_reasons_name_the_field() -> None:
    """A rejection carries OpenSearch's words, the field they name, and the record's value."""
    error = {
        "type": "mapper_parsing_exception",
        "reason": "failed to parse field [wall_time] of type [long] in document with id 'x'",
        "caused_by": {"type": "input_coercion_exception", "reason": "out of range of long"},
    }
    made = Scripted(script(items(201, 400, error=error))).write(batch_of(JOB, job_rows(2)))
    (reason,) = made.reasons.values()
    assert (reason.kind, reason.field, reason.value) == ("job", "wall_time", "3600")
    assert reason.reason.startswith("cannot be stored by OpenSearch: failed to parse field")
    assert "out of range of long" in reason.reason


def test_a_missing_index_is_made() -> None:
    """A cluster that makes no index by itself, or lacks a field, is mended, and the records are sent again."""
    cluster = Scripted(script(items(404, 201), items(201)))
    assert cluster.write(batch_of(JOB, job_rows(2))).outcomes == [Outcome.STORED] * 2
    assert cluster.mended == ["test-job-2026.03"]


# From here on, on real nodes.


@pytest.fixture
def store(opensearch: Place) -> Iterator[OpenSearchStore]:
    """A store in the test's own place."""
    with closing(opensearch.open(KINDS)) as opened:
        yield opened


def stored(place: Place) -> int:
    """Number of records that are stored."""
    place.refresh()
    return int(place.ask("GET", f"/{place.prefix}-*/_count")["count"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon: what the pipeline does then is to write again."""
    monkeypatch.setattr(bulk, "BUDGET", 0.3)


def test_a_poison_record_among_thousands_is_rejected_alone(opensearch: Place, store: OpenSearchStore) -> None:
    """Of 5,000 records three can never be stored, in three ways; each is told with its field, all others are stored."""
    batch = batch_of(JOB, job_rows(5000))
    batch.columns["wall_time"][17] = 2**63
    batch.columns["user"][1700] = "x" * 33_000
    batch.columns["site"][4999] = "\ud800"
    written = store.write(batch)
    assert {place: reason.field for place, reason in written.reasons.items()} == {
        17: "wall_time",
        1700: "user",
        4999: "site",
    }
    assert written.outcomes.count(Outcome.STORED) == 4997
    assert stored(opensearch) == 4997


def test_a_record_that_spoils_the_whole_request_is_found(opensearch: Place, store: OpenSearchStore) -> None:
    """OpenSearch refuses a bulk as a whole for one impossible version; that record alone is rejected."""
    batch = batch_of(JOB, job_rows(300))
    batch.columns["revision"][123] = -1
    written = store.write(batch)
    assert list(written.reasons) == [123]
    assert "illegal version value" in str(written.reasons[123])
    assert stored(opensearch) == 299


@pytest.mark.parametrize("block", ["write", "read_only", "read_only_allow_delete"])
@pytest.mark.usefixtures("impatient")
def test_a_read_only_index_makes_records_wait(opensearch: Place, store: OpenSearchStore, block: str) -> None:
    """Behind a block, a disk's flood stage for one, nothing is rejected and nothing lost: it is stored once, later."""
    store.write(batch_of(JOB, job_rows(2)))
    (index,) = opensearch.indices()
    opensearch.ask("PUT", f"/{index}/_settings", {f"index.blocks.{block}": True})
    try:
        with pytest.raises(SinkUnavailable, match=r"5 of 5 records are not stored yet.*blocked by"):
            store.write(batch_of(JOB, job_rows(5)))
    finally:
        opensearch.ask("PUT", f"/{index}/_settings", {f"index.blocks.{block}": None})
    assert store.write(batch_of(JOB, job_rows(5))).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED] * 3
    assert stored(opensearch) == 5


@pytest.mark.usefixtures("impatient")
def test_a_red_index_makes_records_wait(opensearch: Place, store: OpenSearchStore) -> None:
    """Where a primary shard is nowhere, the records of its index wait; nothing is lost, and all is stored once."""
    setting = "index.routing.allocation.require._name"
    red = f"{opensearch.prefix}-job-2026.03"
    opensearch.ask("PUT", f"/{red}?wait_for_active_shards=0", {"settings": {setting: "nobody"}})
    assert opensearch.ask("GET", f"/_cluster/health/{red}")["status"] == "red"
    early = job_rows(3, start=NOON - timedelta(days=41), end=NOON - timedelta(days=40))
    batch = batch_of(JOB, [*early, *job_rows(5)])
    with pytest.raises(SinkUnavailable, match=r"5 of 8 records are not stored yet.*primary shard is not active"):
        store.write(batch)
    opensearch.ask("PUT", f"/{red}/_settings", {setting: None})
    opensearch.ask("GET", f"/_cluster/health/{red}?wait_for_status=yellow&timeout=30s")
    assert store.write(batch).outcomes == [Outcome.DUPLICATE] * 3 + [Outcome.STORED] * 5
    assert stored(opensearch) == 8


def test_a_cluster_that_says_429_is_asked_again(opensearch: Place, store: OpenSearchStore) -> None:
    """A node that takes no more just now, the flood stage of its disk for one, has the records once it takes them."""
    store.write(batch_of(JOB, job_rows(1)))
    (index,) = opensearch.indices()
    block = "index.blocks.read_only_allow_delete"
    opensearch.ask("PUT", f"/{index}/_settings", {block: True})
    with pytest.raises(TransportError) as refused_:
        opensearch.ask("PUT", f"/{index}/_doc/x?op_type=create", {})
    assert refused_.value.status_code == 429
    release = threading.Timer(0.5, opensearch.ask, ("PUT", f"/{index}/_settings", {block: None}))
    release.start()
    try:
        assert store.write(batch_of(JOB, job_rows(4))).outcomes == [Outcome.DUPLICATE] + [Outcome.STORED] * 3
    finally:
        release.join()
    assert stored(opensearch) == 4


@pytest.mark.usefixtures("impatient")
def test_a_closed_index_makes_records_wait(opensearch: Place, store: OpenSearchStore) -> None:
    """An index that somebody closed is no fault of the records."""
    store.write(batch_of(JOB, job_rows(1)))
    (index,) = opensearch.indices()
    opensearch.ask("POST", f"/{index}/_close")
    try:
        with pytest.raises(SinkUnavailable, match=r"1 of 1 records are not stored yet.*closed"):
            store.write(batch_of(JOB, job_rows(1)))
    finally:
        opensearch.ask("POST", f"/{index}/_open")


@pytest.mark.usefixtures("impatient")
def test_a_cluster_with_too_many_shards_makes_records_wait(opensearch: Place, store: OpenSearchStore) -> None:
    """A cluster that may hold no further index says so with the status of a bad record, and is not believed."""
    limit = {"persistent": {"cluster.max_shards_per_node": 1}}
    opensearch.ask("PUT", "/other", {"settings": {"number_of_replicas": 0}})
    opensearch.ask("PUT", "/_cluster/settings", limit)
    try:
        with pytest.raises(SinkUnavailable, match="maximum shards open"):
            store.write(batch_of(JOB, job_rows(3)))
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": None}})
        opensearch.ask("DELETE", "/other")
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3


def test_a_cluster_that_makes_no_index_by_itself(opensearch: Place, store: OpenSearchStore) -> None:
    """Where automatic index creation is off, the store makes its indices from its templates."""
    opensearch.ask("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": "false"}})
    try:
        assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}})
    (index,) = opensearch.indices()
    assert opensearch.ask("GET", f"/{index}/_mapping")[index]["mappings"]["dynamic"] == "strict"


def test_an_index_that_lacks_a_field_is_mended(opensearch: Place, store: OpenSearchStore) -> None:
    """An index that was made anew without some field gets it when a record brings it; the record is not rejected."""
    store.write(batch_of(JOB, job_rows(1)))
    (name,) = opensearch.indices()
    template = {"index_patterns": [name], "priority": 999, "template": {"mappings": {"dynamic": "strict"}}}
    opensearch.ask("PUT", f"/_index_template/{opensearch.prefix}-worse", template)
    opensearch.ask("DELETE", f"/{name}")
    opensearch.ask("PUT", f"/{name}")
    opensearch.ask("DELETE", f"/_index_template/{opensearch.prefix}-worse")
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3
    assert stored(opensearch) == 3


def test_newer_revisions_stay_in_one_index(opensearch: Place, store: OpenSearchStore) -> None:
    """Revisions of one record, in whatever order and by whatever number of writers, leave the newest one once."""
    rows = [job_rows(200, revision=revision, wall_time=revision + 1) for revision in range(6)]
    order = [3, 0, 5, 1, 4, 2]
    writers = [threading.Thread(target=store.write, args=(batch_of(JOB, rows[revision]),)) for revision in order]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    opensearch.refresh()
    answer = opensearch.ask(
        "POST",
        f"/{opensearch.prefix}-*/_search",
        {"track_total_hits": True, "size": 0, "aggs": {"least": {"min": {"field": "wall_time"}}}},
    )
    assert answer["hits"]["total"]["value"] == 200
    assert answer["aggregations"]["least"]["value"] == 6


def test_records_without_identity_are_stored_once(opensearch: Place) -> None:
    """The same envelope delivered twice is recognised by the ids of its records."""
    kind = kind_from_table("log", {"doc": "A line.", "shape": "event", "identity": [], "retention_days": 30})
    time_ = microseconds(NOON)
    ids = [(time_ // 1000).to_bytes(6, "big") + bytes([number]) * 10 for number in range(3)]
    columns: dict[str, list[Any]] = {
        "vo": ["v"] * 3,
        "time": [time_] * 3,
        "simulated": [False] * 3,
        "revision": [0] * 3,
    }
    batch = Batch(kind, ids, columns, ["p"] * 3, [bytes(16)] * 3, time_)
    with closing(opensearch.open({"log": kind})) as store:
        assert store.write(batch).outcomes == [Outcome.STORED] * 3
        assert store.write(batch).outcomes == [Outcome.DUPLICATE] * 3
    assert opensearch.indices() == [f"{opensearch.prefix}-log-2026.03.02"]


def test_whole_indices_are_forgotten(opensearch: Place, store: OpenSearchStore) -> None:
    """An index goes when its month is over and nothing came into it since; until then it stays whole."""
    received = microseconds(NOON)
    store.write(batch_of(JOB, job_rows(10), received=received))
    month_end = datetime(2026, 4, 1, tzinfo=UTC)
    assert store.forget("job", month_end - timedelta(seconds=1)) == 0
    store.write(batch_of(JOB, job_rows(11), received=microseconds(month_end)))
    assert store.forget("job", month_end) == 0, "a record was received later"
    assert store.forget("job", month_end + timedelta(days=1)) == 11
    assert opensearch.indices() == []
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3


def test_forgetting_leaves_no_index_blocked(opensearch: Place, store: OpenSearchStore) -> None:
    """A process that died while it forgot left its block; the next one takes it off an index that stays."""
    later = NOON + timedelta(days=100)
    store.write(batch_of(JOB, job_rows(2), received=microseconds(later)))
    (index,) = opensearch.indices()
    opensearch.ask("PUT", f"/{index}/_block/write")
    assert store.forget("job", later) == 0
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED]


def test_a_block_is_taken_off_an_index_that_is_kept(opensearch: Place, store: OpenSearchStore) -> None:
    """Also where the retention was made longer since a process died that forgot with the shorter one."""
    store.write(batch_of(JOB, job_rows(2)))
    (index,) = opensearch.indices()
    opensearch.ask("PUT", f"/{index}/_block/write")
    assert store.forget("job", NOON - timedelta(days=100)) == 0
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED]


def test_a_forgetting_that_fails_leaves_no_block(
    opensearch: Place, store: OpenSearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong between the block and the deletion is said, and records go on coming in."""
    store.write(batch_of(JOB, job_rows(2), received=microseconds(NOON)))
    look = forgetting._received_since  # to fail at its second call.
    calls: list[int] = []
    gone = NoConnection("N/A", "gone", OSError("gone"))

    def failing(*given: Any) -> int | None:
        calls.append(1)
        if len(calls) > 1:
            raise gone
        return look(*given)

    monkeypatch.setattr(forgetting, "_received_since", failing)
    with pytest.raises(StoreError, match="gone"):
        store.forget("job", NOON + timedelta(days=100))
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.STORED]
    assert stored(opensearch) == 3


@pytest.mark.usefixtures("impatient")
def test_one_that_forgets_leaves_anothers_block(
    opensearch: Place, store: OpenSearchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that comes while an index is deleted waits, though another process with a slower clock looks as well."""
    store.write(batch_of(JOB, job_rows(2), received=microseconds(NOON + timedelta(days=100))))
    look = forgetting._received_since  # to do more at its second call.
    calls: list[int] = []

    def interrupted(*given: Any) -> int | None:
        found = look(*given)
        calls.append(1)
        if len(calls) == 2:
            assert store.forget("job", NOON + timedelta(days=99)) == 0
            with pytest.raises(SinkUnavailable):
                store.write(batch_of(JOB, job_rows(3)))
        return found

    monkeypatch.setattr(forgetting, "_received_since", interrupted)
    assert store.forget("job", NOON + timedelta(days=101)) == 2
    assert opensearch.indices() == []
    assert store.write(batch_of(JOB, job_rows(3))).outcomes == [Outcome.STORED] * 3


def test_other_kinds_and_strangers_are_not_forgotten(opensearch: Place, store: OpenSearchStore) -> None:
    """Only indices named as the kind's are looked at."""
    store.write(batch_of(JOB, job_rows(2), received=microseconds(NOON)))
    stranger = f"{opensearch.prefix}-job-2020-old"
    opensearch.ask("PUT", f"/{stranger}")
    assert store.forget("test-event", datetime(2030, 1, 1, tzinfo=UTC)) == 0
    assert store.forget("job", datetime(2030, 1, 1, tzinfo=UTC)) == 2
    assert opensearch.indices() == [stranger]


@pytest.fixture
def own_node() -> Iterator[Place]:
    """A node that only this test stops and starts."""
    node = Node(VERSIONS[0])
    try:
        node.start()
        place = Place(node, timeout=5.0)
        try:
            yield place
        finally:
            place.client.close()
    finally:
        node.remove()


def test_a_node_that_stops_and_comes_back(own_node: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a node is away, writes say so in bounded time; what was acknowledged survives, and all is stored once."""
    monkeypatch.setattr(bulk, "BUDGET", 0.5)
    with closing(own_node.open(KINDS)) as store:
        assert store.write(batch_of(JOB, job_rows(100))).outcomes == [Outcome.STORED] * 100
        own_node.node.kill()
        began = time.monotonic()
        with pytest.raises(SinkUnavailable, match=r"120 of 120 records are not stored yet.*does not answer"):
            store.write(batch_of(JOB, job_rows(120)))
        assert time.monotonic() - began < 10
        own_node.node.start()
        assert store.write(batch_of(JOB, job_rows(120))).outcomes == [Outcome.DUPLICATE] * 100 + [Outcome.STORED] * 20
    assert stored(own_node) == 120
