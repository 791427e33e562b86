"""Files for their owner's eyes only: keys, tokens and databases."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from siteward.log import get_logger
from siteward.settings import SettingsError

PRIVATE: Final = 0o600
OF_OTHERS: Final = stat.S_IWGRP | stat.S_IRWXO
"""Rights that nobody else may have. A group may read: that is how Kubernetes hands secrets out."""

log = get_logger(__name__)


def make_private(path: Path, content: bytes, *, replacing: bool = False) -> None:
    """Make a file, whole or not at all.

    Args:
        path: where.
        content: of it.
        replacing: put it in the place of one that is there; by default the one that is there stays, so that of
            several processes that make one, the first one's is everybody's.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replacing:
            made.replace(path)
            return
        with suppress(FileExistsError):
            path.hardlink_to(made)
    finally:
        made.unlink(missing_ok=True)


def begin_private(path: Path) -> None:
    """Make a database's file, empty and for its owner only, where SQLite would make it for everybody.

    What SQLite puts beside it, such as `-wal`, gets the same rights. A file that is there keeps its own, since somebody
    may have given a group the right to read it, and is not even opened: closing it would let go of every lock that this
    process has on it (https://www.sqlite.org/howtocorrupt.html, §2.2).

    Raises:
        OSError: its folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Where this fails, SQLite fails as well, and its error is the one that callers know.
    with suppress(OSError):
        if not path.exists():
            make_private(path, b"")


def warn_of_others(folder: Path) -> None:
    """Say in the log where everybody on this machine may look into the data folder."""
    mode = stat.S_IMODE(folder.stat().st_mode) if folder.exists() else 0
    if mode & stat.S_IRWXO:
        mend = f"chmod -R o= {shlex.quote(str(folder))}"
        log.warning("others may look into the data folder", folder=str(folder), mode=f"{mode:04o}", mend=mend)


def read_private(path: Path) -> bytes:
    """What stands in a file that only its owner may read.

    Raises:
        FileNotFoundError: there is none.
        SettingsError: others may read or change it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & OF_OTHERS:
            message = (
                f"{path}: others may read or change it (mode {stat.S_IMODE(mode):04o}), so it may be no secret any "
                "more; `chmod 600` it if nobody has"
            )
            raise SettingsError(message)
        return file.read()
