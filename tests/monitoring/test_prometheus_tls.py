"""Prometheus over TLS: a real server is asked, and written to, where it proves to be the one that is named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from certified import Certified, authority
from examples import JOB, batch_of, job
from msgspec import structs
from prometheus_server import PrometheusServer, running

from monitoring.prometheus import counters, open_sink
from monitoring.prometheus.connection import PrometheusError
from monitoring.prometheus.promql import PromQL, open_promql
from monitoring.prometheus.sink import PrometheusSink
from siteward.kinds import load_kinds
from siteward.settings import PrometheusSettings, Settings, SettingsError

KINDS = load_kinds()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """A certificate of the server's address, and of no name."""
    return Certified(tmp_path_factory.mktemp("certified"), "127.0.0.1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certified: Certified) -> Iterator[PrometheusServer]:
    """A server that speaks TLS only."""
    with running(tmp_path_factory.mktemp("prometheus"), certified=certified) as started:
        yield started


def asking(url: str, ca: str = "") -> PromQL:
    """Whom the settings name."""
    ask = open_promql(PrometheusSettings(url=url, ca=ca))
    assert ask is not None
    return ask


def test_a_server_is_asked_over_tls_with_its_authority(server: PrometheusServer, certified: Certified) -> None:
    """By `prometheus.ca`, as with the other stores."""
    (series,) = asking(server.url, str(certified.ca)).instant("vector(7)").series
    assert series.last.value == 7


def test_a_server_without_a_trusted_certificate_is_not_asked(
    server: PrometheusServer, certified: Certified, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither by default, nor with another authority, nor under another name; it may be right later."""
    other = str(authority(tmp_path_factory.mktemp("other")))
    renamed = server.url.replace("127.0.0.1", "localhost")
    for url, ca in ((server.url, ""), (server.url, other), (renamed, str(certified.ca))):
        with pytest.raises(PrometheusError, match="certificate verify failed") as error:
            asking(url, ca).instant("vector(7)")
        assert not error.value.permanent


def test_series_are_written_over_tls_with_the_authority_only(
    server: PrometheusServer, certified: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be sent so is not sent, and disturbs nothing."""
    monkeypatch.setattr(counters, "SETTLE", 0)
    now = datetime.now(UTC)
    ask = asking(server.url, str(certified.ca))

    def written(ca: str) -> float:
        """How many series the server has from a sink, which sends for the last time when it closes."""
        settings = PrometheusSettings(port=0, remote_write=f"{server.url}/api/v1/write", remote_write_every=600, ca=ca)
        sink = PrometheusSink(settings, KINDS)
        row = JOB.row_of(job(1, start=now, end=now), int(now.timestamp() * 1e6) + 10**6)
        sink.write(batch_of(JOB, [row]))
        sink.close()
        # What a sink wrote has ended with it, and is asked over the time before.
        found = ask.instant("count(count_over_time(siteward_build_info[1h]))").series
        return found[0].last.value if found else 0

    assert written("") == 0
    assert written(str(certified.ca)) == 1


@pytest.mark.parametrize("name", ["url", "remote_write"])
def test_an_authority_that_cannot_be_read_is_named(name: str) -> None:
    """Before anything is asked or sent."""
    plain = PrometheusSettings(port=0, ca="/nowhere/ca.pem")
    section = structs.replace(plain, **{name: "https://metrics.example.org"})
    with pytest.raises(SettingsError, match=r"setting prometheus\.ca: /nowhere/ca\.pem"):
        open_sink(Settings(prometheus=section), KINDS)
