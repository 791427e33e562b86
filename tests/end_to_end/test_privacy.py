"""A person's identity through the whole path: apart from every record, given out, gone without touching a figure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from accounted import ran
from examples import JOB, NOON, job, job_rows
from fastapi.testclient import TestClient
from oidc_server import SUBJECT, oidc_server

from accounting.archive.archiving import archive
from accounting.ledger import Ledger
from accounting.opening import archive_folder, open_ledger
from accounting.periods.closing import close
from accounting.periods.signatures import sign, verified_periods
from collectors.database import database_path
from collectors.dead_letters import DeadLetters
from collectors.service import collect
from siteward.broker import Message
from siteward.broker.opening import open_declared
from siteward.broker.topology import routing_key
from siteward.emit import Emitter
from siteward.envelope import JSON, seal
from siteward.kinds import load_kinds
from siteward.kinds.storage_share import StorageShare
from siteward.records import kind_of, microseconds
from siteward.server.app import create_app
from siteward.server.people_table import PeopleTable
from siteward.settings import CollectorSettings, GrantSettings, Settings

NAME: Final = "/DC=org/DC=example/CN=Somebody Special"
ACCOUNT: Final = "special007"
MARCH: Final = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
WHOLE: Final = {"kind": "job", "window": "2026-03"}


def collected(settings: Settings, *jobs: Any) -> None:
    """Emit jobs, and have them collected into both stores."""
    with closing(Emitter(settings)) as emitter:
        for each in jobs:
            emitter.emit(each)
    stop = threading.Event()
    thread = threading.Thread(target=collect, args=(settings, stop, ["monitoring", "ledger"]))
    thread.start()
    with closing(open_declared(settings)) as broker:
        deadline = time.monotonic() + 60
        while any(queue.records for queue in broker.status()) and time.monotonic() < deadline:
            time.sleep(0.05)
    stop.set()
    thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation that has collected jobs of several people, one of which it refused."""
    made = Settings(data=str(tmp_path), collector=CollectorSettings(leave_out=("prometheus",), batch_age=0.05))
    named = [job(number, user=NAME, local_user=ACCOUNT, site="S") for number in range(20, 25)]
    with closing(open_declared(made)) as broker, closing(broker.publisher()) as publisher:
        # Of a sender that does not look at its records.
        right = seal(JOB, job_rows(1, user=NAME, wall_time=77_777), "test", microseconds(NOON))
        wrong = right.replace(msgspec.msgpack.encode(77_777), msgspec.msgpack.encode(-1))
        publisher.publish([Message(routing_key("example", "job"), wrong, 1)])
    collected(made, *(job(number, site="S") for number in range(20)), *named)
    return made


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """Its ledger."""
    with closing(open_ledger(settings, load_kinds())) as opened:
        yield opened


def usage(settings: Settings, **parts: str) -> dict[str, Any]:
    """What the app answers."""
    with TestClient(create_app(settings), "http://localhost") as client:
        answer = client.get("/v1/accounting/usage", params=WHOLE | {"measures": "wall_time,records"} | parts)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def figures(settings: Settings, **parts: str) -> list[tuple[Any, ...]]:
    """The values of an answer's rows, whoever they are of, and its totals."""
    answer = usage(settings, **parts)
    return [*sorted(tuple(row["values"]) for row in answer["rows"]), tuple(answer["totals"])]


def holding(folder: Path, text: str) -> set[str]:
    """The files that hold a text."""
    return {file.name for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()}


def test_names_are_in_the_table_of_people_only(settings: Settings, ledger: Ledger) -> None:
    """Neither in a store, nor in the archive, nor in a log of changes: what passed the broker and what was refused is
    all that holds them beside the table."""
    list(archive(ledger, archive_folder(settings), NOON + timedelta(days=2)))
    ledger.close()
    assert list(archive_folder(settings).rglob("*.parquet"))
    for text in (NAME, ACCOUNT):
        apart = {"access.sqlite", "access.sqlite-wal"}
        passing = {"broker.sqlite", "broker.sqlite-wal", "collectors.sqlite", "collectors.sqlite-wal"}
        assert holding(settings.folder, text) <= apart | passing
        assert holding(settings.folder, text) & apart


def test_who_may_see_names_sees_and_asks_for_them(settings: Settings) -> None:
    """As if records held them: groups, conditions, patterns, lists, single records, in the order of the names."""
    people = [row["group"][0] for row in usage(settings, by="user")["rows"]]
    assert people == sorted([*(f"user{number}" for number in range(11)), NAME])
    assert usage(settings, where=f"user={NAME}")["totals"] == [5 * 3600, 5]
    assert usage(settings, where="user~*Somebody*")["totals"] == [5 * 3600, 5]
    assert usage(settings, where=f"user!={NAME}")["totals"] == [20 * 3600, 20]
    assert usage(settings, where="user~nobody*")["totals"] == [0, 0]
    assert usage(settings, where="user!~*Somebody*")["totals"] == [20 * 3600, 20]
    with TestClient(create_app(settings), "http://localhost") as client:
        window = {"start": "2026-03-01", "end": "2026-03-05"}
        found = client.get("/v1/query", params=window | {"kind": "job", "by": "user", "where": f"user={NAME}"}).json()
        assert [(row["group"], row["values"]) for row in found["rows"]] == [([NAME], [5])]
        assert found["query"]["where"] == [f"user={NAME}"]
        assert NAME in client.get("/v1/values/job/user").json()["values"]
        records = client.get("/v1/records/job", params=window | {"where": f"user={NAME}"}).json()["records"]
        assert {(each["fields"]["user"], each["fields"]["local_user"]) for each in records[:5]} <= {
            (NAME, ACCOUNT),
            (NAME, ""),
        }
        traced = client.get("/v1/accounting/trace", params=WHOLE | {"where": f"user={NAME}"}).json()
        assert {each["series"]["user"] for each in traced["buckets"]} == {NAME}


def test_erasing_somebody_changes_no_figure(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Totals, groups and signed digests are what they were; the name is in no file, and does not come back."""
    close(ledger, "job", MARCH, "somebody")
    signed = sign(ledger, "job", MARCH, "somebody")
    before = [figures(settings, by=by, period=period) for by in ("user", "site") for period in ("day", "whole")]
    with closing(PeopleTable(settings)) as people:
        code = people.pseudonym("user", NAME)
    assert ran(monkeypatch, settings, "privacy", "erase", NAME) == 0
    assert ran(monkeypatch, settings, "privacy", "erase", ACCOUNT) == 0
    told = capsys.readouterr().err
    assert "erased: 1 name, 2 refused records, 0 log-ins" in told
    assert [figures(settings, by=by, period=period) for by in ("user", "site") for period in ("day", "whole")] == before
    assert [(each.is_right, each.signed) for each in verified_periods(ledger)] == [(True, signed.digest)]
    assert code in [row["group"][0] for row in usage(settings, by="user")["rows"]]
    # Whoever knows the name finds the figures still: they are that person's, and nobody else learns it from them.
    assert usage(settings, where=f"user={NAME}")["totals"] == [5 * 3600, 5]
    assert usage(settings, where="user~*Somebody*")["totals"] == [0, 0]
    collected(settings, job(40, user=NAME, local_user=ACCOUNT, site="S"))
    assert usage(settings, where=f"user={NAME}")["totals"] == [6 * 3600, 6]
    assert NAME not in [row["group"][0] for row in usage(settings, by="user")["rows"]]
    ledger.close()
    for text in (NAME, ACCOUNT):
        assert holding(settings.folder, text) <= {"broker.sqlite", "broker.sqlite-wal"}


def test_a_refused_record_keeps_its_pseudonym(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It can still be mended and sent, and nothing else of it changes."""
    with closing(DeadLetters(database_path(settings))) as letters:
        before, of_the_other_sink = letters.find()
        assert NAME.encode() in before.original == of_the_other_sink.original
        assert ran(monkeypatch, settings, "privacy", "erase", NAME, "--dimension", "user") == 0
        after, _ = letters.find()
    with closing(PeopleTable(settings)) as people:
        code = people.sealed(people.pseudonym("user", NAME))
    assert after.original == before.original.replace(json.dumps(NAME).encode(), json.dumps(code).encode())
    mended = json.loads(after.original) | {"wall_time": 1}
    assert ran(monkeypatch, settings, "dead-letters", "fix", str(after.number), json.dumps(mended)) == 0
    capsys.readouterr()
    collected(settings)
    assert usage(settings, where=f"user={NAME}")["totals"] == [5 * 3600 + 1, 6]


def test_what_is_kept_of_somebody_is_given_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the pseudonyms that records hold; that it was, and not the name, is noted in the audit."""
    assert ran(monkeypatch, settings, "privacy", "export", NAME) == 0
    found = json.loads(capsys.readouterr().out)
    with closing(PeopleTable(settings)) as people:
        code = people.pseudonym("user", NAME)
    assert found["subject"] == NAME
    assert [(each["pseudonym"], each["dimension"], each["name"]) for each in found["names"]] == [(code, "user", NAME)]
    (name,) = found["names"]
    entered = datetime.fromisoformat(name["entered"])
    assert (entered.utcoffset(), name["erased"]) == (timedelta(0), None)
    assert abs(datetime.now(UTC) - entered) < timedelta(hours=1)
    assert found["dead_letters"] == [1, 2]
    assert (found["sessions"], found["denied"], found["audit"]) == ([], [], [])
    assert ran(monkeypatch, settings, "privacy", "erase", NAME) == 0
    assert ran(monkeypatch, settings, "audit") == 0
    noted = capsys.readouterr().out
    assert "siteward privacy export" in noted
    assert code in noted
    assert NAME not in noted
    assert ran(monkeypatch, settings, "privacy", "allow", NAME) == 0
    assert ran(monkeypatch, settings, "privacy", "allow", NAME) == 2
    assert ran(monkeypatch, settings, "privacy", "export", "") == 2
    assert ran(monkeypatch, settings, "privacy", "erase", NAME, "--dimension", "site") == 2
    assert "'site' is not a dimension that names people" in capsys.readouterr().err


def test_corrections_hold_no_names(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever moves records to somebody else types and reads names; what is kept are pseudonyms."""
    made = ["--set", "user=/CN=Right Person", "--where", f"user={NAME}", "--window", "2026-03", "--reason", "mixed up"]
    assert ran(monkeypatch, settings, "ledger", "correct", "move", "job", *made, "--author", "anna") == 0
    assert ran(monkeypatch, settings, "ledger", "approve", "1", "--by", "boris") == 0
    capsys.readouterr()
    assert ran(monkeypatch, settings, "ledger", "corrections") == 0
    listed = capsys.readouterr().out
    assert f"user={NAME}" in listed
    assert "user=/CN=Right Person" in listed
    assert ran(monkeypatch, settings, "ledger", "corrections", "1") == 0
    assert NAME in capsys.readouterr().out
    ledger.close()
    assert not holding(settings.folder, "Right Person") & {"accounting.sqlite", "accounting.sqlite-wal"}
    assert usage(settings, where="user=/CN=Right Person")["totals"] == [5 * 3600, 5]
    with TestClient(create_app(settings), "http://localhost") as client:
        (document,) = client.get("/v1/accounting/corrections").json()["corrections"]
    assert document["where"] == [f"user={NAME}"]
    assert document["given"] == {"user": "/CN=Right Person"}
    assert {each["group"]["user"] for each in document["differences"]} == {NAME, "/CN=Right Person"}


def test_a_topology_holds_no_names(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups that are told from people are right, for who reads and who writes names."""
    file = settings.folder / "people.toml"
    file.write_text(f'[[user]]\nvalue = "{NAME}"\ninstitute = "I"\n')
    assert ran(monkeypatch, settings, "topology", "import", str(file)) == 0
    file.unlink()
    assert ran(monkeypatch, settings, "topology", "list") == 0
    assert NAME in capsys.readouterr().out
    rows = usage(settings, by="user.institute")["rows"]
    assert [(row["group"], row["values"]) for row in rows] == [([None], [20 * 3600, 20]), (["I"], [5 * 3600, 5])]
    ledger.close()
    assert not holding(settings.folder, NAME) & {"accounting.sqlite", "accounting.sqlite-wal"}


def test_what_is_refused_later_names_nobody_who_was_erased(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with it, and wherever it says the name; it is still that person's when it is mended."""
    assert ran(monkeypatch, settings, "privacy", "erase", NAME) == 0
    with closing(open_declared(settings)) as broker, closing(broker.publisher()) as publisher:
        fields = {
            "vo": "example",
            "site": "S",
            "usr": NAME,
            "users": [NAME],
            "user": NAME,
            "group": NAME,
            "wall_time": -1,
        }
        body = json.dumps(
            {
                "v": 1,
                "id": "0" * 32,
                "kind": "job",
                "vo": "example",
                "producer": "test",
                "sent": microseconds(NOON),
                "records": [fields],
            }
        )
        publisher.publish([Message(routing_key("example", "job"), body.encode(), 1, content_type=JSON)])
    collected(settings)
    with closing(DeadLetters(database_path(settings))) as letters, closing(PeopleTable(settings)) as people:
        *_, last = letters.find()
        told = json.loads(last.original)
        seal = people.sealed(people.pseudonym("user", NAME))
    assert {name: told[name] for name in ("usr", "users", "user")} == {"usr": seal, "users": [seal], "user": seal}
    # What is declared to be something else names nobody.
    assert told["group"] == NAME


def test_a_record_mended_after_an_erasure_is_the_same_record(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its id is made of the name: when its sender mends it, too, it counts once."""
    kind = kind_of(StorageShare)
    share = StorageShare(vo="example", time=NOON, producer="p", site="S", storage="s", user=NAME, capacity_used=77_777)
    right = seal(kind, [kind.row_of(share, microseconds(NOON))], "test", microseconds(NOON))
    wrong = right.replace(msgspec.msgpack.encode(77_777), msgspec.msgpack.encode(-1))

    def sent(body: bytes) -> None:
        with closing(open_declared(settings)) as broker, closing(broker.publisher()) as publisher:
            publisher.publish([Message(routing_key("example", "storage-share"), body, 1)])
        collected(settings)

    sent(wrong)
    assert ran(monkeypatch, settings, "privacy", "erase", NAME) == 0
    with closing(DeadLetters(database_path(settings))) as letters:
        *_, last = letters.find()
    mended = json.loads(last.original) | {"capacity_used": 77_777}
    assert ran(monkeypatch, settings, "dead-letters", "fix", str(last.number), json.dumps(mended)) == 0
    collected(settings)
    sent(right)
    with TestClient(create_app(settings), "http://localhost") as client:
        window = {"start": "2026-03-01", "end": "2026-03-05"}
        found = client.get("/v1/query", params=window | {"kind": "storage-share", "measures": "count"}).json()
    assert found["totals"] == [1]


def test_who_sends_records_is_named_in_none(tmp_path: Path) -> None:
    """Stores have a pseudonym of who sends with an own token, the audit a subject; programs send under their names."""
    now = datetime.now(UTC).isoformat()
    jobs = [
        {"vo": "dteam", "site": "S", "local_job_id": str(each), "start": now, "end": now, "wall_time": 0}
        for each in range(3)
    ]
    snapshot = {"vo": "dteam", "site": "S", "time": now, "status": "Running", "jobs": 1}
    with oidc_server() as issuer:
        trusted = issuer.issuer.settings(
            GrantSettings(when="group:/dteam", role="admin"),
            GrantSettings(when="scope:siteward.report", role="reporter"),
            GrantSettings(when="host:*.site.example", role="reporter"),
            person="name",
        )
        settings = Settings(
            data=str(tmp_path),
            issuers={"dteam": trusted},
            collector=CollectorSettings(leave_out=("prometheus",), batch_age=0.05),
        )
        person = issuer.signed(name=NAME, client_id="siteward-cli")
        program = issuer.signed(name="my-service", sub="my-service", client_id="my-service", scope="siteward.report")
        host = issuer.signed(name="x", sub="host:ce1.site.example", scope="host.auth")
        place = issuer.issuer.url.partition("//")[2].partition(":")[0]
        with TestClient(create_app(settings), "http://localhost") as client:
            for token, sent in zip((person, program, host), jobs, strict=True):
                client.headers["Authorization"] = f"Bearer {token}"
                (answer,) = client.post("/v1/records/job", json=[sent]).json()["records"]
                assert answer["status"] == "queued", answer
                assert client.get(f"/v1/receipts/{answer['id']}").status_code == 200
            client.headers["Authorization"] = f"Bearer {person}"
            code = client.get("/v1/whoami").json()["producer"]
            answers = client.post(
                "/v1/records/wms-history", json=[snapshot | {"producer": each} for each in (code, SUBJECT, NAME)]
            ).json()["records"]
            assert [each["status"] for each in answers] == ["queued", "rejected", "rejected"]
            collected(settings)
            found = client.get("/v1/records/job", params={"start": "-1d", "end": "+1d"}).json()["records"]
            wanted = {f"{each}@{place}" for each in (code, "my-service", "ce1.site.example")}
            assert {each["producer"] for each in found} == wanted
    assert not holding(settings.folder, NAME)
    assert holding(settings.folder, SUBJECT) <= {"access.sqlite", "access.sqlite-wal"}


def test_another_key_is_said_and_nobody_is_shown(settings: Settings) -> None:
    """It is no answer of zero, and no error without words."""
    with closing(PeopleTable(settings)) as people:
        people.check()
    (settings.folder / "pseudonym.key").write_text(f"{'another' * 10}\n")
    with TestClient(create_app(settings), "http://localhost") as client:
        for parts in ({"where": f"user={NAME}"}, {"by": "user"}):
            answer = client.get("/v1/accounting/usage", params=WHOLE | {"measures": "records"} | parts)
            assert answer.status_code == 503
            assert "the key of pseudonyms is not the one" in answer.json()["detail"]
            assert NAME not in answer.text
