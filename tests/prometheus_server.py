"""Private Prometheus servers for tests: own port, own data, stopped by pid."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext
from threading import Event, Thread
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from certified import Certified
from servers import missing

from collectors.service import collect
from monitoring.prometheus.promql import Series
from siteward.settings import Settings

LIMIT: Final = 60.0
"""Seconds after which what is waited for will not come."""


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`."""
    path = shutil.which(name)
    if path is None:
        missing(name, "run tests/services.sh prometheus")
    return path


class PrometheusServer:
    """One running server that scrapes every 500 ms whom it is told to."""

    def __init__(self, url: str, targets: Path) -> None:
        self.url = url
        self._targets = targets

    def scrape(self, *ports: int) -> None:
        """From now on scrape these ports of this machine, and no others."""
        draft = self._targets.with_suffix(".draft")
        draft.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
        draft.rename(self._targets)


@contextmanager
def running(folder: Path, token: str = "", certified: Certified | None = None) -> Iterator[PrometheusServer]:
    """A server with its data in `folder`, ready; it scrapes nobody yet, and takes remote-write.

    Args:
        folder: for its files.
        token: what it shows to whom it scrapes.
        certified: what it speaks TLS with; without, it speaks plain HTTP.
    """
    binary = program("prometheus")
    targets = folder / "targets.json"
    targets.write_text("[]")
    scrape: dict[str, object] = {
        "job_name": "siteward-collector",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    if token:
        scrape["authorization"] = {"credentials": token}
    # JSON is YAML.
    configuration = folder / "prometheus.yml"
    everywhere = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    configuration.write_text(json.dumps({"global": everywhere, "scrape_configs": [scrape]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        binary,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=warn",
    ]
    if certified is not None:
        served = {"cert_file": str(certified.certificate), "key_file": str(certified.key)}
        (folder / "web.yml").write_text(json.dumps({"tls_server_config": served}))
        command.append(f"--web.config.file={folder / 'web.yml'}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            url = f"{'https' if certified else 'http'}://127.0.0.1:{port}"
            trusting = certified.trusting if certified else None
            until(lambda: _is_ready(url, process, folder / "log", trusting))
            yield PrometheusServer(url, targets)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def collector(settings: Settings, name: str = "collector") -> Iterator[None]:
    """A collector that feeds the sink `prometheus`, as `siteward collect prometheus` does."""
    stop = Event()
    thread = Thread(target=collect, args=(settings, stop, ["prometheus"]), kwargs={"name": name})
    thread.start()
    yield
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit:.0f} s in vain"
        time.sleep(0.05)


def _is_ready(url: str, process: subprocess.Popen[bytes], log: Path, trusting: SSLContext | None) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urlopen(f"{url}/-/ready", timeout=5, context=trusting) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def check_metrics(text: bytes) -> str:
    """What `promtool check metrics` has to say; "" is no complaint."""
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    return (done.stdout + done.stderr).decode()


def increase(series: tuple[Series, ...]) -> float:
    """The growth of counters over their points, from zero after a reset, without rate()'s extrapolation."""
    total = 0.0
    for each in series:
        for before, after in zip(each.points, each.points[1:], strict=False):
            total += after.value - before.value if after.value >= before.value else after.value
    return total
