"""Who may send what over HTTP: a token's VOs and sites, and nobody else's; receipts are for who sent the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from gateway_server import GatewayServer
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from in_memory import MemoryResources

from collectors import gateway
from collectors.database import Database, database_path
from collectors.receipts import GATEWAY
from siteward.envelope import MSGPACK, open_envelope, seal
from siteward.kinds import load_kinds
from siteward.people import PeopleUnavailable
from siteward.pseudonyms import is_pseudonym
from siteward.records.doors import row_from_json
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.database import Conflict
from siteward.settings import GatewaySettings, IssuerSettings, Settings

KINDS: Final = load_kinds()
LATER: Final = 2_000_000_000_000_000
ADMIN: Final = Grant(Role.PLATFORM_ADMIN, ("*",))


def record(vo: str = "dteam", site: str = "SITE-A", number: int = 1) -> dict[str, Any]:
    """A job of a VO at a site."""
    return {
        "vo": vo,
        "site": site,
        "local_job_id": str(number),
        "start": "2026-03-02T10:00:00Z",
        "end": "2026-03-02T11:00:00Z",
        "wall_time": 3600,
    }


class Door:
    """A gateway that asks for tokens."""

    def __init__(self, folder: Path, limits: GatewaySettings = GatewaySettings()) -> None:  # noqa: B008  # never changed.
        settings = Settings(data=str(folder), gateway=limits, issuers={"local": IssuerSettings(profile="local")})
        self.resources = shared = MemoryResources(settings, KINDS)
        self.broker = shared.memory
        self.issuer = LocalIssuer(settings.issuer_file)
        self.client = TestClient(create_app(settings, routers=[gateway.router], resources=shared), "http://localhost")

    def bearer(self, *grants: Grant, name: str = "ce1.site.example") -> dict[str, str]:
        """The header with a token."""
        return {"Authorization": f"Bearer {self.issuer.token(name, grants, 1)}"}

    def send(self, headers: dict[str, str], *records: dict[str, Any]) -> list[dict[str, Any]]:
        """What is answered for each record."""
        answer = self.client.post("/v1/records/job", json=list(records), headers=headers)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["records"]
        return found

    def queued(self) -> list[tuple[str, str, str]]:
        """VO, site and producer of every record that was queued."""
        parcels = [open_envelope(each.body, each.content_type, KINDS, LATER) for each in self.broker.published]
        return [
            (vo, site, parcel.header.producer)
            for parcel in parcels
            for vo, site in zip(parcel.columns["vo"], parcel.columns["site"], strict=True)
        ]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A gateway."""
    opened = Door(tmp_path)
    with opened.client:
        yield opened


def test_a_vos_reporter_sends_its_vo(door: Door) -> None:
    """Of any site; other VOs' records are refused one by one, by field, and the good ones beside them queued."""
    mine = door.bearer(Grant(Role.REPORTER, ("dteam",)))
    good, foreign, other = door.send(mine, record(), record("biomed", number=2), record(site="SITE-B", number=3))
    assert (good["status"], other["status"]) == ("queued", "queued")
    assert (foreign["status"], foreign["field"], foreign["value"]) == ("rejected", "vo", "'biomed'")
    assert "dteam" in foreign["reason"]
    assert [(vo, site) for vo, site, _ in door.queued()] == [("dteam", "SITE-A"), ("dteam", "SITE-B")]


def test_a_site_reports_for_its_vos_and_for_what_all_share(door: Door) -> None:
    """Of itself only."""
    mine = door.bearer(Grant(Role.REPORTER, ("dteam", "all"), ("SITE-A",)))
    answers = door.send(
        mine, record(), record("all", number=2), record(site="SITE-B", number=3), record("biomed", number=4)
    )
    assert [(each["status"], each.get("field")) for each in answers] == [
        ("queued", None),
        ("queued", None),
        ("rejected", "site"),
        ("rejected", "vo"),
    ]


@pytest.mark.parametrize(
    "grants",
    [
        (Grant(Role.READER, ("dteam",)),),
        (Grant(Role.OPERATOR, ("dteam",)),),
        (Grant(Role.ACCOUNTANT, ("dteam",)),),
        (),
    ],
)
def test_who_only_reads_sends_nothing(door: Door, grants: tuple[Grant, ...]) -> None:
    """The body is not even read."""
    answer = door.client.post("/v1/records/job", content=b"{" * 9, headers=door.bearer(*grants))
    assert answer.status_code == 403
    assert not door.queued()


def downtime(vo: str = "dteam", site: str = "SITE-A") -> dict[str, Any]:
    """An announced downtime."""
    return {
        "vo": vo,
        "site": site,
        "source": "people",
        "reference": "1",
        "announced": "2026-03-01T10:00:00Z",
        "start": "2026-03-02T10:00:00Z",
        "end": "2026-03-02T11:00:00Z",
        "severity": "outage",
        "classification": "scheduled",
    }


SITES_OWN: Final = Grant(Role.SITE_OPERATOR, ("dteam", "all"), ("SITE-A",))


@pytest.mark.parametrize(
    ("grant", "sent", "refused"),
    [
        (Grant(Role.OPERATOR, ("dteam",)), downtime(), None),
        (Grant(Role.OPERATOR, ("dteam",)), downtime(site="SITE-B"), None),
        (Grant(Role.OPERATOR, ("dteam",)), downtime("biomed"), "vo"),
        (Grant(Role.OPERATOR, ("dteam", "all")), downtime("all"), "vo"),
        (SITES_OWN, downtime(), None),
        (SITES_OWN, downtime("all"), None),
        (SITES_OWN, downtime(site="SITE-B"), "site"),
        (SITES_OWN, downtime("all", "SITE-B"), "site"),
        (SITES_OWN, downtime("biomed"), "vo"),
        (Grant(Role.REPORTER, ("dteam",)), downtime(), None),
        (ADMIN, downtime("all"), None),
    ],
)
def test_operators_announce_downtimes(door: Door, grant: Grant, sent: dict[str, Any], refused: str | None) -> None:
    """Of their VOs, those of a site of their sites; what concerns all is said by sites and the platform."""
    headers = door.bearer(grant)
    answer = door.client.post("/v1/records/downtime", json=[sent], headers=headers)
    assert answer.status_code == 200, answer.text
    (told,) = answer.json()["records"]
    assert told.get("field") == refused
    assert len(door.queued()) == (refused is None)
    if refused is None:
        assert door.client.get(f"/v1/receipts/{told['id']}", headers=headers).status_code == 200


@pytest.mark.parametrize("role", [Role.READER, Role.USER, Role.ACCOUNTANT])
def test_who_operates_nothing_announces_nothing(door: Door, role: Role) -> None:
    """The body is not even read."""
    answer = door.client.post("/v1/records/downtime", content=b"{" * 9, headers=door.bearer(Grant(role, ("dteam",))))
    assert answer.status_code == 403


def test_operators_send_nothing_but_what_is_theirs_to_say(door: Door) -> None:
    """No job, in a body or in an envelope; and an envelope of downtimes is judged as any other body."""
    headers = door.bearer(Grant(Role.OPERATOR, ("dteam",)))
    for kind in ("job", "host", "storage-share"):
        answer = door.client.post(f"/v1/records/{kind}", content=b"{" * 9, headers=headers)
        assert (answer.status_code, answer.json()["field"]) == (403, "kind")
    downtimes = KINDS["downtime"]
    for vo, status in (("dteam", 200), ("biomed", 403)):
        body = seal(downtimes, [row_from_json(downtimes, json.dumps(downtime(vo)).encode(), LATER)], "me", LATER)
        sent = door.client.post("/v1/records/downtime", content=body, headers=headers | {"Content-Type": MSGPACK})
        assert sent.status_code == status, sent.text


def test_records_say_who_sent_them(door: Door) -> None:
    """The token's subject and issuer: a sender cannot call itself anything else."""
    door.send(door.bearer(Grant(Role.REPORTER, ("dteam",)), name="ce1.site.example"), record())
    door.send(door.bearer(Grant(Role.REPORTER, ("dteam",)), name="ce2.site.example"), record(number=2))
    place = door.issuer.settings.url.removeprefix("http://")
    assert [producer for _, _, producer in door.queued()] == [
        f"ce1.site.example@{place}",
        f"ce2.site.example@{place}",
    ]


PERSON: Final = Grant(Role.ADMIN, ("dteam",))
"""A role that no program has, which only sends."""


def code_of(door: Door, name: str) -> str:
    """What stands for somebody's account."""
    account = json.dumps([door.issuer.settings.url, name], separators=(",", ":"))
    return door.resources.people.pseudonym("account", account)


def test_records_of_a_person_say_a_pseudonym(door: Door) -> None:
    """The one of the account, which no table tells; a name that two people have makes them nobody else."""
    place = door.issuer.settings.url.removeprefix("http://")
    door.send(door.bearer(PERSON, name="anna"), record())
    assert [producer for _, _, producer in door.queued()] == [f"{code_of(door, 'anna')}@{place}"]
    assert door.resources.people.names([code_of(door, "anna")]) == {}
    assert all(b"anna" not in message.body for message in door.broker.published)


def test_nothing_of_a_person_is_queued_while_pseudonyms_are_away(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told to come again, and still who they are; programs send on."""
    person, program = door.bearer(PERSON, name="anna"), door.bearer(Grant(Role.REPORTER, ("dteam",)))

    def away(*_: str) -> str:
        message = "the database of access does not answer"
        raise PeopleUnavailable(message)

    monkeypatch.setattr(door.resources.people, "pseudonym", away)
    answer = door.client.post("/v1/records/job", json=[record()], headers=person)
    assert (answer.status_code, answer.json()["queued"], answer.headers["retry-after"]) == (503, 0, "5")
    assert not door.queued()
    told = door.client.get("/v1/whoami", headers=person)
    assert (told.status_code, told.json()["subject"], told.json()["producer"]) == (200, "anna", None)
    assert len(door.send(program, record())) == 1


def test_a_persons_cycles_are_of_the_pseudonym(door: Door) -> None:
    """As `/v1/whoami` tells it; the own subject would be a name in every store."""
    headers = door.bearer(PERSON, name="anna")
    told = door.client.get("/v1/whoami", headers=headers).json()["producer"]
    assert told == code_of(door, "anna")
    snapshot = {"vo": "dteam", "site": "SITE-A", "time": "2026-03-02T10:00:00Z", "status": "Running", "jobs": 1}
    body = [snapshot | {"producer": name} for name in (told, f"{told}/west", f"{told}@host", "anna", "anna/west")]
    answers = door.client.post("/v1/records/wms-history", json=body, headers=headers).json()["records"]
    assert [(each["status"], each.get("field")) for each in answers] == [
        *[("queued", None)] * 3,
        *[("rejected", "producer")] * 2,
    ]
    assert told in answers[3]["reason"]


def test_whoami_tells_the_name_that_a_token_sends_under(door: Door) -> None:
    """Of a program its own; of who sends nothing none."""

    def told(grant: Grant) -> str:
        headers = door.bearer(grant, name="ce1")
        found: str = door.client.get("/v1/whoami", headers=headers).json()["producer"]
        return found

    assert told(Grant(Role.REPORTER, ("dteam",))) == "ce1"
    assert told(Grant(Role.READER, ("dteam",))) == ""


def test_receipts_of_a_person_hold_no_name(door: Door) -> None:
    """They are read all the same by who sent the record, and so are those of before, which hold the subject."""
    headers = door.bearer(PERSON, name="anna")
    (answer,) = door.send(headers, record())
    path = f"/v1/receipts/{answer['id']}"
    assert door.client.get(path, headers=headers).status_code == 200
    assert door.client.get(path, headers=door.bearer(PERSON, name="boris")).status_code == 404
    with closing(Database(database_path(door.resources.settings))) as database:
        ((kept,),) = database.rows("SELECT reason FROM receipts WHERE sink = ?", (GATEWAY,))
        assert is_pseudonym(str(kept))
        before = json.dumps([door.issuer.settings.url, "anna"], separators=(",", ":"))
        with database.transaction() as connection:
            connection.execute("UPDATE receipts SET reason = ?", (before,))
    assert door.client.get(path, headers=headers).status_code == 200
    assert door.client.get(path, headers=door.bearer(PERSON, name="boris")).status_code == 404


def test_receipts_are_for_who_sent_the_record(door: Door) -> None:
    """Others would learn that it exists, and why it was refused; who looks after the platform may, and is noted."""
    reporting = Grant(Role.REPORTER, ("dteam",))
    mine, other = door.bearer(reporting, name="one"), door.bearer(reporting, name="other")
    (answer,) = door.send(mine, record())
    path = f"/v1/receipts/{answer['id']}"
    assert door.client.get(path, headers=mine).status_code == 200
    assert door.client.get(path, headers=other).status_code == 404
    assert door.client.get(path, headers=door.bearer(ADMIN)).status_code == 404
    every = door.bearer(ADMIN) | {"Siteward-VO": "*"}
    assert door.client.get(path, headers=every).status_code == 200
    assert door.client.get(path, headers=other | {"Siteward-VO": "*"}).status_code == 404
    door.send(other, record())
    assert len(door.client.get(path, headers=other).json()["submissions"]) == 1
    assert len(door.client.get(path, headers=every).json()["submissions"]) == 2
    seen = [each for each in door.resources.audit.find() if each.outcome == "seen"]
    assert [(each.action, each.vos) for each in seen] == [(f"GET {path}", ("*",))]


def test_who_sent_how_many_records_is_in_the_audit(door: Door) -> None:
    """One entry for each request that brought any: with the token, whose they were, and what was refused."""
    headers = door.bearer(Grant(Role.REPORTER, ("dteam", "biomed")), name="ce1")
    door.send(headers, record(), record(number=2), record(vo="biomed"), record(vo="other"))
    door.send(headers, record(vo="other"))
    (entry,) = door.resources.audit.find()
    assert (entry.subject, entry.action, entry.outcome) == ("ce1", "POST /v1/records/job", "200")
    assert entry.token
    assert entry.vos == ("biomed", "dteam")
    assert entry.after == {"kind": "job", "queued": {"dteam": 2, "biomed": 1}, "rejected": 1}
    assert [each.number for each in door.resources.audit.find(vo="biomed", action="POST /v1/records")] == [entry.number]


def test_no_records_are_taken_without_the_audit(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it does not answer, whoever sends is told to come again, with what was queued all the same."""
    headers = door.bearer(Grant(Role.REPORTER, ("dteam",)))

    def away(*_: object) -> None:
        message = "the database is away"
        raise Conflict(message)

    monkeypatch.setattr(door.resources.audit, "note", away)
    answer = door.client.post("/v1/records/job", json=[record()], headers=headers)
    assert (answer.status_code, answer.json()["position"], answer.headers["retry-after"]) == (503, 1, "5")
    assert "audit" in answer.json()["detail"]
    monkeypatch.setattr(type(door.resources), "audit", property(away))
    assert door.client.post("/v1/records/job", json=[record()], headers=headers).status_code == 503
    assert len(door.queued()) == 1


def test_what_cannot_be_noted_is_not_queued_again_and_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an entry was not written, no record is taken until the audit's database is written to again."""
    headers, audit = door.bearer(Grant(Role.REPORTER, ("dteam",))), door.resources.audit

    def away(*_: object) -> None:
        message = "the disk is full"
        raise Conflict(message)

    with monkeypatch.context() as patch:
        # Reading goes on.
        patch.setattr(audit._database, "write", away)  # a disk that is full for one database.
        for number in range(3):
            assert door.client.post("/v1/records/job", json=[record(number=number)], headers=headers).status_code == 503
    assert len(door.queued()) == 1
    assert door.client.post("/v1/records/job", json=[record(number=7)], headers=headers).status_code == 200
    assert [each.outcome for each in audit.find(action="POST /v1/records")] == ["200"]


def test_an_idempotency_key_is_its_senders_own(door: Door) -> None:
    """Two senders that count their batches alike are not taken for retries of each other."""
    reporting = Grant(Role.REPORTER, ("dteam",))
    one, other = (door.bearer(reporting, name=name) | {"Idempotency-Key": "1"} for name in ("one", "other"))
    for headers in (one, one, other):
        door.send(headers, record())
    envelopes = [message.id for message in door.broker.published]
    assert envelopes[0] == envelopes[1]
    assert envelopes[0] != envelopes[2]


grants = st.builds(
    Grant,
    st.sampled_from([Role.REPORTER, Role.READER, Role.ADMIN]),
    st.lists(st.sampled_from(["dteam", "biomed", "all"]), min_size=1, max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from(["SITE-A", "SITE-B"]), max_size=2, unique=True).map(tuple),
)


@trying(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    held=st.lists(grants, min_size=1, max_size=3),
    sent=st.lists(
        st.tuples(
            st.sampled_from(["dteam", "biomed", "all", "Dteam"]), st.sampled_from(["SITE-A", "SITE-B", "site-a"])
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_what_is_queued_is_what_a_token_speaks_for(door: Door, held: list[Grant], sent: list[tuple[str, str]]) -> None:
    """Whatever roles it has, and whatever is sent: decided here once more, by itself."""
    may = [each for each in held if each.role is not Role.READER]

    def is_allowed(vo: str, site: str) -> bool:
        return any(
            vo in each.vos and (site in each.sites if each.sites else vo != "all")  # what all share, sites report.
            for each in may
        )

    before = len(door.queued())
    headers = door.bearer(*held)
    body = [record(vo, site, number) for number, (vo, site) in enumerate(sent)]
    answer = door.client.post("/v1/records/job", content=json.dumps(body), headers=headers | JSON)
    if not may:
        assert answer.status_code == 403
        return
    wanted = ["queued" if is_allowed(vo, site) else "rejected" for vo, site in sent]
    assert [each["status"] for each in answer.json()["records"]] == wanted
    assert sorted((vo, site) for vo, site, _ in door.queued()[before:]) == sorted(
        each for each in sent if is_allowed(*each)
    )


JSON: Final = {"Content-Type": "application/json"}


def test_a_noisy_sender_is_told_to_wait(tmp_path: Path) -> None:
    """With 429 and the seconds; what was queued before stays queued, and others go on."""
    opened = Door(tmp_path, GatewaySettings(producer_rate=1))
    with opened.client:
        reporting = Grant(Role.REPORTER, ("dteam",))
        noisy, quiet = opened.bearer(reporting, name="noisy"), opened.bearer(reporting, name="quiet")
        assert len(opened.send(noisy, *(record(number=number) for number in range(25)))) == 25
        refused = opened.client.post("/v1/records/job", json=[record(number=99)], headers=noisy)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 16
        assert "noisy" in refused.json()["detail"]
        assert len(opened.send(quiet, record(number=98))) == 1
    assert len(opened.queued()) == 26


def test_a_vo_with_many_tokens_leaves_places_for_others(tmp_path: Path) -> None:
    """Its further requests are answered 429 while bodies of its others come slowly; another VO's pass meanwhile."""
    body = json.dumps([record(vo="alpha")]).encode()
    server = GatewayServer(tmp_path)
    server.start(GatewaySettings(vo_at_once=2))

    def connected(name: str, vo: str, content: bytes) -> HTTPConnection:
        """A request of which some of the body is sent; with none of it, once the server waits for it."""
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.putrequest("POST", "/v1/records/job")
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        headers |= {} if content else {"Expect": "100-continue"}
        token = server.token(Grant(Role.REPORTER, (vo, "all"), ("SITE-A",)), name=name)
        for each in (headers | {"Authorization": f"Bearer {token}"}).items():
            connection.putheader(*each)
        connection.endheaders(content)
        assert content or connection.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        return connection

    def status(connection: HTTPConnection) -> int:
        with closing(connection), connection.getresponse() as response:
            response.read()
            return response.status

    try:
        slow = [connected(f"ce{number}", "alpha", b"") for number in range(2)]
        assert status(connected("ce3", "alpha", body)) == 429
        assert status(connected("ce4", "beta", body.replace(b"alpha", b"beta "))) == 200
        for connection in slow:
            connection.send(body)
            assert status(connection) == 200
        assert status(connected("ce3", "alpha", body)) == 200
    finally:
        server.stop()


def test_a_vos_limit_stops_a_request_in_the_middle(tmp_path: Path) -> None:
    """What is queued is answered; the answer says from where on to send again."""
    opened = Door(tmp_path, GatewaySettings(vo_rate=1))
    with opened.client:
        headers = opened.bearer(Grant(Role.REPORTER, ("dteam",)))
        body = [record(number=number) for number in range(2500)]
        answer = opened.client.post("/v1/records/job", json=body, headers=headers)
    assert answer.status_code == 429
    told = answer.json()
    assert (told["position"], told["queued"]) == (1000, 1000)
    assert len(opened.queued()) == 1000


def test_cycles_are_of_the_sender_itself(door: Door) -> None:
    """What belongs to one look at everything is known by its producer, whatever the VO: nobody speaks for another's."""
    mine = door.bearer(Grant(Role.REPORTER, ("dteam",)), name="wms")
    snapshot = {"vo": "dteam", "site": "SITE-A", "time": "2026-03-02T10:00:00Z", "status": "Running", "jobs": 1}
    names = ("wms", "wms/west", "wms@host", "wms2", "other", "WMS")
    body = [snapshot | {"producer": name} for name in names]
    answers = door.client.post("/v1/records/wms-history", json=body, headers=mine).json()["records"]
    assert [(each["status"], each.get("field")) for each in answers] == [
        *[("queued", None)] * 3,
        *[("rejected", "producer")] * 3,
    ]
    admin = door.bearer(ADMIN, name="relay")
    told = door.client.post("/v1/records/wms-history", json=[snapshot | {"producer": "other"}], headers=admin)
    assert told.json()["records"][0]["status"] == "queued"


def test_a_site_sends_nothing_that_could_replace_another_sites(door: Door) -> None:
    """Of kinds whose records are the same whatever the site; a sender for the whole VO may."""
    machine = {"vo": "dteam", "site": "SITE-A", "vm": "1", "time": "2026-03-02T10:00:00Z", "producer": "ce1"}
    machine |= {"started": "2026-03-01T10:00:00Z", "state": "started"}
    statuses = []
    for grant in (Grant(Role.REPORTER, ("dteam",), ("SITE-A",)), Grant(Role.REPORTER, ("dteam",))):
        headers = door.bearer(grant, name="ce1")
        (told,) = door.client.post("/v1/records/cloud-vm", json=[machine], headers=headers).json()["records"]
        statuses.append((told["status"], told.get("field")))
    assert statuses[0] == ("rejected", "site")
    assert statuses[1][1] != "site"


def test_what_has_no_identity_replaces_nothing_and_a_site_may_send_it(door: Door) -> None:
    """Two submissions of one moment are two; one that can be sent again by its reference needs the VO's token."""
    one = {"vo": "dteam", "site": "SITE-A", "time": "2026-03-02T10:00:00Z", "state": "succeeded"}
    headers = door.bearer(Grant(Role.REPORTER, ("dteam",), ("SITE-A",)))
    body = [one, one, one | {"reference": "7"}]
    first, second, named = door.client.post("/v1/records/pilot-submission", json=body, headers=headers).json()[
        "records"
    ]
    assert (first["status"], second["status"]) == ("queued", "queued")
    assert first["id"] != second["id"]
    assert (named["status"], named["field"]) == ("rejected", "site")
