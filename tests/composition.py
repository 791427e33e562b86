"""The composition as the tests see it: the project as Docker Compose reads it, its secrets, and the real servers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.request import Request, urlopen

from opensearch_server import Node, distribution
from servers import REPOSITORY, missing

from siteward.settings import Settings, load_settings

DEPLOY: Final = REPOSITORY / "deploy"
COMPOSE: Final = REPOSITORY / "tests" / "compose"
"""The program on compose-go that reads what Docker Compose reads."""
PATIENCE: Final = 90.0
SERVERS: Final = "/usr/lib/rabbitmq/bin"
"""Where Debian puts RabbitMQ itself; in the path there are scripts that ask for root."""


def tool(name: str) -> str:
    """Path of a server's program."""
    path = shutil.which(name, path=os.pathsep.join((SERVERS, os.environ["PATH"])))
    if not path:
        missing(name, "run `tests/services.sh compose`")
    return path


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


def build_reader(folder: Path) -> Path:
    """Build the program that reads compose files; its libraries come through Go's own module cache."""
    reader = folder / "compose"
    done = run(tool("go"), "build", "-o", reader, ".", cwd=COMPOSE)
    if done.returncode != 0 and "dial tcp" in done.stderr:
        missing("compose-go", f"run `tests/services.sh compose` with a network; go said: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return reader


def read_project(reader: Path, *files: Path) -> dict[str, Any]:
    """The project of compose files, everything resolved."""
    done = run(reader, *files)
    assert done.returncode == 0, done.stderr
    project: dict[str, Any] = json.loads(done.stdout)
    return project


def mounts(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a service mounts."""
    return list(service.get("volumes", []))


def credentials() -> ModuleType:
    """deploy/siteward/credentials.py, which is a program and no package."""
    spec = importlib.util.spec_from_file_location("credentials", DEPLOY / "siteward" / "credentials.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hand_out(volumes: Path, deploy: Path = DEPLOY) -> Path:
    """Make the secrets as the service `credentials` does, for whoever runs the tests; a folder for each volume."""
    program = credentials()
    names = program.__dict__
    names["OWNERS"] = dict.fromkeys(names["OWNERS"], (os.geteuid(), os.getegid()))
    for name in ("vault", *names["OWNERS"]):
        (volumes / name).mkdir(parents=True, exist_ok=True)
    program.fill(volumes / "vault")
    program.hand_out(volumes, program.files(volumes / "vault", deploy))
    return volumes


def own_settings(folder: Path, volumes: Path, places: Mapping[str, str]) -> Settings:
    """The settings of our own services, with the secrets and addresses of a test in place of the containers'.

    Args:
        folder: for the file.
        volumes: what `hand_out` has made.
        places: host and port in the file, and what stands in for it.
    """
    text = (DEPLOY / "siteward" / "siteward.toml").read_text(encoding="utf-8")
    for written, meant in {"/run/secrets": str(volumes / "siteward"), **places}.items():
        assert written in text
        text = text.replace(written, meant)
    path = folder / "siteward.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, {"SITEWARD_DATA": str(folder / "data")})


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, answers: Callable[[], bool], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server from when it answers until it has ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        end = time.monotonic() + PATIENCE
        while not answers():
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port: int) -> bool:
    """Whether somebody takes connections."""
    with socket.socket() as caller:
        caller.settimeout(1)
        return caller.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def configured_rabbitmq(folder: Path, volumes: Path) -> Iterator[dict[str, str]]:
    """RabbitMQ with the composition's configuration; host and port in our settings, and where it listens instead."""
    server, (amqp, distribution, management, metrics) = tool("rabbitmq-server"), free_ports(4)
    folder.mkdir(parents=True, exist_ok=True)
    text = (DEPLOY / "rabbitmq" / "rabbitmq.conf").read_text(encoding="utf-8")
    assert "/run/secrets/" in text
    own = f"management.tcp.port = {management}\nprometheus.tcp.port = {metrics}\n"
    (folder / "rabbitmq.conf").write_text(text.replace("/run/secrets", str(volumes / "rabbitmq")) + own)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"siteward-{amqp}@localhost",
        "RABBITMQ_NODE_PORT": str(amqp),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(DEPLOY / "rabbitmq" / "enabled_plugins"),
        # Erlang's schedulers wait asleep: the machine is shared with other tests.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
    places = {"rabbitmq:5672": f"127.0.0.1:{amqp}", "rabbitmq:15672": f"127.0.0.1:{management}"}
    with running(
        [server],
        folder / "output",
        lambda: all(map(listens, (amqp, management, metrics))),
        env=environment,
    ):
        yield places


@contextmanager
def configured_opensearch(version: str, volumes: Path, plugin: str = "") -> Iterator[Node]:
    """OpenSearch with the composition's configuration; without the plugin, with that part which needs none."""
    lines = (DEPLOY / "opensearch" / "opensearch.yml").read_text(encoding="utf-8").splitlines()
    entries = dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))
    assert entries.pop("network.host") == "0.0.0.0"
    chosen = {name: value for name, value in entries.items() if plugin or not name.startswith("plugins.security.")}
    node = Node(version, chosen, distribution(plugin) if plugin else None)
    try:
        if plugin:
            for name in ("certificates", "security"):
                target = node.home / "config" / {"security": "opensearch-security"}.get(name, name)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(volumes / f"opensearch-{name}", target)
            node.launch()
        else:
            node.start()
        yield node
    finally:
        node.remove()


def arguments(service: str) -> list[str]:
    """What docker-compose.yml gives a service's program under `command`, where each argument has a line."""
    text = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  {service}:\n(?:    .*\n)*?    command:\n((?:      .*\n)+)", text, re.MULTILINE)
    assert found
    return re.findall(r"^      - (\S+)$", found[1], re.MULTILINE)


def health(service: str) -> list[str]:
    """The command of a service's health check in docker-compose.yml."""
    text = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    found = re.search(rf"^  {service}:\n(?:    .*\n)*?      test: \[(CMD|CMD-SHELL), (.+)\]$", text, re.MULTILINE)
    assert found
    if found[1] == "CMD-SHELL":
        return ["/bin/sh", "-c", found[2].strip("'").replace("$$", "$")]
    return [word.strip('"') for word in found[2].split(", ")]


@contextmanager
def configured_prometheus(folder: Path, secrets: Path, places: Mapping[str, str]) -> Iterator[str]:
    """Prometheus with the composition's arguments, file and rules; its address.

    Args:
        folder: for data and what is changed; new.
        secrets: the folder of its tokens.
        places: host and port in the file of whom it scrapes and of Alertmanager, and what stands in for them.
    """
    (port,) = free_ports(1)
    here = f"127.0.0.1:{port}"
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    # Collectors are found by a name server, which a test has none of its own.
    asked = re.search(r"dns_sd_configs:\n((?:      .*\n)+)", text)
    assert asked
    quick = {"scrape_interval: 15s": "scrape_interval: 500ms", "scrape_timeout: 10s": "scrape_timeout: 500ms"}
    found = {
        asked[0]: "static_configs:\n      - targets: [collector:9469]\n",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }
    for written, meant in {**quick, **found, "/run/secrets": str(secrets), "localhost:9090": here, **places}.items():
        assert written in text
        text = text.replace(written, meant)
    folder.mkdir()
    (folder / "rules").symlink_to(DEPLOY / "prometheus" / "rules")
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    given = [each.replace("/etc/prometheus", str(folder)) for each in arguments("prometheus")]
    given = [each.replace("path=/prometheus", f"path={folder / 'data'}") for each in given]
    command = [tool("prometheus"), *given, f"--web.listen-address={here}", "--log.level=warn"]
    with running(command, folder / "log", lambda: answers(f"http://{here}/-/ready")):
        yield f"http://{here}"


@contextmanager
def configured_alertmanager(folder: Path) -> Iterator[str]:
    """Alertmanager with the composition's arguments and file; its address."""
    (port,) = free_ports(1)
    here = f"127.0.0.1:{port}"
    folder.mkdir()
    given = [each.replace("/etc/alertmanager", str(DEPLOY / "alertmanager")) for each in arguments("alertmanager")]
    given = [each.replace("path=/alertmanager", f"path={folder / 'data'}") for each in given]
    command = [tool("prometheus-alertmanager"), *given, f"--web.listen-address={here}"]
    with running(command, folder / "log", lambda: answers(f"http://{here}/-/ready")):
        yield f"http://{here}"


def answers(url: str) -> bool:
    """Whether a server says that it is well."""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def told(url: str, body: object = None) -> Any:  # JSON.
    """What an HTTP API answers, in JSON; with a body it is posted."""
    sent = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, sent, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.loads(answer.read() or b"null")
