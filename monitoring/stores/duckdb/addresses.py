"""Where the owner of a store's file listens: a Unix socket beside it, whatever the length of its path."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

LONGEST: Final = 100
"""Bytes of a Unix socket's address that every system accepts."""


def socket_path(path: Path) -> Path:
    """The socket of a store's file."""
    name = f"{path.name}.socket"
    if len(os.fsencode(name)) > LONGEST // 2:
        name = f"{blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.socket"
    return path.with_name(name)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The path, or a short way to it: through a descriptor of its folder, as Linux offers it."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Listen at a path, for this user only; what a dead owner left there is removed.

    Raises:
        OSError: the folder cannot be written, or the path is too long for a system without /proc.
    """
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            door.bind(address)
            # Nobody can connect before listen(), so that nobody can before the mode is set.
            path.chmod(0o600)
            door.listen(128)
    except OSError:
        door.close()
        raise
    return door


def connect(path: Path, timeout: float) -> socket.socket:
    """A connection to the owner.

    Args:
        path: the socket's path.
        timeout: seconds for each read and write of the connection.

    Raises:
        OSError: nobody listens.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout)
        with _address(path) as address:
            link.connect(address)
    except OSError:
        link.close()
        raise
    return link
