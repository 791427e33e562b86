"""Private OpenSearch nodes for tests: started when first asked for, one per version and session, stopped at the end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, TransportError
from servers import missing

from monitoring.stores.opensearch import open_store
from monitoring.stores.opensearch.addresses import address_of, client_of
from siteward.records import Kind
from siteward.settings import MonitoringSettings, Settings

if TYPE_CHECKING:
    from monitoring.stores.opensearch.store import OpenSearchStore

VERSIONS: Final = ("2.19.3", "3.3.2")
SECURE: Final = "2.19.3-secure"
"""The older one with the security plugin; see opensearch_secure.py."""
EACH: Final = ("3.3.2", pytest.param("2.19.3", marks=pytest.mark.soak))
"""Parameters of a test. The older version is tried in `make soak`, and with every change as `SECURE`."""
FOLDER: Final = Path(
    os.environ.get("SITEWARD_TEST_OPENSEARCH")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siteward" / "opensearch"
)
"""Where tests/services.sh puts the distributions; read once, before the surroundings of the tests are cleaned."""
JAVA_HOMES: Final = Path("/usr/lib/jvm")
JAVAS: Final = {"2": range(11, 22), "3": range(21, 100)}
"""Java versions that a major version runs on; 2.x wants a security manager, which later ones do not have."""
PATIENCE: Final = 120.0
MEMORY: Final = "-Xms512m -Xmx512m"
ACCOUNT: Final = "nobody"
"""Who runs a node where the tests run as root, as whom OpenSearch refuses to run."""


def distribution(name: str) -> Path:
    """A zip file of the cache folder."""
    path = FOLDER / name
    if not path.is_file():
        missing(
            f"{name} in {FOLDER}", "run `tests/services.sh opensearch`, or name its folder in SITEWARD_TEST_OPENSEARCH"
        )
    return path


def java_home(version: str) -> Path:
    """A Java that an OpenSearch version runs on."""
    fit = JAVAS[version.partition(".")[0]]
    named = [Path(os.environ[name]) for name in ("OPENSEARCH_JAVA_HOME", "JAVA_HOME") if os.environ.get(name)]
    for home in [*named, *sorted(JAVA_HOMES.glob("*"))]:
        release = home / "release"
        found = re.search(r'^JAVA_VERSION="(\d+)', release.read_text(), re.MULTILINE) if release.is_file() else None
        if found and int(found[1]) in fit:
            break
    else:
        missing(f"a JDK from {fit[0]} to {fit[-1]} for OpenSearch {version} below {JAVA_HOMES}")
    return home


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Node:
    """One OpenSearch process with its own data; can be stopped and started again as it was."""

    def __init__(
        self, version: str, configuration: Mapping[str, Any] | None = None, plugin: Path | None = None
    ) -> None:
        """Unpack; nothing runs yet."""
        self.version = version
        self._java = java_home(version)
        archive = distribution(f"opensearch-{version}.zip")
        self.folder = Path(tempfile.mkdtemp(prefix="siteward-opensearch-"))
        self.folder.chmod(0o755)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(self.folder)
        self.home = self.folder / f"opensearch-{version}"
        for script in [*(self.home / "bin").iterdir()]:
            script.chmod(0o755)
        if plugin is not None:
            self._install(plugin)
        self.port, transport = free_ports(2)
        self.scheme = "opensearch"
        self.user = ""
        self.settings: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._configure(
            {
                "cluster.name": self.folder.name,
                "discovery.type": "single-node",
                "network.host": "127.0.0.1",
                "http.port": self.port,
                "transport.port": transport,
                "path.data": self.folder / "data",
                "path.logs": self.folder / "logs",
                "cluster.routing.allocation.disk.threshold_enabled": "false",
                **(configuration or {}),
            }
        )

    def _install(self, plugin: Path) -> None:
        command = [str(self.home / "bin" / "opensearch-plugin"), "install", "--batch", plugin.as_uri()]
        subprocess.run(command, env=self._environment(), check=True, capture_output=True)

    def _configure(self, settings: Mapping[str, Any]) -> None:
        text = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self.home / "config" / "opensearch.yml").write_text(text)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "OPENSEARCH_JAVA_HOME": str(self._java),
            "OPENSEARCH_JAVA_OPTS": MEMORY,
        }

    @property
    def url(self) -> str:
        """Its URL in the settings."""
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}127.0.0.1:{self.port}"

    def monitoring(self, **settings: Any) -> MonitoringSettings:
        """Settings of a store on it: URL, password and authorities, and whatever else is given."""
        given: dict[str, Any] = {"url": self.url, "replicas": "0", "timeout": 30.0}
        return MonitoringSettings(**given | self.settings | settings)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def launch(self) -> None:
        """Start the process, and wait for nothing."""
        is_root = os.geteuid() == 0
        if is_root:
            for path in [self.folder, *self.folder.rglob("*")]:
                shutil.chown(path, ACCOUNT)
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self.home / "bin" / "opensearch"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=ACCOUNT if is_root else None,
            )

    def start(self) -> None:
        """Start it and wait until it answers; 15 seconds or so."""
        self.launch()
        monitoring = self.monitoring(timeout=5.0)
        client = client_of(address_of(monitoring.url, monitoring), monitoring)
        try:
            self.wait(client)
        finally:
            client.close()

    def wait(self, client: OpenSearch) -> None:
        """Wait until the node answers.

        Args:
            client: of this node, with whatever it wants to be told.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client.transport.perform_request("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s")
            except TransportError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "output").read_text(errors="replace")[-3000:]
                    message = f"OpenSearch {self.version} does not start: {error}\n{said}"
                    raise RuntimeError(message) from error
                time.sleep(0.25)
            else:
                return

    def stop(self) -> None:
        """End the process; its data stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the process as a loss of power does."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait()

    def remove(self) -> None:
        """End the process and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Nodes:
    """The session's nodes, each started when it is first asked for."""

    def __init__(self) -> None:
        """None yet."""
        self._nodes: dict[str, Node] = {}

    def node(self, version: str) -> Node:
        """The running node of a version."""
        if version not in self._nodes:
            node = _secure_node() if version == SECURE else Node(version)
            self._nodes[version] = node
            node.start()
        return self._nodes[version]

    def remove(self) -> None:
        """End all."""
        for node in self._nodes.values():
            node.remove()


def _secure_node() -> Node:
    from opensearch_secure import SecureNode  # noqa: PLC0415  # it is made from Node.

    return SecureNode()


class Place:
    """A test's own place on a node: a prefix that nobody else has."""

    def __init__(self, node: Node, **settings: Any) -> None:
        """Take a fresh prefix; `settings` go over those of [monitoring]."""
        self.node = node
        self.prefix = f"test-{uuid4().hex[:12]}"
        monitoring = node.monitoring(prefix=self.prefix, **settings)
        self.settings = Settings(monitoring=monitoring)
        self.client = client_of(address_of(monitoring.url, monitoring), monitoring)

    def open(self, kinds: Mapping[str, Kind]) -> OpenSearchStore:
        """A store in this place; the caller closes it."""
        return open_store(self.settings.monitoring.url, self.settings, kinds)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request of the test's own; the decoded answer."""
        return self.client.transport.perform_request(method, path, body=body)

    def refresh(self) -> None:
        """Make everything that was written visible now."""
        self.ask("POST", f"/{self.prefix}-*/_refresh")

    def indices(self) -> list[str]:
        """The names of its indices."""
        return sorted(self.ask("GET", f"/{self.prefix}-*/_settings/index.uuid"))

    def clear(self) -> None:
        """Delete its indices and templates: a node takes only so many shards."""
        for index in self.indices():
            self.ask("PUT", f"/{index}/_settings", {"index.blocks.read_only": None, "index.blocks.write": None})
            self.ask("DELETE", f"/{index}")
        with suppress(NotFoundError):
            self.ask("DELETE", f"/_index_template/{self.prefix}-*")

    def close(self) -> None:
        """Clear, and let go of the connections."""
        try:
            self.clear()
        finally:
            self.client.close()


@pytest.fixture(scope="session")
def opensearch_nodes() -> Iterator[Nodes]:
    """Private OpenSearch nodes, by version."""
    nodes = Nodes()
    try:
        yield nodes
    finally:
        nodes.remove()


@pytest.fixture(params=EACH)
def opensearch(request: pytest.FixtureRequest, opensearch_nodes: Nodes) -> Iterator[Place]:
    """A place of the test's own on a private OpenSearch, once for each version."""
    place = Place(opensearch_nodes.node(request.param))
    try:
        yield place
    finally:
        place.close()
