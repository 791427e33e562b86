"""Nothing leaves this machine unencrypted unless the settings say that nobody else can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy.engine import make_url

from siteward.client import Client
from siteward.loopback import is_loopback
from siteward.plain_text import plain_hosts
from siteward.server.database import Database, DatabaseError, is_local
from siteward.server.databases import access_database, check_databases, ledger_database
from siteward.settings import (
    BrokerSettings,
    MonitoringSettings,
    PrometheusSettings,
    ServerSettings,
    Settings,
    SettingsError,
    load_settings,
)

PLAIN = [
    ("broker.url", "amqp://me:s3cret@broker.example/v", "amqps://"),
    ("broker.management", "http://broker.example:15672", "https://"),
    ("monitoring.url", "opensearch://127.0.0.1,store.example:9200", "opensearchs://"),
    ("prometheus.url", "HTTP://metrics.example:9090", "https://"),
    ("prometheus.remote_write", "http://[2001:db8::1]/write", "https://"),
]


def loaded(tmp_path: Path, setting: str, url: str, plain: str = "") -> Any:
    section, _, name = setting.partition(".")
    (tmp_path / "s.toml").write_text(f"[{section}]\n{name} = '{url}'\n[network]\nplain = [{plain}]\n")
    return load_settings(tmp_path / "s.toml", {})


@pytest.mark.parametrize(("setting", "url", "better"), PLAIN)
def test_a_plain_connection_is_refused(tmp_path: Path, setting: str, url: str, better: str) -> None:
    """The message names the setting, the host and what to write, and no password."""
    with pytest.raises(SettingsError, match="would leave this machine unencrypted") as refused:
        loaded(tmp_path, setting, url)
    said = str(refused.value)
    assert setting in said
    assert better in said
    assert "s3cret" not in said
    (host,) = plain_hosts(url)
    assert loaded(tmp_path, setting, url, f"'{host}'") is not None


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest@127.0.0.1:5672/",
        "amqps://broker.example",
        "http://localhost:9090",
        "http://[::1]:9090",
        "opensearchs://store.example",
        "embedded:///path",
        "http://127.8.9.10:9090/query?to=me%40elsewhere.example",
        "amqps://broker.example/v@localhost",
        "http://[broken",
        "",
    ],
)
def test_what_stays_here_or_is_encrypted_passes(url: str) -> None:
    """Nothing of it is plain."""
    assert list(plain_hosts(url)) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://broker.example/a@localhost/",
        "http://broker.example/@127.0.0.1",
        "http://broker.example?a=b@localhost",
        "http://broker.example#@localhost",
        "opensearch://broker.example:9200/x@localhost:9200",
        "amqp://me:s3c/ret@broker.example/v",
        "amqp://me:s3c/ret@localhost/v",
        "opensearch://me:pa@s3c/ret@localhost",
    ],
)
def test_no_at_sign_hides_where_a_plain_url_leads(tmp_path: Path, url: str) -> None:
    """One in a path or a password makes two readings, and both have to stay here; neither is quoted."""
    section = {"amqp": "broker.url", "opensearch": "monitoring.url"}.get(url.partition(":")[0], "prometheus.url")
    with pytest.raises(SettingsError, match="unencrypted; percent-encode it") as refused:
        loaded(tmp_path, section, url)
    assert "s3c" not in str(refused.value)
    assert "ret" not in str(refused.value)
    assert list(plain_hosts(url))


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("128.0.0.1", False),
        ("10.0.0.1", False),
        ("::2", False),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
        ("localhost.", False),
        ("127.1", False),
        ("2130706433", False),
        ("127.0.0.1,broker.example", False),
        ("", False),
    ],
)
def test_loopback_is_the_same_for_who_comes_in_and_where_it_goes_out(host: str, is_local: bool) -> None:  # noqa: FBT001
    """Addresses that never leave this machine, and no name that a server of names would have to be asked for."""
    assert is_loopback(host) is is_local
    if host and "," not in host:
        place = host if host.startswith("[") or ":" not in host else f"[{host}]"
        assert (list(plain_hosts(f"http://{place}:80/")) == []) is is_local


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///n?host=db.example.org",
        "postgresql://localhost/n?host=db.example.org",
        "postgresql://localhost/n?host=/run/x",
        "postgresql://localhost/n?hostaddr=10.0.0.5",
        "postgresql:///n?service=prod",
        "postgresql:///n?host=/run/x&host=db.example.org",
        "mariadb://localhost/n?host=db.example.org",
        "mariadb://db.example.org/n?ssl_disabled=false",
        "mariadb:///n?read_default_file=/x",
        "mariadb://db.example.org/n?ssl_verify_cert=false",
        "mariadb://db.example.org/n?ssl_verify_identity=true",
        "postgresql://localhost/n?conninfo=hostaddr%3D10.0.0.5",
    ],
)
def test_no_parameter_names_another_host(url: str) -> None:
    """Else what is asked of hosts would not hold for it."""
    with pytest.raises(DatabaseError, match="names its host before the name"):
        Database(url)


@pytest.mark.parametrize("name", ["PGHOSTADDR", "PGSERVICE", "PGHOST"])
def test_no_variable_leads_elsewhere_in_the_clear(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where one would, TLS is asked for."""
    url = "postgresql:///n" if name == "PGHOST" else "postgresql://localhost/n"
    assert is_local(make_url(url), {})
    monkeypatch.setenv(name, "db.example.org")
    database = Database(url)
    database.close()
    assert database.engine.url.query["sslmode"] == "verify-full"


def test_databases_of_other_machines_are_spoken_to_over_tls() -> None:
    """Their certificates are checked, and nothing weakens that; on this machine nothing is asked."""

    def query(url: str) -> dict[str, Any]:
        database = Database(url)
        database.close()
        return dict(database.engine.url.query)

    far = query("postgresql://me@db.example/x")
    assert (far["sslmode"], far["sslrootcert"]) == ("verify-full", "system")
    assert query("postgresql://me@db.example/x?sslrootcert=/ca.pem")["sslrootcert"] == "/ca.pem"
    assert query("postgresql://me@db.example/x?sslmode=verify-full") == {"sslmode": "verify-full"}
    for url in (
        "postgresql://me@127.0.0.1/x",
        "postgresql://me@/x?host=/run/postgresql",
        "postgresql://me@localhost/x",
    ):
        assert "sslmode" not in query(url)
    assert query("postgresql://me@127.0.0.1/x?sslmode=disable") == {"sslmode": "disable"}


WEAK = [
    *(f"postgresql://me:s3cret@db.example/x?sslmode={mode}" for mode in ("disable", "allow", "prefer", "require")),
    "postgresql://me:s3cret@db.example/x?sslmode=verify-ca",
    "postgresql://me:s3cret@db.example/x?sslmode=verify-full&sslmode=disable",
    "postgresql://me:s3cret@127.0.0.1,db.example/x?sslmode=disable",
    "mariadb://me:s3cret@db.example/x?ssl=off",
    "mysql://me:s3cret@db.example/x?ssl=off",
    "mariadb://me:s3cret@db.example/x?ssl_ca=/ca.pem&ssl_check_hostname=false",
]


@pytest.mark.parametrize("url", WEAK)
def test_no_url_takes_tls_from_a_database_of_another_machine(url: str) -> None:
    """It is refused with what to do, unless the settings name the host as one of a private network."""
    with pytest.raises(DatabaseError, match=r"db\.example.* would leave this machine unencrypted") as refused:
        Database(url)
    said = str(refused.value)
    assert "network.plain" in said
    assert "out of the database's URL" in said
    assert "s3cret" not in said
    for others in (["127.0.0.1"], ["db.example.org"]):
        with pytest.raises(DatabaseError, match=r"network\.plain"):
            Database(url, plain=others)
    if "ssl_ca" not in url and url.count("sslmode") < 2:
        Database(url, plain=["127.0.0.1", "db.example"]).close()


@pytest.mark.parametrize("name", ["PGHOSTADDR", "PGSERVICE", "PGHOST"])
def test_no_variable_uses_what_is_allowed_for_another_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A private network has the hosts that the settings name, and not those of the environment."""
    host = "" if name == "PGHOST" else "db.example"
    monkeypatch.setenv(name, "elsewhere.example")
    with pytest.raises(DatabaseError, match="which the environment names"):
        Database(f"postgresql://{host}/n?sslmode=disable", plain=["db.example", "elsewhere.example"])


@pytest.mark.parametrize("section", ["access", "accounting"])
def test_whoever_opens_a_database_asks_the_settings_what_is_private(tmp_path: Path, section: str) -> None:
    """Commands and the application alike, of the ledger's database as of that of access."""
    open_database = {"access": access_database, "accounting": ledger_database}[section]
    setting, url = f"{section}.url", "postgresql://me@db.example/x?sslmode=disable"
    with pytest.raises(DatabaseError, match="would leave this machine unencrypted"):
        open_database(loaded(tmp_path, setting, url))
    with pytest.raises(SettingsError, match=rf"setting {section}\.url: .*network\.plain"):
        check_databases(loaded(tmp_path, setting, url))
    private = loaded(tmp_path, setting, url, "'db.example'")
    open_database(private).close()
    check_databases(private)


@pytest.mark.parametrize(
    "given",
    [
        {"broker": BrokerSettings(url="amqp://broker.example")},
        {"monitoring": MonitoringSettings(url="opensearch://store.example")},
        {"prometheus": PrometheusSettings(remote_write="http://metrics.example/write")},
        {"server": ServerSettings(host="0.0.0.0")},
    ],
)
def test_settings_made_by_a_program_are_refused_alike(given: dict[str, Any]) -> None:
    """No file has to be read for it; what changes them later is refused, too."""
    with pytest.raises(SettingsError, match="would leave this machine unencrypted"):
        Settings(**given)
    with pytest.raises(SettingsError, match="would leave this machine unencrypted"):
        structs.replace(Settings(), **given)


def test_a_program_asks_over_tls_only() -> None:
    """But on this machine; so is everything else that is sent or asked."""
    for token in ("", "secret-token"):
        with pytest.raises(ValueError, match="would be readable on its way"):
            Client("http://siteward.example.org", token)
    Client("http://127.0.0.1:8080", "secret-token")
    Client("https://siteward.example.org", "secret-token")
