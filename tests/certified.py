"""Certificates of an authority of the test's own, in files as servers and settings take them."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import trustme

from siteward.server import app as application
from siteward.settings import Settings

PATIENCE: Final = 30.0


class Certified:
    """A certificate of some names, its key, and who trusts it."""

    def __init__(self, folder: Path, *names: str) -> None:
        """Make them; by default for this machine."""
        authority = trustme.CA()
        made = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
        self.certificate, self.key, self.ca = (folder / f"{name}.pem" for name in ("certificate", "key", "authority"))
        made.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        authority.cert_pem.write_to_path(self.ca)
        self.trusting = ssl.create_default_context(cafile=self.ca)
        self.serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.serving.load_cert_chain(self.certificate, self.key)

    @property
    def settings(self) -> dict[str, Any]:
        """As they stand in a section."""
        return {"certificate": str(self.certificate), "key": str(self.key)}

    def get(self, url: str, **headers: str) -> int:
        """The status of an answer over TLS."""
        with urlopen(Request(url, headers=headers), timeout=PATIENCE, context=self.trusting) as answer:
            return int(answer.status)


def authority(folder: Path) -> Path:
    """The file of another authority, which has signed nothing."""
    path = folder / "other-authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def until(condition: Callable[[], object]) -> None:
    """Wait for something to become true; fail if it does not."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The service `app`; the address that it tells."""
    stop = threading.Event()
    thread = threading.Thread(target=application.run, args=(settings, stop))
    thread.start()
    told = settings.folder / "run" / "app.url"
    try:
        until(lambda: told.is_file() and told.read_text())
        yield told.read_text()
    finally:
        stop.set()
        thread.join()
