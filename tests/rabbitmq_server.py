"""A private RabbitMQ node for tests: started when first asked for, one per session, stopped at the end."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import trustme
from servers import missing

from siteward.settings import BrokerSettings, Settings

PATIENCE: Final = 90.0
PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")
"""Debian's wrappers in the path change the user and the folder; these do not."""
PLUGINS: Final = "[rabbitmq_management,rabbitmq_consistent_hash_exchange]."
CALM: Final = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
"""Erlang's schedulers wait asleep: the machine is shared with the tests."""


def program(name: str) -> str:
    """One of RabbitMQ's programs."""
    path = PROGRAMS / name
    found = str(path) if path.is_file() else shutil.which(name)
    if found is None:
        missing(f"the RabbitMQ program {name}", "run `tests/services.sh rabbitmq`")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def eventually(condition: Callable[[], bool], patience: float = 30.0) -> None:
    """Wait until something is so, and fail when it does not become so."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.02)


SOON: Final = "-rabbit quorum_tick_interval 200"
"""How often a quorum queue tells the management plugin what it holds, in milliseconds; 5 seconds in production."""


class RabbitNode:
    """One RabbitMQ process with its own data, name server and certificates; can be stopped and started as it was."""

    def __init__(self) -> None:
        """Write the configuration; nothing runs yet."""
        self._server = program("rabbitmq-server")
        program("rabbitmqctl")
        self.folder = Path(tempfile.mkdtemp(prefix="siteward-rabbitmq-"))
        self.port, self.tls_port, self.management, self.tls_management, distribution, self._names = free_ports(6)
        self.authority = trustme.CA()
        self.ca = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.name = f"siteward-{uuid4().hex[:8]}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "enabled_plugins").write_text(PLUGINS)
        (self.folder / "rabbitmq.conf").write_text(self._configuration())
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{CALM} {SOON}",
            "RABBITMQ_CTL_ERL_ARGS": CALM,
        }

    def _configuration(self) -> str:
        # Of its name only: by its address it is somebody else over TLS.
        certificate = self.authority.issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "listeners.ssl.1": f"127.0.0.1:{self.tls_port}",
            "ssl_options.cacertfile": self.ca,
            "ssl_options.certfile": self.folder / "server.pem",
            "ssl_options.keyfile": self.folder / "server.pem",
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "false",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": self.management,
            "management.ssl.ip": "127.0.0.1",
            "management.ssl.port": self.tls_management,
            "management.ssl.cacertfile": self.ca,
            "management.ssl.certfile": self.folder / "server.pem",
            "management.ssl.keyfile": self.folder / "server.pem",
            # As SOON, of everything else.
            "collect_statistics_interval": 200,
            "disk_free_limit.absolute": "50MB",
        }
        return "".join(f"{name} = {value}\n" for name, value in settings.items())

    def start(self) -> None:
        """Start it and wait until it answers; 5 seconds or so."""
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._server],
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "output").read_text(errors="replace")[-3000:]
                message = f"RabbitMQ does not start:\n{said}"
                raise RuntimeError(message)
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            self.api("GET", "overview")
        except (OSError, URLError):
            return False
        return True

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def stop(self) -> None:
        """End the process in an orderly way; its data stay."""
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
        """End the process at once; its data stay."""
        if self._process is not None:
            # The server is a shell script around Erlang's machine, in a session of their own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """End everything and delete the folder."""
        self.stop()
        epmd = shutil.which("epmd")
        if epmd:
            command = [epmd, "-port", str(self._names), "-kill"]
            subprocess.run(command, env=self._environment, capture_output=True, check=False, timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def has_alarm(self) -> bool:
        """Whether its disk or memory is over a limit."""
        try:
            self.api("GET", "health/checks/alarms")
        except HTTPError:
            return True
        return False

    def ctl(self, *arguments: str, typed: str = "") -> str:
        """Run rabbitmqctl as an operator would, who types what it asks for; what it prints."""
        return self.tool("rabbitmqctl", *arguments, typed=typed)

    def tool(self, name: str, *arguments: str, typed: str = "") -> str:
        """As ctl, with any of RabbitMQ's tools."""
        done = subprocess.run(
            [program(name), "--node", self.name, "--quiet", *arguments],
            env=self._environment,
            cwd=self.folder,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management plugin; the decoded answer, None where it has no body."""
        request = Request(  # our own node.
            f"http://127.0.0.1:{self.management}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Basic " + base64.b64encode(b"guest:guest").decode()},
        )
        try:
            with urlopen(request, timeout=10) as answer:
                text = answer.read()
        except HTTPError as error:
            with error:
                pass
            raise
        return json.loads(text) if text else None


class Vhost:
    """A test's own virtual host on the node."""

    def __init__(self, node: RabbitNode) -> None:
        """Make it."""
        self.node = node
        self.name = f"test-{uuid4().hex[:12]}"
        self.path = quote(self.name, safe="")
        node.api("PUT", f"vhosts/{self.path}")
        node.api("PUT", f"permissions/{self.path}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        self._users: list[str] = []

    @property
    def url(self) -> str:
        """Its URL in the settings, for the user `guest`."""
        return f"amqp://guest@127.0.0.1:{self.node.port}/{self.name}"

    def settings(self, **broker: Any) -> Settings:
        """Settings that lead there; `broker` goes over those of [broker]."""
        given: dict[str, Any] = {
            "url": self.url,
            "timeout": 10.0,
            "management": f"http://127.0.0.1:{self.node.management}",
        }
        return Settings(broker=BrokerSettings(**given | broker))

    def user(self, password: str, configure: str, write: str, read: str, *, tags: str = "") -> str:
        """A new user with permissions in this virtual host only; its name."""
        name = f"user-{uuid4().hex[:12]}"
        self.node.api("PUT", f"users/{name}", {"password": password, "tags": tags})
        self._users.append(name)
        self.node.api("PUT", f"permissions/{self.path}/{name}", {"configure": configure, "write": write, "read": read})
        return name

    def remove(self) -> None:
        """Delete it, and its users."""
        for user in self._users:
            self.node.api("DELETE", f"users/{user}")
        with suppress(HTTPError):
            self.node.api("DELETE", f"vhosts/{self.path}")


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitNode]:
    """A running RabbitMQ node."""
    node = RabbitNode()
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture
def vhost(rabbitmq: RabbitNode) -> Iterator[Vhost]:
    """A virtual host of the test's own."""
    place = Vhost(rabbitmq)
    yield place
    place.remove()
