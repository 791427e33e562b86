"""Envelopes over HTTP: the same answers and checks as for any body, and nothing of a header is believed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import zstandard
from examples import NOON, NOW, job
from fastapi.testclient import TestClient
from in_memory import MemoryResources

from collectors import gateway
from collectors.envelopes import LARGEST, MOST
from siteward.envelope import JSON, MSGPACK, Envelope, Header, Parcel, open_envelope, seal
from siteward.kinds import load_kinds
from siteward.kinds.data_operation import DataOperation
from siteward.kinds.pilot_submission import PilotSubmission
from siteward.records import Record
from siteward.server.app import create_app
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.settings import GatewaySettings, IssuerSettings, Settings

KINDS: Final = load_kinds()
OPERATION: Final = DataOperation(vo="example", start=NOON, end=NOON, operation="upload", state="done")
LATER: Final = 4_000_000_000_000_000


class Door:
    """A gateway that asks for tokens."""

    def __init__(self, folder: Path, limits: GatewaySettings) -> None:
        settings = Settings(data=str(folder), gateway=limits, issuers={"local": IssuerSettings(profile="local")})
        shared = MemoryResources(settings, KINDS)
        self.broker = shared.memory
        self.issuer = LocalIssuer(settings.issuer_file)
        self.client = TestClient(create_app(settings, routers=[gateway.router], resources=shared), "http://localhost")

    def post(self, body: bytes, *grants: Grant, kind: str = "job", name: str = "ce1.site.example", **more: str) -> Any:
        token = self.issuer.token(name, grants or (Grant(Role.REPORTER, ("example",)),), 1)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": MSGPACK, **more}
        return self.client.post(f"/v1/records/{kind}", content=body, headers=headers)

    @property
    def parcels(self) -> list[Parcel]:
        """The envelopes that were published."""
        return [open_envelope(each.body, each.content_type, KINDS, LATER) for each in self.broker.published]

    @property
    def ids(self) -> list[bytes]:
        return [record for parcel in self.parcels for record in parcel.ids]


@pytest.fixture
def limits() -> GatewaySettings:
    return GatewaySettings()


@pytest.fixture
def door(tmp_path: Path, limits: GatewaySettings) -> Iterator[Door]:
    opened = Door(tmp_path, limits)
    with opened.client:
        yield opened


def sealed(*records: Record, kind: str = "job", identifier: bytes = b"") -> bytes:
    rows = [KINDS[kind].row_of(record, NOW) for record in records]
    return seal(KINDS[kind], rows, "somebody@else", NOW, identifier=identifier)


def changed(body: bytes, **changes: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(msgspec.msgpack.decode(body, type=Envelope), **changes))


def test_each_record_is_answered_by_position(door: Door) -> None:
    """As those of any other body are; whoever wants to know only what is rejected says so."""
    told = door.post(sealed(job(1), job(2))).json()
    assert [(each["position"], each["status"]) for each in told["records"]] == [(0, "queued"), (1, "queued")]
    assert [bytes.fromhex(each["id"]) for each in told["records"]] == door.ids
    told = door.post(sealed(job(1), job(2)), prefer="return=minimal").json()
    assert told == {"records": [], "queued": 2, "rejected": 0}


def test_what_is_queued_says_who_sent_it(door: Door) -> None:
    """The token's bearer, whatever the header calls the producer; a receipt is kept, whatever it asks for."""
    record = door.post(sealed(job(1))).json()["records"][0]["id"]
    (parcel,) = door.parcels
    assert parcel.header.producer.startswith("ce1.site.example@")
    assert parcel.header.receipt
    assert parcel.header.sent != NOW
    headers = {"Authorization": f"Bearer {door.issuer.token('other', (Grant(Role.REPORTER, ('example',)),), 1)}"}
    assert door.client.get(f"/v1/receipts/{record}", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "grant",
    [
        Grant(Role.REPORTER, ("dteam",)),
        Grant(Role.REPORTER, ("dteam",), ("SITE-1",)),
        Grant(Role.ADMIN, ("dteam",)),
        Grant(Role.READER, ("example",)),
    ],
)
def test_an_envelope_of_another_vo_is_refused(door: Door, grant: Grant) -> None:
    """As a whole, and nothing of it is queued."""
    answer = door.post(sealed(job(1)), grant)
    assert answer.status_code == 403
    assert not door.broker.published


def test_what_all_share_is_reported_by_sites(door: Door) -> None:
    """An envelope of the VO `all` is taken of whoever may report it."""
    body = sealed(job(1, vo="all"))
    assert door.post(body, Grant(Role.REPORTER, ("all", "example"))).status_code == 403
    assert door.post(body, Grant(Role.REPORTER, ("all",), ("SITE-1",))).json()["queued"] == 1


def test_a_token_of_sites_sends_only_theirs(door: Door) -> None:
    """The others are rejected one by one, with the field; what may replace another site's is too."""
    grant = Grant(Role.REPORTER, ("example",), ("SITE-1", "SITE-3"))
    told = door.post(sealed(*map(job, range(5))), grant).json()
    assert [each["status"] for each in told["records"]] == ["rejected", "queued", "rejected", "queued", "rejected"]
    assert {each["field"] for each in told["records"] if each["status"] == "rejected"} == {"site"}
    submission = PilotSubmission(vo="example", time=NOON, site="SITE-1", state="succeeded", reference="r")
    told = door.post(sealed(submission, kind="pilot-submission"), grant, kind="pilot-submission").json()
    assert told["rejected"] == 1


def test_a_record_keeps_its_id_whatever_is_rejected_beside_it(door: Door) -> None:
    """What has only its envelope's name: it is the same whether its neighbours are taken at once, later, or never."""
    site = [PilotSubmission(vo="example", time=NOON, site=f"SITE-{each}", state="succeeded") for each in "AABA"]
    body = sealed(*site, kind="pilot-submission", identifier=b"i" * 16)
    some, every = Grant(Role.REPORTER, ("example",), ("SITE-A",)), Grant(Role.REPORTER, ("example",))
    assert door.post(body, some, kind="pilot-submission").json()["rejected"] == 1
    before = door.ids
    door.post(body, every, kind="pilot-submission")
    first, second, third, fourth = door.ids[3:]
    assert before == [first, second, fourth]
    assert third not in before


def test_nobody_can_send_under_the_id_of_another(door: Door) -> None:
    """An envelope's id is its sender's, its VO's and its kind's own."""
    body = sealed(OPERATION, kind="data-operation", identifier=b"i" * 16)
    door.post(body, kind="data-operation", name="one")
    door.post(body, kind="data-operation", name="other")
    door.post(body, kind="data-operation", name="one")
    one, other, again = door.ids
    assert one == again
    assert one != other
    (parcel, *_) = door.parcels
    assert parcel.header.id != b"i" * 16


BROKEN: Final[dict[str, tuple[bytes, int, str]]] = {
    "rubbish": (b"\x89PNG rubbish", 400, "is not an envelope"),
    "nothing": (b"", 400, "is not an envelope"),
    "ends early": (sealed(job(1))[:-3], 400, "is not an envelope"),
    "another kind": (changed(sealed(job(1)), kind="host"), 400, "kind"),
    "another version": (changed(sealed(job(1)), v=2), 400, "version"),
    "other units": (changed(sealed(job(1)), units={"wall_time": "h"}), 400, "is declared in 's'"),
    "a short id": (changed(sealed(job(1)), id=b"i"), 400, "expected 16 bytes"),
    "no records": (changed(sealed(job(1)), count=0), 400, "holds none"),
    "too many": (changed(sealed(job(1)), count=MOST + 1), 413, f"more than {MOST}"),
    "fewer than it says": (changed(sealed(job(1)), count=2), 400, "expected a list of 2"),
    "a place beyond any": (changed(sealed(job(1)), first=50_001), 400, "is no place"),
    "places beyond any": (changed(sealed(job(1)), first=50_000), 400, "leads beyond"),
    "too large": (sealed(job(1)) + bytes(LARGEST), 413, f"more|larger than {LARGEST}"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_envelope_gets_a_clear_answer(door: Door, name: str) -> None:
    """A 4xx that says what is wrong, and nothing is queued."""
    body, status, detail = BROKEN[name]
    answer = door.post(body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert any(part in answer.text for part in detail.split("|"))
    assert not door.broker.published


def test_a_bomb_is_not_unpacked(door: Door) -> None:
    """An envelope is held whole, so that the limit is that of its size when unpacked."""
    answer = door.post(zstandard.compress(bytes(100 * 2**20)), **{"Content-Encoding": "zstd"})
    assert answer.status_code == 413


def test_a_bad_record_is_rejected_and_its_neighbours_are_queued(door: Door) -> None:
    """One mistake costs one record, as in the other forms."""
    body = sealed(*map(job, range(4)))
    columns = msgspec.msgpack.decode(msgspec.msgpack.decode(body, type=Envelope).columns)
    columns["wall_time"][2] = -1
    told = door.post(changed(body, columns=msgspec.Raw(msgspec.msgpack.encode(columns)))).json()
    assert [each["status"] for each in told["records"]] == ["queued", "queued", "rejected", "queued"]
    assert told["records"][2]["field"] == "wall_time"
    assert [name for parcel in door.parcels for name in parcel.columns["local_job_id"]] == ["0", "1", "3"]


@pytest.mark.parametrize("limits", [GatewaySettings(max_record=500)])
def test_a_huge_record_is_rejected(door: Door) -> None:
    """The limit of a single record holds in envelopes, too."""
    told = door.post(sealed(job(0), job(1, user="x" * 250, node="y" * 250))).json()
    assert [each["status"] for each in told["records"]] == ["queued", "rejected"]
    assert "larger than 500 bytes" in told["records"][1]["reason"]


@pytest.mark.parametrize("limits", [GatewaySettings(producer_rate=100.0)])
def test_quotas_hold_and_an_envelope_is_queued_whole(door: Door) -> None:
    """Who has sent too much waits; of an envelope never only a part is queued for that, or it would get no further."""
    assert door.post(sealed(*map(job, range(3_000)))).json()["queued"] == 3_000
    answer = door.post(sealed(job(1)))
    assert answer.status_code == 429
    assert 15 <= int(answer.headers["retry-after"]) <= 20
    assert len(door.ids) == 3_000


def test_too_many_records_in_json_are_refused_too(door: Door) -> None:
    """Before any of them is looked at."""
    head = f'"v": 1, "id": "{secrets.token_hex(16)}", "kind": "job", "vo": "example", "producer": "p", "sent": 1'
    body = f'{{{head}, "records": [{", ".join(["0"] * (MOST + 1))}]}}'.encode()
    assert door.post(body, **{"Content-Type": JSON}).status_code == 413


def test_an_envelope_in_json_is_taken_too(door: Door) -> None:
    """With the same checks of its header."""
    record = '{"vo": "example", "site": "S", "local_job_id": "1", "start": "2026-03-02T10:00:00Z",'
    record += '"end": "2026-03-02T11:00:00Z", "wall_time": 3600}'
    head = f'"v": 1, "id": "{secrets.token_hex(16)}", "kind": "job", "vo": "example", "producer": "p", "sent": 1'
    body = f'{{{head}, "records": [{record}]}}'.encode()
    assert door.post(body, **{"Content-Type": JSON}).json()["queued"] == 1
    other = Grant(Role.REPORTER, ("dteam",))
    assert door.post(body, other, **{"Content-Type": JSON}).status_code == 403
    assert len(door.ids) == 1


def test_a_header_says_nothing_else() -> None:
    """Whoever adds to it has to say, here as well, whether a sender is believed."""
    assert {*Header.__struct_fields__} == {"v", "id", "kind", "vo", "producer", "sent", "receipt", "units", "first"}
