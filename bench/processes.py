"""Starting the services that are measured, watching their memory, and ending them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def service(name: str, data: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service in a process of its own, on a data folder; ended, and waited for, at the end."""
    environ = os.environ | {"SITEWARD_DATA": str(data), "SITEWARD_LOG_LEVEL": "warning"} | settings
    process = subprocess.Popen(
        [sys.executable, "-m", "siteward.server.service", name], env=environ, stdin=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def peak_megabytes(pid: int) -> float:
    """The most memory a process has had resident, in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    message = f"no peak memory for process {pid}"
    raise RuntimeError(message)


def megabytes(pid: int) -> float:
    """The memory a process has resident now, in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
