"""Files that tell whether the process that wrote them still runs: the system lets go of them when it ends."""

from __future__ import annotations

import fcntl
from typing import IO, Any


def hold(file: IO[Any]) -> None:
    """Hold a file as long as it is open here.

    Raises:
        OSError: another process holds it.
    """
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(file: IO[Any]) -> bool:
    """Whether any process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
