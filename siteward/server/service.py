"""`python -m siteward.server.service NAME`: one service in one process, the way the supervisor starts it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final, TextIO

import msgspec

from siteward import extensions
from siteward.log import configure_logging, get_logger
from siteward.private_files import warn_of_others
from siteward.settings import Settings, load_settings
from siteward.telemetry import telemetry

SHARE: Final = 1.0
"""Seconds between two notes of this process's telemetry."""
ORPHAN_GRACE: Final = 15.0
"""Seconds that a service has to stop by itself when its supervisor is gone."""
PREFIX_WIDTH: Final = 10
OF_EVERYBODY: Final = 0o007
"""Rights that other users of the machine have to no file that a service makes."""

log = get_logger(__name__)


class Labelled:
    """A stream that puts the service's name before every line and writes whole lines only."""

    def __init__(self, stream: TextIO, label: str) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._label = label
        self._lock = threading.Lock()
        self._begun = ""

    def write(self, text: str) -> int:
        """Keep what has no end of line yet."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            if lines:
                self._stream.write("".join(f"{self._label} | {line}\n" for line in lines))
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Lines are written as they end."""

    def isatty(self) -> bool:
        """Whether a person reads along."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a service until SIGTERM, SIGINT, or the end of the supervisor; 0 when it stopped because it was told to."""
    parser = argparse.ArgumentParser(prog="siteward.server.service", description="Run one service of Siteward.")
    parser.add_argument("name", help="name under the entry points siteward.services")
    parser.add_argument(
        "--supervised", action="store_true", help="settings come as one line on standard input; its end means stop"
    )
    chosen = parser.parse_args(arguments)
    # Whatever a library makes by itself is nobody else's: a log beside a database, an archive's file. A group is left.
    os.umask(os.umask(OF_EVERYBODY) | OF_EVERYBODY)
    stop = threading.Event()
    settings = _supervised(stop, chosen.name) if chosen.supervised else load_settings()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    configure_logging(settings.log_format, settings.log_level)
    if not chosen.supervised:
        warn_of_others(settings.folder)
    return _run(chosen.name, settings, stop)


def _supervised(stop: threading.Event, name: str) -> Settings:
    """The supervisor's settings; from then on its death stops this process."""
    line = sys.stdin.buffer.readline()
    settings = msgspec.json.decode(line, type=Settings)
    if settings.log_format == "console":
        stream = Labelled(sys.stderr, name.ljust(PREFIX_WIDTH))
        sys.stderr = sys.stdout = stream  # as much of a text stream as loggers use.
    threading.Thread(target=_outlive_not, args=(sys.stdin.fileno(), stop), name="supervisor", daemon=True).start()
    return settings


def _outlive_not(pipe: int, stop: threading.Event) -> None:
    """Wait until the supervisor's end of the pipe is closed, which even its kill -9 does; then stop."""
    # Not through sys.stdin: its lock, held here, would be waited for when the interpreter ends.
    while os.read(pipe, 1):
        pass
    stop.set()
    threading.Event().wait(ORPHAN_GRACE)
    os._exit(1)


def _run(name: str, settings: Settings, stop: threading.Event) -> int:
    sharing = threading.Thread(target=_share, args=(settings, name, stop), name="telemetry", daemon=True)
    sharing.start()
    try:
        extensions.check_packages()
        extensions.load("siteward.services", name)(settings, stop)
    except Exception as error:  # noqa: BLE001  # the process ends with it; the supervisor starts the next.
        # What is expected says so (`permanent`), and its message is enough; anything else shows where it happened.
        expected = hasattr(error, "permanent") or isinstance(error, extensions.ExtensionError)
        (log.error if expected else log.exception)("service failed", service=name, error=str(error))
        return 1
    finally:
        telemetry.share(settings.folder / "telemetry", name)
    if stop.is_set():
        return 0
    log.error("service ended by itself", service=name)
    return 1


def _share(settings: Settings, name: str, stop: threading.Event) -> None:
    while not stop.wait(SHARE):
        try:
            telemetry.share(settings.folder / "telemetry", name)
        except OSError as error:
            log.warning("telemetry not shared", error=str(error))


if __name__ == "__main__":
    sys.exit(main())
