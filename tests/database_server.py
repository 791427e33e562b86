"""A private database server for tests: a process that is not root's, with a port and a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import psutil  # type: ignore[import-untyped]  # it ships no types.
from rabbitmq_server import eventually, free_ports

PATIENCE: Final = 90.0
ACCOUNT: Final = "nobody"
"""Who runs a server where the tests run as root, as whom both refuse to run. Unlike the users that the packages make it
may not touch the data of a server that the machine has for other reasons."""


class DatabaseNode(ABC):
    """One server with its own data; can be stopped, or killed, and started as it was."""

    ending: ClassVar = signal.SIGTERM
    """What makes the server end in order without waiting for its clients."""

    def __init__(self, name: str) -> None:
        """Make the folder; nothing runs yet."""
        # Not below pytest's folder: others may not enter that, and its name is too long for a socket's.
        self.folder = Path(tempfile.mkdtemp(prefix=f"siteward-{name}-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, ACCOUNT)
        self.data = self.folder / "data"
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def making(self) -> Sequence[str]:
        """The command that makes the data folder."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command that is the server."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server takes statements."""

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not ended since."""
        return self._process is not None

    def start(self) -> None:
        """Start it, the first time with new data, and wait until it answers."""
        if not self.data.exists() and self._launch(self.making()).wait(PATIENCE) != 0:
            raise RuntimeError(self._said("cannot make its data"))
        self._process = self._launch(self.command())
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self._said("does not start"))
            time.sleep(0.05)

    def _launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                # Nothing of who runs the tests: PGOPTIONS and the like change servers and clients.
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.folder)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=ACCOUNT if os.geteuid() == 0 else None,
            )

    def _said(self, what: str) -> str:
        said = (self.folder / "output").read_text(errors="replace")[-3000:]
        return f"{type(self).__name__} {what}:\n{said}"

    def stop(self) -> None:
        """End it in an orderly way, and clients' connections with it; its data stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(self.ending)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            self._process = process
            self.kill()

    def kill(self) -> None:
        """End it and its children at once, with nothing said or written; its data stay."""
        process, self._process = self._process, None
        if process is None:
            return
        # Stopped, it makes no more children. PostgreSQL's are in sessions of their own, and while one of them lives the
        # next server refuses the data.
        process.send_signal(signal.SIGSTOP)
        server = psutil.Process(process.pid)
        eventually(lambda: server.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})
        family = [server, *server.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        eventually(lambda: all(map(_is_over, family)))

    def remove(self) -> None:
        """End it and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_over(process: psutil.Process) -> bool:
    try:
        # Who takes over orphans may bury them late.
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


SomeNode = TypeVar("SomeNode", bound=DatabaseNode)


@contextmanager
def running(node: SomeNode) -> Iterator[SomeNode]:
    """A node from when it answers until it is removed."""
    try:
        node.start()
        yield node
    finally:
        node.remove()


@contextmanager
def closing_on(node: DatabaseNode, close: Callable[[], None]) -> Iterator[None]:
    """Close a place at the end, on a node that runs even if the test left it killed: the next test wants it too."""
    try:
        yield
    finally:
        if not node.is_running:
            node.start()
        close()
