"""Header tables that pika cannot read: left out, where pika would give up the connection."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import Any, Final

import pika.data

LENGTH: Final = struct.Struct(">I")
"""How every table begins: with the number of bytes that follow."""

Table = tuple[dict[str | bytes, Any], int]


class _Depth(threading.local):
    """How many tables are being read, one within the other; each connection has a thread of its own."""

    tables = 0


_depth: Final = _Depth()


def tolerant(read: Callable[[bytes, int], Table]) -> Callable[[bytes, int], Table]:
    """A reader of tables that never fails where the table's length can be read.

    Args:
        read: reads a table at an offset, and says where it ends.

    Returns:
        The same, with {} for an outermost table in which anything cannot be read.
    """

    def read_or_skip(encoded: bytes, offset: int) -> Table:
        _depth.tables += 1
        try:
            return read(encoded, offset)
        except Exception:
            # Within a table nobody knows where the next value begins; behind the outermost one its length says it.
            if _depth.tables > 1:
                raise
            return {}, offset + LENGTH.size + LENGTH.unpack_from(encoded, offset)[0]
        finally:
            _depth.tables -= 1

    return read_or_skip


# Whoever may publish may send a time of the year 146 billion, or lists in lists three thousand deep. RabbitMQ carries
# them, pika raises out of its loop, and the message would end every connection that it is delivered to, for ever.
# Both of pika's modules that read tables look the function up here each time.
pika.data.decode_table = tolerant(pika.data.decode_table)  # type: ignore[assignment]  # of a name of pika's own.
