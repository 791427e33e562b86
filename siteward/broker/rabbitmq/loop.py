"""pika's I/O loop, with the two things that pika lacks: a cut that cannot hang, and sockets that survive a fork."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from pika.adapters.select_connection import IOLoop


class Loop(IOLoop):
    """Runs one connection, and knows its sockets."""

    def __init__(self) -> None:
        """Know no sockets yet."""
        super().__init__()
        self._sockets: set[int] = set()

    def add_handler(self, fd: int, handler: Callable[[int, int], None], events: int) -> None:
        """Watch a socket."""
        self._sockets.add(fd)
        super().add_handler(fd, handler, events)

    def remove_handler(self, fd: int) -> None:
        """Watch it no more; pika does so before it closes a socket."""
        self._sockets.discard(fd)
        super().remove_handler(fd)

    def cut(self) -> None:
        """End every conversation at once, from any thread: pika sees the other side gone, and cleans up."""
        for number in list(self._sockets):
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as twin:
                twin.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's sockets without a word to the other side.

        Else the server would not see that the parent died as long as the child lives. The numbers stay taken, so
        that pika's objects, which the child has inherited too, can never close a file that is not theirs.
        """
        for number in list(self._sockets):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number, inheritable=False)
            os.close(nothing)
