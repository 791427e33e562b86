"""The web application: its answers, errors, metrics and health; with routers of its own and a store of ours."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from examples import NOON
from fastapi import APIRouter, Depends
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from monitoring.api import router as monitoring
from monitoring.stores import StoreError
from siteward import extensions
from siteward.broker import BrokerUnavailable, QueueStatus
from siteward.emit import Emitter
from siteward.query import Answer, AnswerRow, Filter, Query, QueryError, StoredRecord
from siteward.query_json import AnswerDocument
from siteward.records import Refused, id_bytes
from siteward.server import health, shares
from siteward.server.app import HEADERS, create_app, run
from siteward.server.asking import ASKED_AT_ONCE
from siteward.server.auth import Permission, requires
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Role, grant
from siteward.server.problems import MEDIA_TYPE
from siteward.server.resources import Closed, Resources
from siteward.settings import IssuerSettings, MonitoringSettings, ServerSettings, Settings, SettingsError
from siteward.telemetry import EMITTED, GATEWAY_QUEUED, HELD_OLDEST, REDELIVERED, Telemetry, telemetry

HERE = "http://127.0.0.1"
BIG = 2**70


class OneAnswerStore:
    """A store that notes what it is asked and has one answer, or one error."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.hangs: threading.Event | None = None
        self.closed = False

    def _ask(self, question: object) -> None:
        self.asked.append(question)
        if self.hangs:
            self.hangs.wait(30)
        if self.error:
            raise self.error

    def query(self, query: Query) -> Answer:
        self._ask(query)
        rows = (AnswerRow(NOON, ("SITE-A",), (BIG,)), AnswerRow(NOON, (), (None,), other=True))
        return Answer(query=query, rows=rows, totals=(BIG,), units=("s",), groups=2)

    def values(
        self, kind: str, field: str, filters: Sequence[Filter] = (), limit: int = 1000
    ) -> list[str | int | bool | None]:
        self._ask((kind, field, filters, limit))
        return ["SITE-A", None]

    def records(self, kind: str, **asked: Any) -> list[StoredRecord]:
        self._ask((kind, asked))
        return [StoredRecord("0" * 32, {"vo": "example", "end": NOON}, "test", "1" * 32, NOON)]

    def forget(self, kind: str, before: datetime) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def faulty(_settings: Settings) -> APIRouter:
    """Routes that go wrong in every way there is."""
    routes = APIRouter(dependencies=[Depends(requires(Permission.READ))])
    errors = {
        "refused": Refused("is wrong", kind="job", field="site", value="X"),
        "query": QueryError("no such thing"),
        "broker": BrokerUnavailable("gone"),
        "unknown": RuntimeError("the secret inside"),
    }

    @routes.get("/raise/{name}")
    def fail(name: str) -> None:
        raise errors[name]

    @routes.get("/number/{number}")
    def number(number: int) -> int:
        return number

    return routes


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path))


@pytest.fixture
def store() -> OneAnswerStore:
    return OneAnswerStore()


@pytest.fixture
def client(settings: Settings, store: OneAnswerStore) -> Iterator[TestClient]:
    resources = Resources(settings)
    resources._objects["store"] = store
    app = create_app(settings, routers=[monitoring, faulty], resources=resources)
    with TestClient(app, base_url=HERE) as client:
        yield client


def problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The body of an answer that is an error."""
    assert response.status_code == status
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert set(body) >= {"type", "title", "detail"}
    return body


def test_question_is_understood_as_typed(client: TestClient, store: OneAnswerStore) -> None:
    """The query that reaches the store is the one in the URL, and the answer says how it was understood."""
    response = client.get(
        "/v1/query?kind=job&measures=sum:wall_time&by=site&where=state=failed&where=site~LCG.*"
        "&start=2026-03-01&end=2026-03-02&width=auto&top=10"
    )
    assert response.status_code == 200
    body = response.json()
    assert body["query"] == {
        "kind": "job",
        "measures": ["sum:wall_time"],
        "by": ["site"],
        "where": ["state=failed", "site~LCG.*"],
        "start": "2026-03-01T00:00:00Z",
        "end": "2026-03-02T00:00:00Z",
        "width": 900,
        "top": 10,
    }
    assert store.asked[0].filters == (Filter("state", ("failed",)), Filter("site", ("LCG.*",), wildcard=True))
    assert body["rows"][0] == {"time": "2026-03-02T12:00:00Z", "group": ["SITE-A"], "values": [BIG], "other": False}
    assert (body["totals"], body["units"], body["columns"], body["groups"]) == ([BIG], ["s"], ["sum:wall_time"], 2)


def test_values_and_records(client: TestClient, store: OneAnswerStore) -> None:
    """Values and single records come with the same filters as queries; records also by id."""
    assert client.get("/v1/values/job/site?where=state=failed&limit=5").json() == {"values": ["SITE-A", None]}
    assert store.asked == [("job", "site", (Filter("state", ("failed",)),), 5)]
    found = client.get("/v1/records/job", params={"start": "2026-03-01", "limit": 1}).json()["records"]
    assert found[0]["fields"] == {"vo": "example", "end": "2026-03-02T12:00:00Z"}
    assert store.asked[1][1]["start"] == datetime(2026, 3, 1, tzinfo=UTC)
    client.get("/v1/records/job", params={"id": "0" * 32})
    assert store.asked[2][1]["ids"] == [id_bytes("0" * 32)]


def test_kinds_are_described(client: TestClient) -> None:
    """The list of kinds has what a page needs, and each kind its JSON Schema."""
    job = next(kind for kind in client.get("/v1/kinds").json()["kinds"] if kind["name"] == "job")
    assert {"name": "core_time", "unit": "s"}.items() <= job["products"][0].items()
    assert job["retention"] == job["longest"] == 400 * 86_400
    assert job["tiers"] == [{"until_age": 8 * 86_400, "width": 3600}, {"until_age": None, "width": 86_400}]
    assert {"name": "efficiency", "numerator": "cpu_time", "denominator": "core_time"}.items() <= job["ratios"][
        0
    ].items()
    assert next(each["limit"] for each in job["measures"] if each["name"] == "wall_time") == 400 * 86_400
    schema = client.get("/v1/kinds/job")
    assert schema.headers["content-type"] == "application/schema+json"
    assert schema.json()["title"] == "job"


@pytest.mark.parametrize(
    ("path", "status", "hint"),
    [
        ("/v1/query?kind=jobs", 400, "did you mean 'job'"),
        ("/v1/query?kind=job&wher=site=X", 400, "did you mean 'where'"),
        ("/v1/query?kind=job&top=many", 422, "top"),
        ("/v1/query", 422, "kind"),
        ("/v1/kinds/jobs", 404, "did you mean 'job'"),
        ("/v1/values/job/sites", 404, "did you mean 'site'"),
        ("/v1/values/job/site?limit=0", 422, "limit"),
        ("/v1/records/job?id=1", 400, "32 hexadecimal"),
        ("/v1/nothing", 404, "Not Found"),
        ("/number/one", 422, "number"),
        ("/raise/query", 400, "no such thing"),
        ("/raise/refused", 422, "is wrong"),
        ("/raise/broker", 503, "gone"),
    ],
)
def test_errors_are_problems(client: TestClient, path: str, status: int, hint: str) -> None:
    """Every error is problem details that name what is at fault."""
    assert hint in problem(client.get(path), status)["detail"]


def test_refusals_name_field_value_and_reason(client: TestClient) -> None:
    """A refused record's parts are members of the problem, for programs."""
    body = problem(client.get("/raise/refused"), 422)
    assert (body["field"], body["value"], body["reason"]) == ("site", "'X'", "is wrong")


def test_wrong_method_is_a_problem(client: TestClient) -> None:
    """405 says which methods there are."""
    response = client.delete("/v1/kinds")
    problem(response, 405)
    assert response.headers["allow"] == "GET"


def test_unexpected_errors_tell_nothing(client: TestClient) -> None:
    """What nobody expected is a 500 without internals, with the same headers as any answer."""
    response = client.get("/raise/unknown")
    assert "secret" not in str(problem(response, 500))
    assert response.headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.parametrize(("permanent", "status"), [(False, 503), (True, 500)])
def test_store_away(client: TestClient, store: OneAnswerStore, permanent: bool, status: int) -> None:  # noqa: FBT001
    """A store that cannot answer now is 503 with a time to ask again."""
    store.error = StoreError("busy")
    store.error.permanent = permanent
    response = client.get("/v1/query?kind=job")
    assert problem(response, status)["detail"] == "store: busy"
    assert ("retry-after" in response.headers) is not permanent


def test_every_answer_has_security_headers(client: TestClient) -> None:
    """Headers that bound what a browser does with an answer are on every one, and nothing inline is allowed."""
    for path in ("/v1/kinds", "/nothing", "/health/live", "/metrics"):
        response = client.get(path)
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["content-security-policy"]


def test_openapi_lists_the_routes(client: TestClient) -> None:
    """The description for programs is there, without pages that load scripts from elsewhere."""
    assert "/v1/query" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 404


def samples_of(response: httpx2.Response) -> dict[tuple[Any, ...], float]:
    """The value of every sample by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_are_valid_exposition(client: TestClient, settings: Settings) -> None:
    """The metrics of this and of other services parse as Prometheus' text format, with queues and label service."""
    telemetry.add(GATEWAY_QUEUED, 3, "job")
    other = Telemetry()
    other.add(EMITTED, 7, "job")
    other.share(settings.folder / "telemetry", "host-probe")
    (settings.folder / "telemetry" / "broken.json").write_text("{")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = samples_of(response)
    emitted = ("siteward_emitter_records_emitted_total", ("kind", "job"), ("service", "host-probe"))
    assert samples[emitted] == 7
    assert samples["siteward_gateway_records_queued_total", ("kind", "job"), ("service", "app")] >= 3
    assert samples["siteward_queue_records", ("queue", "monitoring")] == 0


class OneStatusBroker:
    """A broker with queues as RabbitMQ tells them: it counts no records."""

    def __init__(self, *queues: QueueStatus) -> None:
        self._queues = list(queues)

    def status(self) -> list[QueueStatus]:
        return self._queues


def test_what_rabbitmq_tells_is_on_metrics_and_what_it_does_not_is_absent(
    settings: Settings, store: OneAnswerStore
) -> None:
    """Ready, unacknowledged, parked, bytes and the oldest age are shown as told; what is not known is never zero."""
    unknown = QueueStatus("hosts", 3, None, 0, None, None, None, None, None)
    told = QueueStatus("monitoring", 5, 2, 1, None, 700, datetime.now(UTC) - timedelta(hours=1), None, None)
    empty = QueueStatus("jobs", 0, 0, 0, None, 0, None, None, None)
    resources = Resources(settings)
    resources._objects |= {"store": store, "broker": OneStatusBroker(unknown, empty, told)}
    with TestClient(create_app(settings, routers=[], resources=resources), base_url=HERE) as client:
        samples = samples_of(client.get("/metrics"))
    queues = {(name, labels[0][1]): value for (name, *labels), value in samples.items() if "_queue_" in name}
    age = queues.pop(("siteward_queue_oldest_seconds", "monitoring"))
    assert 3600 <= age < 3660
    assert queues == {
        ("siteward_queue_ready_messages", "hosts"): 3,
        ("siteward_queue_ready_messages", "jobs"): 0,
        ("siteward_queue_ready_messages", "monitoring"): 5,
        ("siteward_queue_unacked_messages", "jobs"): 0,
        ("siteward_queue_unacked_messages", "monitoring"): 2,
        ("siteward_queue_parked_messages", "hosts"): 0,
        ("siteward_queue_parked_messages", "jobs"): 0,
        ("siteward_queue_parked_messages", "monitoring"): 1,
        ("siteward_queue_bytes", "jobs"): 0,
        ("siteward_queue_bytes", "monitoring"): 700,
    }


def test_redeliveries_and_held_ages_of_collectors_are_on_metrics(client: TestClient, settings: Settings) -> None:
    """What a collector counts of its messages, and how old its oldest is, stands beside the queues, by sink."""
    collector = Telemetry()
    collector.add(REDELIVERED, 4, "monitoring")
    collector.set(HELD_OLDEST, 12.5, "monitoring")
    collector.share(settings.folder / "telemetry", "collector")
    samples = samples_of(client.get("/metrics"))
    labels = (("service", "collector"), ("sink", "monitoring"))
    assert samples["siteward_collector_messages_redelivered_total", *labels] == 4
    assert samples["siteward_collector_oldest_seconds", *labels] == 12.5


def test_health(client: TestClient, store: OneAnswerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready while broker and store answer; else 503 with their names, while the process still lives."""
    monkeypatch.setattr(health, "GOOD_SECONDS", 0.0)
    assert client.get("/health/ready").json() == {"status": "ready"}
    store.error = StoreError("on fire")
    assert problem(client.get("/health/ready"), 503)["away"] == ["store"]
    assert "on fire" not in client.get("/health/ready").text
    assert client.get("/health/live").json() == {"status": "live"}


def test_a_store_that_hangs_does_not_hang_the_application(client: TestClient, store: OneAnswerStore) -> None:
    """However many ask it: further questions are told so, and what does not ask it answers at once."""
    store.hangs = threading.Event()
    paths = ["/health/ready", *["/v1/query?kind=job"] * 60]
    found: list[int] = []
    asking = [
        threading.Thread(target=lambda path=path: found.append(client.get(path).status_code), daemon=True)
        for path in paths
    ]
    for thread in asking:
        thread.start()
    problem(client.get("/health/ready"), 503)
    problem(client.get("/v1/query?kind=job"), 503)
    assert client.get("/v1/kinds").status_code == 200
    store.hangs.set()
    for thread in asking:
        thread.join(30)
    assert found.count(200) == ASKED_AT_ONCE
    assert found.count(503) == len(paths) - ASKED_AT_ONCE


def test_one_accounts_slow_questions_hold_up_nobody_else(
    settings: Settings, store: OneAnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a quarter of what is answered at once, its further ones are told so, and another's are asked."""
    monkeypatch.setattr(shares, "OWN_SECONDS", 0.5)
    trusting = msgspec.structs.replace(settings, issuers={"local": IssuerSettings(profile="local")})
    resources = Resources(trusting)
    resources._objects["store"] = store
    store.hangs = threading.Event()
    issuer = LocalIssuer(trusting.issuer_file)
    noisy, quiet = (
        {"Authorization": f"Bearer {issuer.token(name, (grant(Role.READER, ('dteam',)),), 1)}"}
        for name in ("noisy", "quiet")
    )
    with TestClient(create_app(trusting, routers=[monitoring], resources=resources), base_url=HERE) as client:
        found: list[tuple[str, int]] = []

        def ask(name: str, headers: dict[str, str]) -> None:
            found.append((name, client.get("/v1/query?kind=job", headers=headers).status_code))

        asking = [threading.Thread(target=ask, args=("noisy", noisy), daemon=True) for _ in range(ASKED_AT_ONCE)]
        for thread in asking:
            thread.start()
        while len(found) < ASKED_AT_ONCE - shares.OF_ONE:
            time.sleep(0.01)
        assert problem(client.get("/v1/values/job/site", headers=noisy), 429)
        assert client.get("/v1/kinds", headers=noisy).status_code == 200
        asking.append(threading.Thread(target=ask, args=("quiet", quiet), daemon=True))
        asking[-1].start()
        while len(store.asked) <= shares.OF_ONE:
            time.sleep(0.01)
        store.hangs.set()
        for thread in asking:
            thread.join(30)
        assert client.get("/v1/query?kind=job", headers=noisy).status_code == 200
    assert Counter(found) == {
        ("noisy", 429): ASKED_AT_ONCE - shares.OF_ONE,
        ("noisy", 200): shares.OF_ONE,
        ("quiet", 200): 1,
    }


def test_resources_are_opened_once_and_closed(settings: Settings, store: OneAnswerStore) -> None:
    """Shared objects are opened when first used, the same for every thread, and never after the end."""
    resources = Resources(settings)
    resources._objects["store"] = store
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(resources.broker)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert isinstance(resources.emitter, Emitter)
    resources.close()
    assert store.closed
    with pytest.raises(Closed):
        _ = resources.broker


def test_unknown_store_is_named(tmp_path: Path) -> None:
    """A URL of a store that is not installed says which are."""
    resources = Resources(Settings(data=str(tmp_path), monitoring=MonitoringSettings(url="oracle://x")))
    with pytest.raises(extensions.ExtensionError, match="'oracle'; installed are"):
        _ = resources.store


def test_answer_document_is_read_back(client: TestClient) -> None:
    """What the route sends is what the client's type reads, integers exact."""
    document = msgspec.json.decode(client.get("/v1/query?kind=job").content, type=AnswerDocument)
    assert document.totals == (BIG,)
    assert document.rows[1].other


def test_run_serves_until_told_to_stop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service listens on a free port, notes its address, and ends cleanly when stop is set."""
    monkeypatch.setattr("siteward.server.app._installed", list)
    monkeypatch.setattr("siteward.server.app.load_tasks", list)
    free = Settings(data=settings.data, server=ServerSettings(port=0))
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(free, stop))
    thread.start()
    address = free.folder / "run" / "app.url"
    try:
        url = _appears(address)
        assert httpx2.get(f"{url}/health/live", trust_env=False).json() == {"status": "live"}
        with pytest.raises(SettingsError, match="SITEWARD_SERVER__PORT"):
            run(Settings(data=settings.data, server=ServerSettings(port=int(url.rpartition(":")[2]))), stop)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert not address.exists()


def _appears(path: Path) -> str:
    """The text of a file that is about to be written."""
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        threading.Event().wait(0.05)
    raise AssertionError(path)
