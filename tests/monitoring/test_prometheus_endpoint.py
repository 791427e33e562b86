"""The endpoint and the sink behind it: who may scrape, what is shown, and a real Prometheus that scrapes collectors."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import pytest
from answers import SNAPSHOTS
from examples import JOB, batch_of, job, job_rows
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import check_metrics, collector, increase, running, until

from monitoring.prometheus import counters, exposition, open_sink
from monitoring.prometheus.connection import PrometheusError
from monitoring.prometheus.families import families_of
from monitoring.prometheus.promql import PromQL, Series
from monitoring.prometheus.sink import PrometheusSink
from siteward.emit import Emitter
from siteward.kinds import load_kinds
from siteward.records import Kind, Row, Type, kind_from_table
from siteward.server.auth import watching
from siteward.server.auth.denied import DenyList
from siteward.server.auth.local_issuer import LocalIssuer
from siteward.server.auth.roles import Grant, Role
from siteward.server.database import Database, DatabaseError
from siteward.settings import (
    CollectorSettings,
    IssuerSettings,
    NetworkSettings,
    PrometheusSettings,
    Settings,
    SettingsError,
)
from siteward.sinks import Outcome, Sink
from siteward.telemetry import METRICS, MetricType, telemetry

TOKEN = "correct-horse-battery-staple-0123456789"
KINDS = load_kinds()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port


@contextmanager
def sink(kinds: dict[str, Kind] = KINDS, **settings: Any) -> Iterator[PrometheusSink]:
    opened = PrometheusSink(PrometheusSettings(**({"port": 0} | settings)), kinds)
    yield opened
    opened.close()


def get(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    request = Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def live_rows(count: int, **changes: object) -> list[Row]:
    now = datetime.now(UTC)
    times = [{"start": now - timedelta(hours=1), "end": now - timedelta(seconds=n % 20)} for n in range(count)]
    return [JOB.row_of(job(n, **{**times[n], **changes}), time.time_ns() // 1000) for n in range(count)]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """New series are zero for one scrape only, and not for a time."""
    monkeypatch.setattr(counters, "SETTLE", 0)


def test_the_entry_point_opens_the_sink(tmp_path: Path) -> None:
    """The collector opens it by name with the installation's settings, and its contract holds."""
    settings = Settings(data=str(tmp_path), prometheus=PrometheusSettings(port=0))
    opened: Sink = open_sink(settings, KINDS)
    assert opened.write(batch_of(JOB, live_rows(3))).outcomes == [Outcome.STORED] * 3
    opened.close()


def test_records_and_own_telemetry_are_shown(at_once: None) -> None:
    """One answer holds the families of records, this process's own, and what was left out."""
    del at_once
    with sink() as opened:
        rows = live_rows(10)
        batch = batch_of(JOB, rows)
        assert opened.write(batch).outcomes == [Outcome.STORED] * 10
        assert opened.write(batch).outcomes == [Outcome.DUPLICATE] * 10
        assert opened.write(batch_of(JOB, job_rows(5))).outcomes == [Outcome.STORED] * 5
        get(opened.port)
        status, text = get(opened.port)
    assert status == 200
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    counted = [each.value for each in samples if each.name == "siteward_job_records_total"]
    durations = [each.value for each in samples if each.name == "siteward_job_wall_time_seconds_count"]
    assert sum(counted) == sum(durations) == 10
    left_out = {
        each.labels["why"]: each.value
        for each in samples
        if each.name == "siteward_prometheus_records_left_out_total" and each.labels["kind"] == "job"
    }
    assert (left_out["late"], left_out["replayed"]) >= (5, 10)
    assert {"siteward_build_info", "process_resident_memory_bytes"} <= {each.name for each in samples}


ODD = kind_from_table(
    "odd",
    {
        "doc": 'A "doc" with \\ and\nlines.',
        "shape": "snapshot",
        "dimensions": {"le": {"doc": "bound"}},
        "measures": {
            "jobs_total": {"doc": "jobs", "unit": "1"},
            "job_count": {"doc": "jobs", "unit": "1"},
            "wait_bucket": {"doc": "wait", "unit": "s"},
            "power": {"doc": "power", "unit": "W", "combine": "mean"},
            "warmth": {"doc": "temperature", "unit": "K"},
            "score": {"doc": "score", "unit": "HS06.s"},
            "speed": {"doc": "score", "unit": "mHS23", "combine": "mean"},
            "gpu_time": {"doc": "time", "unit": "ms"},
            "share": {"doc": "share", "unit": "m1"},
            "carbon": {"doc": "carbon", "unit": "g"},
            "clock": {"doc": "clock", "unit": "Hz"},
        },
    },
)


def live_row(kind: Kind) -> Row:
    """A record of any kind that happens now and knows everything; a snapshot is a cycle of its own."""
    plain = {
        Type.STRING: 'v"\\\n',
        Type.INTEGER: 1,
        Type.NUMBER: 1.0,
        Type.BOOLEAN: False,
        Type.TIME: time.time_ns() // 1000,
    }
    return kind.row(
        **{column.name: column.values[0] if column.values else plain[column.type] for column in kind.columns}
    )


def test_promtool_has_no_complaint(at_once: None) -> None:
    """`promtool check metrics` is content with every family of every kind, odd ones too, and with all own telemetry."""
    del at_once
    for metric in METRICS:
        (telemetry.add if metric.type is MetricType.COUNTER else telemetry.set)(metric, 0, *metric.labels)
    kinds = {**KINDS, ODD.name: ODD, SNAPSHOTS.name: SNAPSHOTS}
    wanted: set[str] = set()
    with sink(kinds) as opened:
        for name, each in families_of(kinds, {}).items():
            assert opened.write(batch_of(each.kind, [live_row(each.kind)])).outcomes == [Outcome.STORED]
            wanted |= {family.name for family in each.values}
            wanted |= {f"{family.name}_{part}" for family in each.histograms for part in ("bucket", "sum", "count")}
            assert len(each.values) > 1 or name == "downtime"
        get(opened.port)
        text = get(opened.port)[1]
    assert [line[-6:] for line in text.splitlines() if line.startswith("siteward_odd_gpu_time_seconds{")] == [" 0.001"]
    shown = {each.name: each.value for family in text_string_to_metric_families(text) for each in family.samples}
    assert {name for name in wanted if not shown.get(name)} == set()
    assert {*shown} >= {metric.name for metric in METRICS} | {"siteward_build_info"}
    assert {"siteward_odd_jobs_total_value", "siteward_host_memory_used_bytes"} <= wanted
    assert check_metrics(text.encode()) == ""
    assert check_metrics(b"# TYPE jobs_total gauge\njobs_total 1\n") != ""


def test_the_budget_bounds_the_answer() -> None:
    """However many label values come, a kind has at most its budget of series."""
    with sink(series=500) as opened:
        opened.write(batch_of(JOB, live_rows(3000, queue="q")))
        for number in range(40):
            opened.write(batch_of(JOB, live_rows(20, queue=f"q{number}", local_job_id=str(number))))
        text = get(opened.port)[1]
    lines = [line for line in text.splitlines() if line.startswith("siteward_job_")]
    assert 250 < len(lines) <= 500
    assert any('queue="other"' in line for line in lines)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"Bearer {TOKEN}", "Host": "collector:9469"}, 200),
        ({"Authorization": "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()}, 200),
        ({"Authorization": "Basic %%%"}, 401),
    ],
)
def test_a_token_opens_the_endpoint(headers: dict[str, str], status: int) -> None:
    """With a token set, nobody scrapes without it; it comes as a bearer's or as a password."""
    with sink(token=TOKEN) as opened:
        assert get(opened.port, **headers)[0] == status


@pytest.fixture
def trusting(tmp_path: Path) -> Settings:
    """Of an installation with an issuer of its own, whose endpoint other machines reach."""
    return Settings(
        data=str(tmp_path),
        issuers={"local": IssuerSettings(profile="local")},
        network=NetworkSettings(plain=("0.0.0.0",)),
        prometheus=PrometheusSettings(host="0.0.0.0", port=0),
    )


def bearer(settings: Settings, *grants: Grant, name: str = "prometheus") -> dict[str, str]:
    return {"Authorization": f"Bearer {LocalIssuer(settings.issuer_file).token(name, grants, 1)}"}


WATCHES = Grant(Role.READER, ("all",))


def test_tokens_of_trusted_issuers_open_the_endpoint(trusting: Settings) -> None:
    """Of those who may watch the platform: the series are of all VOs; whatever Host is asked for.

    Looks by a role of the platform's own are noted at the application, and here nobody could.
    """
    with closing(open_sink(trusting, KINDS)) as opened:
        assert isinstance(opened, PrometheusSink)
        port = opened.port
        for grants, status in {
            (): 403,
            (WATCHES,): 200,
            (Grant(Role.PLATFORM_ADMIN, ("*",)),): 403,
            (Grant(Role.READER, ("dteam",)),): 403,
            (Grant(Role.REPORTER, ("dteam", "all"), ("SITE-A",)),): 403,
            (Grant(Role.SITE_OPERATOR, ("dteam", "all"), ("SITE-A",)),): 403,
        }.items():
            answer = get(port, **bearer(trusting, *grants), Host="collector:9469")
            assert (answer[0], "siteward_build_info" in answer[1]) == (status, status == 200), grants
        good = bearer(trusting, WATCHES)["Authorization"]
        for refused in ("", "Bearer", "Bearer x.y.z", good[:-4] + "AAAA", f"Basic {good}", f"Bearer {TOKEN}"):
            assert get(port, Authorization=refused, Host="localhost")[0] == 401, refused


def test_who_is_denied_sees_no_series(trusting: Settings) -> None:
    """The deny-list holds here as at the application's door."""
    issuer = LocalIssuer(trusting.issuer_file).settings.url
    with closing(DenyList(Database(trusting.access_url, ""))) as denied:
        denied.deny(issuer, subject="stolen", by="ann", reason="its machine was")
    with closing(open_sink(trusting, KINDS)) as opened:
        assert isinstance(opened, PrometheusSink)
        status, told = get(opened.port, **bearer(trusting, WATCHES, name="stolen"))
        assert (status, "denied" in told) == (401, True)
        assert get(opened.port, **bearer(trusting, WATCHES))[0] == 200


def test_while_the_deny_list_cannot_be_read_nobody_with_a_token_is_let_in(
    trusting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But who has the scrapers' own: it is on no list."""

    def away(*_: object) -> None:
        message = "away"
        raise DatabaseError(message)

    monkeypatch.setattr(watching, "DenyList", away)
    own = msgspec.structs.replace(trusting.prometheus, token=TOKEN)
    with closing(open_sink(msgspec.structs.replace(trusting, prometheus=own), KINDS)) as opened:
        assert isinstance(opened, PrometheusSink)
        assert get(opened.port, **bearer(trusting, WATCHES))[0] == 503
        assert get(opened.port, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_with_an_issuer_everybody_needs_a_token(trusting: Settings) -> None:
    """On loopback, too: what comes there may come through a proxy."""
    here = msgspec.structs.replace(trusting, prometheus=PrometheusSettings(port=0))
    with closing(open_sink(here, KINDS)) as opened:
        assert isinstance(opened, PrometheusSink)
        assert get(opened.port)[0] == 401
        assert get(opened.port, **bearer(here, WATCHES))[0] == 200


def test_without_a_token_only_this_machine_is_answered() -> None:
    """A page of another site cannot come through a browser here; other paths are not found."""
    with sink() as opened:
        assert get(opened.port, Host="evil.example.org")[0] == 421
        assert get(opened.port, Host="localhost:1")[0] == 200
        assert get(opened.port, "/")[0] == 404


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "issuer of tokens"),
        ({"host": "0.0.0.0", "token": TOKEN}, "issuer of tokens"),
        ({"token": "short"}, "at least 32"),
        ({"remote_write": "ftp://x"}, "prometheus.remote_write"),
        ({"labels": {"job": ["user"]}}, "names persons"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    """An open address without a trusted issuer, and other mistakes, stop the sink with what to set."""
    with pytest.raises(SettingsError, match=said), sink(**settings):
        pass


SECRET = "geheim"


@pytest.mark.parametrize("name", ["url", "remote_write"])
@pytest.mark.parametrize(
    ("address", "token"),
    [
        (f"http://user:{SECRET}@127.0.0.1:9090", ""),
        (f"ftp://user:{SECRET}@127.0.0.1", ""),
        (f"http://user:{SECRET}/x@127.0.0.1", ""),
        ("http://127.0.0.1:9090", f"{SECRET}\nand a second line"),
        ("http://127.0.0.1:9090", f"{SECRET}€"),
    ],
)
def test_secrets_that_cannot_be_sent_are_refused_unseen(name: str, address: str, token: str) -> None:
    """Passwords in addresses, and tokens that fit no header, stop the sink without being shown."""
    told = msgspec.structs.replace(PrometheusSettings(port=0), **{name: address, f"{name}_token": token})
    # Where a / cuts the password in two, its first part would be taken for a host beyond this machine.
    said = ": .*percent-encode" if "/x@" in address else f" .*{name}_token_file"
    with pytest.raises(SettingsError, match=f"prometheus.{name}{said}") as refused:
        open_sink(Settings(prometheus=told), KINDS)
    assert SECRET not in f"{refused.value} {refused.value.__cause__}"


def hung_up(scraper: socket.socket) -> bool:
    """Whether the endpoint has ended a connection; sends one more byte of a request."""
    try:
        scraper.sendall(b"x")
        scraper.settimeout(0.05)
        return scraper.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_who_drips_is_left_and_never_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token nobody takes more of the collector than a few connections, and those for a few seconds only."""
    monkeypatch.setattr(exposition, "TIMEOUT", 3.0)
    with sink(token=TOKEN) as opened, ExitStack() as scrapers:

        def drip() -> socket.socket:
            scraper = scrapers.enter_context(socket.create_connection(("127.0.0.1", opened.port), 5))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nA: ")
            return scraper

        few = [drip() for _ in range(exposition.MOST_OPEN)]
        one_more = drip()
        until(lambda: hung_up(one_more), 2)
        assert not hung_up(few[0])
        until(lambda: all(map(hung_up, few)))
        until(lambda: not opened._endpoint._server._ends)
        assert get(opened.port, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_who_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn is over when the text is made: slow readers keep it from nobody else."""
    monkeypatch.setattr(exposition, "generate_latest", lambda _: b"#" * 2**25)
    monkeypatch.setattr(exposition, "WAIT", 0.1)
    with sink() as opened, ExitStack() as scrapers:
        for _ in range(exposition.AT_ONCE + 1):
            scraper = scrapers.enter_context(socket.create_connection(("127.0.0.1", opened.port), 5))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in scraper.recv(100)
        assert get(opened.port)[0] == 200


def test_a_taken_port_is_named_and_free_again_after_close() -> None:
    """Two collectors cannot have one port; the one that closes leaves it to the next at once."""
    with sink() as first:
        port = first.port
        get(port)
        with (
            pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}.*SITEWARD_PROMETHEUS__PORT"),
            sink(port=port),
        ):
            pass
    with sink(port=port) as second:
        assert get(second.port)[0] == 200


def answers(ask: Callable[[], tuple[Series, ...]], wanted: float) -> Callable[[], bool]:
    """Whether a question's increase is what is wanted."""

    def met() -> bool:
        try:
            return increase(ask()) == wanted
        except PrometheusError as error:
            if error.permanent:
                raise
            return False

    return met


def test_a_real_prometheus_scrapes_collectors_over_a_restart(tmp_path: Path, at_once: None) -> None:
    """Emitter, broker, collectors, Prometheus, PromQL: all live jobs are there, each once, over a restart too."""
    del at_once
    port, second = free_port(), free_port()
    settings = Settings(
        data=str(tmp_path / "data"),
        collector=CollectorSettings(leave_out=("ledger", "monitoring")),
        prometheus=PrometheusSettings(port=port, token=TOKEN),
    )

    def emit(first: int, count: int) -> None:
        now = datetime.now(UTC)
        with Emitter(settings, producer="test") as emitter:
            for number in range(first, first + count):
                emitter.emit(job(number, start=now - timedelta(hours=1), end=now, wall_time=2**33))

    with running(tmp_path, TOKEN) as server:
        server.scrape(port, second)
        ask = PromQL(server.url)
        jobs = 'siteward_job_records_total{job="siteward-collector"}[1h]'
        seconds = "siteward_job_wall_time_seconds_total[1h]"
        with collector(settings):
            emit(0, 500)
            until(answers(lambda: ask.instant(jobs).series, 500))
            emit(500, 40)
            until(answers(lambda: ask.instant(jobs).series, 540))
        until(lambda: ask.instant("sum(up)").series[0].last.value == 0)
        emit(540, 60)
        other = msgspec.structs.replace(settings, prometheus=PrometheusSettings(port=second, token=TOKEN))
        with collector(settings), collector(other, "second"):
            until(answers(lambda: ask.instant(jobs).series, 600))
        assert increase(ask.instant(seconds).series) == 600 * 2**33
        resets = ask.instant("max by (site) (resets(siteward_job_records_total[1h]))").series
        assert {each.last.value for each in resets} <= {0, 1}
