"""What listens beyond this machine speaks TLS, or does not start."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from certified import PATIENCE, Certified, running

from monitoring.prometheus.sink import PrometheusSink
from siteward.kinds import load_kinds
from siteward.server import app as application
from siteward.settings import PrometheusSettings, ServerSettings, Settings, SettingsError, load_settings

TOKEN = "correct-horse-battery-staple-0123456789"


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    """A certificate that only the test trusts."""
    return Certified(tmp_path)


def test_the_application_speaks_tls(tmp_path: Path, certified: Certified) -> None:
    """By the certificate that the settings name, and to nobody without; its address says so."""
    own = ServerSettings(port=0, **certified.settings)
    with running(Settings(data=str(tmp_path / "data"), server=own)) as address:
        assert address.startswith("https://127.0.0.1:")
        assert certified.get(f"{address}/health/live") == 200
        with pytest.raises(URLError):
            urlopen(f"{address}/health/live", timeout=PATIENCE)
        with pytest.raises(OSError, match=r"."):
            urlopen(f"{address.replace('https', 'http')}/health/live", timeout=PATIENCE)


def test_the_application_tells_the_name_of_its_certificate(tmp_path: Path, certified: Certified) -> None:
    """Commands of the same installation believe no other one."""
    own = ServerSettings(port=0, url="https://siteward.example.org", **certified.settings)
    with running(Settings(data=str(tmp_path / "data"), server=own)) as address:
        assert address == "https://siteward.example.org"


def test_the_endpoint_for_prometheus_speaks_tls(certified: Certified) -> None:
    """Whoever connects and says nothing holds up nobody."""
    settings = PrometheusSettings(port=0, token=TOKEN, **certified.settings)
    with closing(PrometheusSink(settings, load_kinds())) as sink:
        silent = [socket.create_connection(("127.0.0.1", sink.port)) for _ in range(3)]
        address = f"https://localhost:{sink.port}/metrics"
        assert certified.get(address, Authorization=f"Bearer {TOKEN}") == 200
        with pytest.raises(OSError, match=r"."):
            urlopen(address.replace("https", "http"), timeout=PATIENCE)
        with pytest.raises(URLError):
            urlopen(address, timeout=PATIENCE)
        assert certified.get(address, Authorization=f"Bearer {TOKEN}") == 200
        for each in silent:
            each.close()


@pytest.mark.parametrize("section", ["server", "prometheus"])
def test_nothing_listens_beyond_this_machine_in_the_clear(section: str, tmp_path: Path) -> None:
    """It is refused when the settings are read, with what to set; a private network is named as one."""

    def loaded(**given: str) -> Settings:
        environ = {f"SITEWARD_{section.upper()}__{name.upper()}": value for name, value in given.items()}
        return load_settings(tmp_path / "none.toml", environ | plain)

    (tmp_path / "none.toml").touch()
    plain: dict[str, str] = {}
    for host in ("0.0.0.0", "::", "192.0.2.1", "siteward.example.org", ""):
        with pytest.raises(SettingsError, match=rf"{section}.host: what is answered on '{host}'") as refused:
            loaded(host=host)
        assert f"{section}.certificate" in str(refused.value)
        assert loaded(host=host, certificate="/etc/siteward/certificate.pem")
        plain = {"SITEWARD_NETWORK__PLAIN": f"rabbitmq,{host}"}
        if host:
            assert loaded(host=host)
        plain = {}
    for host in ("127.0.0.1", "localhost", "::1"):
        assert loaded(host=host)


@pytest.mark.parametrize("content", ["", "no certificate"])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, certified: Certified, content: str) -> None:
    """Before anybody listens, by application and endpoint."""
    certified.certificate.write_text(content)
    named = certified.settings
    with pytest.raises(SettingsError, match=r"settings server.certificate and server.key: .*certificate.pem"):
        application.run(Settings(data=str(tmp_path), server=ServerSettings(port=0, **named)), threading.Event())
    with pytest.raises(SettingsError, match=r"settings prometheus.certificate and prometheus.key: .*certificate.pem"):
        PrometheusSink(PrometheusSettings(port=0, **named), load_kinds())
