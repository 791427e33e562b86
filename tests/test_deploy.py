"""The composition's configuration and secrets, as the real servers take them.

No container engine is needed, and none is used: what a container would add is not tested here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from composition import (
    DEPLOY,
    PATIENCE,
    configured_opensearch,
    configured_rabbitmq,
    credentials,
    free_ports,
    hand_out,
    health,
    listens,
    own_settings,
    run,
    running,
    tool,
)
from database_server import running as running_node
from examples import NOON, NOW, batch_of, job, job_rows
from postgresql_server import PostgresNode
from servers import REPOSITORY

from monitoring.stores.opensearch import open_store
from monitoring.stores.opensearch.addresses import address_of, client_of
from siteward.broker import BrokerError, Message
from siteward.broker.opening import open_broker, topology
from siteward.client import Client, ClientError
from siteward.envelope import MSGPACK
from siteward.exposure import check_reach, check_token
from siteward.kinds import load_kinds
from siteward.query import Function, Query, Wanted
from siteward.server.auth.door import check_trust
from siteward.settings import Settings
from siteward.sinks import Outcome

PLUGIN: Final = "opensearch-security-2.19.3.0.zip"
"""For 2.19.3; that of 3.x comes in the image only."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first start makes: a folder for each volume with secrets."""
    return hand_out(tmp_path_factory.mktemp("volumes"))


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """A second start hands out the same secrets; a start that was cut short is completed by the next."""
    volumes = hand_out(tmp_path)
    first = {path.name: path.read_bytes() for path in (volumes / "vault").iterdir()}
    issuer = (volumes / "siteward" / "issuer.json").read_bytes()
    for name in ("siteward/issuer.json", "vault/ca.pem", "vault/grafana-admin"):
        gone = volumes / name
        gone.parent.chmod(0o700)
        gone.unlink()
    hand_out(volumes)
    second = {path.name: path.read_bytes() for path in (volumes / "vault").iterdir()}
    assert {name for name in first if first[name] != second[name]} == {
        "ca.pem",
        "node.pem",
        "node.key",
        "grafana-admin",
        # Of the same issuer, and valid for a year from now on.
        "siteward-token",
        "scrape-token",
    }
    assert (volumes / "siteward" / "issuer.json").read_bytes() == issuer
    assert (volumes / "siteward" / "ca.pem").read_bytes() == second["ca.pem"]


def test_secrets_are_for_their_owner_only(volumes: Path) -> None:
    """Files with secrets can be read by one user; no two are the same; what people log in with can be shown."""
    assert {path.stat().st_mode & 0o777 for path in volumes.rglob("*") if path.is_file()} == {0o400}
    assert {(volumes / name).stat().st_mode & 0o777 for name in credentials().OWNERS} == {0o500}
    values = [(volumes / "vault" / name).read_text() for name in credentials().SECRETS]
    assert len({*values}) == len(values)
    assert min(map(len, values)) >= 43


def test_hashes_are_of_the_passwords(volumes: Path) -> None:
    """RabbitMQ's and OpenSearch's files hold a salted hash for every user, and no password."""
    users = json.loads((volumes / "rabbitmq" / "definitions.json").read_text())["users"]
    for user in users:
        raw = base64.b64decode(user["password_hash"])
        password = (volumes / "vault" / f"rabbitmq-{user['name']}").read_bytes()
        assert raw[4:] == hashlib.sha256(raw[:4] + password).digest()
    text = (volumes / "opensearch-security" / "internal_users.yml").read_text()
    assert '""' not in text
    assert len(re.findall(r'hash: "\$3\$', text)) == 4
    assert not [name for name in credentials().SECRETS if (volumes / "vault" / name).read_text() in text]


def test_our_settings_are_accepted(volumes: Path, tmp_path: Path) -> None:
    """The settings file of app and collector is complete: real engines, both sinks fed, tokens for open addresses."""
    settings = own_settings(tmp_path, volumes, {})
    check_trust(settings)
    check_reach("prometheus", settings.prometheus.host, trusting=bool(settings.issuers))
    check_token("prometheus", settings.prometheus.token)
    assert (settings.broker_url, settings.monitoring_url) == (
        "amqp://siteward@rabbitmq:5672/siteward",
        "opensearchs://siteward@opensearch:9200",
    )
    assert {*topology(settings)} >= {"monitoring", "prometheus"}
    secrets = {settings.broker.password, settings.monitoring.password, settings.prometheus.token}
    assert len(secrets) == 3
    assert min(map(len, secrets)) >= 43


@pytest.fixture(scope="module")
def broker_settings(tmp_path_factory: pytest.TempPathFactory, volumes: Path) -> Iterator[Settings]:
    """Our settings towards a RabbitMQ that has loaded the composition's configuration."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    with configured_rabbitmq(folder, volumes) as places:
        yield own_settings(folder, volumes, places)


def test_rabbitmq_takes_its_configuration(broker_settings: Settings) -> None:
    """RabbitMQ loads conf, plugins and definitions; our user declares, publishes, consumes, and sees its queues."""
    with open_broker(broker_settings) as broker:  # type: ignore[attr-defined]  # the contract has only close().
        broker.declare(topology(broker_settings))
        publisher = broker.publisher()
        publisher.publish([Message("vo.job", b"body", 1, MSGPACK, id="1" * 32)])
        publisher.close()
        consumer = broker.consumer("monitoring", "test", 10)
        (delivery,) = consumer.receive(10)
        consumer.acknowledge([delivery])
        consumer.close()
        queues = {queue.queue: queue for queue in broker.status()}
        assert (queues["monitoring"].ready, queues["prometheus"].ready) == (0, 1)


def test_rabbitmq_users_have_their_rights_only(broker_settings: Settings) -> None:
    """Nobody is called guest; our user makes nothing beside siteward.*; the administrator may look at everything."""
    with (
        open_broker(broker_settings) as broker,  # type: ignore[attr-defined]  # the contract has only close().
        pytest.raises(BrokerError),
    ):
        broker.remove("elsewhere")
    address, password = broker_settings.broker.management, broker_settings.broker.password
    assert asked(f"{address}/api/whoami", "guest", "guest")[0] == 401
    assert asked(f"{address}/api/users", "siteward", password)[0] == 401
    path = f"{address}/api/queues/siteward/elsewhere"
    assert asked(path, "siteward", password, method="PUT", body=b"{}")[0] == 401


def asked(
    url: str, user: str, password: str, *, method: str = "GET", body: bytes | None = None, ca: str = ""
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a request with name and password, or without where there is no name."""
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    context = ssl.create_default_context(cafile=ca) if ca else None
    if context:
        # Python 3.13 asks for this by default; the certificates have to be good enough for it.
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with urlopen(Request(url, body, headers, method=method), timeout=30, context=context) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except HTTPError as error:
        with error:
            return error.code, {}


def test_opensearch_3_takes_its_configuration(volumes: Path) -> None:
    """OpenSearch of the image's version starts with opensearch.yml, but for what the security plugin adds."""
    with configured_opensearch("3.3.2", volumes) as node:
        status, answer = asked(f"http://127.0.0.1:{node.port}/", "", "")
        assert (status, answer["cluster_name"]) == (200, "siteward")
        compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
        assert f"image: opensearchproject/opensearch:{answer['version']['number']}\n" in compose


@pytest.fixture(scope="module")
def search_settings(tmp_path_factory: pytest.TempPathFactory, volumes: Path) -> Iterator[Settings]:
    """Our settings towards an OpenSearch with TLS and passwords that has loaded the composition's configuration."""
    with configured_opensearch("2.19.3", volumes, PLUGIN) as node:
        # The certificate is for the service's name and for localhost.
        settings = own_settings(
            tmp_path_factory.mktemp("opensearch"), volumes, {"opensearch:9200": f"localhost:{node.port}"}
        )
        address = address_of(settings.monitoring.url, settings.monitoring)
        with closing(client_of(address, settings.monitoring)) as client:
            node.wait(client)
        yield settings


def test_opensearch_takes_its_configuration(search_settings: Settings) -> None:
    """OpenSearch loads opensearch.yml, certificates and users; our store writes, finds, upgrades and forgets there."""
    kinds = load_kinds(search_settings.kinds)
    with closing(open_store(search_settings.monitoring.url, search_settings, kinds)) as store:
        batch = batch_of(kinds["job"], job_rows(10), received=NOW)
        assert {*store.write(batch).outcomes} == {Outcome.STORED}
        assert {*store.write(batch).outcomes} == {Outcome.DUPLICATE}
        search(search_settings, "siteward", "POST", "/siteward-*/_refresh")
        assert len(store.records("job", ids=batch.ids)) == 10
        day = timedelta(days=1)
        question = Query(kind="job", wanted=(Wanted(Function.COUNT),), start=NOON - day, end=NOON + day)
        assert [*store.query(question).totals] == [10]
        assert store.forget("job", NOON + timedelta(days=400)) == 10


def test_opensearch_says_that_it_is_well(search_settings: Settings) -> None:
    """The health check of the composition is content with OpenSearch as configured, and with nothing else there."""
    tool("curl")
    ca, host = search_settings.monitoring.ca, search_settings.monitoring.url.rpartition("@")[2]
    for place, well in ((host, True), (f"localhost:{free_ports(1)[0]}", False)):
        *shell, check = health("opensearch")
        check = check.replace("config/certificates/ca.pem", ca).replace("localhost:9200", place)
        assert (run(*shell, check).returncode == 0) is well


def test_opensearch_users_have_their_rights_only(search_settings: Settings) -> None:
    """Nobody asks without a password; our user has siteward-* only; who looks at records changes none."""
    assert search(search_settings, "", "GET", "/")[0] == 401
    assert search(search_settings, "siteward", "PUT", "/siteward-try/_doc/1?refresh=true", b'{"a": 1}')[0] == 201
    assert search(search_settings, "siteward", "PUT", "/other/_doc/1", b'{"a": 1}')[0] == 403
    assert search(search_settings, "viewer", "PUT", "/siteward-try/_doc/2", b'{"a": 1}')[0] == 403
    assert search(search_settings, "viewer", "DELETE", "/siteward-try")[0] == 403
    status, answer = search(search_settings, "viewer", "GET", "/_search")
    assert (status, answer["hits"]["total"]["value"]) == (200, 1)
    assert search(search_settings, "admin", "PUT", "/other/_doc/1", b'{"a": 1}')[0] == 201
    assert search(search_settings, "kibanaserver", "GET", "/.opensearch_dashboards/_search")[0] in {200, 404}
    assert search(search_settings, "kibanaserver", "GET", "/siteward-try/_search")[0] == 403


def test_a_record_goes_the_whole_way(
    broker_settings: Settings, search_settings: Settings, volumes: Path, tmp_path: Path
) -> None:
    """App and collector, started as in the composition: what the gateway takes is in OpenSearch and on both pages."""
    app, metrics = free_ports(2)
    places = {
        "rabbitmq:5672": urlsplit(broker_settings.broker.url).netloc.rpartition("@")[2],
        "http://rabbitmq:15672": broker_settings.broker.management,
        "opensearch:9200": search_settings.monitoring.url.rpartition("@")[2],
        "0.0.0.0": "127.0.0.1",
        "port = 8080": f"port = {app}",
        "port = 9469": f"port = {metrics}",
    }
    settings = own_settings(tmp_path, volumes, places)
    environment = {**os.environ, "SITEWARD_CONFIG": str(tmp_path / "siteward.toml"), "SITEWARD_DATA": settings.data}
    siteward = Path(sys.executable).with_name("siteward")
    token, scraping = ((volumes / name).read_text() for name in ("vault/siteward-token", "prometheus/siteward-token"))
    client = Client(f"http://127.0.0.1:{app}", token, vo="*")
    with (
        running(
            [sys.executable, "-m", "siteward.server.service", "app"],
            tmp_path / "app.log",
            client.alive,
            env=environment,
        ),
        running(
            [siteward, "collect", "--name", "collector-test"],
            tmp_path / "collector.log",
            lambda: listens(metrics),
            env=environment,
        ),
    ):
        assert Client(client.url).alive()
        with pytest.raises(ClientError, match="token"):
            Client(client.url).records("job")
        client.send("job", [job(end=datetime.now(UTC), start=datetime.now(UTC) - timedelta(hours=1))])
        eventually(lambda: len(client.records("job")) == 1)
        eventually(lambda: "siteward_job_records_total{" in scraped(metrics, settings.prometheus.token))
        eventually(lambda: "siteward_collector_records_written_total" in scraped(app, scraping))
        with pytest.raises(ClientError, match="does not allow"):
            Client(client.url, scraping).send("job", [job()])


def scraped(port: int, token: str) -> str:
    """What Prometheus would read."""
    request = Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def eventually(condition: Callable[[], bool]) -> None:
    """Look again and again until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def search(settings: Settings, user: str, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON of a request to OpenSearch as one of its users; "" is nobody."""
    folder = Path(settings.monitoring.ca).parents[1] / "vault"
    password = (folder / f"opensearch-{user}").read_text() if user else ""
    host = settings.monitoring.url.rpartition("@")[2]
    return asked(f"https://{host}{path}", user, password, method=method, body=body, ca=settings.monitoring.ca)


def test_postgresql_makes_its_databases(volumes: Path) -> None:
    """A new data folder has two databases; each user enters its own, by password, and no other; the server is well."""
    text = (DEPLOY / "postgresql" / "databases.sql").read_text(encoding="utf-8")
    assert "/run/secrets/" in text
    with running_node(PostgresNode()) as node:
        script = text.replace("/run/secrets", str(volumes / "postgresql"))
        done = run(*node.psql, "--file", "-", input=script)
        assert done.returncode == 0, done.stderr
        check, *rest = health("postgresql")
        for port, well in ((str(node.port), True), (str(free_ports(1)[0]), False)):
            assert (run(tool(check), *rest, env={**os.environ, "PGPORT": port}).returncode == 0) is well
        for user, database, enters in (
            ("grafana", "grafana", True),
            ("siteward", "siteward", True),
            ("grafana", "siteward", False),
        ):
            password = (volumes / "postgresql" / user).read_text()
            command = [*node.psql, "--host", "127.0.0.1", "--username", user, "--dbname", database]
            done = run(*command, "--command", "create table t ()", env={**os.environ, "PGPASSWORD": password})
            assert (done.returncode == 0) is enters, done.stderr
