"""Whoever fills the queues waits before anybody else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from in_memory import MemoryBroker, MemoryResources
from issuer import Clock

from collectors import gateway, waiting
from collectors.waiting import Waiting
from siteward.broker import Message
from siteward.kinds import load_kinds
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Role, grant
from siteward.server.problems import Problem
from siteward.settings import GatewaySettings, IssuerSettings, Settings

MOST = 1_000


class Queues:
    """Queues of which only the length is known, and what they let in."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker("monitoring")
        self.waiting = Waiting(MOST, self.clock)

    def send(self, vo: str, count: int) -> bool:
        """Whether so many records of a VO are let in; they are queued then."""
        self.clock.now += waiting.LOOK_SECONDS
        try:
            self.waiting.check(self.broker)
            self.waiting.check_share([vo])
        except Problem as problem:
            return problem.status != 429
        self.broker.put([Message("example.job", b"", 1)] * count)
        self.waiting.charge({vo: count})
        return True

    def take(self, count: int) -> None:
        """Have collectors take records, the oldest first."""
        del self.broker.queues["monitoring"][:count]


@pytest.fixture
def queues() -> Queues:
    return Queues()


def test_others_records_do_not_hide_for_ever_that_ones_own_have_left(queues: Queues) -> None:
    """Where programs that this one does not know of fill the queues, what was let in is thought to leave in time."""
    queues.broker.put([Message("example.job", b"", 1)] * 800)
    sent = 0
    for _ in range(int(2 * waiting.HALF_SECONDS)):
        if queues.send("quiet", 1):
            sent += 1
            queues.take(1)
    assert sent > 40


def test_a_noisy_vo_alone_does_not_fill_the_queues(queues: Queues) -> None:
    """There is room left for who comes next, whose records are let in until all of it is taken."""
    while queues.send("noisy", 50):
        pass
    assert 750 < len(queues.broker.queues["monitoring"]) <= 800
    for _ in range(4):
        assert queues.send("quiet", 50)
        assert not queues.send("noisy", 1)
    assert queues.send("quiet", 1)
    assert not queues.send("quiet", 1)


def test_those_who_send_alike_wait_together(queues: Queues) -> None:
    """None of them is the noisy one; whoever sends little goes on."""
    while queues.send("one", 40) and queues.send("another", 40):
        pass
    assert not queues.send("one", 1)
    assert not queues.send("another", 1)
    assert queues.send("quiet", 20)


def test_what_was_taken_counts_no_more(queues: Queues) -> None:
    """A VO that was noisy is one like others as soon as its records are stored."""
    while queues.send("noisy", 100):
        pass
    assert queues.send("quiet", 100)
    queues.take(500)
    assert queues.send("noisy", 100)
    queues.take(10_000)
    for _ in range(7):
        assert queues.send("quiet", 100)
    queues.send("quiet", 60)
    assert not queues.send("quiet", 1)
    assert queues.send("noisy", 1)


def test_of_records_that_came_another_way_nobody_is_guilty(queues: Queues) -> None:
    """What this process has not let in is not held against those who come now, as long as they send little."""
    queues.broker.put([Message("example.job", b"", 1)] * 900)
    for _ in range(2):
        assert queues.send("one", 10)
    assert not queues.send("one", 10)
    assert queues.send("another", 10)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A gateway whose queues nobody empties, looked at each time."""
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.0)
    settings = Settings(
        data=str(tmp_path),
        gateway=GatewaySettings(max_waiting=MOST),
        issuers={"local": IssuerSettings(profile="local")},
    )
    shared = MemoryResources(settings, load_kinds())
    with TestClient(create_app(settings, routers=[gateway.router], resources=shared), "http://localhost") as opened:
        yield opened


def test_a_noisy_vos_sender_is_answered_429_and_another_vos_is_not(client: TestClient, tmp_path: Path) -> None:
    """Over HTTP, each with a token of its own."""
    issuer = LocalIssuer(tmp_path / "issuer.json")

    def send(vo: str, count: int) -> int:
        token = issuer.token(f"reporter of {vo}", (grant(Role.REPORTER, (vo,)),), 1)
        job = {"vo": vo, "site": "S", "start": "2026-03-02T10:00:00Z", "end": "2026-03-02T11:00:00Z", "wall_time": 60}
        records = [job | {"local_job_id": str(each)} for each in range(count)]
        answer = client.post("/v1/records/job", json=records, headers={"Authorization": f"Bearer {token}"})
        told = answer.json()
        assert f"of {vo}" in told["detail"] if answer.status_code == 429 else told["queued"] == count, told
        return answer.status_code

    assert send("noisy", 900) == 200
    assert send("noisy", 1) == 429
    assert [send("quiet", 20) for _ in range(4)] == [200] * 4
    assert send("noisy", 1) == 429
