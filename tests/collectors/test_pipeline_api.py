"""The routes about the data path: its figures, and decisions about dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from examples import JOB, NOW, job
from fastapi.testclient import TestClient
from in_memory import MemoryBroker

from collectors import api
from collectors.dead_letters import DeadLetters, Letter, Stage, place_id
from siteward.broker import Message
from siteward.envelope import as_json, seal
from siteward.query import Answer, Filter, Query
from siteward.records import Refused
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import EVERY, Grant, Role
from siteward.server.resources import Resources
from siteward.settings import IssuerSettings, Settings
from siteward.telemetry import EMIT_REFUSED, GATEWAY_REJECTED, WRITTEN, Telemetry, telemetry

ROW = JOB.row_of(job(), NOW)
ORIGINAL = as_json(JOB, [getattr(ROW, name) for name in JOB.names])


class CountingStore:
    """Holds 42 jobs, 7 of each VO, and counts how often it is asked; `away` makes it fail."""

    def __init__(self) -> None:
        self.asked = 0
        self.filters: tuple[Filter, ...] = ()
        self.away = False

    def query(self, query: Query) -> Answer:
        self.asked += 1
        if self.away:
            message = "the store is away"
            raise OSError(message)
        self.filters = query.filters
        count = 7 if query.filters else 42
        return Answer(query=query, rows=(), totals=(count,), units=("1",), groups=1)


class Shared(Resources):
    """Resources whose broker and store are in memory."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, {"job": JOB})
        self.memory = MemoryBroker("monitoring")
        self.counting = CountingStore()

    @property
    def broker(self) -> MemoryBroker:
        return self.memory

    @property
    def store(self) -> Any:
        return self.counting


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    telemetry.reset()
    return Shared(Settings(data=str(tmp_path)))


@pytest.fixture
def client(shared: Shared) -> Iterator[TestClient]:
    app = create_app(shared.settings, routers=[api.router], resources=shared)
    with TestClient(app, "http://localhost") as opened:
        yield opened


@pytest.fixture
def guarded(shared: Shared) -> Iterator[TestClient]:
    """An app that asks for tokens."""
    issuers = {"local": IssuerSettings(profile="local")}
    shared.settings = msgspec.structs.replace(shared.settings, issuers=issuers)
    with TestClient(create_app(shared.settings, routers=[api.router], resources=shared), "http://localhost") as opened:
        yield opened


def bearer(shared: Shared, *grants: Grant) -> dict[str, str]:
    """A token."""
    return {"Authorization": f"Bearer {LocalIssuer(shared.settings.issuer_file).token('anna', grants, 1)}"}


@pytest.fixture
def letters(shared: Shared) -> Iterator[DeadLetters]:
    with DeadLetters(shared.settings.folder / "collectors.sqlite") as opened:
        opened.put(
            [
                Letter(
                    queue="monitoring",
                    record=place_id(b"m" * 16, number),
                    stage=Stage.VALIDATE,
                    kind="job",
                    vo=vo,
                    producer="pilot@node7",
                    message=b"m" * 16,
                    refused=Refused("is missing", kind="job", field="site"),
                    original=original,
                )
                for number, (vo, original) in enumerate([("example", ORIGINAL), ("other", b"{}")])
            ],
            NOW,
        )
        yield opened


def test_the_pipeline_shows_the_data_path_in_figures(client: TestClient, shared: Shared, letters: DeadLetters) -> None:
    """Queues, stored records, outcomes and refusals of all processes, services."""
    folder = shared.settings.folder
    shared.memory.put([Message("example.job", seal(JOB, [ROW, ROW], "test", NOW), 2)])
    collector = Telemetry()
    collector.add(WRITTEN, 40, "monitoring", "job", "stored")
    collector.add(WRITTEN, 2, "monitoring", "job", "duplicate")
    collector.add(EMIT_REFUSED, 3, "job", "invalid")
    collector.share(folder / "telemetry", "collector")
    Telemetry().share(folder / "telemetry", "app")
    telemetry.add(GATEWAY_REJECTED, 5, "job")
    (folder / "run").mkdir()
    services = [{"name": "collector", "pid": 7, "state": "running", "restarts": 1, "since": "2026-03-02T12:00:00Z"}]
    (folder / "run" / "services.json").write_text(json.dumps(services))
    letters.stop("monitoring", "stopped: flood")
    said = client.get("/v1/pipeline").json()
    assert said["emitted"] == {"total": 2}
    assert said["queues"][0]["queue"] == "monitoring"
    assert said["queues"][0]["records"] == 2
    assert said["stored"] == {"total": 42, "kinds": {"job": 42}}
    assert said["outcomes"] == {"stored": 40, "replaced": 0, "duplicate": 2, "rejected": 0}
    assert said["refused"] == {"dead_letters": 2, "gateway": 5, "emitters": 3}
    assert said["services"] == services
    assert [each["reason"] for each in said["stopped"]] == ["stopped: flood"]


def test_the_pipeline_is_shown_while_the_store_is_away(client: TestClient, shared: Shared) -> None:
    """The last counts stand; the store is asked again after a while only."""
    shared.counting.away = True
    assert client.get("/v1/pipeline").json()["stored"] == {"total": 0, "kinds": {}}
    assert client.get("/v1/pipeline").status_code == 200
    assert shared.counting.asked == 1


def test_a_reader_of_one_vo_learns_how_the_path_does_and_nothing_of_others(
    guarded: TestClient, shared: Shared, letters: DeadLetters
) -> None:
    """Stored records are counted among those that one may see; what is counted of all VOs is told to who watches."""
    shared.memory.put([Message("other.job", seal(JOB, [ROW, ROW], "test", NOW), 2)])
    letters.stop("monitoring", "stopped: 500 of 600 records")
    said = guarded.get("/v1/pipeline", headers=bearer(shared, Grant(Role.READER, ("example",)))).json()
    assert said["stored"] == {"total": 7, "kinds": {"job": 7}}
    assert shared.counting.filters == (Filter("vo", ("example", "all")),)
    (queue,) = said["queues"]
    assert {name for name, value in queue.items() if value is not None} <= {"queue", "oldest"}
    assert queue["queue"] == "monitoring"
    assert {each for name in ("emitted", "collected", "outcomes", "refused") for each in said[name].values()} == {None}
    assert [(each["queue"], each["reason"]) for each in said["stopped"]] == [
        ("monitoring", "too many records were refused")
    ]
    watching = guarded.get("/v1/pipeline", headers=bearer(shared, Grant(Role.READER, ("example", "all")))).json()
    assert (watching["queues"][0]["records"], watching["refused"]["dead_letters"]) == (2, 2)
    assert watching["stored"]["total"] == 7
    root = bearer(shared, Grant(Role.PLATFORM_ADMIN, (EVERY,)))
    assert guarded.get("/v1/pipeline", headers=root).status_code == 400
    assert guarded.get("/v1/pipeline", headers=root | {"Siteward-VO": "example"}).json()["stored"]["total"] == 7
    assert guarded.get("/v1/pipeline", headers=root | {"Siteward-VO": "*"}).json()["stored"]["total"] == 42
    assert {(each.action, each.vos) for each in shared.audit.find()} == {
        ("GET /v1/pipeline", ("*",)),
        ("GET /v1/pipeline", ("example",)),
    }


def test_figures_of_all_vos_are_noted(guarded: TestClient, shared: Shared) -> None:
    """Where only a role of the platform's shows them, also to whom another role shows the VO that is asked."""
    assert shared.settings.issuers
    member = Grant(Role.ADMIN, ("example",))
    for grants, noted in (
        ((member, Grant(Role.READER, ("all",))), 0),
        ((member, Grant(Role.PLATFORM_ADMIN, (EVERY,))), 1),
    ):
        asked = bearer(shared, *grants) | {"Siteward-VO": "example"}
        assert guarded.get("/v1/pipeline", headers=asked).json()["refused"]["dead_letters"] == 0
        assert [each.vos for each in shared.audit.find()] == [("*",)] * noted


def test_a_mistyped_parameter_is_neither_answered_nor_noted(guarded: TestClient, shared: Shared) -> None:
    """It may hold a name, and the audit is never rewritten."""
    root = bearer(shared, Grant(Role.PLATFORM_ADMIN, (EVERY,))) | {"Siteward-VO": "*"}
    for path in ("/v1/pipeline", "/v1/dead-letters"):
        assert guarded.get(path, params={"value": "jane"}, headers=root).status_code == 400
    assert shared.audit.find() == []


def test_dead_letters_are_listed_in_pages(client: TestClient, letters: DeadLetters) -> None:
    """With filters, a total, and the number to go on from."""
    said = client.get("/v1/dead-letters", params={"limit": 1}).json()
    assert (said["total"], [each["number"] for each in said["dead_letters"]]) == (2, [1])
    said = client.get("/v1/dead-letters", params={"after": 1}).json()
    assert [each["vo"] for each in said["dead_letters"]] == ["other"]
    assert client.get("/v1/dead-letters", params={"vo": "nobody"}).json()["total"] == 0
    letters.discard(1, "ann", "", NOW)
    assert client.get("/v1/dead-letters").json()["total"] == 1
    assert client.get("/v1/dead-letters", params={"state": ""}).json()["total"] == 2


def test_who_looks_at_dead_letters_of_every_vo_says_so_and_is_noted(
    guarded: TestClient, letters: DeadLetters, shared: Shared
) -> None:
    """Else one VO is named, and what is of others, or of none that is known, is not shown."""
    assert letters.count() == 2
    root = bearer(shared, Grant(Role.PLATFORM_ADMIN, (EVERY,)))
    assert guarded.get("/v1/dead-letters", headers=bearer(shared, Grant(Role.ADMIN, ("example",)))).status_code == 403
    for path in ("/v1/dead-letters", "/v1/dead-letters/1"):
        refused = guarded.get(path, headers=root)
        assert (refused.status_code, "* for all, which is noted" in refused.json()["detail"]) == (400, True)
    of_one = root | {"Siteward-VO": "example"}
    said = guarded.get("/v1/dead-letters", headers=of_one).json()
    assert (said["total"], [each["vo"] for each in said["dead_letters"]]) == (1, ["example"])
    assert guarded.get("/v1/dead-letters", params={"vo": "other"}, headers=of_one).status_code == 403
    statuses = [guarded.get(f"/v1/dead-letters/{number}", headers=of_one).status_code for number in (1, 2)]
    assert statuses == [200, 404]
    assert {each.vos for each in shared.audit.find()} == {("example",)}
    of_all = root | {"Siteward-VO": "*"}
    assert guarded.get("/v1/dead-letters", headers=of_all, params={"reason": ""}).json()["total"] == 2
    assert guarded.get("/v1/dead-letters", headers=of_all, params={"reason": "jane"}).status_code == 200
    assert "jane" not in str(shared.audit.find())
    assert guarded.get("/v1/dead-letters/2", headers=of_all).json()["vo"] == "other"
    assert [(each.subject, each.action, each.vos) for each in shared.audit.find(limit=2)] == [
        ("anna", "GET /v1/dead-letters/2", ("*",)),
        ("anna", "GET /v1/dead-letters", ("*",)),
    ]


def test_a_dead_letter_is_replayed_fixed_or_discarded_once(
    client: TestClient, shared: Shared, letters: DeadLetters
) -> None:
    """Each decision is noted with who and why; a second one is a conflict."""
    assert letters.count() == 2
    said = client.post("/v1/dead-letters/1/replay", json={"who": "ann", "note": "site is known now"}).json()
    assert (said["state"], said["audit"][0]["who"], said["audit"][0]["note"]) == (
        "replayed",
        "ann",
        "site is known now",
    )
    assert len(shared.memory.published) == 1
    assert client.post("/v1/dead-letters/1/discard").status_code == 409
    refused = client.post("/v1/dead-letters/2/replay")
    assert (refused.status_code, refused.json()["reason"]) == (422, "is missing")
    fixed = client.post("/v1/dead-letters/2/fix", json={"record": json.loads(ORIGINAL)})
    assert fixed.json()["state"] == "fixed"
    assert client.get("/v1/dead-letters/2").json()["audit"][0]["action"] == "fixed"


def test_what_is_asked_wrongly_is_answered_clearly(client: TestClient, letters: DeadLetters) -> None:
    """Unknown numbers, unknown actions, bodies of another form."""
    assert letters.count() == 2
    assert client.get("/v1/dead-letters/77").status_code == 404
    assert client.post("/v1/dead-letters/77/discard").status_code == 404
    assert client.post("/v1/dead-letters/1/burn").status_code == 422
    assert client.post("/v1/dead-letters/1/discard", json={"who": 5}).status_code == 422
    assert client.get("/v1/dead-letters", params={"limit": 0}).status_code == 422


@pytest.mark.parametrize("number", [2**63, 2**64, 10**60, -1])
def test_numbers_beyond_64_bits_are_refused(client: TestClient, letters: DeadLetters, number: int) -> None:
    """The table of letters cannot even be asked for them."""
    assert letters.count() == 2
    assert client.get("/v1/dead-letters", params={"after": number}).status_code == 422
    assert client.get(f"/v1/dead-letters/{number}").status_code == 422
    for action in ("replay", "fix", "discard"):
        assert client.post(f"/v1/dead-letters/{number}/{action}").status_code == 422
    assert client.get("/v1/dead-letters", params={"after": 2**63 - 1}).json()["dead_letters"] == []


@pytest.mark.parametrize(
    "said",
    [
        rb'{"who": "\ud800"}',
        rb'{"record": {"site": "\ud800"}}',
        rb'{"record": {"\ud800": 1}}',
        b'{"record": ' + ORIGINAL.replace(b'"site":', b'"site": "first", "site":') + b"}",
        b'{"record": ' + ORIGINAL.replace(b'"vo":', b'"wall_time": NaN, "vo":') + b"}",
        b'{"record": ' + b"[" * 5000,
        b'"text"',
        b"[]",
        b"\xff",
    ],
)
def test_a_mended_record_is_judged_as_it_was_written(client: TestClient, letters: DeadLetters, said: bytes) -> None:
    """Half characters, keys given twice and NaN are refused as at any other door, and the letter stays open."""
    answer = client.post("/v1/dead-letters/1/fix", content=said, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert letters.show(1).state == "open"


def test_what_is_said_about_a_letter_is_bounded(client: TestClient, letters: DeadLetters) -> None:
    """A body of any length is not read to its end; one of another type is not taken for JSON."""
    assert letters.count() == 2
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        while len(read) < 1000:
            read.append(1)
            yield b" " * 2**16

    def status(content: bytes | Iterator[bytes], media_type: str) -> int:
        headers = {"Content-Type": media_type}
        return client.post("/v1/dead-letters/1/fix", content=content, headers=headers).status_code

    assert status(endless(), "application/json") == 413
    assert status(b"{}", "text/plain") == 415
    assert letters.show(1).state == "open"


def test_a_broker_that_is_away_is_503(client: TestClient, shared: Shared, letters: DeadLetters) -> None:
    """And the letter stays open."""
    shared.memory.away = True
    assert client.post("/v1/dead-letters/1/replay").status_code == 503
    assert letters.show(1).state == "open"
