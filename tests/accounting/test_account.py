"""Asking the ledger over HTTP, from the shell and from Python: one answer in every form."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accounted import ran
from collected import collected
from examples import JOB, NOON, batch_of, job
from fastapi.testclient import TestClient
from servers import REPOSITORY

from accounting.api import router
from accounting.opening import open_ledger
from siteward.client import Client
from siteward.kinds.cloud_vm import CloudVm
from siteward.kinds.storage_occupancy import StorageOccupancy
from siteward.records import kind_of, microseconds
from siteward.server.app import create_app
from siteward.server.asking import refuse_unknown
from siteward.settings import AccessSettings, AccountingSettings, CollectorSettings, Settings, SettingsError
from siteward.usage_json import UsageDocument

HERE: Final = "http://127.0.0.1"
DAY: Final = "2026-03-02"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an installation whose ledger holds ten jobs of an hour that end after noon."""
    made = Settings(data=str(tmp_path))
    with closing(open_ledger(made, {"job": JOB})) as ledger:
        rows = [JOB.row_of(job(number), microseconds(NOON + timedelta(days=1))) for number in range(10)]
        ledger.write(collected(batch_of(JOB, rows), made))
    return made


@pytest.fixture
def app(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, routers=[router]), base_url=HERE) as client:
        yield client


def asked(client: TestClient, **parts: Any) -> Any:
    return client.get("/v1/accounting/usage", params={"kind": "job", "window": DAY} | parts)


def test_usage_over_http(app: TestClient) -> None:
    """The answer has its figures, their units and attribution, and the question as it was understood."""
    answer = asked(app, measures="wall_time,records", by="site", where="site=SITE-0|SITE-1", attribution="by-end")
    assert answer.status_code == 200
    found = msgspec.json.decode(answer.content, type=UsageDocument)
    assert [(row.group, row.values) for row in found.rows] == [(("SITE-0",), (7200, 2)), (("SITE-1",), (7200, 2))]
    assert (found.totals, found.units, found.groups) == ((14400, 4), ("s", "1"), 2)
    assert (found.attribution, found.query.where) == ("by-end", ("site=SITE-0|SITE-1",))
    assert (found.query.start, found.query.end) == ("2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z")


def test_a_cut_window_over_http(app: TestClient) -> None:
    """To the second: of ten jobs that started at most ten seconds after eleven, what they used until then."""
    until = (NOON - timedelta(minutes=59, seconds=55)).isoformat()
    answer = asked(app, measures="wall_time,started", window="", start=DAY, end=until).json()
    assert answer["totals"] == [5 + 4 + 3 + 2 + 1, 5]


@pytest.mark.parametrize(
    ("form", "accept", "read"),
    [
        ("csv", "text/csv", lambda body: [line["records"] for line in csv.DictReader(io.StringIO(body.decode()))]),
        (
            "parquet",
            "application/vnd.apache.parquet",
            lambda body: list(map(str, pq.read_table(io.BytesIO(body))["records"].to_pylist())),
        ),
        (
            "arrow",
            "application/vnd.apache.arrow.stream;q=0.9, text/html",
            lambda body: list(map(str, pa.ipc.open_stream(body).read_all()["records"].to_pylist())),
        ),
        ("json", "application/json, */*", lambda body: [str(row["values"][0]) for row in json.loads(body)["rows"]]),
    ],
)
def test_forms_over_http(app: TestClient, form: str, accept: str, read: Any) -> None:
    """By `format` or by the header Accept; the figures are the same."""
    by_name = asked(app, by="site", format=form)
    by_header = app.get(
        "/v1/accounting/usage", params={"kind": "job", "window": DAY, "by": "site"}, headers={"accept": accept}
    )
    assert by_name.headers["content-type"] == by_header.headers["content-type"]
    assert by_name.headers["content-type"].partition(";")[0] == accept.partition(";")[0].partition(",")[0]
    assert read(by_name.content) == read(by_header.content) == ["2", "2", "2", "1", "1", "1", "1"]


@pytest.mark.parametrize(
    ("parts", "hint"),
    [
        ({"kind": "jobs"}, "did you mean 'job'"),
        ({"measures": "p95:memory"}, "ask with attribution by-end"),
        ({"format": "xml"}, "there are json, csv, arrow, parquet"),
        ({"zone": "Mars"}, "is not a time zone"),
        ({"perid": "month"}, "did you mean 'period'"),
    ],
)
def test_wrong_questions_over_http(app: TestClient, parts: dict[str, str], hint: str) -> None:
    """What is wrong with a question is a 400 that says what is possible."""
    answer = asked(app, **parts)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:siteward:query")
    assert hint in answer.json()["detail"]


def test_values_that_do_not_add_up_have_percentiles(app: TestClient, settings: Settings) -> None:
    """A largest memory means nothing as a sum; its percentiles are those of the records that know it."""
    with closing(open_ledger(settings, {"job": JOB})) as ledger:
        rows = [
            JOB.row_of(job(number, memory=memory), microseconds(NOON + timedelta(days=1)))
            for number, memory in ((20, 10), (21, 20), (22, None))
        ]
        ledger.write(batch_of(JOB, rows))
    parts = {"attribution": "by-end", "measures": "max:memory,p50:memory,p75:memory,min:processors,records"}
    assert asked(app, **parts).json()["totals"] == [20, 15.0, 17.5, 1, 13]


def test_kinds_of_the_ledger_over_http(app: TestClient) -> None:
    """Each says what its totals are kept by, and what adds up."""
    kinds = {kind["name"]: kind for kind in app.get("/v1/accounting/kinds").json()["kinds"]}
    assert "node" not in kinds["job"]["dimensions"]
    assert "node" in kinds["job"]["record_dimensions"]
    assert {"processors", "nodes", "gpus", "wall_time", "queue_time"} <= {*kinds["job"]["record_measures"]}
    assert not {*kinds["job"]["record_dimensions"]} & {*kinds["job"]["record_measures"]}
    assert {"name": "core_time", "unit": "s"} in kinds["job"]["measures"]
    assert "host" not in kinds


def test_a_ledger_that_does_not_answer_is_503(tmp_path: Path) -> None:
    """Where no database listens: come back later, and nothing of its inside is told."""
    away = Settings(data=str(tmp_path), accounting=AccountingSettings(url="postgresql://nobody@127.0.0.1:9/none"))
    with TestClient(create_app(away, routers=[router]), base_url=HERE) as client:
        answer = asked(client)
    assert answer.status_code == 503
    assert "select" not in answer.text.lower()


def test_every_asking_route_refuses_unknown_parameters() -> None:
    """The router itself says so, for routes to come too."""
    assert refuse_unknown in [each.dependency for each in router(Settings()).dependencies]


def test_account_as_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """The caption says what the figures belong to; the last line has the totals."""
    arguments = ("job", "--measures", "core_time,records")
    code = ran(
        monkeypatch, settings, "account", *arguments, "--window", DAY, "--by", "site", "--top", "1", "--period", "day"
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    lines = printed.out.splitlines()
    assert lines[0] == "job, prorated, from 2026-03-02T00:00:00Z to 2026-03-03T00:00:00Z"
    assert lines[1].split()[:2] == ["start", "site"]
    assert lines[2].split()[:2] == ["2026-03-02T00:00:00Z", "SITE-0"]
    assert lines[3].split()[1] == "Other"
    assert "records 10; 7 groups, prorated" in printed.err


@pytest.mark.parametrize(
    "arguments", [("job", "--window", DAY), ("--window", DAY, "job"), ("usage", "job", "--window", DAY)]
)
def test_usage_may_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, arguments: tuple[str, ...]
) -> None:
    """What is no command of `account` is a question, wherever its options stand."""
    assert ran(monkeypatch, settings, "--output", "json", "account", *arguments) == 0
    assert json.loads(capsys.readouterr().out)["totals"] == [10]


def test_account_into_a_file(monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path) -> None:
    """Any form goes into a file; the metadata of Arrow and Parquet say the attribution."""
    for form in ("arrow", "parquet", "csv", "json"):
        target = tmp_path / f"usage.{form}"
        arguments = ("account", "job", "--window", DAY, "--attribution", "by-end", "--format", form)
        assert ran(monkeypatch, settings, *arguments, "--file", str(target)) == 0
    assert pq.read_table(tmp_path / "usage.parquet").schema.metadata[b"siteward.attribution"] == b"by-end"
    with pa.ipc.open_stream(tmp_path / "usage.arrow") as stream:
        assert stream.schema.metadata[b"siteward.attribution"] == b"by-end"
    assert "by-end" in (tmp_path / "usage.csv").read_text()
    assert json.loads((tmp_path / "usage.json").read_text())["totals"] == [10]


def test_the_manual_asks_the_same_three_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, app: TestClient
) -> None:
    """The page's first question runs as it stands, from the shell, over HTTP and from Python, and has one answer."""
    page = (REPOSITORY / "docs" / "how-to" / "account.md").read_text(encoding="utf-8")
    shell, curl = re.findall(r"^```console\n\$ (.*?)^```$", page, re.MULTILINE | re.DOTALL)[:2]
    (python,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shell, curl = (text.replace("\\\n", "").replace("SIM-T2*", "SITE-*") for text in (shell, curl))

    assert ran(monkeypatch, settings, "--output", "json", *shlex.split(shell)[1:]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["totals"] == [30_000 + sum(range(10)), 3600 * (sum(range(1, 9)) + 1 + 2), 10]

    words = shlex.split(curl)
    pairs = [word for flag, word in pairwise(words) if flag in {"-d", "--data-urlencode"}]
    assert (
        app.get(words[2].removeprefix("http://127.0.0.1:8080"), params="&".join(pairs)).json()["rows"]
        == printed["rows"]
    )

    def read(_: Client, path: str, kind: type[Any]) -> Any:
        return msgspec.json.decode(app.get(path).content, type=kind)

    monkeypatch.setattr(Client, "_read", read)
    names: dict[str, Any] = {}
    exec(compile(python, "account.py", "exec", dont_inherit=True), names)
    assert names["frame"]["sum:core_time"].sum() == printed["totals"][1]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["jobs"], "did you mean 'job'"),
        (["job", "--window", "2026-Q9"], "expected a year (2026)"),
        (["job", "--format", "xml"], "there are table, csv, json, arrow, parquet"),
        (["job", "--zone", "UTZ"], "is not a time zone"),
    ],
)
def test_wrong_usage_of_account_is_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: Settings,
    arguments: list[str],
    hint: str,
) -> None:
    """A question at fault exits 2 with a sentence that says what is possible."""
    assert ran(monkeypatch, settings, "account", *arguments) == 2
    printed = capsys.readouterr()
    assert hint in printed.err
    assert printed.out == ""


def test_without_a_window_account_asks_for_this_month(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    """Until now, and the answer says from when."""
    assert ran(monkeypatch, settings, "--output", "json", "account", "job") == 0
    query = json.loads(capsys.readouterr().out)["query"]
    assert query["start"] == datetime.now(UTC).strftime("%Y-%m-01T00:00:00Z")


def test_without_names_every_door_shows_pseudonyms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    """Over HTTP and from the shell, in every form; no name can be asked for, and the key is nowhere but in its file."""
    hidden = msgspec.structs.replace(settings, access=AccessSettings(names=False))
    with TestClient(create_app(hidden, routers=[router]), base_url=HERE) as client:
        over_http = asked(client, by="user").json()
        refused = asked(client, where="user=user1")
        found = asked(client, where=f"user={over_http['rows'][0]['group'][0]}").json()
        table = pa.ipc.open_stream(asked(client, by="user", format="arrow").content).read_all()
    assert (over_http["pseudonyms"], over_http["groups"]) == (["user"], 10)
    assert found["totals"] == [1]
    assert table.schema.metadata[b"siteward.pseudonyms"] == b'["user"]'
    assert refused.status_code == 400
    assert ran(monkeypatch, hidden, "account", "job", "--window", DAY, "--by", "user") == 0
    printed = capsys.readouterr()
    assert "pseudonyms for user" in printed.out.splitlines()[0]
    shown = {line.split()[0] for line in printed.out.splitlines()[2:]}
    assert shown == {row["group"][0] for row in over_http["rows"]}
    written = json.dumps(over_http) + refused.text + printed.out + printed.err
    assert not re.search(r"user\d", written)
    assert (tmp_path / "pseudonym.key").read_text().strip() not in written


def test_the_app_makes_the_key_when_it_starts(tmp_path: Path) -> None:
    """With one that can be guessed it does not start."""
    router(Settings(data=str(tmp_path)))
    assert [file.name for file in tmp_path.iterdir()] == ["pseudonym.key"]
    with pytest.raises(SettingsError, match="at least 32 random characters"):
        router(Settings(data=str(tmp_path), access=AccessSettings(pseudonym_key="short")))


SHARES: Final = kind_of(StorageOccupancy)
VMS: Final = kind_of(CloudVm)


@pytest.fixture
def with_snapshots(settings: Settings) -> Settings:
    """The same installation, with two cycles of two storages, and a virtual machine of two days."""
    kinds = {kind.name: kind for kind in (JOB, SHARES, VMS)}
    now = microseconds(NOON + timedelta(days=1))
    occupied = [
        StorageOccupancy(
            vo="all",
            time=NOON + timedelta(hours=hour),
            producer="p",
            cycle_size=2,
            site=site,
            storage=site,
            total=9,
            used=used,
        )
        for hour, site, used in ((0, "A", 2), (0, "B", 3), (1, "A", 6), (1, "B", 3))
    ]
    machine = [
        CloudVm(
            vo="v",
            time=NOON + timedelta(days=day),
            started=NOON - timedelta(days=1),
            producer="p",
            site="C",
            vm="1",
            state="started",
            wall_time=(1 + day) * 86_400,
            vcpus=1500,
        )
        for day in (0, 1)
    ]
    with closing(open_ledger(settings, kinds)) as ledger:
        for kind, records in ((SHARES, occupied), (VMS, machine)):
            ledger.write(batch_of(kind, [kind.row_of(record, now) for record in records]))
    return settings


def test_snapshots_over_http(app: TestClient, with_snapshots: Settings) -> None:
    """A measure alone is its mean; the answer says that it is of instants."""
    assert with_snapshots
    parts = {"kind": "storage-occupancy", "measures": "used,last:used,max:used,cycles", "by": "site"}
    answer = asked(app, **parts).json()
    assert [(row["group"], row["values"]) for row in answer["rows"]] == [
        (["A"], [4.0, 6, 6, 2]),
        (["B"], [3.0, 3, 3, 2]),
    ]
    assert (answer["attribution"], answer["units"], answer["types"]) == (
        "at-instant",
        ["B", "B", "B", "1"],
        ["number", "integer", "integer", "integer"],
    )
    assert answer["columns"][0] == "mean:used"
    refused = asked(app, **parts | {"attribution": "by-end"})
    assert "'by-end' is not a known attribution of storage-occupancy; there are at-instant" in refused.json()["detail"]
    line = next(csv.DictReader(io.StringIO(asked(app, **parts, format="csv").text)))
    assert (line["attribution"], line["last:used"]) == ("at-instant", "6")
    assert pq.read_table(io.BytesIO(asked(app, **parts, format="parquet").content))["mean:used"].to_pylist() == [
        4.0,
        3.0,
    ]
    kinds = {kind["name"]: kind for kind in app.get("/v1/accounting/kinds").json()["kinds"]}
    assert kinds["storage-occupancy"]["attributions"] == ["at-instant"]


def test_snapshots_in_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], with_snapshots: Settings
) -> None:
    """The caption says what they are; a window within a bucket is answered from the records."""
    arguments = ("account", "storage-occupancy", "--measures", "used,mean-present:used,last-known:used")
    window = ("--start", "2026-03-02T12:00:00Z", "--end", "2026-03-02T12:30:00Z")
    assert ran(monkeypatch, with_snapshots, *arguments, *window) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("storage-occupancy, at-instant, from 2026-03-02T12:00:00Z")
    assert "total: mean:used 5.0 B, mean-present:used 5.0 B, last-known:used 5 B" in printed.err


def test_counters_over_http(app: TestClient, with_snapshots: Settings) -> None:
    """A virtual machine's core time is that of each record since the one before, in both attributions."""
    assert with_snapshots
    parts = {"kind": "cloud-vm", "measures": "wall_time,core_time", "window": "2026-Q1", "period": "day"}
    by_end = asked(app, **parts, attribution="by-end").json()
    assert [row["values"] for row in by_end["rows"]] == [[86_400, 129_600_000]] * 2
    prorated = asked(app, **parts).json()
    assert [row["values"][0] for row in prorated["rows"]] == [43_200, 86_400, 43_200]
    assert prorated["attribution"] == "prorated"


def test_a_ledger_that_is_switched_off_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Else its figures look like those of a grid without usage; where it is on nothing is said."""
    told = "the ledger is switched off here"
    for leave_out, is_off in ((("ledger", "prometheus"), True), (("prometheus",), False)):
        chosen = Settings(data=str(tmp_path), collector=CollectorSettings(leave_out=leave_out))
        for command in (("account", "job"), ("ledger", "completeness")):
            assert ran(monkeypatch, chosen, *command) == 0
            assert (told in capsys.readouterr().err) is is_off
